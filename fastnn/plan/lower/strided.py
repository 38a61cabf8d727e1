"""What rearranges by strides, joins and cuts."""

from __future__ import annotations

from typing import Any

from fastnn.graph.node import Node
from fastnn.graph.value import Value
from fastnn.plan.lower.lowering import Lowering, forward
from fastnn.plan.lower.products import need

Shape = tuple[int, ...]


def strides_of(shape: Shape) -> list[int]:
    """Distances of neighbours along each axis, in elements."""
    found = [1] * len(shape)
    for d in range(len(shape) - 2, -1, -1):
        found[d] = found[d + 1] * shape[d + 1]
    return found


def indices(to: Lowering, numbers: Any) -> Value:
    """A small array of integers for a kernel, one for equal contents."""
    flat = (n for line in numbers for n in (line if isinstance(line, list) else [line]))
    key = ("indices", len(numbers), *flat)
    if key not in to.memo:
        to.memo[key] = to.graph.integers(numbers, "indices")
    return to.memo[key]


def _merged(shape: Shape, strides: list[int]) -> tuple[list[list[int]], int, int]:
    """Axes as pairs (extent, stride), neighbours merged where one stride does; and the last one,
    the length and step of a run."""
    axes: list[list[int]] = []
    for extent, stride in zip(shape, strides, strict=True):
        if extent == 1:
            continue
        if axes and axes[-1][1] == stride * extent:
            axes[-1] = [axes[-1][0] * extent, stride]
        else:
            axes.append([extent, stride])
    width, step = axes.pop() if axes else (1, 1)
    return axes or [[1, 0]], width, step


