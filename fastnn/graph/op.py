"""The table of ops. A row is enough for an op: names, a shape rule, kernels.

By default the kernels are called `<name>_forward` and `<name>_backward`, and the gradient rule
follows from the backward kernels' parameters: a parameter called `d<output>` is an incoming
gradient, `d<input>` an outgoing one, and any other is the input, output or attribute of that name.
What a backward kernel names is what the forward pass has to keep.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastnn.errors import ShapeError, where
from fastnn.kernels.declare import declared

if TYPE_CHECKING:
    from fastnn.graph.graph import Graph, Node, Value

Shape = tuple[int, ...]
ShapeRule = Callable[[dict[str, "Value"], dict[str, Any], str], dict[str, tuple[Shape, str]]]
GradientRule = Callable[["Graph", "Node", dict[str, "Value"], set[str]], dict[str, "Value"]]


def same_shape(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    """The output has the shape of the first input; further inputs must have it, too."""
    first, *others = inputs.items()
    for name, value in others:
        if value.shape != first[1].shape:
            raise ShapeError(
                f"{where(scope)}expected {name} of the same shape as {first[0]}, "
                f"{first[1].shape}, got {value.shape}; reshape one of them"
            )
    return {"y": (first[1].shape, first[1].dtype)}


@dataclass(frozen=True)
class Op:
    """A row of the table.

    Attributes:
        name: the op's name, unique.
        inputs: names of the inputs; an absent optional input is None.
        outputs: names of all outputs, saved ones included.
        returns: the outputs that applying the op returns (the others are kept for the gradient).
        defaults: attributes with their defaults.
        shape: rule that gives every output's shape and element type.
        forward, backward: kernel names where they are not the default ones.
        gradient: a rule of its own, where the derived one doesn't do.
        lower: emits the forward calls itself, where one kernel doesn't do.
        floats: inputs that must be float values (checked by `fastnn.ops`).
    """

    name: str
    inputs: tuple[str, ...] = ("x",)
    outputs: tuple[str, ...] = ("y",)
    returns: tuple[str, ...] = ("y",)
    defaults: dict[str, Any] = field(default_factory=dict)
    shape: ShapeRule = same_shape
    forward: str = ""
    backward: tuple[str, ...] | None = None
    gradient: GradientRule | None = None
    lower: Callable[[Graph, Node], None] | None = None

    @property
    def forward_kernel(self) -> str:
        return self.forward or f"{self.name}_forward"

    @property
    def backward_kernels(self) -> tuple[str, ...]:
        return (f"{self.name}_backward",) if self.backward is None else self.backward


OPS: dict[str, Op] = {}


def register(op: Op) -> Op:
    """Enter an op in the table."""
    if op.name in OPS:
        raise ValueError(f"an op called {op.name!r} exists already; choose another name")
    OPS[op.name] = op
    return op


def lookup(name: str) -> Op:
    if not OPS:
        import fastnn.graph.ops  # noqa: F401  (fills the table)
    return OPS[name]


def derived_gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    """The gradient rule that follows from the backward kernels' parameter names."""
    gradients: dict[str, Value] = {}
    for kernel in node.op.backward_kernels:
        found = declared(kernel)
        if found is None:
            raise NotDifferentiable(node, repr(kernel))
        writes = {n[1:] for n, p in found.arrays.items() if p.writes and n[0] == "d"}
        if not writes & (needed - set(gradients)):
            continue
        extra: dict[str, Any] = {}
        for name in found.params:
            if name[0] == "d" and name[1:] in writes:
                source = node.inputs.get(name[1:])
                if source is None:  # the gradient of an absent optional input: nobody reads it
                    extra[name] = None
                    continue
                extra[name] = graph.value(source.shape, source.dtype, name=f"{node.op.name}.{name}")
                gradients[name[1:]] = extra[name]
            elif name[0] == "d" and name[1:] in node.outputs:
                output = node.outputs[name[1:]]
                given = douts.get(name[1:])
                if given is None:
                    given = graph.full(output.shape, 0.0, output.batched)
                extra[name] = given
        graph.call_for(kernel, node, extra)
    if missing := needed - set(gradients):
        raise NotDifferentiable(node, f"that writes d{sorted(missing)[0]}")
    return gradients


class NotDifferentiable(ShapeError):
    """An op without a gradient stands between the loss and what should be trained."""

    def __init__(self, node: Node, kernel: str):
        super().__init__(
            f"{where(node.scope)}op {node.op.name!r} has no gradient (no kernel {kernel}) for "
            f"inputs {node.inputs}; give it a backward kernel, or let nothing trained reach it"
        )
