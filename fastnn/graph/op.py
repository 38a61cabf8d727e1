"""The table of ops. A row is enough for an op: names, a shape rule, kernels.

By default the kernels are called `<name>_forward` and `<name>_backward`, and the gradient follows
from the backward kernels' parameters: a parameter called `d<output>` is an incoming gradient,
`d<input>` an outgoing one, and any other is the input, output or attribute of that name. What a
backward kernel names is what the forward pass has to keep.

Ops know no device. What is more than one call of a kernel by its name is said in
`fastnn/plan/lower`, by the op's name.

An op without outputs is an *effect*: it changes memory that it is given (a batch, totals,
parameters), and its kernel's signature says which of its inputs that is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastnn.errors import ShapeError, where

if TYPE_CHECKING:
    from fastnn.graph.graph import Graph
    from fastnn.graph.node import Node
    from fastnn.graph.value import Value

Shape = tuple[int, ...]
ShapeRule = Callable[[dict[str, "Value"], dict[str, Any], str], dict[str, tuple[Shape, str]]]
GradientRule = Callable[["Graph", "Node", dict[str, "Value"], set[str]], dict[str, "Value"]]
TangentRule = Callable[["Graph", "Node", dict[str, "Value"]], dict[str, "Value"]]
Derivative = Callable[["Node", dict[str, "Value"]], dict[str, "Value"]]
Adjoint = Callable[["Node", dict[str, "Value"], Sequence[str]], dict[str, "Value"]]
Expression = Callable[["Node"], dict[str, "Value"]]


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
        gradient: a rule that makes the gradients of other ops; by default they are one node.
        derivative: of (node, gradients that arrive at its outputs): the gradients to its inputs,
            made of other ops, so that they can be differentiated in their turn.
        adjoint: of (node, gradients that arrive at its outputs, names of inputs): the same, to
            these inputs alone.
        expression: of a node: its outputs, made of other ops; another way to say the same.
        linear: the inputs in which it is linear, taken together, all else a constant: then the
            gradient's gradient is the op.
        tangent: of (graph, node, tangents of its inputs): the tangents of its outputs, in forward
            mode; by default they follow from the above (`graph/tangent.py`).
        differentiable: the inputs that such a node has gradients for, where `fastnn/plan/lower`
            knows how; by default those that backward kernels write.
        constant: inputs that nothing passes a gradient to (a mask, ids): not an error.
        joined: of (graph, nodes of this op whose outputs are to be added): their sum, computed at
            once instead of these nodes, or None where it can't be.
        placement: says where the outputs lie and which run over the batch; by default that follows
            from the forward kernel.
        final: whether an effect belongs to the very end of the step.
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
    derivative: Derivative | None = None
    adjoint: Adjoint | None = None
    expression: Expression | None = None
    linear: tuple[str, ...] = ()
    tangent: TangentRule | None = None
    differentiable: tuple[str, ...] | None = None
    constant: tuple[str, ...] = ()
    joined: Callable[[Any, list[Node]], Value | None] | None = None
    placement: Callable[[Node], None] | None = None
    final: bool = False

    @property
    def forward_kernel(self) -> str:
        return self.forward or f"{self.name}_forward"

    @property
    def backward_kernels(self) -> tuple[str, ...]:
        return (f"{self.name}_backward",) if self.backward is None else self.backward


OPS: dict[str, Op] = {}
#: the op of gradient nodes, whose inputs and outputs are the nodes' own
GRADIENT = Op("gradient", inputs=(), outputs=(), returns=())


def register(op: Op) -> Op:
    """Enter an op in the table."""
    if op.name in OPS:
        raise ValueError(f"an op called {op.name!r} exists already; choose another name")
    for name in op.returns:
        if f"d{name}" in op.inputs:  # a gradient node would have two inputs of one name
            raise ValueError(
                f"op {op.name!r}: expected no input called d{name}, which is the gradient to its "
                f"output {name}; choose another name"
            )
    OPS[op.name] = op
    return op


def lookup(name: str) -> Op:
    return OPS[name]


def batched(node: Node) -> None:
    """A rule for `placement`: all outputs run over the batch."""
    for value in node.outputs.values():
        value.batched = True


def unbatched(node: Node) -> None:
    """A rule for `placement`: no output does, if there is one."""


def batched_like(*outputs: str, like: str = "x") -> Callable[[Node], None]:
    """A rule for `placement`: these outputs run over the batch if an input does."""

    def placement(node: Node) -> None:
        source = node.inputs[like]
        for name in outputs or ("y",):
            node.outputs[name].batched = source is not None and source.batched

    return placement
