"""The order of a program on a GPU: one launch after the other."""

from __future__ import annotations

from fastnn.plan.instruction import Instruction
from fastnn.plan.schedule import Phase


def in_order(instructions: list[Instruction]) -> list[Phase]:
    """A phase for each instruction, in the graph's order; those of the step's very end come last.

    A launch is split among a GPU's processors by the GPU, so there is nothing to group: each
    instruction is serial here. A buffer's memory is free again after the last launch that reads it.
    """
    ordered = sorted(instructions, key=lambda i: i.final)
    return [Phase([], [instruction]) for instruction in ordered]
