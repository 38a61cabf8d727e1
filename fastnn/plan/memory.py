"""Where each buffer lies: offsets in one piece of work memory, shared by buffers in turn.

A buffer that only one group uses, item by item, needs memory for a block of items only, which each
worker has for itself and uses again for the next block: it is *local*. So a weight's gradient that
nobody but the update reads never leaves the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from fastnn.graph.value import Repeat, Value
from fastnn.plan.schedule import Group, Phase, Phases, leaves

#: memory of which a step of these loops needs nothing that was there before it
Private = Mapping[Value, tuple[Repeat, ...]]

#: bytes that a buffer's place is a multiple of: a cache line, on a GPU what its memory is moved by
ALIGNMENT = {"cpu": 64, "cuda": 256}


#: local memory of a block, at most: it has to stay in L2 beside what the group reads
LOCAL_BYTES = 1 << 19


def local_buffers(phases: Sequence[Phase | Phases], kept: Iterable[Value]) -> dict[Value, Group]:
    """The buffers that one group alone uses, each item its own rows, and that group.

    A group in a loop of phases comes to its items again in the next step, and finds other items in
    its memory. It has no use for what was there: nobody but the group has written to the buffer, so
    before the first step there was nothing to read.
    """
    users: dict[Value, Group | None] = dict.fromkeys(kept)
    for phase in leaves(phases):
        for group in [*phase.groups, None]:
            for instruction in group.instructions if group else phase.serial:
                for access in instruction.accesses:
                    root = access.root
                    if root.segment != "work" or root.dtype != "f":
                        continue
                    whole = access.span.hull() == (0, root.size) and not any(access.span.strides)
                    alone = group is not None and group is users.setdefault(root, group)
                    if not (alone and whole and access.axis == "rows"):
                        users[root] = None
    return {
        root: group
        for root, group in users.items()
        if group is not None and group.block < group.items and root.size % group.items == 0
    }


def _roots(phase: Phase) -> dict[Value, None]:
    """What a phase touches, in order."""
    work = [*(i for g in phase.groups for i in g.instructions), *phase.serial]
    return dict.fromkeys(access.root for i in work for access in i.accesses)


def place_local(
    local: dict[Value, Group], sizes: dict[Value, int]
) -> tuple[dict[Value, tuple[int, int]], int]:
    """For each local buffer its offset and the bytes of an item, and the size for one worker.

    Shortens the blocks of groups whose local buffers would not stay in the cache.
    """
    found: dict[Value, tuple[int, int]] = {}
    total = 0
    for group in dict.fromkeys(local.values()):
        mine = {v: sizes[v] // group.items for v, g in local.items() if g is group}
        fewest = max(i.fewest for i in group.instructions)
        block = max(LOCAL_BYTES // sum(mine.values()), fewest)
        block = max(block // group.grain, 1) * group.grain
        group.block = min(group.block, block)
        offset = 0
        for value, per_item in mine.items():
            found[value] = offset, per_item
            offset += padded(group.block * per_item, ALIGNMENT["cpu"])
        total = max(total, offset)
    return found, total


def lifetimes(
    phases: Sequence[Phase | Phases], private: Private, first: int = 0
) -> dict[Value, tuple[int, int]]:
    """For each work buffer the first and last phase that touches it, counted from `first` on.

    What a loop of phases touches lives as long as the loop, unless it is of use in one step only.
    So does what the loop looks at to see whether it goes on, be it that no call does.
    """
    lives: dict[Value, tuple[int, int]] = {}
    number = first
    for phase in phases:
        if isinstance(phase, Phases):
            found = lifetimes(phase.body, private, number)
            last = number + sum(1 for _ in leaves(phase.body)) - 1
            if phase.loop.running is not None:
                found[phase.loop.running.root] = number, last
            found = {
                root: life if phase.loop in private.get(root, ()) else (number, last)
                for root, life in found.items()
            }
        else:
            last = number
            found = {root: (number, number) for root in _roots(phase) if root.segment == "work"}
        for root, (begin, end) in found.items():
            lives[root] = lives.get(root, (begin, end))[0], end
        number = last + 1
    return lives


def place(
    lives: dict[Value, tuple[int, int]], sizes: dict[Value, int], alignment: int,
    in_turn: Callable[[Value, Value], bool] | None = None,
) -> tuple[dict[Value, int], int]:  # fmt: skip
    """Offsets for all buffers and the total size in bytes.

    Buffers alive in a common phase get disjoint memory. Large ones are placed first, each at the
    lowest offset that is free for its whole life. With `in_turn` only two for which it is true
    share memory, where launches run side by side.
    """
    offsets: dict[Value, int] = {}
    sizes = {value: padded(size, alignment) for value, size in sizes.items()}
    total = 0
    order = sorted(lives, key=lambda v: (-sizes[v], lives[v]))
    for value in order:
        first, last = lives[value]
        taken = sorted(
            (offsets[other], offsets[other] + sizes[other])
            for other in offsets
            if (lives[other][0] <= last and first <= lives[other][1])
            or (in_turn is not None and not in_turn(value, other))
        )
        offset = 0
        for begin, end in taken:
            if begin - offset >= sizes[value]:
                break
            offset = max(offset, end)
        offsets[value] = offset
        total = max(total, offset + sizes[value])
    return offsets, total


def padded(size: int, alignment: int) -> int:
    return -(-max(size, 1) // alignment) * alignment
