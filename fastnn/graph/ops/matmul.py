"""Products of pairs of matrices: y[p] = a[p] @ b[p]."""

from __future__ import annotations

from typing import Any

from fastnn.graph.graph import Graph, Node, Value
from fastnn.graph.op import Op, register
from fastnn.graph.ops.strided import copy_strided


def _shape(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    a, b = inputs["a"], inputs["b"]
    return {"y": ((*a.shape[:-1], b.shape[-1]), "f")}


def _gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    a, b, dy = node.inputs["a"], node.inputs["b"], douts["y"]
    assert a is not None and b is not None
    found = {}
    if "a" in needed:
        p, c, k = b.shape
        turned = graph.value((p, k, c), batched=b.batched)
        copy_strided(graph, b, turned, [c * k, 1, k])
        found["a"] = graph.value(a.shape)
        graph.call_for("matmul_forward", node, {"a": dy, "b": turned, "y": found["a"]})
    if "b" in needed:
        found["b"] = graph.value(b.shape)
        graph.call_for("matmul_backward_b", node, {"dy": dy, "db": found["b"]})
    return found


register(Op("matmul", inputs=("a", "b"), shape=_shape, gradient=_gradient))
