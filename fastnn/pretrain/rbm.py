"""The restricted Boltzmann machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn import ops
from fastnn.engine.numbers import numbers
from fastnn.errors import DataError, OptionError, ShapeError, check_whole, where
from fastnn.graph.value import Value
from fastnn.nn import init
from fastnn.nn.method import Sampler, apply
from fastnn.nn.parameter import Parameter
from fastnn.pretrain import contrastive, partition
from fastnn.pretrain.partition import Partition
from fastnn.pretrain.units import UNITS, bernoulli, drawn
from fastnn.train.unlabelled import Unlabelled

if TYPE_CHECKING:
    from fastnn.train.trainer import Trainer


class RBM(Unlabelled):
    """A restricted Boltzmann machine (Smolensky 1986; Hinton 2002): a distribution of visible units
    v with binary hidden units h, ``p(v, h) = e^(-E(v, h)) / Z`` with the energy

    - ``E = -v b - h c - h W v`` for binary visible units (Bernoulli);
    - ``E = |v - b|² / 2 - h c - h W v`` for real ones with variance 1 (Gaussian), for standardised
      data.

    As a layer it gives the probabilities of the hidden units, ``sigmoid(W v + c)``. It learns by
    contrastive divergence: `fit` is usually all you need, and `trainer` returns the trainer for
    checkpoints, callbacks and evaluation. A whole epoch is one compiled run.

    Args:
        visible: V, the number of visible units.
        hidden: H, the number of hidden units.
        units: kind of the visible units, "bernoulli" or "gaussian". Data of Bernoulli units are
            probabilities within 0..1.
        weight_init: initialiser of the weights; None is normal with standard deviation 0.01 (Hinton
            2012, section 8).

    Attributes:
        weight: W, shape (H, V), as that of ``nn.Linear(V, H)``.
        visible_bias: b, shape (V,).
        hidden_bias: c, shape (H,).

    Raises OptionError for sizes below 1 and unknown `units`.

    >>> import numpy as np
    >>> from fastnn.pretrain import RBM
    >>> x = np.tile(np.eye(4, dtype=np.float32), (32, 1))
    >>> rbm = RBM(4, 8)
    >>> history = rbm.fit(x, epochs=200, batch_size=32, lr=0.5, verbose=False)
    >>> bool(rbm.log_likelihood(x).mean() > -2)  # the best is log(1/4) = -1.39, chance -2.77
    True
    """

    def __init__(
        self,
        visible: int,
        hidden: int,
        units: str = "bernoulli",
        weight_init: str | float | Callable[..., Any] | None = None,
    ):
        check_whole("RBM", 1, visible=visible, hidden=hidden)
        if units not in UNITS:
            raise OptionError(f"RBM: expected units to be one of {UNITS}, got {units!r}")
        self.visible, self.hidden, self.units = int(visible), int(hidden), units
        fill = init.get("normal", std=0.01) if weight_init is None else weight_init
        self.weight = Parameter((self.hidden, self.visible), fill, transposed=True)
        self.visible_bias = Parameter((self.visible,), 0.0)
        self.hidden_bias = Parameter((self.hidden,), 0.0)

    # ---------------------------------------------------------------- of symbolic values

    def forward(self, v: Value) -> Value:
        return ops.sigmoid(self.hidden_input(v))

    def hidden_input(self, v: Value) -> Value:
        """W v + c, what the hidden units get from visible ones of shape (..., V).

        Raises ShapeError for another last dimension.
        """
        if v.ndim < 2 or v.shape[-1] != self.visible:
            raise ShapeError(
                f"{where(v.graph.scope)}{self!r}: expected input of shape (batch, ..., "
                f"{self.visible}), got {v.shape}; change visible or flatten the input"
            )
        return ops.linear(v, self.weight, self.hidden_bias)

    def visible_mean(self, h: Value) -> Value:
        """Means of the visible units, given hidden ones of shape (..., H)."""
        z = ops.add(ops.matmul(h, self.weight), self.visible_bias)
        return ops.sigmoid(z) if self.units == "bernoulli" else z

    def sampled_visible(self, mean: Value) -> Value:
        """Visible units drawn around their mean."""
        return (
            bernoulli(mean) if self.units == "bernoulli" else ops.add(mean, ops.normal_like(mean))
        )

    def energies(self, v: Value, z: Value) -> Value:
        """Free energies, one for each row of v; `z` is the hidden units' input."""
        softplus = ops.sum(ops.softplus(z), axis=-1)
        if self.units == "bernoulli":
            return ops.negate(ops.add(ops.sum(ops.multiply(v, self.visible_bias), -1), softplus))
        apart = ops.sum(ops.square(ops.subtract(v, self.visible_bias)), axis=-1)
        return ops.subtract(ops.affine(apart, 0.5, 0.0), softplus)

    def _energies(self, v: Value) -> Value:
        return self.energies(v, self.hidden_input(v))

    def _reconstruction(self, v: Value) -> Value:
        return self.visible_mean(self.forward(v))

    def gibbs(self, v: Value) -> Value:
        """Visible units after one step of Gibbs sampling: hidden ones are drawn, then visible."""
        return self.sampled_visible(self.visible_mean(bernoulli(self.forward(v))))

    # ---------------------------------------------------------------- of arrays

    def transform(self, x: Any, batch_size: int = 256) -> np.ndarray:
        """Probabilities of the hidden units, shape (samples, H), for data of shape (samples, V)."""
        found: np.ndarray = self.predict(x, batch_size=batch_size)
        return found

    def reconstruct(self, x: Any, batch_size: int = 256) -> np.ndarray:
        """Means of the visible units given the probabilities of the hidden ones given data, shape
        (samples, V)."""
        found: np.ndarray = apply(self, "_reconstruction", x, batch_size=batch_size)
        return found

    def free_energy(self, x: Any, batch_size: int = 256) -> np.ndarray:
        """F(v) with ``p(v) = e^(-F(v)) / Z``, one number for each sample::

        F(v) = -v b - sum_j log(1 + e^(W v + c)_j)              (Bernoulli)
        F(v) = |v - b|² / 2 - sum_j log(1 + e^(W v + c)_j)      (Gaussian)
        """
        found: np.ndarray = apply(self, "_energies", x, batch_size=batch_size)
        return found

    def free_energy_gap(self, x: Any, held_out: Any) -> float:
        """Mean free energy of `held_out` data minus that of training data: about 0 while the model
        does not overfit, and growing once it does (Hinton 2012, section 6)."""
        return float(np.mean(self.free_energy(held_out)) - np.mean(self.free_energy(x)))

    def sample(
        self, count: int = 1, steps: int = 1000, *, start: Any = None, seed: int = 0
    ) -> np.ndarray:
        """Draw samples of the visible units by Gibbs sampling, one chain for each.

        Args:
            count: number of chains.
            steps: steps of each chain; hidden and visible units are drawn once in each.
            start: initial state of the chains, shape (count, V); if None, each unit is drawn
                independently.
            seed: of all that is drawn. The result does not depend on the number of workers.

        Returns:
            Shape (count, V): zeros and ones, or real numbers for Gaussian units.

        Raises OptionError for a `count` below 1 and negative `steps`; ShapeError for a `start` of
        another shape, DataError if it has NaN or infinity.
        """
        check_whole("RBM.sample", 1, count=count)
        check_whole("RBM.sample", 0, steps=steps, seed=seed)
        dtype = np.dtype(self.store().dtype)
        if start is None:
            v = drawn(np.random.default_rng(seed), (count, self.visible), self.units)
        else:
            v = self._samples(start, "start")
            if len(v) != count:
                raise ShapeError(
                    f"RBM.sample: expected a start for each of {count} chains, got {len(v)}; "
                    f"pass count={len(v)}"
                )
        v, sampler = np.asarray(v, dtype), Sampler(self, "gibbs", seed)
        for step in range(steps):
            v = sampler(step, v)
        return v

    def pseudo_log_likelihood(self, x: Any, seed: int = 0) -> np.ndarray:
        """A stand-in for log p(v) that needs no Z (Besag 1975), one number for each sample.

        It is the sum over units of log p(v_i | the others), estimated by one unit for each sample,
        drawn by `seed`: ``V log sigmoid(F(v with that unit flipped) - F(v))``. For Bernoulli units
        only.

        Raises OptionError for units that are not Bernoulli's; ShapeError for samples of another
        shape, DataError if they have NaN or infinity.
        """
        check_whole("RBM.pseudo_log_likelihood", 0, seed=seed)
        if self.units != "bernoulli":
            raise OptionError(
                "RBM.pseudo_log_likelihood: expected Bernoulli units, which can be flipped, got "
                f"{self.units} ones; compare free energies instead"
            )
        x = self._samples(x, "x")
        flipped, rows = x.copy(), np.arange(len(x))
        units = np.random.default_rng(seed).integers(0, self.visible, len(x))
        flipped[rows, units] = 1 - flipped[rows, units]
        gap = self.free_energy(flipped).astype(np.float64) - self.free_energy(x)
        return -self.visible * np.logaddexp(0.0, -gap)

    def log_partition(self) -> float:
        """log Z exactly, by a sum over all states of the hidden or of the visible units (float64).

        Raises:
            OptionError: there are more than 25 of them; use `estimate_log_partition` instead.
        """
        return partition.exact(*self._numbers())

    def estimate_log_partition(
        self, runs: int = 100, temperatures: Any = 10_000, *, base: Any = None, seed: int = 0
    ) -> Partition:
        """Estimate log Z by annealed importance sampling (Neal 2001; Salakhutdinov & Murray 2008).

        Args:
            runs: number of independent chains.
            temperatures: number of inverse temperatures, evenly spaced from 0 to 1, or an
                increasing array of them that begins with 0 and ends with 1.
            base: data, shape (samples, V), whose means give the distribution at inverse temperature
                0, which makes the estimate better; None means equal units. Bernoulli units only.
            seed: of all that is drawn.

        Returns:
            The estimate, with the interval of three standard errors.

        Raises ShapeError for a `base` of another shape, DataError if it has NaN or infinity,
        OptionError for numbers of runs or temperatures out of range.
        """
        means = None if base is None else np.mean(self._samples(base, "base"), axis=0)
        return partition.annealed(*self._numbers(), runs, temperatures, means, seed)

    def log_likelihood(self, x: Any, log_partition: float | None = None) -> np.ndarray:
        """log p(v) for each sample; `log_partition` is log Z, computed exactly if it is None."""
        log_z = self.log_partition() if log_partition is None else float(log_partition)
        return -self.free_energy(x).astype(np.float64) - log_z

    def _numbers(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, str]:
        parts = (self.weight, self.visible_bias, self.hidden_bias)
        weight, b, c = (np.array(p, np.float64) for p in parts)
        return weight, b, c, self.units

    def _samples(self, x: Any, name: str) -> np.ndarray:
        array = np.array(numbers(x, f"RBM: {name}"), np.dtype(self.store().dtype))
        if array.ndim != 2 or array.shape[1] != self.visible or not len(array):
            raise ShapeError(
                f"RBM: expected {name} of shape (samples, {self.visible}), got {array.shape}"
            )
        if not np.isfinite(array).all():
            raise DataError(f"RBM: expected finite numbers in {name}; leave such samples out")
        return array

    # ---------------------------------------------------------------- training

    def trainer(self, **options: Any) -> Trainer:
        """The trainer of contrastive divergence; see `fastnn.pretrain.contrastive.trainer` for its
        options. Its "loss" is the mean free energy of the data minus that of the model's samples.
        Its metrics are "free_energy" of the data (if that of held-out data rises above it, the
        model overfits) and "reconstruction_error", the mean square."""
        return contrastive.trainer(self, **options)

    def _check_data(self, x: Any, name: str) -> None:
        if self.units == "bernoulli":
            contrastive.check_data(x, name)

    def _sample_shape(self) -> tuple[int, ...]:
        return (self.visible,)

    def extra(self) -> str:
        return f"{self.visible}, {self.hidden}, {self.units!r}"
