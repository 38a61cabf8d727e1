"""Where each buffer lies: offsets in one piece of work memory, shared by buffers in turn."""

from __future__ import annotations

from collections.abc import Sequence

from fastnn.graph.graph import Value
from fastnn.plan.schedule import Phase

ALIGNMENT = 64


def lifetimes(phases: Sequence[Phase]) -> dict[Value, tuple[int, int]]:
    """For each work buffer the first and last phase that touches it."""
    lives: dict[Value, tuple[int, int]] = {}
    for number, phase in enumerate(phases):
        for instruction in [i for g in phase.groups for i in g.instructions] + phase.serial:
            for access in instruction.accesses:
                if access.root.home == "work":
                    first, _ = lives.get(access.root, (number, number))
                    lives[access.root] = (first, number)
    return lives


def place(
    lives: dict[Value, tuple[int, int]], sizes: dict[Value, int]
) -> tuple[dict[Value, int], int]:
    """Offsets for all buffers and the total size in bytes.

    Buffers alive in a common phase get disjoint memory. Large ones are placed first, each at the
    lowest offset that is free for its whole life.
    """
    offsets: dict[Value, int] = {}
    total = 0
    order = sorted(lives, key=lambda v: (-sizes[v], lives[v]))
    for value in order:
        first, last = lives[value]
        taken = sorted(
            (offsets[other], offsets[other] + _padded(sizes[other]))
            for other in offsets
            if lives[other][0] <= last and first <= lives[other][1]
        )
        offset = 0
        for begin, end in taken:
            if begin - offset >= _padded(sizes[value]):
                break
            offset = max(offset, end)
        offsets[value] = offset
        total = max(total, offset + _padded(sizes[value]))
    return offsets, total


def _padded(size: int) -> int:
    return -(-max(size, 1) // ALIGNMENT) * ALIGNMENT
