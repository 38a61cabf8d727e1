"""Sums, products and reductions, with the broadcasts that layers need.

Kernels take a second operand of the first one's shape, or of the shape of its trailing dimensions
(a *row*: one number per feature, as a bias), or its leading dimensions followed by 1 (a *column*:
one number per row, as a mask). For other shapes operands are expanded first (`fastnn.ops`).
"""

from __future__ import annotations

from typing import Any

from fastnn.graph.graph import Graph, Node, Value
from fastnn.graph.op import Op, gradient_node, register, settle_as

Gradients = dict[str, Value]


def _add_gradient(graph: Graph, node: Node, douts: Gradients, needed: set[str]) -> Gradients:
    return dict.fromkeys(needed, douts["y"])


def _subtract_gradient(graph: Graph, node: Node, douts: Gradients, needed: set[str]) -> Gradients:
    found = {"a": douts["y"]} if "a" in needed else {}
    if "b" in needed:
        found["b"] = graph.apply("negate", x=douts["y"])
    return found


register(Op("add", inputs=("a", "b"), gradient=_add_gradient))
register(Op("subtract", inputs=("a", "b"), gradient=_subtract_gradient))
register(Op("multiply", inputs=("a", "b"), backward=("multiply_backward_a", "multiply_backward_b")))
register(Op("divide", inputs=("a", "b"), backward=("divide_backward_a", "divide_backward_b")))

for _name in ("maximum", "minimum", "power"):
    register(Op(_name, inputs=("a", "b"), backward=(f"{_name}_backward_a", f"{_name}_backward_b")))


register(
    Op("where", inputs=("mask", "a", "b"), backward=("where_backward_a", "where_backward_b"),
       constant=("mask",))
)  # fmt: skip

for _name in ("less", "less_equal", "equal", "not_equal"):
    register(Op(_name, inputs=("a", "b"), forward=_name, constant=("a", "b")))


def _as_it_lies(node: Node) -> None:
    x, y = node.inputs["x"], node.outputs["y"]
    assert x is not None
    y.base, y.home, y.batched = x, x.root.home, x.batched


register(Op("detach", settle=_as_it_lies, constant=("x",)))


def _negate_gradient(graph: Graph, node: Node, douts: Gradients, needed: set[str]) -> Gradients:
    return {"x": graph.apply("negate", x=douts["y"])}


def _affine_gradient(graph: Graph, node: Node, douts: Gradients, needed: set[str]) -> Gradients:
    return {"x": graph.apply("affine", x=douts["y"], scale=node.attrs["scale"], shift=0.0)}


register(Op("negate", forward="negate", gradient=_negate_gradient))
register(
    Op("affine", defaults={"scale": 1.0, "shift": 0.0}, forward="affine", gradient=_affine_gradient)
)

# ---------------------------------------------------------------- broadcasts


def _shape_of_a(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    return {"y": (inputs["a"].shape, "f")}


def _sum_gradient(graph: Graph, node: Node, douts: Gradients, needed: set[str]) -> Gradients:
    """Of a sum with a row or a column: what a gets, and its sums."""
    found = {"a": douts["y"]} if "a" in needed else {}
    return found | gradient_node(graph, node, douts, needed - {"a"})


for _kind in ("row", "column"):
    register(
        Op(
            f"add_{_kind}", inputs=("a", "b"), shape=_shape_of_a, forward=f"add_{_kind}",
            gradient=_sum_gradient, differentiable=("b",),
            settle=settle_as("y", like="a") if _kind == "row" else None,
        )
    )  # fmt: skip
    register(
        Op(
            f"multiply_{_kind}", inputs=("a", "b"), shape=_shape_of_a, forward=f"multiply_{_kind}",
            differentiable=("a", "b"),
            settle=settle_as("y", like="a") if _kind == "row" else None,
        )
    )  # fmt: skip


# ---------------------------------------------------------------- reductions


def _scalar(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    return {"y": ((), "f")}


def _sum_features(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    return {"y": (inputs["x"].shape[:-1], "f")}


def _spread_gradient(graph: Graph, node: Node, douts: Gradients, needed: set[str]) -> Gradients:
    """Gradient of a mean or total: the same number for every element.

    Where the incoming gradient is a known number, so is the result: a constant, no call.
    """
    x, dy = node.inputs["x"], douts["y"]
    assert x is not None
    if dy.data is not None:
        share = float(dy.data.reshape(-1)[0]) / (x.size if node.op.name == "mean" else 1)
        return {"x": graph.full(x.shape, share, x.batched)}
    return gradient_node(graph, node, douts, needed)


register(Op("mean", shape=_scalar, forward="mean", gradient=_spread_gradient))
register(Op("total", shape=_scalar, forward="total", gradient=_spread_gradient))


def _weighted_shape(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    return {"y": ((), "f"), "denominator": ((), "f")}


register(
    Op(
        "weighted_mean", inputs=("x", "weight"), outputs=("y", "denominator"),
        returns=("y", "denominator"), shape=_weighted_shape, forward="weighted_mean",
        constant=("weight",),
    )
)  # fmt: skip


def _sum_columns_gradient(
    graph: Graph, node: Node, douts: Gradients, needed: set[str]
) -> Gradients:
    x = node.inputs["x"]
    assert x is not None
    zeros = graph.full(x.shape, 0.0, x.batched)
    return {"x": graph.apply("add_column", a=zeros, b=douts["y"])}


register(
    Op("sum_columns", shape=_sum_features, forward="sum_columns", gradient=_sum_columns_gradient)
)
