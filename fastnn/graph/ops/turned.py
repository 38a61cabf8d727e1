"""The product with a matrix that lies the other way round, such as an embedding's table.

`linear_turned` is y = x W^T for W of shape (K, C) as it lies in memory. Its three products are
those of `linear` in other roles, so it has the same kernels: forward what is `linear`'s gradient to
the input, and the other way round; in the gradient of W, x and dy change places.
"""

from __future__ import annotations

from typing import Any

from fastnn.errors import ShapeError, where
from fastnn.graph.graph import Graph, Node, Value
from fastnn.graph.op import Op, register
from fastnn.graph.ops.linear import _choice, _scratch, needs_scratch, packed


def _shape(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    x, w = inputs["x"], inputs["w"]
    if w.ndim != 2 or x.ndim < 1 or x.shape[-1] != w.shape[1]:
        raise ShapeError(
            f"{where(scope)}linear: expected a weight of shape (K, {x.shape[-1] if x.ndim else 1}) "
            f"for input of shape {x.shape}, got {w.shape}; change one of the two"
        )
    return {"y": ((*x.shape[:-1], w.shape[0]), "f")}


def _lower(graph: Graph, node: Node) -> None:
    x, w, y = node.inputs["x"], node.inputs["w"], node.outputs["y"]
    assert x is not None and w is not None
    kernel = _choice(y, w).backward_input
    extra: dict[str, Any] = {"dy": x, "dx": y}
    if kernel == "linear_backward_input":
        extra["w_packed"] = packed(graph, w, transposed=True)
    elif needs_scratch(kernel):
        extra["scratch"] = _scratch(graph, y)
    y.batched = x.batched
    graph.call_for(kernel, node, extra)


def _gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    x, w, dy = node.inputs["x"], node.inputs["w"], douts["y"]
    assert x is not None and w is not None
    choice, found = _choice(dy, w), {}
    if "x" in needed:
        found["x"] = graph.value(x.shape)
        extra: dict[str, Any] = {"x": dy, "y": found["x"], "bias": None}
        if needs_scratch(choice.forward):
            extra["scratch"] = _scratch(graph, dy)
        graph.call_for(choice.forward, node, extra)
        found["x"].batched = x.batched
    if "w" in needed:
        found["w"] = graph.value(w.shape)
        # the planner packs its operands where it pays
        graph.call_for("linear_backward_weight", node, {"x": dy, "dy": x, "dw": found["w"]})
    return found


register(Op("linear_turned", inputs=("x", "w"), shape=_shape, lower=_lower, gradient=_gradient))
