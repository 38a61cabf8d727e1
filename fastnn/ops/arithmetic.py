"""Sums, products and matrix products."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn.graph.graph import Range, Value
from fastnn.nn.parameter import Parameter
from fastnn.ops.operands import as_value, float_value, graph_of, unary, untransposed


def _binary(name: str, a: Any, b: Any) -> Value:
    a, b = untransposed(a, name), untransposed(b, name)
    graph = graph_of(a, b)
    x, y = as_value(graph, a), as_value(graph, b)
    if name in ("add", "multiply") and x.size < y.size:
        x, y = y, x
    from fastnn.graph.ops.arithmetic import broadcast_kind

    kind = broadcast_kind(float_value(x, name), float_value(y, name), graph.scope)
    if kind == "same":
        result: Value = graph.apply(name, a=x, b=y)
    elif name in ("add", "multiply"):
        result = graph.apply(f"{name}_{kind}", a=x, b=y)
    elif name == "subtract":
        result = graph.apply(f"add_{kind}", a=x, b=negate(y))
    else:
        ones = graph.full(y.shape, 1.0, y.batched)
        result = graph.apply(f"multiply_{kind}", a=x, b=graph.apply("divide", a=ones, b=y))
    return result


def _is_number(x: Any) -> bool:
    return isinstance(x, (int, float, np.number)) and not isinstance(x, bool)


def add(a: Any, b: Any) -> Value:
    """a + b. `b` may be a number, a row (trailing dimensions) or a column (last dimension 1)."""
    if _is_number(b):
        return affine(a, 1.0, float(b))
    return affine(b, 1.0, float(a)) if _is_number(a) else _binary("add", a, b)


def subtract(a: Any, b: Any) -> Value:
    """a - b, with the broadcasts of `add`."""
    return affine(a, 1.0, -float(b)) if _is_number(b) else _binary("subtract", a, b)


def multiply(a: Any, b: Any) -> Value:
    """a * b, element by element, with the broadcasts of `add`."""
    if _is_number(b):
        return affine(a, float(b), 0.0)
    return affine(b, float(a), 0.0) if _is_number(a) else _binary("multiply", a, b)


def divide(a: Any, b: Any) -> Value:
    """a / b, with the broadcasts of `add`."""
    return affine(a, 1.0 / float(b), 0.0) if _is_number(b) else _binary("divide", a, b)


def negate(x: Any) -> Value:
    """-x."""
    return unary("negate", x)


def affine(x: Any, scale: float, shift: float) -> Value:
    """scale * x + shift for numbers `scale` and `shift`."""
    return unary("affine", x, scale=float(scale), shift=float(shift))


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
    if isinstance(weight, Parameter) and not weight.transposed:
        product: Value = graph.apply(
            "linear_turned", x=float_value(x, "linear"), w=as_value(graph, weight)
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
    if ids.root.home == "input":
        graph.ranges.append(Range(ids.root, 0, rows.shape[0], graph.scope))
    return result
