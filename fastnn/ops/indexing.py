"""Parts of arrays: slices, padding, and the choice of elements by index."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from types import FunctionType
from typing import Any

import numpy as np

from fastnn.errors import OptionError, ShapeError, where
from fastnn.graph.following import follows
from fastnn.graph.graph import Graph
from fastnn.graph.sizes import whole
from fastnn.graph.value import Value
from fastnn.ops.operands import float_value, symbolic, whole_axes
from fastnn.ops.shape import expand, reshape, transpose
from fastnn.public import publish


def split(x: Any, sizes: int | Sequence[int], axis: int = -1) -> list[Value]:
    """Split along an axis, into a number of equal parts or into parts of the given sizes.

    Raises ShapeError for parts that do not add up to the axis.

    >>> testing.apply(lambda x: tuple(ops.split(x, 2)), [[1.0, 2.0, 3.0, 4.0]])
    (array([[1., 2.]]), array([[3., 4.]]))
    """
    x = symbolic(x)
    place = whole_axes(x, axis, "split")[0]
    extent = x.shape[place]
    if isinstance(sizes, (int, np.integer)):
        if sizes < 1 or extent % sizes:
            raise ShapeError(
                f"{where(x.graph.scope)}split: expected a number of parts that divides {extent}, "
                f"got {sizes}; give the parts' sizes as a list"
            )
        sizes = [extent // sizes] * int(sizes)
    if sum(sizes) != extent or min(sizes) < 1:
        raise ShapeError(
            f"{where(x.graph.scope)}split: expected sizes above 0 that add up to {extent}, got "
            f"{list(sizes)}"
        )
    parts, begin = [], 0
    for size in sizes:
        parts.append(_slice(x, place, begin, whole(size)))
        begin += whole(size)
    return parts


def _slice(x: Value, axis: int, begin: int, size: int) -> Value:
    if size == x.shape[axis]:
        return x
    if x.dtype == "i":
        starts = tuple(begin if d == axis else 0 for d in range(x.ndim))
        counts = tuple(size if d == axis else n for d, n in enumerate(x.shape))
        ids: Value = x.graph.apply(
            "slice_steps", x=x, starts=starts, steps=(1,) * x.ndim, counts=counts
        )
        return ids
    result: Value = x.graph.apply("slice", x=x, offset=begin, width=size, axis=axis)
    return result


def columns(x: Any, begin: int, end: int) -> Value:
    """Features begin..end (exclusive) of the last dimension.

    >>> testing.apply(lambda x: ops.columns(x, 1, 3), [[1.0, 2.0, 3.0, 4.0]])
    array([[2., 3.]])
    """
    x = float_value(x, "columns")
    begin, end = whole(begin), whole(end)
    result: Value = x.graph.apply("slice", x=x, offset=begin, width=end - begin)
    return result


def _getitem(x: Any, key: Any) -> Value:
    """``x[key]`` with NumPy's basic indices: whole numbers, slices with any step, `...`, None."""
    x = symbolic(x)
    keys = list(key) if isinstance(key, tuple) else [key]
    used = sum(k is not None and k is not Ellipsis for k in keys)
    dots = sum(k is Ellipsis for k in keys)
    scope = where(x.graph.scope)
    if used > x.ndim or dots > 1:
        raise ShapeError(
            f"{scope}index {key!r}: expected at most {x.ndim} indices and one ... for shape "
            f"{x.shape}"
        )
    at = next((i for i, k in enumerate(keys) if k is Ellipsis), len(keys))
    keys[at : at + dots] = [slice(None)] * (x.ndim - used)
    starts: list[int] = []
    steps: list[int] = []
    counts: list[int] = []
    shape: list[int] = []
    for k in keys:
        if k is None:
            shape.append(1)
            continue
        extent = x.shape[len(starts)]
        if isinstance(k, slice):
            begin, step, count = _cut(k, extent)
            if count == 0:
                raise ShapeError(f"{scope}index {key!r}: selects nothing of shape {x.shape}")
            shape.append(count)
        else:
            begin, step, count = _whole(x, k, extent, len(starts)), 1, 1
        starts.append(begin)
        steps.append(step if count > 1 else 1)
        counts.append(count)
    if any(step != 1 for step in steps):
        x = x.graph.apply(
            "slice_steps", x=x, starts=tuple(starts), steps=tuple(steps), counts=tuple(counts)
        )
    else:
        for axis, (begin, count) in enumerate(zip(starts, counts, strict=True)):
            x = _slice(x, axis, begin, count)
    return x if x.shape == tuple(shape) else reshape(x, tuple(shape))


