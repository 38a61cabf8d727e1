"""Products of pairs of matrices: y[p] = a[p] @ b[p]."""

from __future__ import annotations

from typing import Any

from fastnn.graph.graph import Graph, Node, Value
from fastnn.graph.op import Op, gradient_node, register


def _shape(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    a, b = inputs["a"], inputs["b"]
    return {"y": ((*a.shape[:-1], b.shape[-1]), "f")}


def _gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    b, dy = node.inputs["b"], douts["y"]
    found = {}
    if "a" in needed:
        turned = graph.apply("transpose", x=b, axes=(0, 2, 1))
        found["a"] = graph.apply("matmul", a=dy, b=turned)
    return found | gradient_node(graph, node, douts, needed - {"a"})


register(
    Op("matmul", inputs=("a", "b"), shape=_shape, gradient=_gradient,
       backward=("matmul_backward_b",))
)  # fmt: skip
