"""The order of a program on a GPU: one launch after the other."""

from __future__ import annotations

from collections.abc import Sequence

from fastnn.kernels.declare import declared_for_cuda
from fastnn.plan.instruction import Instruction, Repeated, Work
from fastnn.plan.schedule import Phase, Phases, conflict


def in_order(instructions: Sequence[Work], depth: int = 0) -> list[Phase | Phases]:
    """A phase for each launch, in the graph's order; those of the step's very end come last.

    A launch is split among a GPU's processors by the GPU, so there is nothing to group: each
    instruction is serial here. What one block computes (sums of the loss, totals, the step count)
    waits until a larger launch needs it, or the step ends: all that waits is one launch, whose
    block does one after the other. (Not for a call of the host, which is left out in a step that is
    to stop.) A buffer's memory is free again after the last launch that reads it.

    `depth` is the number of loops around the instructions, of which this is one step.
    """
    found: list[Phase | Phases] = []
    waiting: list[Instruction] = []

    def launch_waiting() -> None:
        if waiting:
            found.append(Phase([], list(waiting)))
            waiting.clear()

    for work in sorted(instructions, key=lambda i: i.final):
        if isinstance(work, Instruction) and _by_one_block(work):
            waiting.append(work)
            continue
        if _is_of_host(work) or any(conflict(before, work, depth) for before in waiting):
            launch_waiting()
        if isinstance(work, Repeated):
            found.append(Phases(work.loop, in_order(work.body, depth + 1)))
        else:
            found.append(Phase([], [work]))
    launch_waiting()
    return found


def _is_of_host(work: Work) -> bool:
    return isinstance(work, Instruction) and work.kernel.traits.host


def _by_one_block(work: Instruction) -> bool:
    kernel = declared_for_cuda(work.kernel.name)
    return kernel is not None and kernel.traits.one_block
