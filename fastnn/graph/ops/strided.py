"""Ops that rearrange by strides: transpose, repeated axes, slices with steps, padding; gather."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn.errors import ShapeError, where
from fastnn.graph.graph import Graph, Node, Value
from fastnn.graph.op import Op, register

Shape = tuple[int, ...]


def strides_of(shape: Shape) -> list[int]:
    """Distances of neighbours along each axis, in elements."""
    found = [1] * len(shape)
    for d in range(len(shape) - 2, -1, -1):
        found[d] = found[d + 1] * shape[d + 1]
    return found


def _indices(graph: Graph, numbers: Any) -> Value:
    """A small array of integers for a kernel, one for equal contents."""
    array = np.asarray(numbers, np.int64)
    key = ("indices", array.shape, array.tobytes())
    if key not in graph.leaves:
        graph.leaves[key] = graph.constant(array, "i", name="indices")
    return graph.leaves[key]


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


def copy_strided(graph: Graph, x: Value, y: Value, strides: list[int], begin: int = 0) -> None:
    """y[i, j, ...] = x[begin + i*strides[0] + j*strides[1] + ...] in x's flat memory.

    Where the first axis stays as it is, each of its places is an item made of that place alone.
    """
    rows = x.shape[0] if x.ndim and y.ndim and x.shape[0] == y.shape[0] else 1
    inner = x.size // rows
    if rows > 1 and (strides[0] != inner or begin >= inner):
        rows, inner = 1, x.size
    if rows == 1 and y.dtype == "f":
        _copy_whole(graph, x, y, strides, begin)
        return
    kept = 1 if rows > 1 else 0
    axes, width, step = _merged(y.shape[kept:], strides[kept:])
    graph.call(
        "copy_strided_rows" if y.dtype == "f" else "copy_strided_integers",
        x=graph.view(x, (rows, inner)),
        extents=_indices(graph, [a[0] for a in axes]),
        strides=_indices(graph, [a[1] for a in axes]),
        y=graph.view(y, (rows, y.size // rows)),
        begin=begin,
        step=step,
        width=width,
    )


def _copy_whole(graph: Graph, x: Value, y: Value, strides: list[int], begin: int) -> None:
    """The copy where the first axis changes its place: an item is any row of y."""
    axes, width, step = _merged(y.shape, strides)
    if axes == [[1, 0]]:  # one row would be one item: as many as the first axis has places
        rows = next((n for n in y.shape if n != 1), 1)
        rows = 1 if rows == width else rows
        width //= rows
        axes = [[rows, width * step]]
    graph.call(
        "copy_strided",
        x=x,
        extents=_indices(graph, [a[0] for a in axes]),
        strides=_indices(graph, [a[1] for a in axes]),
        y=graph.view(y, (y.size // width, width)),
        begin=begin,
        step=step,
    )


def spread_strided(
    graph: Graph, x: Value, y: Value, starts: list[int], steps: list[int], fill: float = 0.0
) -> None:
    """y = x at places starts + j*steps of each axis, else `fill`."""
    kept = x.shape[0] == y.shape[0] and x.ndim > 1
    rows = x.shape[0] if kept else 1
    lines = [
        list(line)
        for line in zip(y.shape, starts, steps, x.shape, strides_of(x.shape), strict=True)
    ][kept:]
    width, start, step, count, _ = lines.pop()
    graph.call(
        "spread_strided",
        x=graph.view(x, (rows, x.size // rows)),
        axes=_indices(graph, lines or [[1, 0, 1, 1, 0]]),
        y=graph.view(y, (rows, y.size // rows)),
        start=start,
        step=step,
        count=count,
        width=width,
        fill=fill,
    )


# ---------------------------------------------------------------- transpose


def _transpose_shape(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    x = inputs["x"]
    return {"y": (tuple(x.shape[a] for a in attrs["axes"]), x.dtype)}


def _transpose(graph: Graph, x: Value, y: Value, axes: Shape) -> None:
    strides = strides_of(x.shape)
    copy_strided(graph, x, y, [strides[a] for a in axes])


def _transpose_lower(graph: Graph, node: Node) -> None:
    x, y, axes = node.inputs["x"], node.outputs["y"], node.attrs["axes"]
    assert x is not None
    y.batched = x.batched and axes[0] == 0
    _transpose(graph, x, y, axes)


def _transpose_gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    x, axes = node.inputs["x"], node.attrs["axes"]
    assert x is not None
    dx = graph.value(x.shape, batched=x.batched)
    _transpose(graph, douts["y"], dx, tuple(axes.index(a) for a in range(len(axes))))
    return {"x": dx}


register(
    Op("transpose", defaults={"axes": ()}, shape=_transpose_shape, lower=_transpose_lower,
       gradient=_transpose_gradient)
)  # fmt: skip

# ---------------------------------------------------------------- repeated axes


def _expand_shape(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    return {"y": (attrs["shape"], inputs["x"].dtype)}


def expand(graph: Graph, x: Value, y: Value) -> None:
    """y = x, repeated along axes of which x has one place, or which it lacks at the front."""
    shape = (1,) * (y.ndim - x.ndim) + x.shape
    strides = strides_of(shape)
    copy_strided(graph, x, y, [0 if n == 1 else s for n, s in zip(shape, strides, strict=True)])


def _expand_lower(graph: Graph, node: Node) -> None:
    x, y = node.inputs["x"], node.outputs["y"]
    assert x is not None
    y.batched = node.attrs["batched"] or (x.batched and x.ndim == y.ndim)
    expand(graph, x, y)


def _expand_gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    x, dy = node.inputs["x"], douts["y"]
    assert x is not None
    shape = (1,) * (dy.ndim - x.ndim) + x.shape
    repeated = tuple(d for d, n in enumerate(shape) if n == 1 and dy.shape[d] != 1)
    return {"x": graph.view(sum_over(graph, dy, repeated), x.shape, x.batched)}


def sum_over(graph: Graph, x: Value, axes: Shape) -> Value:
    """The sum over these axes, which are left out: rows of a matrix, in a fixed order."""
    kept = tuple(d for d in range(x.ndim) if d not in axes)
    shape = tuple(x.shape[d] for d in kept)
    size = int(np.prod(shape, dtype=np.int64))
    if size == x.size:
        return graph.view(x, shape, False)
    y = graph.value(shape)
    if kept == tuple(range(x.ndim - len(kept), x.ndim)):  # over the first axes
        graph.call("sum_rows", x=graph.view(x, (x.size // size, size)), y=y)
        return y
    if kept != tuple(range(len(kept))):
        moved = graph.value((*shape, *(x.shape[d] for d in axes)), batched=x.batched and 0 in kept)
        _transpose(graph, x, moved, (*kept, *axes))
        x = moved
    y.batched = x.batched and 0 in kept
    graph.call("sum_columns", x=graph.view(x, (size, x.size // size)), y=y)
    return y


register(
    Op("expand", defaults={"shape": (), "batched": False}, shape=_expand_shape,
       lower=_expand_lower, gradient=_expand_gradient)
)  # fmt: skip

# ---------------------------------------------------------------- slices with steps, padding


def _steps_shape(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    return {"y": (attrs["counts"], inputs["x"].dtype)}


def _steps_lower(graph: Graph, node: Node) -> None:
    x, y, a = node.inputs["x"], node.outputs["y"], node.attrs
    assert x is not None
    y.batched = x.batched and y.shape[0] == x.shape[0] and a["steps"][0] == 1
    strides = strides_of(x.shape)
    begin = sum(s * n for s, n in zip(strides, a["starts"], strict=True))
    steps = [s * n for s, n in zip(strides, a["steps"], strict=True)]
    copy_strided(graph, x, y, steps, begin)


def _steps_gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    x, a = node.inputs["x"], node.attrs
    assert x is not None
    dx = graph.value(x.shape, batched=x.batched)
    spread_strided(graph, douts["y"], dx, list(a["starts"]), list(a["steps"]))
    return {"x": dx}


register(
    Op("slice_steps", defaults={"starts": (), "steps": (), "counts": ()}, shape=_steps_shape,
       lower=_steps_lower, gradient=_steps_gradient)
)  # fmt: skip


def _pad_shape(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    x, ends = inputs["x"], zip(attrs["before"], attrs["after"], strict=True)
    return {"y": (tuple(n + a + b for n, (a, b) in zip(x.shape, ends, strict=True)), "f")}


def _pad_lower(graph: Graph, node: Node) -> None:
    x, y, a = node.inputs["x"], node.outputs["y"], node.attrs
    assert x is not None
    y.batched = x.batched and x.shape[0] == y.shape[0]
    spread_strided(graph, x, y, list(a["before"]), [1] * x.ndim, a["value"])


def _pad_gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    x, dy = node.inputs["x"], douts["y"]
    assert x is not None
    dx = graph.value(x.shape, batched=x.batched)
    strides = strides_of(dy.shape)
    begin = sum(s * n for s, n in zip(strides, node.attrs["before"], strict=True))
    copy_strided(graph, dy, dx, strides, begin)
    return {"x": dx}


register(
    Op("pad", defaults={"before": (), "after": (), "value": 0.0}, shape=_pad_shape,
       lower=_pad_lower, gradient=_pad_gradient)
)  # fmt: skip

# ---------------------------------------------------------------- gather


def _gather_shape(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    x, index = inputs["x"], inputs["index"]
    if x.shape[:-1] != index.shape[:-1]:
        raise ShapeError(
            f"{where(scope)}gather: expected indices of shape {x.shape[:-1]} and any last extent, "
            f"got {index.shape}"
        )
    return {"y": (index.shape, "f")}


register(
    Op("gather", inputs=("x", "index"), shape=_gather_shape, forward="gather_columns",
       backward=("gather_columns_backward",))
)  # fmt: skip


def _compare_shape(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    return {"y": (inputs["a"].shape, "f")}


register(
    Op("compare_integers", inputs=("a", "b"), defaults={"relation": 0}, shape=_compare_shape,
       forward="compare_integers", gradient=lambda *_: {})
)  # fmt: skip
