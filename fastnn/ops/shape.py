"""Functions that rearrange: shapes, axes, joining."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from types import FunctionType
from typing import Any

from fastnn.errors import ShapeError, where
from fastnn.graph.sizes import whole
from fastnn.graph.value import Value
from fastnn.ops.joining import concatenate as join
from fastnn.ops.operands import as_value, expanded, float_value, graph_of, symbolic, whole_axes
from fastnn.public import publish


def reshape(x: Any, *shape: Any) -> Value:
    """The same elements with another shape, batch included; one size may be -1.

    >>> testing.apply(lambda x: ops.reshape(x, (x.shape[0], 2, -1)), np.ones((4, 6))).shape
    (4, 2, 3)
    """
    if len(shape) == 1 and isinstance(shape[0], (tuple, list)):
        shape = tuple(shape[0])
    x = symbolic(x)
    result: Value = graph_of(x).apply("reshape", x=x, shape=tuple(map(whole, shape)))
    return result


def flatten(x: Any, start: int = 1) -> Value:
    """Merge the dimensions from `start` on.

    >>> testing.apply(ops.flatten, np.ones((4, 2, 3))).shape
    (4, 6)
    """
    x = symbolic(x)
    size = 1
    for extent in x.shape[start:]:
        size *= extent
    return reshape(x, *x.shape[:start], size)


def squeeze(x: Any, axis: int | Sequence[int] | None = None) -> Value:
    """Remove axes of size 1: those in `axis`, or all but the batch.

    Raises ShapeError for an axis of another size.

    >>> testing.apply(ops.squeeze, np.ones((4, 1, 3))).shape
    (4, 3)
    """
    x = symbolic(x)
    if axis is None:
        axes = tuple(d for d, n in enumerate(x.shape) if n == 1 and d > 0)
    else:
        axes = whole_axes(x, axis, "squeeze")
    if any(x.shape[d] != 1 for d in axes):
        raise ShapeError(
            f"{where(x.graph.scope)}squeeze: expected axes of extent 1, got axes {axes} of shape "
            f"{x.shape}"
        )
    return reshape(x, tuple(n for d, n in enumerate(x.shape) if d not in axes))


def unsqueeze(x: Any, axis: int | Sequence[int]) -> Value:
    """Insert axes of size 1 at these positions of the result: `axis` is one or several.

    Raises ShapeError for positions out of range, and for the same one twice.

    >>> testing.apply(lambda x: ops.unsqueeze(x, 1), np.ones((4, 3))).shape
    (4, 1, 3)
    """
    x = symbolic(x)
    places = (axis,) if isinstance(axis, int) else tuple(axis)
    rank = x.ndim + len(places)
    found = {operator.index(a) % rank for a in places if -rank <= a < rank}
    if len(found) != len(places):
        raise ShapeError(
            f"{where(x.graph.scope)}unsqueeze: expected different axes within {-rank}..{rank - 1}, "
            f"got {axis}"
        )
    extents = iter(x.shape)
    return reshape(x, tuple(1 if d in found else next(extents) for d in range(rank)))


def transpose(x: Any, *axes: Any) -> Value:
    """Reorder the axes, as in NumPy: ``transpose(x, 0, 2, 1)``. Without axes the last two are
    exchanged (the batch stays in place).

    A copy. `permute` is the same.

    Raises ShapeError for anything but a permutation of the axes.

    >>> testing.apply(lambda x: ops.transpose(x, (0, 2, 1)), np.ones((4, 2, 3))).shape
    (4, 3, 2)
    """
    x = symbolic(x)
    if len(axes) == 1 and isinstance(axes[0], (tuple, list)):
        axes = tuple(axes[0])
    if not axes:
        if x.ndim < 2:
            return x
        axes = (*range(x.ndim - 2), x.ndim - 1, x.ndim - 2)
    order = whole_axes(x, axes, "transpose")
    if len(order) != x.ndim:
        raise ShapeError(
            f"{where(x.graph.scope)}transpose: expected each of {x.ndim} axes once, got {axes}; "
            "two axes change places by swapaxes"
        )
    if order == tuple(range(x.ndim)):
        return x
    moving = [d for d in order if x.shape[d] != 1]
    if moving == sorted(moving):  # nothing but extents of 1 changes places
        return reshape(x, tuple(x.shape[d] for d in order))
    result: Value = x.graph.apply("transpose", x=x, axes=order)
    return result


def swapaxes(x: Any, first: int, second: int) -> Value:
    """Exchange two axes, as in NumPy (PyTorch's ``x.transpose(first, second)``).

    A copy.

    >>> testing.apply(lambda x: ops.swapaxes(x, 1, 2), np.ones((4, 2, 3))).shape
    (4, 3, 2)
    """
    x = symbolic(x)
    one, other = (whole_axes(x, (axis,), "swapaxes")[0] for axis in (first, second))
    order = list(range(x.ndim))
    order[one], order[other] = other, one
    return transpose(x, *order)


permute = transpose


def expand(x: Any, *shape: Any) -> Value:
    """Repeat x along axes of size 1, or along new axes at the front, to `shape`; -1 keeps a
    size.

    Raises ShapeError for an axis of another size that is not 1.

    >>> testing.apply(lambda x: ops.expand(x, (-1, 3)), [[1.0], [2.0]])
    array([[1., 1., 1.],
           [2., 2., 2.]])
    """
    x = symbolic(x)
    if len(shape) == 1 and isinstance(shape[0], (tuple, list)):
        shape = tuple(shape[0])
    graph = graph_of(x)
    front = len(shape) - x.ndim
    wanted = tuple(
        x.shape[d - front] if n == -1 and d >= front else whole(n) for d, n in enumerate(shape)
    )
    fits = front >= 0 and all(
        n == w or n == 1 for n, w in zip(x.shape, wanted[max(front, 0) :], strict=True)
    )
    if not fits or min(wanted, default=1) < 1:
        raise ShapeError(
            f"{where(graph.scope)}expand: cannot repeat shape {x.shape} to {tuple(shape)}; "
            "expected the same extents but where x has 1, and new ones at the front"
        )
    return x if wanted == x.shape else expanded(x, wanted)


def concatenate(*parts: Any, axis: int = -1) -> Value:
    """Concatenate along an axis, by default the last.

    >>> testing.apply(lambda a, b: ops.concatenate(a, b), [[1.0, 2.0]], [[3.0]])
    array([[1., 2., 3.]])
    """
    if len(parts) == 1 and isinstance(parts[0], Sequence):
        parts = tuple(parts[0])
    graph = graph_of(*parts)
    values = [float_value(as_value(graph, p), "concatenate") for p in parts]
    return join(graph, values, whole_axes(values[0], axis, "concatenate")[0])


def stack(*parts: Any, axis: int = 0) -> Value:
    """Stack values of equal shape along a new axis, at position `axis` of the result.

    Raises ShapeError for shapes that differ.

    >>> testing.apply(lambda a, b: ops.stack(a, b, axis=1), [[1.0, 2.0]], [[3.0, 4.0]])
    array([[[1., 2.],
            [3., 4.]]])
    """
    if len(parts) == 1 and isinstance(parts[0], Sequence):
        parts = tuple(parts[0])
    graph = graph_of(*parts)
    values = [float_value(as_value(graph, p), "stack") for p in parts]
    if len({v.shape for v in values}) != 1:
        raise ShapeError(
            f"{where(graph.scope)}stack: expected values of one shape, got "
            f"{[v.shape for v in values]}"
        )
    rank = values[0].ndim + 1
    return concatenate([unsqueeze(v, axis) for v in values], axis=axis % rank)


publish(globals(), FunctionType)
