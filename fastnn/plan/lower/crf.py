"""Conditional random fields: the memory that their kernels work in."""

from __future__ import annotations

from fastnn.graph.node import Node
from fastnn.kernels.crf.shared import columns_for, room_for
from fastnn.plan.lower.lowering import Lowering, forward
from fastnn.plan.lower.products import need


@forward("crf")
def _forward(to: Lowering, node: Node) -> None:
    share, (_, steps, tags) = node.outputs["share"], need(node, "x").shape
    size = (share.shape[0], room_for(tags, steps))
    work = to.value(size, name="chains", batched=share.batched)
    to.call_for("crf_forward", node, {"work": work})


@forward("crf_decode")
def _decode(to: Lowering, node: Node) -> None:
    found, (samples, steps, tags) = node.outputs["tags"], need(node, "x").shape
    columns = columns_for(tags)
    best = to.value((samples, columns), name="best", batched=found.batched)
    came = to.value((samples, steps, columns), name="came", batched=found.batched)
    to.call_for("crf_decode", node, {"best": best, "came": came})
