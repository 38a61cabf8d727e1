"""Matrix products: the linear layer, and the embedding (a product with one-hot rows)."""

from __future__ import annotations

from typing import Any

from fastnn.errors import ShapeError, where
from fastnn.graph.leaf import Leaf
from fastnn.graph.op import Op, register, settle_as
from fastnn.graph.value import Value
from fastnn.ops.arithmetic import add
from fastnn.ops.operands import as_value, float_value, graph_of, untransposed


def _shape(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    x, w = inputs["x"], inputs["w"]
    if w.ndim != 2 or x.ndim < 1 or x.shape[-1] != w.shape[0]:
        raise ShapeError(
            f"{where(scope)}linear: expected {w.shape[0]} input features, got input of shape "
            f"{x.shape}; set in_features to {x.shape[-1] if x.ndim else 1} or flatten the input"
        )
    bias = inputs.get("bias")
    if bias is not None and bias.shape != (w.shape[1],):
        raise ShapeError(f"{where(scope)}linear: expected bias ({w.shape[1]},), got {bias.shape}")
    return {"y": ((*x.shape[:-1], w.shape[1]), "f")}


register(
    Op("linear", inputs=("x", "w", "bias"), shape=_shape, settle=settle_as("y"),
       differentiable=("x", "w", "bias"))
)  # fmt: skip


def _transposed_shape(
    inputs: dict[str, Value], attrs: dict[str, Any], scope: str
) -> dict[str, Any]:
    x, w = inputs["x"], inputs["w"]
    if w.ndim != 2 or x.ndim < 1 or x.shape[-1] != w.shape[1]:
        raise ShapeError(
            f"{where(scope)}linear: expected a weight of shape (K, {x.shape[-1] if x.ndim else 1}) "
            f"for input of shape {x.shape}, got {w.shape}; change one of the two"
        )
    return {"y": ((*x.shape[:-1], w.shape[0]), "f")}


# y = x W^T for W of shape (K, C) as it lies in memory, such as an embedding's table
register(
    Op("linear_transposed", inputs=("x", "w"), shape=_transposed_shape, settle=settle_as("y"),
       differentiable=("x", "w"))
)  # fmt: skip


def _embedding_shape(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    ids, table = inputs["ids"], inputs["table"]
    if ids.dtype != "i":
        raise ShapeError(
            f"{where(scope)}embedding: expected integer ids, got floating-point input; convert it "
            "with x.astype(np.int64)"
        )
    return {"y": ((*ids.shape, table.shape[1]), "f")}


register(
    Op("embedding", inputs=("ids", "table"), defaults={"padding_index": -1}, shape=_embedding_shape,
       constant=("ids",))
)  # fmt: skip


# ---------------------------------------------------------------- functions


def linear(x: Any, weight: Any, bias: Any = None) -> Value:
    """x @ w + bias.

    Args:
        x: shape (..., C).
        weight: a parameter of PyTorch's shape (K, C), or a value of shape (C, K). (A parameter made
            with ``transposed=True`` is faster; one that is not may be an embedding's, too.)
        bias: shape (K,), or None.

    Returns:
        Shape (..., K).
    """
    graph = graph_of(x)
    if isinstance(weight, Leaf) and not weight.transposed:
        product: Value = graph.apply(
            "linear_transposed", x=float_value(x, "linear"), w=as_value(graph, weight)
        )
        return product if bias is None else add(product, bias)
    b = None if bias is None else as_value(graph, bias)
    result: Value = graph.apply(
        "linear", x=float_value(x, "linear"), w=as_value(graph, weight), bias=b
    )
    return result


def embedding(ids: Any, table: Any, padding_index: int = -1) -> Value:
    """Rows of `table` (V, C) for integer `ids` of any shape; result (*ids.shape, C)."""
    graph = graph_of(ids)
    rows = as_value(graph, untransposed(table, "embedding"))
    result: Value = graph.apply("embedding", ids=ids, table=rows, padding_index=padding_index)
    graph.limit(ids, 0, rows.shape[0])
    return result
