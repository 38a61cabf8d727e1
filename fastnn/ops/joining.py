"""Ops that only rearrange: other shapes, joins, and slices of one axis."""

from __future__ import annotations

from fastnn.errors import ShapeError, where
from fastnn.graph.graph import Graph, runs_over_batch
from fastnn.graph.node import Node
from fastnn.graph.op import Op, Shape
from fastnn.graph.value import Value
from fastnn.ops.declare import floats, op, output


def _reshape_placement(node: Node) -> None:
    x, y = node.inputs["x"], node.outputs["y"]
    assert x is not None
    y.base, y.segment = x, x.root.segment
    y.batched = x.batched and runs_over_batch(y, y.shape)


def reshaped(graph: Graph, x: Value, shape: tuple[int, ...], batched: bool) -> Value:
    """x under another shape, where it is known whether the batch is its first dimension."""
    y: Value = graph.apply("reshape", x=x, shape=shape)
    y.batched = batched
    return y


def _reshape_gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    x = node.inputs["x"]
    assert x is not None
    return {"x": reshaped(graph, douts["y"], x.shape, x.batched)}


@op(placement=_reshape_placement, gradient=_reshape_gradient)
def _reshape(x: Value, shape: Shape = (-1,)) -> Value:
    extents, known = list(shape), 1
    for extent in extents:
        known *= 1 if extent == -1 else extent
    if extents.count(-1) == 1 and known and x.size % known == 0:
        extents[extents.index(-1)] = x.size // known
        known = x.size
    if known != x.size or -1 in extents:
        raise ShapeError(
            f"{where(x.graph.scope)}reshape: expected a shape of {x.size} elements, got {shape} "
            f"for an input of shape {x.shape}"
        )
    return output(tuple(extents), x.dtype)


def _joined(node: Node) -> None:
    parts = [x for x in node.inputs.values() if x is not None]
    node.outputs["y"].batched = node.attrs["axis"] > 0 and any(p.batched for p in parts)


def _concatenate_gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    found, offset, axis = {}, 0, node.attrs["axis"]
    for name, part in node.inputs.items():
        assert part is not None
        width = part.shape[axis]
        if name in needed:
            cut: Value = graph.apply("slice", x=douts["y"], offset=offset, width=width, axis=axis)
            cut.batched = part.batched
            found[name] = cut
        offset += width
    return found


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
    shape = (*first[:axis], sum(p.shape[axis] for p in parts), *first[axis + 1 :])
    op = Op(
        "concatenate", inputs=names, defaults={"axis": axis},
        shape=lambda *_: {"y": (shape, "f")}, placement=_joined, gradient=_concatenate_gradient,
    )  # fmt: skip
    result: Value = graph.apply(op, **dict(zip(names, parts, strict=True)))
    return result


def _slice_placement(node: Node) -> None:
    x, y = node.inputs["x"], node.outputs["y"]
    assert x is not None
    y.batched = x.batched and node.attrs["axis"] % x.ndim > 0


def _slice_gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    x = node.inputs["x"]
    assert x is not None
    place = {"offset": node.attrs["offset"], "axis": node.attrs["axis"]}
    dx: Value = graph.apply("slice_into", x=douts["y"], shape=x.shape, **place)
    dx.batched = x.batched
    return {"x": dx}


@op(placement=_slice_placement, gradient=_slice_gradient)
def _slice(x: Value, offset: int = 0, width: int = 1, axis: int = -1) -> Value:
    axis %= x.ndim
    if offset < 0 or width < 1 or offset + width > x.shape[axis]:
        raise ShapeError(
            f"{where(x.graph.scope)}slice: expected places within 0..{x.shape[axis]}, got "
            f"{offset}..{offset + width}"
        )
    return floats(*x.shape[:axis], width, *x.shape[axis + 1 :])


def _into_gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    x, offset, axis = node.inputs["x"], node.attrs["offset"], node.attrs["axis"]
    assert x is not None
    dx: Value = graph.apply("slice", x=douts["y"], offset=offset, width=x.shape[axis], axis=axis)
    dx.batched = x.batched
    return {"x": dx}


def _slices_joined(graph: Graph, nodes: list[Node]) -> Value | None:
    """Slices of different places, side by side, with zeros where there is none."""
    first = nodes[0].outputs["y"]
    axis, parts, end = nodes[0].attrs["axis"] % first.ndim, [], 0

    def zeros(width: int) -> None:
        if width:
            shape = (*first.shape[:axis], width, *first.shape[axis + 1 :])
            parts.append(graph.full(shape, 0.0, first.batched))

    for node in sorted(nodes, key=lambda n: int(n.attrs["offset"])):
        x, offset = node.inputs["x"], node.attrs["offset"]
        if x is None or node.attrs["axis"] % first.ndim != axis or offset < end:
            return None
        zeros(offset - end)
        parts.append(x)
        end = offset + x.shape[axis]
    zeros(first.shape[axis] - end)
    return concatenate(graph, parts, axis)


@op(placement=_slice_placement, gradient=_into_gradient, joined=_slices_joined)
def _slice_into(x: Value, shape: Shape = (), offset: int = 0, axis: int = -1) -> Value:
    """Zeros but for a slice: the gradient of `slice`."""
    return floats(*shape)
