"""Ops that only rearrange."""

from __future__ import annotations

from typing import Any

import fastnn.kernels.cpu.shape  # noqa: F401
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


def concatenate(graph: Graph, parts: list[Value]) -> Value:
    """Join along the last dimension: a node of an op made for so many parts."""
    for part in parts:
        if part.shape[:-1] != parts[0].shape[:-1] or part.ndim < 1:
            raise ShapeError(
                f"{where(graph.scope)}concatenate: expected shapes equal but for the last "
                f"dimension, got {[p.shape for p in parts]}"
            )
    names = tuple(f"x{k}" for k in range(len(parts)))
    offsets = [sum(p.shape[-1] for p in parts[:k]) for k in range(len(parts))]
    shape = (*parts[0].shape[:-1], sum(p.shape[-1] for p in parts))

    def lower(graph: Graph, node: Node) -> None:
        y = node.outputs["y"]
        y.batched = any(p.batched for p in parts)
        for part, offset in zip(parts, offsets, strict=True):
            graph.call("insert_columns", x=part, y=y, offset=offset)

    def gradient(
        graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
    ) -> dict[str, Value]:
        found = {}
        for name, part, offset in zip(names, parts, offsets, strict=True):
            if name in needed:
                found[name] = graph.value(part.shape, batched=part.batched)
                graph.call("extract_columns", x=douts["y"], y=found[name], offset=offset)
        return found

    op = Op(
        "concatenate", inputs=names, shape=lambda *_: {"y": (shape, "f")}, lower=lower,
        gradient=gradient,
    )  # fmt: skip
    result: Value = graph.apply(op, **dict(zip(names, parts, strict=True)))
    return result


def _slice_shape(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    x, offset, width = inputs["x"], attrs["offset"], attrs["width"]
    if offset < 0 or width < 1 or offset + width > x.shape[-1]:
        raise ShapeError(
            f"{where(scope)}slice: expected columns within 0..{x.shape[-1]}, got "
            f"{offset}..{offset + width}"
        )
    return {"y": ((*x.shape[:-1], width), "f")}


def _slice_gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    x = node.inputs["x"]
    assert x is not None
    dx = graph.value(x.shape, batched=x.batched)
    zeros = graph.full(x.shape, 0.0, x.batched)
    graph.call("affine", x=zeros, y=dx, scale=1.0, shift=0.0)
    graph.call("insert_columns", x=douts["y"], y=dx, offset=node.attrs["offset"])
    return {"x": dx}


register(
    Op(
        "slice", defaults={"offset": 0, "width": 1}, shape=_slice_shape,
        forward="extract_columns", gradient=_slice_gradient,
    )
)  # fmt: skip