def _cut(k: slice, extent: int) -> tuple[int, int, int]:
    """The first element of a slice, the distance of its elements, and how many there are."""
    if k.step in (None, 1):
        ends = [(k.start, 0), (k.stop, extent)]
        begin, end = (_end(otherwise if n is None else n, extent) for n, otherwise in ends)
        return begin, 1, max(end - begin, 0)
    begin, end, step = k.indices(extent)
    return begin, step, len(range(begin, end, step))


def _end(n: Any, extent: int) -> int:
    """A slice's end within 0..extent, as Python understands it."""
    n = whole(operator.index(n)) if not follows(n) else n
    if n is extent:
        return extent
    if n < 0:
        return max(n + extent, 0)
    return min(n, extent)


def _whole(x: Value, k: Any, extent: int, axis: int) -> int:
    """A whole number that is an index of this axis."""
    scope = where(x.graph.scope)
    if isinstance(k, (bool, np.bool_)) or not hasattr(k, "__index__") or np.ndim(k):
        raise ShapeError(
            f"{scope}index of type {type(k).__name__}: expected whole numbers, slices, ... or None;"
            " for arrays of indices use ops.take or ops.gather, for masks ops.where"
        )
    index = k if follows(k) else operator.index(k)
    if not -extent <= index < extent:
        raise ShapeError(
            f"{scope}index {index}: expected {-extent}..{extent - 1} for axis {axis} of shape "
            f"{x.shape}"
        )
    return index % extent


def flip(x: Any, axis: int | Sequence[int] = -1) -> Value:
    """Reverse the order of the elements along one axis or several.

    Raises ShapeError for an axis that x does not have.

    >>> testing.apply(ops.flip, [[1.0, 2.0, 3.0]])
    array([[3., 2., 1.]])
    """
    x = symbolic(x)
    axes = whole_axes(x, axis, "flip")
    return _getitem(x, tuple(slice(None, None, -1 if d in axes else 1) for d in range(x.ndim)))


# ---------------------------------------------------------------- joining and cutting


def pad(x: Any, widths: Sequence[Any], mode: str = "constant", value: float = 0.0) -> Value:
    """Pad x with a border.

    Args:
        x: float values.
        widths: for each axis a pair (before, after).
        mode: "constant" (filled with `value`), or NumPy's "edge", "reflect" and "wrap", which
            repeat elements of x.
        value: what "constant" fills in.

    Raises OptionError for another `mode`; ShapeError unless there is a pair of widths from 0 on for
    each axis.

    >>> testing.apply(lambda x: ops.pad(x, [(0, 0), (1, 2)]), [[1.0, 2.0]])
    array([[0., 1., 2., 0., 0.]])
    """
    x = float_value(x, "pad")
    ends = [(whole(a), whole(b)) for a, b in widths]
    if len(ends) != x.ndim or min(n for pair in ends for n in pair) < 0:
        raise ShapeError(
            f"{where(x.graph.scope)}pad: expected {x.ndim} pairs of widths from 0 on, one for each "
            f"axis, got {list(widths)}"
        )
    if mode == "constant":
        before, after = (tuple(pair[side] for pair in ends) for side in (0, 1))
        result: Value = x.graph.apply("pad", x=x, before=before, after=after, value=float(value))
        return result
    if mode not in ("edge", "reflect", "wrap"):
        raise OptionError(
            f"pad: expected mode 'constant', 'edge', 'reflect' or 'wrap', got {mode!r}"
        )
    for axis, pair in enumerate(ends):
        if any(pair):
            x = take(x, np.pad(np.arange(x.shape[axis]), pair, mode), axis)  # type: ignore[call-overload]
    return x


