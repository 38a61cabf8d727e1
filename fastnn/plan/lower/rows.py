"""Rows and columns as operands, norms and losses: ops of more than one call of a kernel."""

from __future__ import annotations

from fastnn.graph.node import Node
from fastnn.graph.value import Value
from fastnn.plan.lower.lowering import Lowering, Values, derived_gradient, forward, gradient
from fastnn.plan.lower.products import need


@forward("reshape", "detach")
def _nothing(to: Lowering, node: Node) -> None:
    """The output is the input's memory."""


# ---------------------------------------------------------------- rows and columns


def _as_rows(to: Lowering, x: Value, columns: int) -> Value:
    """x as a matrix with so many columns (a row operand may span several trailing dimensions)."""
    if x.ndim == 2 and x.shape[1] == columns:
        return x
    return to.view(x, (x.size // columns, columns))


def _sum_rows(to: Lowering, node: Node, x: Value, y: Value) -> None:
    """y is the sum over all rows of x, in the shape of a row operand."""
    to.call_for("sum_rows", node, {"x": _as_rows(to, x, y.size), "y": y})


@forward("add_row", "multiply_row")
def _row(to: Lowering, node: Node) -> None:
    a, y, columns = need(node, "a"), node.outputs["y"], need(node, "b").size
    views = {"a": _as_rows(to, a, columns), "y": _as_rows(to, y, columns)}
    to.call_for(node.op.name, node, views)


@gradient("add_row")
def _add_row_gradient(to: Lowering, node: Node, douts: Values, written: Values) -> None:
    _sum_rows(to, node, douts["y"], written["b"])


@gradient("multiply_row")
def _multiply_row_gradient(to: Lowering, node: Node, douts: Values, written: Values) -> None:
    a, b, dy = need(node, "a"), need(node, "b"), douts["y"]
    if "a" in written:
        views = {"a": _as_rows(to, dy, b.size), "b": b, "y": _as_rows(to, written["a"], b.size)}
        to.call_for("multiply_row", node, views)
    if "b" in written:
        product = to.value(a.shape)
        to.call_for("multiply_forward", node, {"a": a, "b": dy, "y": product})
        _sum_rows(to, node, product, written["b"])


@gradient("add_column")
def _add_column_gradient(to: Lowering, node: Node, douts: Values, written: Values) -> None:
    to.call_for("sum_columns", node, {"x": douts["y"], "y": written["b"]})


@gradient("multiply_column")
def _multiply_column_gradient(to: Lowering, node: Node, douts: Values, written: Values) -> None:
    a, b, dy = need(node, "a"), need(node, "b"), douts["y"]
    if "a" in written:
        to.call_for("multiply_column", node, {"a": dy, "b": b, "y": written["a"]})
    if "b" in written:
        to.call_for("dot_columns", node, {"a": a, "b": dy, "y": written["b"]})


@gradient("prelu")
def _prelu_gradient(to: Lowering, node: Node, douts: Values, written: Values) -> None:
    if "x" in written:
        to.call_for("prelu_backward_input", node, {"dy": douts["y"], "dx": written["x"]})
    if "weight" in written:
        single = written["weight"].size == 1
        kernel = "prelu_backward_weight_single" if single else "prelu_backward_weight_columns"
        to.call_for(kernel, node, {"dy": douts["y"], "dweight": written["weight"]})


# ---------------------------------------------------------------- norms


@gradient("layer_norm")
def _layer_norm_gradient(to: Lowering, node: Node, douts: Values, written: Values) -> None:
    derived_gradient(to, node, douts, {n: v for n, v in written.items() if n != "bias"})
    if "bias" in written:
        to.call_for("sum_rows", node, {"x": douts["y"], "y": written["bias"]})


@gradient("batch_norm_inference")
def _batch_norm_inference_gradient(
    to: Lowering, node: Node, douts: Values, written: Values
) -> None:
    """In evaluation the statistics are constants. Gain and bias: sums over the batch of dy times
    the normalised input, and of dy."""
    x, gain = need(node, "x"), need(node, "gain")
    if "x" in written:
        derived_gradient(to, node, douts, {"x": written["x"]})
    if "bias" in written:
        to.call_for("sum_rows", node, {"x": douts["y"], "y": written["bias"]})
    if "gain" in written:
        normal, product = to.value(x.shape), to.value(x.shape)
        ones, zeros = to.full(gain.shape, 1.0), to.full(gain.shape, 0.0)
        to.call_for(
            "batch_norm_inference", node, {"gain": ones, "bias": zeros, "y": normal}
        )  # fmt: skip
        to.call_for("multiply_forward", node, {"a": normal, "b": douts["y"], "y": product})
        to.call_for("sum_rows", node, {"x": product, "y": written["gain"]})


# ---------------------------------------------------------------- losses


@forward("cross_entropy", "cross_entropy_probs")
def _cross_entropy(to: Lowering, node: Node) -> None:
    """In training the gradient to the logits is made in the same pass; else only the loss."""
    suffix = "forward" if to.graph.training else "loss"
    to.call_for(f"{node.op.name}_{suffix}", node, {})


@gradient("cross_entropy", "cross_entropy_probs")
def _cross_entropy_gradient(to: Lowering, node: Node, douts: Values, written: Values) -> None:
    if not to.graph.training:  # the forward pass was only the loss
        spare = to.value(node.outputs["loss"].shape, name="spare")
        to.call_for(f"{node.op.name}_forward", node, {"loss": spare})
    to.call_for("cross_entropy_backward", node, {"dloss": douts["loss"], "dx": written["x"]})
