"""Functions that rearrange."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastnn.graph.graph import Value
from fastnn.graph.op import lookup
from fastnn.ops.operands import as_value, float_value, graph_of, unary


def reshape(x: Any, *shape: Any) -> Value:
    """The same elements under another shape (batch included); one extent may be -1."""
    if len(shape) == 1 and isinstance(shape[0], (tuple, list)):
        shape = tuple(shape[0])
    result: Value = graph_of(x).apply("reshape", x=x, shape=tuple(int(n) for n in shape))
    return result


def flatten(x: Any, start: int = 1) -> Value:
    """Merge the dimensions from `start` on."""
    size = 1
    for extent in x.shape[start:]:
        size *= extent
    return reshape(x, *x.shape[:start], size)


def concatenate(*parts: Any) -> Value:
    """Join along the last dimension."""
    from fastnn.graph.ops.shape import concatenate as join

    if len(parts) == 1 and isinstance(parts[0], Sequence):
        parts = tuple(parts[0])
    graph = graph_of(*parts)
    lookup("reshape")
    return join(graph, [float_value(as_value(graph, p), "concatenate") for p in parts])


def columns(x: Any, begin: int, end: int) -> Value:
    """Features begin..end (exclusive) of the last dimension."""
    return unary("slice", x, offset=int(begin), width=int(end) - int(begin))