# ---------------------------------------------------------------- by index


def _indices(graph: Graph, indices: Any, extent: int, name: str) -> Value:
    """Indices as integers within 0..extent-1: checked here, or with the data."""
    if isinstance(indices, Value):
        if indices.dtype != "i":
            raise ShapeError(
                f"{where(graph.scope)}{name}: expected integer indices, got floating-point values; "
                "convert the data with x.astype(np.int64)"
            )
        graph.limit(indices, 0, extent)
        return indices
    array = np.asarray(indices)
    if array.dtype.kind not in "iu" or array.size == 0:
        raise ShapeError(
            f"{where(graph.scope)}{name}: expected integer indices, got {array.dtype} of shape "
            f"{array.shape}; for masks use ops.where"
        )
    if array.min() < -extent or array.max() >= extent:
        raise ShapeError(
            f"{where(graph.scope)}{name}: expected indices within {-extent}..{extent - 1}, got "
            f"{array.min()}..{array.max()}"
        )
    return graph.constant(array.astype(np.int64) % extent, "i", name="indices")


def gather(x: Any, indices: Any, axis: int = -1) -> Value:
    """``y[..., k, ...] = x[..., indices[..., k, ...], ...]`` along an axis (PyTorch's `gather`,
    NumPy's `take_along_axis`).

    Args:
        x: float values.
        indices: integers, an array or a value of x's shape but for the axis. Negative ones count
            from the end in an array, and are refused in data.
        axis: along which to choose.

    Raises ShapeError for indices that are not integers or have another shape, and for constant ones
    out of range; others out of range raise DataError when data come in.

    >>> testing.apply(ops.gather, [[1.0, 2.0, 3.0]], [[2, 0]])
    array([[3., 1.]])
    """
    x = float_value(x, "gather")
    place = whole_axes(x, axis, "gather")[0]
    index = _indices(x.graph, indices, x.shape[place], "gather")
    others = [s[:place] + s[place + 1 :] for s in (x.shape, index.shape)]
    if index.ndim != x.ndim or others[0] != others[1]:
        raise ShapeError(
            f"{where(x.graph.scope)}gather: expected indices of shape {x.shape} but for axis "
            f"{place}, got {index.shape}; ops.take chooses the same places everywhere"
        )
    order = (*(d for d in range(x.ndim) if d != place), place)
    y: Value = x.graph.apply("gather", x=_rows(transpose(x, order)),
                             index=_rows(transpose(index, order)))  # fmt: skip
    shape = tuple(index.shape[d] for d in order)
    return transpose(reshape(y, shape), tuple(int(d) for d in np.argsort(order)))


def _rows(x: Value) -> Value:
    return x if x.ndim > 1 else reshape(x, (1, x.size))


def take(x: Any, indices: Any, axis: int = -1) -> Value:
    """The elements of an axis at `indices`, in their order (NumPy's `take`): the axis is replaced
    by the axes of `indices`. For rows of a table of parameters use `embedding`.

    Raises ShapeError for indices that are not integers, and for constant ones out of range; others
    out of range raise DataError when data come in.

    >>> testing.apply(lambda x: ops.take(x, [2, 0]), [[1.0, 2.0, 3.0]])
    array([[3., 1.]])
    """
    x = float_value(x, "take")
    place = whole_axes(x, axis, "take")[0]
    index = _indices(x.graph, indices, x.shape[place], "take")
    order = (*(d for d in range(x.ndim) if d != place), place)
    rows = _rows(transpose(x, order))
    wide = expand(reshape(index, (1,) * (rows.ndim - 1) + (index.size,)),
                  (*rows.shape[:-1], index.size))  # fmt: skip
    y: Value = x.graph.apply("gather", x=rows, index=wide)
    before = x.ndim - 1
    y = reshape(y, tuple(x.shape[d] for d in order[:-1]) + index.shape)
    back = (*range(place), *range(before, before + index.ndim), *range(place, before))
    return transpose(y, back) if y.ndim else y


publish(globals(), FunctionType)
