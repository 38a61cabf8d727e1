"""Sums, products and reductions, with the broadcasts that layers need.

Kernels take a second operand of the first one's shape, or of the shape of its trailing dimensions
(a *row*: one number per feature, as a bias), or its leading dimensions followed by 1 (a *column*:
one number per row, as a mask). For other shapes operands are expanded first (`fastnn.ops`).
"""

from __future__ import annotations

from typing import Any

from fastnn.graph.graph import Graph, Node, Value
from fastnn.graph.op import Op, derived_gradient, register

Gradients = dict[str, Value]


def _new(graph: Graph, like: Value | None) -> Value:
    assert like is not None
    return graph.value(like.shape)


def _add_gradient(graph: Graph, node: Node, douts: Gradients, needed: set[str]) -> Gradients:
    return dict.fromkeys(needed, douts["y"])


def _subtract_gradient(graph: Graph, node: Node, douts: Gradients, needed: set[str]) -> Gradients:
    found = {"a": douts["y"]} if "a" in needed else {}
    if "b" in needed:
        found["b"] = _new(graph, node.inputs["b"])
        graph.call_for("negate", node, {"x": douts["y"], "y": found["b"]})
    return found


register(Op("add", inputs=("a", "b"), gradient=_add_gradient))
register(Op("subtract", inputs=("a", "b"), gradient=_subtract_gradient))
register(Op("multiply", inputs=("a", "b"), backward=("multiply_backward_a", "multiply_backward_b")))
register(Op("divide", inputs=("a", "b"), backward=("divide_backward_a", "divide_backward_b")))

for _name in ("maximum", "minimum", "power"):
    register(Op(_name, inputs=("a", "b"), backward=(f"{_name}_backward_a", f"{_name}_backward_b")))


def _where_gradient(graph: Graph, node: Node, douts: Gradients, needed: set[str]) -> Gradients:
    return derived_gradient(graph, node, douts, needed - {"mask"})


register(
    Op("where", inputs=("mask", "a", "b"), backward=("where_backward_a", "where_backward_b"),
       gradient=_where_gradient)
)  # fmt: skip


def _no_gradient(*_: Any) -> Gradients:
    """Of a comparison, and of what is detached: none."""
    return {}


for _name in ("less", "less_equal", "equal", "not_equal"):
    register(Op(_name, inputs=("a", "b"), forward=_name, gradient=_no_gradient))


def _detach_lower(graph: Graph, node: Node) -> None:
    x, y = node.inputs["x"], node.outputs["y"]
    assert x is not None
    y.base, y.home, y.batched = x, x.root.home, x.batched


register(Op("detach", lower=_detach_lower, gradient=_no_gradient))


def _negate_gradient(graph: Graph, node: Node, douts: Gradients, needed: set[str]) -> Gradients:
    dx = _new(graph, node.inputs["x"])
    graph.call_for("negate", node, {"x": douts["y"], "y": dx})
    return {"x": dx}


def _affine_gradient(graph: Graph, node: Node, douts: Gradients, needed: set[str]) -> Gradients:
    dx = _new(graph, node.inputs["x"])
    graph.call_for("affine", node, {"x": douts["y"], "y": dx, "shift": 0.0})
    return {"x": dx}


register(Op("negate", forward="negate", gradient=_negate_gradient))
register(
    Op("affine", defaults={"scale": 1.0, "shift": 0.0}, forward="affine", gradient=_affine_gradient)
)

# ---------------------------------------------------------------- broadcasts


