"""Ops that only rearrange."""

from __future__ import annotations

from typing import Any

from fastnn.errors import ShapeError, where
from fastnn.graph.graph import Graph, Node, Value
from fastnn.graph.op import Op, register


def _reshape_shape(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    x, shape = inputs["x"], list(attrs["shape"])
    known = 1
    for extent in shape:
        known *= 1 if extent == -1 else extent
    if shape.count(-1) == 1 and known and x.size % known == 0:
        shape[shape.index(-1)] = x.size // known
        known = x.size
    if known != x.size or -1 in shape:
        raise ShapeError(
            f"{where(scope)}reshape: expected a shape of {x.size} elements, got {attrs['shape']} "
            f"for an input of shape {x.shape}"
        )
    return {"y": (tuple(shape), x.dtype)}


def _reshape_lower(graph: Graph, node: Node) -> None:
    x, y = node.inputs["x"], node.outputs["y"]
    assert x is not None
    y.base, y.home = x, x.root.home
    y.batched = x.batched and y.ndim > 0 and y.shape[0] % graph.batch == 0


def _reshape_gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    x = node.inputs["x"]
    assert x is not None
    return {"x": graph.view(douts["y"], x.shape, x.batched)}


register(
    Op(
        "reshape", defaults={"shape": (-1,)}, shape=_reshape_shape, lower=_reshape_lower,
        gradient=_reshape_gradient,
    )
)  # fmt: skip


def _flat_axis(shape: tuple[int, ...], axis: int) -> tuple[int, int]:
    """A shape as a matrix: what comes before the axis, and the axis with all behind it."""
    rows = 1
    for extent in shape[:axis]:
        rows *= extent
    size = 1
    for extent in shape[axis:]:
        size *= extent
    return rows, size


def _cut(graph: Graph, x: Value, axis: int) -> Value:
    """A value as the matrix of `_flat_axis`; as it is where its last axis is meant."""
    last = axis == x.ndim - 1 and x.ndim > 1
    return x if last else graph.view(x, _flat_axis(x.shape, axis))


def concatenate(graph: Graph, parts: list[Value], axis: int = -1) -> Value:
    """Join along an axis: a node of an op made for so many parts."""
    first = parts[0].shape
    axis %= max(len(first), 1)
    for part in parts:
        others = part.shape[:axis] + part.shape[axis + 1 :]
        if part.ndim != len(first) or part.ndim < 1 or others != first[:axis] + first[axis + 1 :]:
            raise ShapeError(
                f"{where(graph.scope)}concatenate: expected shapes equal but for axis {axis}, got "
                f"{[p.shape for p in parts]}"
            )
    names = tuple(f"x{k}" for k in range(len(parts)))
    sizes = [_flat_axis(p.shape, axis)[1] for p in parts]
    offsets = [sum(sizes[:k]) for k in range(len(parts))]
    shape = (*first[:axis], sum(p.shape[axis] for p in parts), *first[axis + 1 :])

    def lower(graph: Graph, node: Node) -> None:
        y = node.outputs["y"]
        y.batched = axis > 0 and any(p.batched for p in parts)
        whole = _cut(graph, y, axis)
        for part, offset in zip(parts, offsets, strict=True):
            graph.call("insert_columns", x=_cut(graph, part, axis), y=whole, offset=offset)

    def gradient(
        graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
    ) -> dict[str, Value]:
        found = {}
        whole = _cut(graph, douts["y"], axis)
        for name, part, offset in zip(names, parts, offsets, strict=True):
            if name in needed:
                found[name] = graph.value(part.shape, batched=part.batched)
                target = _cut(graph, found[name], axis)
                graph.call("extract_columns", x=whole, y=target, offset=offset)
        return found

    op = Op(
        "concatenate", inputs=names, shape=lambda *_: {"y": (shape, "f")}, lower=lower,
        gradient=gradient,
    )  # fmt: skip
    result: Value = graph.apply(op, **dict(zip(names, parts, strict=True)))
    return result


def _slice_shape(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    x, offset, width = inputs["x"], attrs["offset"], attrs["width"]
    axis = attrs["axis"] % x.ndim
    if offset < 0 or width < 1 or offset + width > x.shape[axis]:
        raise ShapeError(
            f"{where(scope)}slice: expected places within 0..{x.shape[axis]}, got "
            f"{offset}..{offset + width}"
        )
    return {"y": ((*x.shape[:axis], width, *x.shape[axis + 1 :]), "f")}


def _slice_place(x: Value, attrs: dict[str, Any]) -> tuple[int, int]:
    """The axis, and where the slice begins in a row of the matrix that it is cut from."""
    axis = attrs["axis"] % x.ndim
    return axis, attrs["offset"] * (_flat_axis(x.shape, axis)[1] // x.shape[axis])


def _slice_lower(graph: Graph, node: Node) -> None:
    x, y = node.inputs["x"], node.outputs["y"]
    assert x is not None
    axis, offset = _slice_place(x, node.attrs)
    y.batched = x.batched and axis > 0
    graph.call("extract_columns", x=_cut(graph, x, axis), y=_cut(graph, y, axis), offset=offset)


def _slice_gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    x = node.inputs["x"]
    assert x is not None
    axis, offset = _slice_place(x, node.attrs)
    dx = graph.value(x.shape, batched=x.batched)
    zeros = graph.full(x.shape, 0.0, x.batched)
    graph.call("affine", x=zeros, y=dx, scale=1.0, shift=0.0)
    whole = _cut(graph, dx, axis)
    graph.call("insert_columns", x=_cut(graph, douts["y"], axis), y=whole, offset=offset)
    return {"x": dx}


register(
    Op(
        "slice", defaults={"offset": 0, "width": 1, "axis": -1}, shape=_slice_shape,
        lower=_slice_lower, gradient=_slice_gradient,
    )
)  # fmt: skip
