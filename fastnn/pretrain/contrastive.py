"""Contrastive divergence, as a module and a loss for an ordinary trainer.

The gradient of -log p(v) is that of F(v) less its mean over the model's own samples. So the loss is
the free energy of data less that of samples that count as constants: its gradient is contrastive
divergence's, `-<h v>_data + <h v>_model` for the weights, with optimisers, clipping, schedules,
checkpoints and devices as for any other loss.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn import ops, optim
from fastnn.engine.arrays import as_arrays, is_array
from fastnn.errors import DataError, OptionError, check_flags, check_numbers, check_whole
from fastnn.graph.value import Value
from fastnn.nn.module import Module
from fastnn.nn.parameter import Parameter
from fastnn.ops.sequence import load_state, store_state
from fastnn.optim.names import given_or_default
from fastnn.pretrain.units import bernoulli, drawn
from fastnn.train.metrics import Metric
from fastnn.train.trainer import Trainer

if TYPE_CHECKING:
    from fastnn.pretrain.rbm import RBM


class ContrastiveDivergence(Module):
    """What is trained: free energies of data and of the model's samples.

    Args:
        rbm: the machine.
        k: steps of Gibbs sampling in each training step.
        chains: number of chains that continue from step to step (Tieleman 2008); 0 means that each
            step starts from the data (Hinton 2002).
        sample_visible: whether visible units are drawn in the chain; False takes their means, which
            has less noise, in chains that start from data (Hinton 2012, section 3.2).
        sparsity: p, the share of the time that a hidden unit should be on, or None.
        sparsity_cost: factor of the penalty, ``sum_j -p log q_j - (1 - p) log(1 - q_j)`` for the
            units' mean probabilities q over the mini-batch (Hinton 2012, section 11).
    """

    def __init__(
        self, rbm: RBM, k: int = 1, chains: int = 0, sample_visible: bool = True,
        sparsity: float | None = None, sparsity_cost: float = 0.1,
    ):  # fmt: skip
        if not hasattr(rbm, "energies"):
            raise OptionError(f"ContrastiveDivergence: expected an RBM, got {rbm!r}")
        check_whole("ContrastiveDivergence", 1, k=k)
        check_whole("ContrastiveDivergence", 0, chains=chains)
        check_numbers("ContrastiveDivergence", sparsity_cost=sparsity_cost)
        check_flags("ContrastiveDivergence", sample_visible=sample_visible)
        if sparsity is not None:
            check_numbers("ContrastiveDivergence", sparsity=sparsity)
            if not 0 < sparsity < 1:
                raise OptionError(
                    f"ContrastiveDivergence: expected sparsity in (0, 1), got {sparsity}"
                )
        if sparsity_cost < 0:
            raise OptionError(
                f"ContrastiveDivergence: expected sparsity_cost >= 0, got {sparsity_cost}"
            )
        if chains and not sample_visible:
            raise OptionError(
                "ContrastiveDivergence: persistent chains must draw their visible units; "
                "expected sample_visible=True, got False"
            )
        self.rbm, self.k = rbm, int(k)
        self.sample_visible, self.sparsity = bool(sample_visible), sparsity
        self.sparsity_cost = float(sparsity_cost)
        self.chains = None
        if chains:
            fill = _binary if rbm.units == "bernoulli" else _normal
            self.chains = Parameter((int(chains), rbm.visible), fill, trainable=False)

    def forward(self, v: Value) -> dict[str, Value]:
        rbm = self.rbm
        z = rbm.hidden_input(v)
        p = ops.sigmoid(z)
        found = {"data": rbm.energies(v, z)}
        if not v.graph.training:
            mean = rbm.visible_mean(p)
            return {**found, "model": rbm.energies(mean, rbm.hidden_input(mean)),
                    "error": _error(v, mean)}  # fmt: skip
        if self.chains is None:
            sample, first = self._chain(p)
        else:
            state = load_state(ops.as_value(v.graph, rbm.weight), self.chains)
            first = ops.detach(rbm.visible_mean(ops.detach(p)))
            sample, _ = self._chain(ops.sigmoid(rbm.hidden_input(state)))
            store_state(sample, self.chains)
        found |= {"model": rbm.energies(sample, rbm.hidden_input(sample)),
                  "error": _error(v, first)}  # fmt: skip
        if self.sparsity is not None and self.sparsity_cost:
            found["penalty"] = self._penalty(p)
        return found

    def _chain(self, p: Value) -> tuple[Value, Value]:
        """Visible units after k steps from hidden ones with probabilities p, and their means after
        the first step; no gradient passes."""
        rbm, first = self.rbm, None
        for step in range(self.k):
            mean = ops.detach(rbm.visible_mean(bernoulli(p)))
            first = mean if first is None else first
            v = rbm.sampled_visible(mean) if self.sample_visible else mean
            if step + 1 < self.k:
                p = rbm(v)
        assert first is not None
        return ops.detach(v), first

    def _penalty(self, p: Value) -> Value:
        q = ops.clip(ops.mean(p, axis=0), 1e-6, 1.0 - 1e-6)
        on, off = ops.log(q), ops.log(ops.affine(q, -1.0, 1.0))
        assert self.sparsity is not None
        terms = ops.add(ops.affine(on, self.sparsity, 0.0), ops.affine(off, 1 - self.sparsity, 0.0))
        return ops.affine(ops.sum(terms), -self.sparsity_cost, 0.0)

    def extra(self) -> str:
        return f"k={self.k}"


def trainer(
    rbm: RBM, *, k: int = 1, chains: int = 0, sample_visible: bool = True,
    sparsity: float | None = None, sparsity_cost: float = 0.1, lr: Any = None,
    momentum: float | None = None, weight_decay: float | None = None, optimizer: Any = None,
    **options: Any,
) -> Trainer:  # fmt: skip
    """The trainer of a restricted Boltzmann machine by contrastive divergence.

    Its `fit(x)` trains, `save` and ``fit(x, resume=path)`` save and continue a run, and
    ``evaluate(x)`` returns the free energy and reconstruction error of other data.

    Args:
        rbm: the machine.
        k: steps of Gibbs sampling in each training step (CD-k).
        chains: number of persistent chains (PCD), or 0 for chains that start from the data.
        sample_visible: whether the chain draws its visible units; see `ContrastiveDivergence`.
        sparsity, sparsity_cost: how often hidden units should be on, and the factor of the penalty.
        lr: learning rate, a number or a schedule, of the mean gradient of a mini-batch; None is
            0.05. For Gaussian units take 0.001 or so.
        momentum: in [0, 1); None is 0.5.
        weight_decay: of the weights, not of the biases; None is 2e-4.
        optimizer: one of `fastnn.optim` in place of SGD; it has its own rate, momentum and decay.
        options: `seed`, `workers`, `device`, `dtype` and so on, as for `Trainer`.

    >>> import numpy as np
    >>> from fastnn.pretrain import RBM
    >>> x = np.eye(4, dtype=np.float32)
    >>> trainer = RBM(4, 3).trainer(chains=20)
    >>> history = trainer.fit(x, epochs=2, verbose=False)
    >>> sorted(trainer.evaluate(x))
    ['free_energy', 'loss', 'reconstruction_error']
    """
    default = partial(
        optim.SGD, lr=0.05, momentum=0.5, weight_decay=2e-4,
        groups={"*_bias": {"weight_decay": 0.0}},
    )  # fmt: skip
    optimizer = given_or_default(
        "RBM.trainer", optimizer, default, lr=lr, momentum=momentum, weight_decay=weight_decay
    )
    module = ContrastiveDivergence(rbm, k, chains, sample_visible, sparsity, sparsity_cost)
    metrics = [Metric("free_energy", _data), Metric("reconstruction_error", _errors)]
    return Trainer(module, difference, optimizer, metrics, **options)


def difference(output: dict[str, Value], target: Any) -> Value:
    """Mean free energy of data less that of samples, and the penalty."""
    loss = ops.subtract(ops.mean(output["data"]), ops.mean(output["model"]))
    return ops.add(loss, output["penalty"]) if "penalty" in output else loss


def check_data(data: Any, name: str) -> None:
    """Raise DataError for data that are not probabilities; batches that an iterable yields are not
    looked at."""
    if not (is_array(data) or isinstance(data, (list, tuple))):
        return
    for array in as_arrays(data, "x", name).arrays:
        values = np.asarray(array)
        if values.size and values.dtype.kind in "fiu" and (values.min() < 0 or values.max() > 1):
            raise DataError(
                f"RBM.fit: expected {name} within 0..1 for Bernoulli units, got {values.min()}.."
                f"{values.max()}; scale them (divide pixels by 255), or use units='gaussian' with "
                "standardised data"
            )


def _data(output: dict[str, Value], target: Any) -> Value:
    return output["data"]


def _errors(output: dict[str, Value], target: Any) -> Value:
    return output["error"]


def _error(v: Value, mean: Value) -> Value:
    return ops.mean(ops.square(ops.subtract(ops.detach(v), ops.detach(mean))), axis=-1)


def _binary(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    return drawn(rng, shape, "bernoulli")


def _normal(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    return drawn(rng, shape, "gaussian")
