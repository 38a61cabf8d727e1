"""Ops that rearrange by strides: transpose, repeated axes, slices with steps, padding; gather."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn.errors import ShapeError, where
from fastnn.graph.graph import Graph
from fastnn.graph.node import Node
from fastnn.graph.op import Op, register
from fastnn.graph.value import Value
from fastnn.ops.joining import reshaped

Shape = tuple[int, ...]


# ---------------------------------------------------------------- transpose


def _transpose_shape(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    x = inputs["x"]
    return {"y": (tuple(x.shape[a] for a in attrs["axes"]), x.dtype)}


def _transpose_settle(node: Node) -> None:
    x, y = node.inputs["x"], node.outputs["y"]
    assert x is not None
    y.batched = x.batched and node.attrs["axes"][0] == 0


def _transpose_gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    x, axes = node.inputs["x"], node.attrs["axes"]
    assert x is not None
    back = tuple(axes.index(a) for a in range(len(axes)))
    dx: Value = graph.apply("transpose", x=douts["y"], axes=back)
    dx.batched = x.batched
    return {"x": dx}


register(
    Op("transpose", defaults={"axes": ()}, shape=_transpose_shape, settle=_transpose_settle,
       gradient=_transpose_gradient)
)  # fmt: skip

# ---------------------------------------------------------------- repeated axes


def _expand_shape(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    return {"y": (attrs["shape"], inputs["x"].dtype)}


def _expand_settle(node: Node) -> None:
    x, y = node.inputs["x"], node.outputs["y"]
    assert x is not None
    y.batched = node.attrs["batched"] or (x.batched and x.ndim == y.ndim)


def _expand_gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    x, dy = node.inputs["x"], douts["y"]
    assert x is not None
    shape = (1,) * (dy.ndim - x.ndim) + x.shape
    repeated = tuple(d for d, n in enumerate(shape) if n == 1 and dy.shape[d] != 1)
    return {"x": reshaped(graph, _sum_over(graph, dy, repeated), x.shape, x.batched)}


def _sum_over(graph: Graph, x: Value, axes: Shape) -> Value:
    """The sum over these axes, which are left out: rows of a matrix, in a fixed order."""
    kept = tuple(d for d in range(x.ndim) if d not in axes)
    shape = tuple(x.shape[d] for d in kept)
    size = int(np.prod(shape, dtype=np.int64))
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


register(
    Op("expand", defaults={"shape": (), "batched": False}, shape=_expand_shape,
       settle=_expand_settle, gradient=_expand_gradient)
)  # fmt: skip

# ---------------------------------------------------------------- slices with steps, padding


def _steps_shape(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    return {"y": (attrs["counts"], inputs["x"].dtype)}


def _steps_settle(node: Node) -> None:
    x, y = node.inputs["x"], node.outputs["y"]
    assert x is not None
    y.batched = x.batched and y.shape[0] == x.shape[0] and node.attrs["steps"][0] == 1


def _steps_gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    x, a = node.inputs["x"], node.attrs
    assert x is not None
    dx: Value = graph.apply(
        "spread", x=douts["y"], shape=x.shape, starts=a["starts"], steps=a["steps"]
    )
    dx.batched = x.batched
    return {"x": dx}


register(
    Op("slice_steps", defaults={"starts": (), "steps": (), "counts": ()}, shape=_steps_shape,
       settle=_steps_settle, gradient=_steps_gradient)
)  # fmt: skip


def _spread_shape(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    return {"y": (attrs["shape"], "f")}


def _spread_settle(node: Node) -> None:
    x, y = node.inputs["x"], node.outputs["y"]
    assert x is not None
    y.batched = x.batched and x.shape[0] == y.shape[0]


def _spread_gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    x, a = node.inputs["x"], node.attrs
    assert x is not None
    dx: Value = graph.apply(
        "slice_steps", x=douts["y"], starts=a["starts"], steps=a["steps"], counts=x.shape
    )
    dx.batched = x.batched
    return {"x": dx}


# zeros but for a slice with steps: the gradient of `slice_steps`
register(
    Op("spread", defaults={"shape": (), "starts": (), "steps": ()}, shape=_spread_shape,
       settle=_spread_settle, gradient=_spread_gradient)
)  # fmt: skip


def _pad_shape(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    x, ends = inputs["x"], zip(attrs["before"], attrs["after"], strict=True)
    return {"y": (tuple(n + a + b for n, (a, b) in zip(x.shape, ends, strict=True)), "f")}


def _pad_gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    x = node.inputs["x"]
    assert x is not None
    steps = (1,) * x.ndim
    dx: Value = graph.apply(
        "slice_steps", x=douts["y"], starts=node.attrs["before"], steps=steps, counts=x.shape
    )
    dx.batched = x.batched
    return {"x": dx}


register(
    Op("pad", defaults={"before": (), "after": (), "value": 0.0}, shape=_pad_shape,
       settle=_spread_settle, gradient=_pad_gradient)
)  # fmt: skip

# ---------------------------------------------------------------- gather


def _gather_shape(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    x, index = inputs["x"], inputs["index"]
    if x.shape[:-1] != index.shape[:-1]:
        raise ShapeError(
            f"{where(scope)}gather: expected indices of shape {x.shape[:-1]} and any last extent, "
            f"got {index.shape}"
        )
    return {"y": (index.shape, "f")}


register(
    Op("gather", inputs=("x", "index"), shape=_gather_shape, forward="gather_columns",
       backward=("gather_columns_backward",), constant=("index",))
)  # fmt: skip