def copy_strided(to: Lowering, x: Value, y: Value, strides: list[int], begin: int = 0) -> None:
    """y[i, j, ...] = x[begin + i*strides[0] + j*strides[1] + ...] in x's flat memory.

    Where the first axis stays as it is, each of its places is an item made of that place alone.
    """
    rows = x.shape[0] if x.ndim and y.ndim and x.shape[0] == y.shape[0] else 1
    inner = x.size // rows
    if rows > 1 and (strides[0] != inner or begin >= inner):
        rows, inner = 1, x.size
    if rows == 1 and y.dtype == "f":
        _copy_whole(to, x, y, strides, begin)
        return
    kept = 1 if rows > 1 else 0
    axes, width, step = _merged(y.shape[kept:], strides[kept:])
    to.call(
        "copy_strided_rows" if y.dtype == "f" else "copy_strided_integers",
        x=to.view(x, (rows, inner)),
        extents=indices(to, [a[0] for a in axes]),
        strides=indices(to, [a[1] for a in axes]),
        y=to.view(y, (rows, y.size // rows)),
        begin=begin,
        step=step,
        width=width,
    )


def _copy_whole(to: Lowering, x: Value, y: Value, strides: list[int], begin: int) -> None:
    """The copy where the first axis changes its place: an item is any row of y."""
    axes, width, step = _merged(y.shape, strides)
    if axes == [[1, 0]]:  # one row would be one item: as many as the first axis has places
        rows = next((n for n in y.shape if n != 1), 1)
        rows = 1 if rows == width else rows
        width //= rows
        axes = [[rows, width * step]]
    to.call(
        "copy_strided",
        x=x,
        extents=indices(to, [a[0] for a in axes]),
        strides=indices(to, [a[1] for a in axes]),
        y=to.view(y, (y.size // width, width)),
        begin=begin,
        step=step,
    )


def spread_strided(
    to: Lowering, x: Value, y: Value, starts: list[int], steps: list[int], fill: float = 0.0
) -> None:
    """y = x at places starts + j*steps of each axis, else `fill`.

    Where the first axis stays as it is, each of its places is an item.
    """
    kept = x.shape[0] == y.shape[0] and steps[0] == 1 and x.ndim > 1
    rows = x.shape[0] if kept else 1
    lines = [
        list(line)
        for line in zip(y.shape, starts, steps, x.shape, strides_of(x.shape), strict=True)
    ][kept:]
    width, start, step, count, _ = lines.pop()
    to.call(
        "spread_strided",
        x=to.view(x, (rows, x.size // rows)),
        axes=indices(to, lines or [[1, 0, 1, 1, 0]]),
        y=to.view(y, (rows, y.size // rows)),
        start=start,
        step=step,
        count=count,
        width=width,
        fill=fill,
    )


# ---------------------------------------------------------------- copies by strides


@forward("transpose")
def _transpose(to: Lowering, node: Node) -> None:
    x = need(node, "x")
    strides = strides_of(x.shape)
    copy_strided(to, x, node.outputs["y"], [strides[a] for a in node.attrs["axes"]])


@forward("expand")
def _expand(to: Lowering, node: Node) -> None:
    """x repeated along axes of which it has one place, or which it lacks at the front."""
    x, y = need(node, "x"), node.outputs["y"]
    shape = (1,) * (y.ndim - x.ndim) + x.shape
    strides = strides_of(shape)
    copy_strided(to, x, y, [0 if n == 1 else s for n, s in zip(shape, strides, strict=True)])


@forward("slice_steps")
def _slice_steps(to: Lowering, node: Node) -> None:
    x, a = need(node, "x"), node.attrs
    strides = strides_of(x.shape)
    begin = sum(s * n for s, n in zip(strides, a["starts"], strict=True))
    steps = [s * n for s, n in zip(strides, a["steps"], strict=True)]
    copy_strided(to, x, node.outputs["y"], steps, begin)


@forward("spread")
def _spread(to: Lowering, node: Node) -> None:
    a = node.attrs
    spread_strided(to, need(node, "x"), node.outputs["y"], list(a["starts"]), list(a["steps"]))


@forward("pad")
def _pad(to: Lowering, node: Node) -> None:
    x, a = need(node, "x"), node.attrs
    spread_strided(to, x, node.outputs["y"], list(a["before"]), [1] * x.ndim, a["value"])


# ---------------------------------------------------------------- joining and cutting


def _flat_axis(shape: Shape, axis: int) -> tuple[int, int]:
    """A shape as a matrix: what comes before the axis, and the axis with all behind it."""
    rows = 1
    for extent in shape[:axis]:
        rows *= extent
    size = 1
    for extent in shape[axis:]:
        size *= extent
    return rows, size


def _cut(to: Lowering, x: Value, axis: int) -> Value:
    """A value as the matrix of `_flat_axis`; as it is where its last axis is meant."""
    last = axis == x.ndim - 1 and x.ndim > 1
    return x if last else to.view(x, _flat_axis(x.shape, axis))


@forward("concatenate")
def _concatenate(to: Lowering, node: Node) -> None:
    axis, offset = node.attrs["axis"], 0
    whole = _cut(to, node.outputs["y"], axis)
    for name in node.op.inputs:
        part = need(node, name)
        to.call("insert_columns", x=_cut(to, part, axis), y=whole, offset=offset)
        offset += _flat_axis(part.shape, axis)[1]


def _place(x: Value, attrs: dict[str, Any]) -> tuple[int, int]:
    """The axis, and where a slice begins in a row of the matrix that it is cut from."""
    axis = attrs["axis"] % x.ndim
    return axis, attrs["offset"] * (_flat_axis(x.shape, axis)[1] // x.shape[axis])


@forward("slice")
def _slice(to: Lowering, node: Node) -> None:
    x, y = need(node, "x"), node.outputs["y"]
    axis, offset = _place(x, node.attrs)
    to.call("extract_columns", x=_cut(to, x, axis), y=_cut(to, y, axis), offset=offset)


@forward("slice_into")
def _slice_into(to: Lowering, node: Node) -> None:
    x, y = need(node, "x"), node.outputs["y"]
    axis, offset = _place(y, node.attrs)
    zeros = to.full(y.shape, 0.0, y.batched)
    to.call("affine", x=zeros, y=y, scale=1.0, shift=0.0)
    whole = _cut(to, y, axis)
    to.call("insert_columns", x=_cut(to, x, axis), y=whole, offset=offset)
