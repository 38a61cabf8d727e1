"""What passes through a model: each layer's outputs for a mini-batch, and their gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn.engine.arrays import as_arrays, check_lengths
from fastnn.engine.model import first_fit, resolved
from fastnn.engine.session import Session
from fastnn.engine.specs import Spec
from fastnn.errors import OptionError
from fastnn.graph.gradient import differentiate
from fastnn.graph.graph import Graph
from fastnn.graph.leaf import as_seen
from fastnn.graph.node import Node
from fastnn.graph.value import Value
from fastnn.nn.module import Module
from fastnn.nn.parameter import Parameter
from fastnn.ops.arithmetic import affine
from fastnn.train.build import StepBuilder
from fastnn.train.losses import Losses

Array = NDArray[Any]

#: functions with flat ends: op -> lower and upper end
BOUNDED = {"sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0)}
#: functions that give 0 for all that is below 0
RECTIFIED = ("relu",)
#: where the slope is below this share of its largest, a unit is saturated
FLAT = 0.05
#: ops that only look at their input in another way
VIEWS = ("reshape", "transpose", "slice")


@dataclass
class Signal:
    """A layer's outputs for a mini-batch.

    Attributes:
        name: the layer's, as in `named_modules`; of a function that `forward` applies itself, the
            function's.
        kind: the last op that made it: "linear", "tanh", "lstm", ...
        output: shape (batch, ...).
        gradient: of the loss with respect to them, of the same shape; None if there is no loss, or
            if it does not depend on them.
    """

    name: str
    kind: str
    output: Array
    gradient: Array | None = None

    @property
    def mean(self) -> float:
        """Mean over samples and units."""
        return float(self.output.mean(dtype=np.float64))

    @property
    def std(self) -> float:
        """Standard deviation over samples and units."""
        return float(self.output.std(dtype=np.float64))

    @property
    def gradient_rms(self) -> float:
        """Root mean square of a sample's gradient (multiplied by the batch size if the loss is a
        mean); NaN without one."""
        if self.gradient is None:
            return math.nan
        square = float((self.gradient.astype(np.float64) ** 2).mean())
        return math.sqrt(square) * len(self.gradient)

    @property
    def saturated(self) -> float:
        """The share of outputs in a flat part, where the slope is below 5 % of its maximum; NaN for
        functions without flat parts (all but sigmoid and tanh)."""
        if self.kind not in BOUNDED:
            return math.nan
        low, high = BOUNDED[self.kind]
        place = (self.output.astype(np.float64) - low) / (high - low)
        return float((4.0 * place * (1.0 - place) < FLAT).mean())

    @property
    def dead(self) -> float:
        """The share of units whose output is 0 for every sample (and time step); NaN for functions
        whose units cannot die (all but ReLU)."""
        if self.kind not in RECTIFIED:
            return math.nan
        return float((self.output.reshape(-1, self.output.shape[-1]) == 0).all(axis=0).mean())


@dataclass
class Signals:
    """What `signals` found.

    Attributes:
        layers: outputs and their gradients, first layer first.
        loss: of the mini-batch; NaN without targets.
        outputs: of the whole model, in the order of `forward`'s result.
        parameters: gradients of the parameters that are trained, by name.
        detached: where something that depends on parameters lets no gradient pass (`ops.detach`,
            truncated backpropagation): the layer's name, or the op's; "" where nothing does.

    ``signals[name]`` raises OptionError for a layer that there is not.
    """

    layers: list[Signal]
    loss: float = math.nan
    outputs: list[Array] = field(default_factory=list)
    parameters: dict[str, Array] = field(default_factory=dict)
    detached: str = ""

    def __getitem__(self, name: str) -> Signal:
        """The layer with this name."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise OptionError(
            f"signals: expected one of {[layer.name for layer in self.layers]}, got {name!r}"
        )


