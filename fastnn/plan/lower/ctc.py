"""Connectionist temporal classification: the memory that its kernels work in."""

from __future__ import annotations

from typing import Any

from fastnn.graph.node import Node
from fastnn.kernels.ctc.shared import ROOM_ON_CUDA, room_for
from fastnn.plan.lower.lowering import Lowering, forward


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
