"""Matrix products: the linear layer, and the embedding (a product with one-hot rows)."""

from __future__ import annotations

from types import FunctionType

import numpy as np

from fastnn.errors import ShapeError, where
from fastnn.graph.graph import Graph
from fastnn.graph.leaf import Leaf
from fastnn.graph.node import Node
from fastnn.graph.op import batched_like
from fastnn.graph.value import Value
from fastnn.ops.arithmetic import add
from fastnn.ops.comparison import equal
from fastnn.ops.declare import Operand, floats, need, op
from fastnn.ops.operands import as_shown, as_value, float_value, graph_of
from fastnn.public import publish

Values = dict[str, Value]


def _rows(x: Value) -> Value:
    return x if x.ndim == 2 else x.reshape(-1, x.shape[-1])


def _product_derivative(node: Node, d: Values) -> Values:
    x, w, dy = need(node, "x"), need(node, "w"), d["y"]
    return {
        "x": _product_transposed(dy, w), "w": _product(_rows(x).transpose(), _rows(dy), None),
        "bias": _rows(dy).sum(0),
    }  # fmt: skip


def _product_tangent(graph: Graph, node: Node, moved: Values) -> Values:
    x, w = need(node, "x"), need(node, "w")
    terms = []
    if "x" in moved:
        terms.append(_product(moved["x"], w, moved.get("bias")))
    if "w" in moved:
        terms.append(_product(x, moved["w"], None if terms else moved.get("bias")))
    if not terms:
        shape = node.outputs["y"].shape
        return {"y": add(graph.full(shape, 0.0, x.batched), moved["bias"])}
    return {"y": terms[0] if len(terms) == 1 else add(*terms)}


@op(
    name="linear", placement=batched_like("y"), differentiable=("x", "w", "bias"),
    derivative=_product_derivative, tangent=_product_tangent,
)  # fmt: skip
def _product(x: Value, w: Value, bias: Value | None) -> Value:
    """y = x W + b."""
    scope = where(x.graph.scope)
    if w.ndim != 2 or x.ndim < 1 or x.shape[-1] != w.shape[0]:
        raise ShapeError(
            f"{scope}linear: expected {w.shape[0]} input features, got input of shape {x.shape}; "
            f"set in_features to {x.shape[-1] if x.ndim else 1} or flatten the input"
        )
    if bias is not None and bias.shape != (w.shape[1],):
        raise ShapeError(f"{scope}linear: expected bias ({w.shape[1]},), got {bias.shape}")
    return floats(*x.shape[:-1], w.shape[1])


def _transposed_derivative(node: Node, d: Values) -> Values:
    x, w, dy = need(node, "x"), need(node, "w"), d["y"]
    return {"x": _product(dy, w, None), "w": _product(_rows(dy).transpose(), _rows(x), None)}


def _transposed_tangent(graph: Graph, node: Node, moved: Values) -> Values:
    x, w = need(node, "x"), need(node, "w")
    terms = []
    if "x" in moved:
        terms.append(_product_transposed(moved["x"], w))
    if "w" in moved:
        terms.append(_product_transposed(x, moved["w"]))
    return {"y": terms[0] if len(terms) == 1 else add(*terms)}


@op(
    name="linear_transposed", placement=batched_like("y"), differentiable=("x", "w"),
    derivative=_transposed_derivative, tangent=_transposed_tangent,
)  # fmt: skip
def _product_transposed(x: Value, w: Value) -> Value:
    """y = x W^T for W of shape (K, C) as it lies in memory, such as an embedding's table."""
    if w.ndim != 2 or x.ndim < 1 or x.shape[-1] != w.shape[1]:
        raise ShapeError(
            f"{where(x.graph.scope)}linear: expected a weight of shape "
            f"(K, {x.shape[-1] if x.ndim else 1}) for input of shape {x.shape}, got {w.shape}; "
            "change one of the two"
        )
    return floats(*x.shape[:-1], w.shape[0])


def _one_hot(ids: Value, table: Value, padding_index: int) -> Value:
    """Products with one-hot rows, without the row that is not trained."""
    places = np.arange(table.shape[0])
    hot = equal(ids.reshape(-1, 1), places[None])
    if padding_index >= 0:
        hot = hot * (places != padding_index)[None].astype(np.float64)
    return _product(hot, table, None).reshape(*ids.shape, table.shape[1])


@op(name="embedding", constant=("ids",), expression=_one_hot)
def _rows_of(ids: Value, table: Value, padding_index: int = -1) -> Value:
    if ids.dtype != "i":
        raise ShapeError(
            f"{where(ids.graph.scope)}embedding: expected integer ids, got floating-point input; "
            "convert it with x.astype(np.int64)"
        )
    return floats(*ids.shape, table.shape[1])


# ---------------------------------------------------------------- functions


def linear(x: Operand, weight: Operand, bias: Operand = None) -> Value:
    """x @ w + bias.

    Args:
        x: shape (..., C).
        weight: a parameter of PyTorch's shape (K, C), or a value of shape (C, K). (A parameter made
            with ``transposed=True`` is faster; one that is not may be an embedding's, too.)
        bias: shape (K,), or None.

    Returns:
        Shape (..., K).

    Raises ShapeError for a weight or a bias that does not fit the features.

    >>> weight, bias = np.array([[1.0], [10.0]]), np.array([0.5])
    >>> testing.apply(lambda x: ops.linear(x, weight, bias), [[1.0, 2.0]])
    array([[21.5]])
    """
    graph = graph_of(x)
    if isinstance(weight, Leaf) and not weight.transposed:
        y = _product_transposed(float_value(x, "linear"), as_value(graph, weight))
        return y if bias is None else add(y, bias)
    b = None if bias is None else as_value(graph, bias)
    return _product(float_value(x, "linear"), as_value(graph, weight), b)


def embedding(ids: Operand, table: Operand, padding_index: int = -1) -> Value:
    """Rows of `table` (V, C) for integer `ids` of any shape; result (*ids.shape, C). The row
    `padding_index` (none where it is below 0) gets no gradient.

    Raises ShapeError for ids that are not integers; ids out of range raise DataError when data come
    in.

    >>> table = np.array([[0.0, 0.0], [1.0, 2.0], [3.0, 4.0]])
    >>> testing.apply(lambda ids: ops.embedding(ids, table), [[2, 1]])
    array([[[3., 4.],
            [1., 2.]]])
    """
    graph = graph_of(ids)
    rows = as_shown(graph, table)
    result = _rows_of(ids, rows, padding_index)
    graph.limit(ids, 0, rows.shape[0])
    return result


publish(globals(), FunctionType)