def signals(
    model: Module,
    x: Any,
    y: Any = None,
    loss: str | Callable[..., Any] | None = None,
    *,
    training: bool = False,
) -> Signals:
    """Each layer's outputs for a mini-batch, and the gradients of the loss with respect to them.

    The model, its statistics and its last gradients are not changed.

    Args:
        model: any model. Layers inside a loop (`ops.loop`) are left out, and those that compute
            nothing (dropout, unless in training).
        x: inputs, as for `predict`: one mini-batch.
        y, loss: targets and a loss or its name, as for `Trainer`: then there are gradients, too.
        training: whether layers behave as in training (dropout, batch norm).

    Returns:
        The layers' signals, the loss, the outputs, the parameters' gradients.

    Raises:
        OptionError: only one of `y` and `loss` is given.
        ShapeError, DataError: the data do not fit the model or each other.

    >>> import numpy as np
    >>> from fastnn import nn
    >>> from fastnn.diagnostics import signals
    >>> x = np.random.default_rng(0).normal(size=(64, 10)).astype(np.float32)
    >>> found = signals(nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 2)), x)
    >>> [(layer.name, layer.kind, layer.output.shape) for layer in found.layers]
    [('0', 'linear', (64, 20)), ('1', 'relu', (64, 20)), ('2', 'linear', (64, 2))]
    """
    if (y is None) != (loss is None):
        raise OptionError("signals: expected both y and loss, or neither")
    inputs = as_arrays(x, "x", "inputs")
    inputs = inputs.with_specs(resolved(model, inputs.specs))
    store, data = model.store(), [inputs]
    session = Session(store, (), 0, 1, store.device)

    def traced(specs: tuple[Spec, ...] | None) -> tuple[StepBuilder, Value | None, list[Node]]:
        kind = session.runtime.kind
        builder = StepBuilder(model, store, len(inputs), training, "direct", kind)
        given = builder.inputs("x", inputs.specs)
        outputs = builder.outputs(given)
        nodes = list(builder.graph.nodes)  # without those of the loss
        if specs is None:
            return builder, None, nodes
        function = loss if isinstance(loss, Losses) else Losses(loss)
        return builder, builder.loss(function, outputs, builder.inputs("y", specs)), nodes

    if y is None:
        builder, value, nodes = traced(None)
    else:
        targets = as_arrays(y, "y", "targets")
        check_lengths(inputs, targets, "batch")
        targets = targets.with_specs(first_fit(targets.specs, "if", traced))
        builder, value, nodes = traced(targets.specs)
        data.append(targets)
    layers = _layers(nodes)
    detached = _detached(builder.graph.nodes)
    values = [v for _, _, v in layers]
    names = {
        name: leaf
        for name, parameter in model.named_parameters().items()
        if (leaf := builder.graph.leaves.get(parameter)) is not None
    }
    gradients: list[Value | None] = [None] * len(values)
    trained: dict[str, Value] = {}
    if value is not None:
        found = differentiate(builder.graph, value, [*values, *names.values()])
        gradients = found[: len(values)]
        trained = {n: g for n, g in zip(names, found[len(values) :], strict=True) if g is not None}
    wanted = {f"signal{k}": v for k, v in enumerate(values)}
    wanted |= {f"outcome{k}": v for k, v in enumerate(builder.output_values)}
    wanted |= {f"slope{k}": g for k, g in enumerate(gradients) if g is not None}
    wanted |= {f"parameter {n}": g for n, g in trained.items()}
    builder.places.update({n: _own(builder.graph, v) for n, v in wanted.items()})
    built = builder.finish(advance=False)
    kept = session.runtime.save(["buffers"])
    bound = session.run_once(built, *data)
    view = {n: np.array(bound.view(n)).reshape(v.shape) for n, v in wanted.items()}
    number = float(np.asarray(bound.view("loss")).reshape(-1)[0]) if value is not None else math.nan
    session.runtime.restore(kept)
    return Signals(
        [
            Signal(name, kind, view[f"signal{k}"], view.get(f"slope{k}"))
            for k, (name, kind, _) in enumerate(layers)
        ],
        number,
        [view[f"outcome{k}"] for k in range(len(builder.output_values))],
        {n: _as_seen(model.named_parameters()[n], view[f"parameter {n}"]) for n in trained},
        detached,
    )


def _as_seen(parameter: Parameter, gradient: Array) -> Array:
    """A gradient as it lies in memory, in the shape that users see."""
    stored = gradient.reshape(parameter.storage_shape)
    return as_seen(stored) if parameter.transposed else stored


def _own(graph: Graph, value: Value) -> Value:
    """A copy in work memory: what it is the copy of may be overwritten by the end of the step."""
    if value.dtype != "f":
        return value
    return affine(value, 1.0, 0.0)


def _detached(nodes: list[Node], moved: set[Value] | None = None) -> str:
    """Where a gradient to parameters ends, see `Signals.detached`.

    `moved`: values that depend on parameters, which those of the nodes are added to.
    """
    moved = set() if moved is None else moved
    for node in nodes:
        given = [value.root for value in node.inputs.values() if value is not None]
        if not any(value in moved or value.segment == "params" for value in given):
            continue
        if node.op.name == "detach" or node.attrs.get("bptt"):
            return node.scope or node.op.name
        if "loop" in node.attrs:
            inner = node.attrs["loop"]
            moved.update((*inner.x_in, *inner.s_in))
            if place := _detached(inner.nodes, moved):
                return place
        moved.update(value.root for value in node.outputs.values())
    return ""


def _layers(nodes: list[Node]) -> list[tuple[str, str, Value]]:
    """Names, ops and values: the last value of each layer, and each function that the model's
    `forward` applies itself."""
    found: dict[str, tuple[str, Value]] = {}
    for node in nodes:
        value = node.outputs.get("y")
        if value is None or value.dtype != "f" or (not node.scope and node.op.name in VIEWS):
            continue
        name = node.scope
        if not name:
            name, count = node.op.name, 1
            while name in found:
                count += 1
                name = f"{node.op.name}_{count}"
        elif node.op.name in VIEWS and name in found:
            continue
        found[name] = node.op.name, value
    return [(name, kind, value) for name, (kind, value) in found.items()]
