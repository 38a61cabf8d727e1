"""Which launches of a program have to wait for which, and in how many branches they may run.

Launches that touch no common bytes, one of them writing, may run side by side: the two directions
of a recurrent net, a weight's gradient beside that of the layer before, sums and totals beside the
way back. What each one computes is the same wherever it runs, so the bits do not depend on it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from fastnn.plan.program import Operand, PlannedCall, Program, item_size

#: branches at most: so many parts of a GPU's work may be under way at once
MOST_BRANCHES = 8
#: launches of a program of which all pairs are compared; a longer one (many steps of a loop)
#: stays in one branch
MOST_LAUNCHES = 600
#: where an array of the caller's ends
END = 1 << 62


class Touch(NamedTuple):
    """Bytes of a segment that a launch touches; `how` is "r", "w", or "f" for flags."""

    segment: str
    begin: int
    end: int
    how: str


class Place(NamedTuple):
    """Where a launch runs: its branch, and the launches of other branches that it waits for."""

    branch: int
    waits: tuple[int, ...]


def touches_of(program: Program, call: PlannedCall) -> list[Touch]:
    """What a call touches; the call of one step, where it is in loops."""
    found = []
    for _, parameter, operand in call.arrays():
        how = "f" if parameter.mode == "flag" else "w" if parameter.writes else "r"
        found.append(_touch(program, operand, how))
    return found


def _touch(program: Program, operand: Operand, how: str) -> Touch:
    if operand.external:
        return Touch(operand.segment, 0, END, how)
    size = math.prod(operand.dims) * item_size(operand.dtype, program.dtype)
    return Touch(operand.segment, operand.offset, operand.offset + size, how)


def meet(a: Sequence[Touch], b: Sequence[Touch]) -> bool:
    """Whether two launches touch common bytes, one of them writing."""
    return any(
        x.segment == y.segment
        and x.how + y.how not in ("rr", "ff")
        and x.begin < y.end
        and y.begin < x.end
        for x in a
        for y in b
    )


def dependencies(touches: Sequence[Sequence[Touch]]) -> list[list[int]]:
    """For each launch the earlier ones that it waits for, without those that these wait for."""
    found: list[list[int]] = []
    before: list[int] = []  # bits of a launch and all that come before it
    for k, mine in enumerate(touches):
        known, own = 0, []
        for j in reversed(range(k)):
            if not known >> j & 1 and meet(touches[j], mine):
                own.append(j)
                known |= before[j]
        before.append(known | 1 << k)
        found.append(own)
    return found


def branches(touches: Sequence[Sequence[Touch]], most: int = MOST_BRANCHES) -> list[Place]:
    """Where each launch runs. A launch goes on where the last one that it waits for has run; what
    need not wait for any branch's end begins another one, as long as there are few."""
    if len(touches) > MOST_LAUNCHES or most < 2:
        return [Place(0, ()) for _ in touches]
    places: list[Place] = []
    last: list[int] = []  # of each branch
    before: list[int] = []
    for k, waits in enumerate(dependencies(touches)):
        known = 0
        for j in waits:
            known |= before[j]
        free = [b for b, end in enumerate(last) if known >> end & 1]
        follows = [b for j in waits for b in free if last[b] == j]
        if follows or free:
            branch = (follows or free)[0]
        elif len(last) < most:
            branch = len(last)
            last.append(k)
        else:
            branch = min(range(most), key=last.__getitem__)  # idle for longest
            known |= before[last[branch]]
        last[branch] = k
        before.append(known | 1 << k)
        places.append(Place(branch, tuple(j for j in waits if places[j].branch != branch)))
    return places


def longest(touches: Sequence[Sequence[Touch]]) -> int:
    """Launches that have to run one after the other, at least."""
    depth: list[int] = []
    for waits in dependencies(touches):
        depth.append(1 + max((depth[j] for j in waits), default=0))
    return max(depth, default=0)
