"""The order of a program on a GPU: one launch after the other."""

from __future__ import annotations

from collections.abc import Sequence

from fastnn.plan.instruction import Repeated, Work
from fastnn.plan.schedule import Phase, Phases


def in_order(instructions: Sequence[Work]) -> list[Phase | Phases]:
    """A phase for each instruction, in the graph's order; those of the step's very end come last.

    A launch is split among a GPU's processors by the GPU, so there is nothing to group: each
    instruction is serial here. A buffer's memory is free again after the last launch that reads it.
    """
    return [
        Phases(work.loop, in_order(work.body)) if isinstance(work, Repeated) else Phase([], [work])
        for work in sorted(instructions, key=lambda i: i.final)
    ]
