"""The order of a program on a GPU: one launch after the other."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence

from fastnn.graph.value import Value
from fastnn.kernels.declare import declared_for_cuda
from fastnn.plan.branches import MOST_LAUNCHES
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


def in_turn(
    phases: Sequence[Phase | Phases], kept: Collection[Value]
) -> Callable[[Value, Value], bool]:
    """A function of two buffers: whether all launches that touch the one have to end before any
    that touches the other begins, whatever runs side by side. Then they may share memory.

    `kept`: buffers that are looked at after the step. Where a loop is, launches run in order.
    """
    works = [i for phase in phases if isinstance(phase, Phase) for i in phase.serial]
    if len(works) > MOST_LAUNCHES or any(isinstance(phase, Phases) for phase in phases):
        return lambda a, b: True
    before: list[int] = []  # bits of the launches that each one waits for
    users: dict[Value, int] = {}
    for k, phase in enumerate(phases):
        assert isinstance(phase, Phase)
        known = 0
        for j in reversed(range(k)):
            earlier = phases[j]
            assert isinstance(earlier, Phase)
            if not known >> j & 1 and any(
                conflict(a, b) for a in earlier.serial for b in phase.serial
            ):
                known |= before[j] | 1 << j
        before.append(known)
        for work in phase.serial:
            for access in work.accesses:
                users[access.root] = users.get(access.root, 0) | 1 << k
    ahead = {
        root: functools.reduce(
            int.__and__, (before[k] for k in range(len(phases)) if bits >> k & 1)
        )
        for root, bits in users.items()
    }
    last = frozenset(kept)

    def follows(a: Value, b: Value) -> bool:
        return b not in last and not users[b] & ~ahead[a]

    return lambda a, b: follows(a, b) or follows(b, a)


def _by_one_block(work: Instruction) -> bool:
    kernel = declared_for_cuda(work.kernel.name)
    return kernel is not None and kernel.traits.one_block
