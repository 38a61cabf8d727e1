"""How operands of all functions become values: symbolic values, parameters, arrays."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from fastnn.errors import ShapeError, where
from fastnn.graph.constants import first
from fastnn.graph.graph import Graph
from fastnn.graph.leaf import Leaf, seen_axes
from fastnn.graph.tracing import traced
from fastnn.graph.value import Value


def graph_of(*operands: Any) -> Graph:
    """The graph that the operands belong to: that of a symbolic one, or, for parameters alone, the
    one that is being traced.

    Raises ShapeError if there is neither.

    >>> testing.apply(lambda x: x + ops.graph_of(x).batch, [[0.0], [0.0]])
    array([[2.],
           [2.]])
    """
    for operand in operands:
        if isinstance(operand, Value):
            return operand.graph
    graph = traced()
    if graph is not None and any(isinstance(operand, Leaf) for operand in operands):
        return graph
    raise ShapeError(
        f"expected at least one symbolic value, got {[type(o).__name__ for o in operands]}; "
        "fastnn.ops are used inside a module's forward"
    )


def as_value(graph: Graph, operand: Any) -> Value:
    """A value of `graph` for an `operand`: a symbolic value, a parameter, or an array (a constant).

    Raises ShapeError for a parameter that does not belong to the model.

    >>> testing.apply(lambda x: ops.as_value(x.graph, np.array([1.0, 2.0])) + x, [[10.0, 20.0]])
    array([[11., 22.]])
    """
    if isinstance(operand, Value):
        return operand
    if isinstance(operand, Leaf):
        if graph.owned is not None and operand not in graph.owned:
            raise ShapeError(
                f"parameter {operand.name or operand.shape} does not belong to the model that is "
                "traced; assign it (or the layer that has it) to an attribute of the model, or to "
                "a list, tuple or dict in one, in its __init__"
            )
        return graph.leaf(
            operand, operand.storage_shape, operand.segment, offset=operand.offset or 0,
            name=operand.name,
        )  # fmt: skip
    return graph.constant(np.asarray(operand, dtype=np.float64))


def symbolic(x: Any) -> Any:
    """A parameter as the value that stands for it; anything else as it is."""
    if isinstance(x, Value) or not isinstance(x, Leaf):
        return x
    return as_shown(graph_of(x), x)


def float_value(x: Any, op: str) -> Value:
    x = symbolic(x)
    if not isinstance(x, Value):
        raise ShapeError(f"{op}: expected a symbolic value, got {type(x).__name__}")
    if x.dtype != "f":
        raise ShapeError(
            f"{where(x.graph.scope)}{op}: expected floating-point input, got integers; convert "
            "them with x.astype('float32'), or use nn.Embedding for ids"
        )
    return x


def unary(name: str, x: Any, **attrs: Any) -> Value:
    x = float_value(x, name)
    result: Value = x.graph.apply(name, x=x, **attrs)
    return result


def as_shown(graph: Graph, operand: Any) -> Value:
    """A value for an operand, in the shape that users see: a parameter that is kept transposed for
    products is transposed back (a copy)."""
    if isinstance(operand, Value):
        return operand
    value = as_value(graph, operand)
    if isinstance(operand, Leaf) and operand.transposed:
        result: Value = graph.apply("transpose", x=value, axes=seen_axes(value.ndim))
        return result
    return value


def broadcast_shape(shapes: Sequence[tuple[int, ...]], scope: str, name: str) -> tuple[int, ...]:
    """The common shape by NumPy's rules: from the last axis on, equal extents, or 1.

    (NumPy's own function would take extents that follow from sizes for plain numbers.)
    """
    found: list[int] = []
    for extents in zip_longest(*map(reversed, shapes), fillvalue=1):
        others = [n for n in extents if n != 1]
        if any(n != others[0] for n in others):
            raise ShapeError(
                f"{where(scope)}{name}: cannot combine shapes {' and '.join(map(str, shapes))}; "
                "expected extents, counted from the last one, that are equal or 1: reshape one of "
                "them"
            )
        found.append(others[0] if others else 1)
    return tuple(reversed(found))


def broadcast_kind(a: Value, b: Value) -> str:
    """How b fits a where a kernel takes it as it is: "same", "row", "column"; else ""."""
    if a.shape == b.shape:
        return "same"
    if b.ndim == a.ndim and b.ndim > 1 and b.shape == (*a.shape[:-1], 1):
        return "column"
    trimmed = b.shape
    while len(trimmed) > 1 and trimmed[0] == 1:
        trimmed = trimmed[1:]
    fits = b.ndim <= a.ndim and 0 < len(trimmed) < a.ndim
    if fits and a.shape[a.ndim - len(trimmed) :] == trimmed and not b.batched:
        return "row"
    return ""


def whole_axes(x: Value, axis: Any, op: str) -> tuple[int, ...]:
    """One axis or several, negative ones counted from the end, as places 0..ndim-1."""
    given = tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)
    places = [operator.index(a) for a in given]
    found = tuple(a % x.ndim for a in places if -x.ndim <= a < x.ndim)
    if len(set(found)) != len(given):
        raise ShapeError(
            f"{where(x.graph.scope)}{op}: expected different axes within {-x.ndim}..{x.ndim - 1} "
            f"for shape {x.shape}, got {axis}"
        )
    return found


def common(name: str, *operands: Any) -> list[Value]:
    """The operands as float values of one shape, by NumPy's rules of broadcasting."""
    graph = graph_of(*operands)
    values = [float_operand(graph, x, name) for x in operands]
    shapes = [v.shape for v in values]
    if shapes.count(shapes[0]) == len(shapes):
        return values
    shape = broadcast_shape(shapes, graph.scope, name)
    batched = any(v.batched and v.shape == shape for v in values)
    return [v if v.shape == shape else expanded(v, shape, batched) for v in values]


def expanded(x: Value, shape: tuple[int, ...], batched: bool = False) -> Value:
    """x repeated to a shape that it fits."""
    if x.data is not None and x.size == 1 and x.dtype == "f":
        return x.graph.full(shape, first(x.data), batched)
    result: Value = x.graph.apply("expand", x=x, shape=shape, batched=batched)
    return result


def float_operand(graph: Graph, x: Any, name: str) -> Value:
    return float_value(as_shown(graph, x), name)


def is_number(x: Any) -> bool:
    """Whether an operand is one number (a NumPy array without axes counts)."""
    return isinstance(x, (int, float, np.number)) or (isinstance(x, np.ndarray) and x.ndim == 0)
