"""Connectionist temporal classification: the memory that its kernels work in."""

from __future__ import annotations

from typing import Any

from fastnn.graph.node import Node
from fastnn.kernels.ctc.decode import NODES, SCORES, STATES
from fastnn.kernels.ctc.shared import ROOM_ON_CUDA, room_for
from fastnn.plan.lower.lowering import Lowering, forward
from fastnn.plan.lower.products import need


@forward("ctc")
def _forward(to: Lowering, node: Node) -> None:
    """Both passes over the frames are made at once: what lies between them stays in the cache."""
    share = node.outputs["share"]
    samples, steps, columns = share.shape
    width, size = room_for(columns)
    more: dict[str, Any] = {"work": None}
    if to.device == "cpu":
        more["work"] = to.value((samples, size), name="states", batched=share.batched)
    else:
        width = ROOM_ON_CUDA * columns
    more["room"] = to.value((samples, steps, width), name="paths", batched=share.batched)
    to.call_for("ctc_forward", node, more)


@forward("ctc_align")
def _align(to: Lowering, node: Node) -> None:
    places = node.outputs["places"]
    states = 2 * need(node, "target").shape[1] + 1
    samples, steps = places.shape
    best = to.value((samples, states), "r", name="best", batched=places.batched)
    back = to.value((samples, steps, states), "i", name="back", batched=places.batched)
    to.call_for("ctc_align", node, {"best": best, "back": back})


@forward("ctc_beam")
def _beam(to: Lowering, node: Node) -> None:
    """The prefixes' tree and the states of those that are kept."""
    labels, beam = node.outputs["labels"], node.attrs["beam"]
    samples, _, steps = labels.shape
    sizes: dict[str, tuple[tuple[int, ...], str]] = {
        "nodes": ((samples, steps, NODES * beam), "i"),
        "scores": ((samples, SCORES * beam), "r"),
        "states": ((samples, STATES * beam), "i"),
    }
    given = {
        name: to.value(shape, kind, name=name, batched=labels.batched)
        for name, (shape, kind) in sizes.items()
    }
    to.call_for("ctc_beam", node, given)
