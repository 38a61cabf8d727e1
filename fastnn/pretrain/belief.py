"""Deep belief nets: a stack of restricted Boltzmann machines, and its fine-tuning as a whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from fastnn import ops, optim
from fastnn.errors import OptionError, check_whole
from fastnn.graph.value import Value
from fastnn.nn import Linear, ModuleList, Sequential, Sigmoid
from fastnn.nn.method import apply
from fastnn.nn.module import Module
from fastnn.optim.names import given_or_default
from fastnn.pretrain.contrastive import check_data
from fastnn.pretrain.rbm import RBM
from fastnn.pretrain.stack import Stack, layer_sizes, to_mlp
from fastnn.pretrain.units import bernoulli
from fastnn.train.metrics import Metric
from fastnn.train.trainer import Trainer
from fastnn.train.unlabelled import Unlabelled


class DeepBeliefNet(Stack):
    """A deep belief net (Hinton, Osindero & Teh 2006): restricted Boltzmann machines, each trained
    on the probabilities of the hidden units of the one below.

    Two machines make a model in which the upper one is the prior of the lower one's hidden units;
    below it, weights only point downward. As a layer it gives the probabilities of the highest
    hidden units.

    Args:
        sizes: of the layers from the data upward, [V, H1, H2, ...].
        units: kind of the visible units, as for `RBM`.

    Attributes:
        layers: the machines, lowest first.

    >>> import numpy as np
    >>> from fastnn.pretrain import DeepBeliefNet
    >>> x = np.tile(np.eye(4, dtype=np.float32), (8, 1))
    >>> net = DeepBeliefNet([4, 8, 3])
    >>> histories = net.fit(x, epochs=2, verbose=False)
    >>> net.to_mlp(2)
    Sequential(
      (0): Linear(4, 8)
      (1): Sigmoid()
      (2): Linear(8, 3)
      (3): Sigmoid()
      (4): Linear(3, 2)
    )
    """

    def __init__(self, sizes: Sequence[int], units: str = "bernoulli"):
        self.sizes, self.units = layer_sizes("DeepBeliefNet", sizes), units
        kinds = [units] + ["bernoulli"] * (len(self.sizes) - 2)
        pairs = zip(self.sizes[:-1], self.sizes[1:], kinds, strict=True)
        super().__init__(RBM(visible, hidden, kind) for visible, hidden, kind in pairs)

    def sample(self, count: int = 1, steps: int = 1000, *, seed: int = 0) -> np.ndarray:
        """Draw from the model: Gibbs sampling in the highest machine, then one pass downward.

        Args:
            count: number of samples.
            steps: steps of Gibbs sampling.
            seed: of all that is drawn.

        Returns:
            Means of the visible units, shape (count, V).
        """
        lower = [(rbm, "visible_mean") for rbm in self.layers[:-1]]
        return _downward(self.layers[-1], lower, count, steps, seed)


class UpDown(Unlabelled):
    """A deep belief net with separate upward and downward weights, for fine-tuning by the up-down
    algorithm (Hinton, Osindero & Teh 2006, appendix B; wake-sleep: Hinton et al. 1995).

    `fit` learns from data: an upward pass draws hidden units, and the downward weights learn to
    reconstruct each layer from the one above; the highest machine continues from there by
    contrastive divergence; a downward pass from its sample lets the upward weights learn to recover
    the units it came from.

    Args:
        net: the net, trained greedily, of two machines or more; its weights are copied.

    Attributes:
        up, down: linear layers, lowest first: upward from layer k to k + 1, and downward.
        top: the highest machine.

    Raises OptionError for anything but a `DeepBeliefNet` of two machines or more.

    >>> import numpy as np
    >>> from fastnn.pretrain import DeepBeliefNet, UpDown
    >>> x = np.tile(np.eye(4, dtype=np.float32), (8, 1))
    >>> net = UpDown(DeepBeliefNet([4, 8, 3]))
    >>> history = net.fit(x, epochs=2, verbose=False)
    >>> net.sample(5, 10).shape
    (5, 4)
    """

    def __init__(self, net: DeepBeliefNet):
        if not isinstance(net, DeepBeliefNet) or len(net.layers) < 2:
            raise OptionError(
                f"UpDown: expected a DeepBeliefNet of two machines or more, got {net!r}"
            )
        self.units = net.units
        machines = net.layers[:-1]
        self.up: Any = ModuleList([Linear(m.visible, m.hidden) for m in machines])
        self.down: Any = ModuleList([Linear(m.hidden, m.visible) for m in machines])
        last = net.layers[-1]
        self.top = RBM(last.visible, last.hidden)
        for machine, up, down in zip(machines, self.up, self.down, strict=True):
            weight = np.array(machine.weight)
            up.weight, up.bias = weight, np.array(machine.hidden_bias)
            down.weight, down.bias = weight.T, np.array(machine.visible_bias)
        for name in ("weight", "visible_bias", "hidden_bias"):
            setattr(self.top, name, np.array(getattr(last, name)))
        if net.store().dtype == "float64":
            self.to("float64")

    def forward(self, v: Value) -> Value:
        for layer in self.up:
            v = ops.sigmoid(layer(v))
        return self.top(v)

    def transform(self, x: Any, batch_size: int = 256) -> np.ndarray:
        """Probabilities of the highest hidden units for data of shape (samples, V)."""
        found: np.ndarray = self.predict(x, batch_size=batch_size)
        return found

    def sample(self, count: int = 1, steps: int = 1000, *, seed: int = 0) -> np.ndarray:
        """Draw `count` samples from the model, in `steps` steps; as `DeepBeliefNet.sample`, `seed`
        too."""
        lower = [(_Down(layer, self.mean_below(k)), "forward") for k, layer in enumerate(self.down)]
        return _downward(self.top, lower, count, steps, seed)

    def mean_below(self, layer: int) -> Callable[[Value], Value]:
        """What turns the input of units of a layer into their mean."""
        return ops.sigmoid if layer or self.units == "bernoulli" else lambda z: z

    def to_mlp(
        self, outputs: int | None = None, activation: Callable[[], Module] = Sigmoid
    ) -> Sequential:
        """An ordinary net with copies of the weights upward; `outputs` and `activation` as of
        `Stack.to_mlp`."""
        layers = [(layer.weight, layer.bias) for layer in self.up]
        return to_mlp([*layers, (self.top.weight, self.top.hidden_bias)], outputs, activation)

    def trainer(self, *, k: int = 3, lr: Any = None, momentum: float | None = None,
                optimizer: Any = None, **options: Any) -> Trainer:  # fmt: skip
        """The trainer of the up-down algorithm. Its metrics are "downward" and "upward" (the nats
        needed for the units of each layer, given the one above and the one below) and
        "reconstruction_error", the mean square.

        Args:
            k: steps of Gibbs sampling in the highest machine.
            lr, momentum, optimizer: as for `RBM.trainer`, with the defaults 0.01 and 0.
            options: as for `Trainer`.
        """
        check_whole("UpDown.trainer", 1, k=k)
        default = partial(optim.SGD, lr=0.01)
        optimizer = given_or_default("UpDown.trainer", optimizer, default, lr=lr, momentum=momentum)
        metrics = [Metric(name, _row(name)) for name in ("downward", "upward")]
        metrics.append(Metric("reconstruction_error", _row("error")))
        return Trainer(WakeSleep(self, k), _total, optimizer, metrics, **options)

    def _check_data(self, x: Any, name: str) -> None:
        if self.units == "bernoulli":
            check_data(x, name)

    def _sample_shape(self) -> tuple[int, ...]:
        return (self.up[0].in_features,)


class WakeSleep(Module):
    """What the up-down algorithm trains: sums over the units of each layer, for each sample.

    All units that are drawn count as constants, so that each term is the loss of one layer alone.

    Args:
        net: the net.
        k: steps of Gibbs sampling in the highest machine.
    """

    def __init__(self, net: UpDown, k: int):
        self.net, self.k = net, int(k)

    def forward(self, v: Value) -> dict[str, Value]:
        net, h, training = self.net, v, v.graph.training

        def drawn(p: Value) -> Value:
            return bernoulli(p) if training else ops.detach(p)

        found: dict[str, Any] = {"downward": None, "upward": None}
        for k, (up, down) in enumerate(zip(net.up, net.down, strict=True)):
            above = drawn(ops.sigmoid(up(h)))
            z = down(above)
            self._add(found, "downward", z, h, k)
            if k == 0:
                apart = ops.subtract(ops.detach(v), ops.detach(net.mean_below(0)(z)))
                found["error"] = ops.mean(ops.square(apart), axis=-1)
            h = above
        z, top = net.top.hidden_input(h), net.top
        found["data"], below = top.energies(h, z), h
        for _ in range(self.k):
            below = drawn(top.visible_mean(drawn(top(below))))
        below = ops.detach(below)
        found["model"] = top.energies(below, top.hidden_input(below))
        for k in reversed(range(len(net.up))):
            above, mean = below, net.mean_below(k)(net.down[k](below))
            below = drawn(mean) if k else ops.detach(mean)
            self._add(found, "upward", net.up[k](below), above, k + 1)
        return found

    def _add(self, found: dict[str, Any], name: str, z: Value, target: Value, layer: int) -> None:
        """Add -log p(target) of units with input z to the sum called `name`."""
        if layer or self.net.units == "bernoulli":
            nats = ops.subtract(ops.softplus(z), ops.multiply(target, z))
        else:
            nats = ops.affine(ops.square(ops.subtract(target, z)), 0.5, 0.0)
        rows = ops.sum(nats, axis=-1)
        found[name] = rows if found[name] is None else ops.add(found[name], rows)


class _Down(Module):
    """A layer downward with its units' means."""

    def __init__(self, layer: Linear, mean: Callable[[Value], Value]):
        self.layer, self.mean = layer, mean

    def forward(self, h: Value) -> Value:
        return self.mean(self.layer(h))


def _downward(
    top: RBM, lower: Sequence[tuple[Module, str]], count: int, steps: int, seed: int
) -> np.ndarray:
    """Means of the lowest units: those between are drawn."""
    v = top.sample(count, steps, seed=seed)
    rng = np.random.default_rng([seed, 1])
    for k, (module, method) in reversed(list(enumerate(lower))):
        v = apply(module, method, v)
        if k:
            v = (rng.random(v.shape) < v).astype(v.dtype)
    return v


def _total(output: dict[str, Value], target: Any) -> Value:
    terms = ops.add(ops.mean(output["downward"]), ops.mean(output["upward"]))
    return ops.add(terms, ops.subtract(ops.mean(output["data"]), ops.mean(output["model"])))


class _row:
    """Takes one of the outputs, as a metric."""

    def __init__(self, name: str):
        self.name = name

    def __call__(self, output: dict[str, Value], target: Any) -> Value:
        return output[self.name]