def _shape_of_a(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    return {"y": (inputs["a"].shape, "f")}


def _sum_rows(graph: Graph, node: Node, x: Value, like: Value | None) -> Value:
    """Sum over all rows of x, in the shape of a row operand."""
    y = _new(graph, like)
    graph.call_for("sum_rows", node, {"x": rows_view(graph, x, y.size), "y": y})
    return y


def rows_view(graph: Graph, x: Value, columns: int) -> Value:
    """x as a matrix with so many columns (a row operand may span several trailing dimensions)."""
    if x.ndim == 2 and x.shape[1] == columns:
        return x
    return graph.view(x, (x.size // columns, columns))


def _add_row_gradient(graph: Graph, node: Node, douts: Gradients, needed: set[str]) -> Gradients:
    found = {"a": douts["y"]} if "a" in needed else {}
    if "b" in needed:
        found["b"] = _sum_rows(graph, node, douts["y"], node.inputs["b"])
    return found


def _multiply_row_gradient(
    graph: Graph, node: Node, douts: Gradients, needed: set[str]
) -> Gradients:
    a, b, dy = node.inputs["a"], node.inputs["b"], douts["y"]
    assert a is not None and b is not None
    found = {}
    if "a" in needed:
        found["a"] = _new(graph, a)
        columns = b.size
        graph.call_for(
            "multiply_row",
            node,
            {
                "a": rows_view(graph, dy, columns),
                "b": b,
                "y": rows_view(graph, found["a"], columns),
            },
        )
    if "b" in needed:
        product = _new(graph, a)
        graph.call_for("multiply_forward", node, {"a": a, "b": dy, "y": product})
        found["b"] = _sum_rows(graph, node, product, b)
    return found


def _row_lower(kernel: str) -> Any:
    def lower(graph: Graph, node: Node) -> None:
        a, b, y = node.inputs["a"], node.inputs["b"], node.outputs["y"]
        assert a is not None and b is not None
        y.batched = a.batched
        columns = b.size
        views = {"a": rows_view(graph, a, columns), "y": rows_view(graph, y, columns)}
        graph.call_for(kernel, node, views)

    return lower


for _kernel, _gradient in (
    ("add_row", _add_row_gradient),
    ("multiply_row", _multiply_row_gradient),
):
    register(
        Op(
            _kernel, inputs=("a", "b"), shape=_shape_of_a, gradient=_gradient,
            lower=_row_lower(_kernel),
        )
    )  # fmt: skip


def _sum_columns(graph: Graph, node: Node, x: Value, like: Value) -> Value:
    y = _new(graph, like)
    graph.call_for("sum_columns", node, {"x": x, "y": y})
    return y


def _add_column_gradient(graph: Graph, node: Node, douts: Gradients, needed: set[str]) -> Gradients:
    b = node.inputs["b"]
    assert b is not None
    found = {"a": douts["y"]} if "a" in needed else {}
    if "b" in needed:
        found["b"] = _sum_columns(graph, node, douts["y"], b)
    return found


def _multiply_column_gradient(
    graph: Graph, node: Node, douts: Gradients, needed: set[str]
) -> Gradients:
    a, b, dy = node.inputs["a"], node.inputs["b"], douts["y"]
    assert a is not None and b is not None
    found = {}
    if "a" in needed:
        found["a"] = _new(graph, a)
        graph.call_for("multiply_column", node, {"a": dy, "b": b, "y": found["a"]})
    if "b" in needed:
        found["b"] = _new(graph, b)
        graph.call_for("dot_columns", node, {"a": a, "b": dy, "y": found["b"]})
    return found


register(
    Op("add_column", inputs=("a", "b"), shape=_shape_of_a, forward="add_column",
       gradient=_add_column_gradient)
)  # fmt: skip
register(
    Op("multiply_column", inputs=("a", "b"), shape=_shape_of_a, forward="multiply_column",
       gradient=_multiply_column_gradient)
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
    dx = graph.value(x.shape, batched=x.batched)
    graph.call_for(f"{node.op.name}_backward", node, {"dy": dy, "dx": dx})
    return {"x": dx}


register(Op("mean", shape=_scalar, forward="mean", gradient=_spread_gradient))
register(Op("total", shape=_scalar, forward="total", gradient=_spread_gradient))


def _weighted_shape(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    return {"y": ((), "f"), "denominator": ((), "f")}


def _weighted_gradient(graph: Graph, node: Node, douts: Gradients, needed: set[str]) -> Gradients:
    x = node.inputs["x"]
    assert x is not None
    dx = graph.value(x.shape, batched=x.batched)
    graph.call_for("weighted_mean_backward", node, {"dy": douts["y"], "dx": dx})
    return {"x": dx}


register(
    Op(
        "weighted_mean", inputs=("x", "weight"), outputs=("y", "denominator"),
        returns=("y", "denominator"), shape=_weighted_shape, forward="weighted_mean",
        gradient=_weighted_gradient,
    )
)  # fmt: skip


def _sum_columns_gradient(
    graph: Graph, node: Node, douts: Gradients, needed: set[str]
) -> Gradients:
    x, dy = node.inputs["x"], douts["y"]
    assert x is not None
    dx = graph.value(x.shape)
    zeros = graph.full(x.shape, 0.0, x.batched)
    graph.call_for("add_column", node, {"a": zeros, "b": dy, "y": dx})
    return {"x": dx}


register(
    Op("sum_columns", shape=_sum_features, forward="sum_columns", gradient=_sum_columns_gradient)
)
