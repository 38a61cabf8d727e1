"""Ops that rearrange by strides: transpose, repeated axes, slices with steps, padding; gather."""

from __future__ import annotations

import math

from fastnn.errors import ShapeError, where
from fastnn.graph.graph import Graph
from fastnn.graph.node import Node
from fastnn.graph.value import Value
from fastnn.ops.declare import floats, need, op, output
from fastnn.ops.joining import reshaped

Shape = tuple[int, ...]


# ---------------------------------------------------------------- transpose


def _transpose_placement(node: Node) -> None:
    x, y = need(node, "x"), node.outputs["y"]
    y.batched = x.batched and node.attrs["axes"][0] == 0


def _transpose_gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    x, axes = need(node, "x"), node.attrs["axes"]
    back = tuple(axes.index(a) for a in range(len(axes)))
    dx: Value = graph.apply("transpose", x=douts["y"], axes=back)
    dx.batched = x.batched
    return {"x": dx}


@op(placement=_transpose_placement, gradient=_transpose_gradient)
def _transpose(x: Value, axes: Shape = ()) -> Value:
    return output(tuple(x.shape[a] for a in axes), x.dtype)


# ---------------------------------------------------------------- repeated axes


def _expand_placement(node: Node) -> None:
    x, y = need(node, "x"), node.outputs["y"]
    y.batched = node.attrs["batched"] or (x.batched and x.ndim == y.ndim)


def _expand_gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    x, dy = need(node, "x"), douts["y"]
    shape = (1,) * (dy.ndim - x.ndim) + x.shape
    repeated = tuple(d for d, n in enumerate(shape) if n == 1 and dy.shape[d] != 1)
    return {"x": reshaped(graph, _sum_over(graph, dy, repeated), x.shape, x.batched)}


def _sum_over(graph: Graph, x: Value, axes: Shape) -> Value:
    """The sum over these axes, which are left out: rows of a matrix, in a fixed order."""
    kept = tuple(d for d in range(x.ndim) if d not in axes)
    shape = tuple(x.shape[d] for d in kept)
    size = math.prod(shape)
    if size == x.size:
        return x
    if kept == tuple(range(x.ndim - len(kept), x.ndim)):  # over the first axes
        y: Value = graph.apply("sum_rows", x=reshaped(graph, x, (x.size // size, size), x.batched))
        y.batched = False
        return y
    batched = x.batched and 0 in kept
    if kept != tuple(range(len(kept))):
        x = graph.apply("transpose", x=x, axes=(*kept, *axes))
        x.batched = batched
    y = graph.apply("sum_columns", x=reshaped(graph, x, (size, x.size // size), x.batched))
    y.batched = batched
    return y


@op(placement=_expand_placement, gradient=_expand_gradient)
def _expand(x: Value, shape: Shape = (), batched: bool = False) -> Value:
    return output(shape, x.dtype)


# ---------------------------------------------------------------- slices with steps, padding


def _steps_placement(node: Node) -> None:
    x, y = need(node, "x"), node.outputs["y"]
    y.batched = x.batched and y.shape[0] == x.shape[0] and node.attrs["steps"][0] == 1


def _steps_gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    x, a = need(node, "x"), node.attrs
    dx: Value = graph.apply(
        "spread", x=douts["y"], shape=x.shape, starts=a["starts"], steps=a["steps"]
    )
    dx.batched = x.batched
    return {"x": dx}


@op(placement=_steps_placement, gradient=_steps_gradient)
def _slice_steps(x: Value, starts: Shape = (), steps: Shape = (), counts: Shape = ()) -> Value:
    return output(counts, x.dtype)


def _spread_placement(node: Node) -> None:
    x, y = need(node, "x"), node.outputs["y"]
    y.batched = x.batched and x.shape[0] == y.shape[0]


def _spread_gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    x, a = need(node, "x"), node.attrs
    dx: Value = graph.apply(
        "slice_steps", x=douts["y"], starts=a["starts"], steps=a["steps"], counts=x.shape
    )
    dx.batched = x.batched
    return {"x": dx}


@op(placement=_spread_placement, gradient=_spread_gradient)
def _spread(x: Value, shape: Shape = (), starts: Shape = (), steps: Shape = ()) -> Value:
    """Zeros but for a slice with steps: the gradient of `slice_steps`."""
    return floats(*shape)


def _pad_gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    x = need(node, "x")
    steps = (1,) * x.ndim
    dx: Value = graph.apply(
        "slice_steps", x=douts["y"], starts=node.attrs["before"], steps=steps, counts=x.shape
    )
    dx.batched = x.batched
    return {"x": dx}


@op(placement=_spread_placement, gradient=_pad_gradient)
def _pad(x: Value, before: Shape = (), after: Shape = (), value: float = 0.0) -> Value:
    return floats(*(n + a + b for n, a, b in zip(x.shape, before, after, strict=True)))


# ---------------------------------------------------------------- gather


@op(
    forward="gather_columns", backward=("gather_columns_backward",), constant=("index",),
    linear=("x",),
)  # fmt: skip
def _gather(x: Value, index: Value) -> Value:
    if x.shape[:-1] != index.shape[:-1]:
        raise ShapeError(
            f"{where(x.graph.scope)}gather: expected indices of shape {x.shape[:-1]} and any last "
            f"extent, got {index.shape}"
        )
    return floats(*index.shape)
