"""The schedule: which instructions run between which barriers, and in which groups.

Two instructions that touch the same bytes, one of them writing, are *aligned* if their items are
split alike and each item touches only its own part: then every worker meets only its own data and
program order is enough. Otherwise a barrier has to stand between them.

A loop whose instructions are all aligned, those of a step with those of others, too, stands in a
group like an instruction: each worker takes its items through all steps without a barrier. The
steps of any other loop are phases: so are those of one that ends where its sequences do, if another
loop goes through the same steps.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from fastnn.graph.sizes import compute, most
from fastnn.graph.value import Repeat
from fastnn.plan.instruction import Access, Instruction, Repeated, Work
from fastnn.plan.spans import alike, apart

#: memory that the instructions of a group should touch per block, to stay in the L2 cache
BLOCK_BYTES = 256 * 1024
#: fewest batch rows in a block (the matrix product's tiles want several)
BLOCK_ROWS = 48


@dataclass(eq=False)
class Group:
    """Instructions that every worker runs on its share of `items`, block after block."""

    items: int
    grain: int
    block: int
    instructions: list[Work]


@dataclass
class Phase:
    """Groups without a barrier between them; then a barrier with its serial instructions."""

    groups: list[Group] = field(default_factory=list)
    serial: list[Instruction] = field(default_factory=list)


@dataclass
class Phases:
    """A loop whose steps are phases."""

    loop: Repeat
    body: list[Phase | Phases]


def leaves(phases: Sequence[Phase | Phases]) -> Iterator[Phase]:
    """All phases, each once."""
    for phase in phases:
        if isinstance(phase, Phases):
            yield from leaves(phase.body)
        else:
            yield phase


def conflict(a: Work, b: Work, shared: int = 0) -> str | None:
    """Between `a` and a later `b`: None, "aligned" (order suffices) or "barrier".

    Of the `shared` outermost loops around both they are in the same step.
    """
    result = None
    for x in a.accesses:
        for y in b.accesses:
            if x.memory != y.memory or not (x.writes or y.writes):
                continue
            if x.high <= y.low or y.high <= x.low:
                continue
            if apart(x.place, y.place, shared) or (x.flag and y.flag):
                continue
            if not aligned(a, x, b, y, shared):
                return "barrier"
            result = "aligned"
    return result


def aligned(a: Work, x: Access, b: Work, y: Access, shared: int = 0) -> bool:
    return (
        a.key is not None
        and a.key == b.key
        and x.axis == y.axis != "whole"
        and alike(x.place, y.place, shared)
    )


def schedule(instructions: list[Work], depth: int = 0) -> list[Phase | Phases]:
    """Assign instructions to phases and groups: each as early as its dependencies allow.

    `depth` is the number of loops around them, of which this is one step.
    """
    for work in instructions:
        if isinstance(work, Repeated):
            gather(work, depth)
    edges = dependencies(instructions, depth)
    phase_of = delayed(instructions, edges, earliest_phases(instructions, edges))
    count = 1 + max(phase_of, default=0)
    grains: dict[tuple[str, int], int] = {}
    for work in instructions:
        if work.key is not None:
            grains[work.key] = max(grains.get(work.key, 1), work.grain)
    waits: dict[Work, set[Work]] = {work: set() for work in instructions}
    for i, j, _ in edges:
        waits[instructions[j]].add(instructions[i])
    phases: list[Phase | Phases] = []
    for p in range(count):
        mine = [i for i, q in zip(instructions, phase_of, strict=True) if q == p]
        loops = [i for i in mine if isinstance(i, Repeated) and i.serial]
        serial = [i for i in mine if isinstance(i, Instruction) and i.serial]
        groups = _groups([i for i in mine if not i.serial], grains, waits)
        if groups or serial or not loops:
            phases.append(Phase(groups, serial))
        phases += [Phases(i.loop, schedule(i.body, depth + 1)) for i in loops]
    return phases


def gather(work: Repeated, depth: int) -> None:
    """Find out whether each item can go through all steps of a loop alone."""
    for inner in work.body:
        if isinstance(inner, Repeated):
            gather(inner, depth + 1)
    first = work.body[0]
    if work.loop.shares_mask or any(i.key is None or i.key != first.key for i in work.body):
        return
    for k, a in enumerate(work.body):
        for b in work.body[: k + 1]:  # in this step, or in others
            if conflict(b, a, depth) == "barrier":
                return
    work.key, work.items, work.multiplier = first.key, first.items, first.multiplier


#: (earlier, later, whether they have to be in different phases)
Edge = tuple[int, int, bool]


#: instructions that touched a span: the last one to write it, and those that have read it since
_Users = tuple[list[int], list[int]]


class _Touched:
    """Who touched which spans of a piece of memory last.

    Most spans are disjoint: these are in order. Those that overlap others are looked through.
    """

    def __init__(self) -> None:
        self.users: dict[tuple[int, int], _Users] = {}
        self.begins: list[int] = []  # of the disjoint spans
        self.disjoint: list[tuple[int, int]] = []
        self.overlapping: list[tuple[int, int]] = []

    def before(self, access: Access) -> Iterator[int]:
        """Whom an access has to come after."""
        begin, end = access.low, access.high
        found = self.disjoint[slice(*self._among(begin, end))]
        if self.overlapping:
            found += [span for span in self.overlapping if begin < span[1] and span[0] < end]
        for span in found:
            writers, readers = self.users[span]
            yield from writers
            if access.writes:
                yield from readers

    def _among(self, begin: int, end: int) -> tuple[int, int]:
        """From which to which of the disjoint spans something meets."""
        first = bisect.bisect_right(self.begins, begin)
        if first and self.disjoint[first - 1][1] > begin:
            first -= 1
        return first, max(first, bisect.bisect_left(self.begins, end))

    def note(self, access: Access, user: int) -> None:
        span = access.low, access.high
        if span not in self.users:
            first, last = self._among(*span)
            if first == last:
                self.begins.insert(first, span[0])
                self.disjoint.insert(first, span)
            else:
                self.overlapping.append(span)
            self.users[span] = ([], [])
        if access.flag or (access.writes and any(access.place.strides)):
            # one of many, or there may be gaps: what came before still has to be waited for
            self.users[span][0].append(user)
        elif access.writes:
            self.users[span] = ([user], [])
        else:
            self.users[span][1].append(user)


def dependencies(instructions: Sequence[Work], depth: int = 0) -> list[Edge]:
    """Pairs of instructions whose order matters, in the order of the later one.

    For each piece of memory only the last writer and the readers since are looked at: what came
    before is ordered through them. And parameters change after all kernels that may raise an
    exception, which ends the step at the next barrier: so it leaves the parameters as they were.
    After calls of the host so do running totals.
    """
    edges: list[Edge] = []
    last: dict[int | str, _Touched] = {}
    raising: list[int] = []
    hosts: list[int] = []
    for j, b in enumerate(instructions):
        found: set[int] = set()
        for access in b.accesses:
            if access.memory in last:
                found.update(last[access.memory].before(access))
        for i in sorted(found):
            a = instructions[i]
            kind = conflict(a, b, depth)
            if kind is not None:
                edges.append((i, j, kind == "barrier" and _later(a, b)))
        if raising and _updates(b):
            edges += [(i, j, _later(instructions[i], b)) for i in raising]
        elif hosts and _writes(b, "totals"):
            edges += [(i, j, _later(instructions[i], b)) for i in hosts]
        if b.may_raise:
            raising.append(j)
        if isinstance(b, Instruction) and b.kernel.traits.host:
            hosts.append(j)
        for access in b.accesses:
            last.setdefault(access.memory, _Touched()).note(access, j)
    return edges


def _later(a: Work, b: Work) -> bool:
    """Whether `b`, which has to come after `a`, can't be in the same phase."""
    phases = isinstance(b, Repeated) or (isinstance(a, Repeated) and a.serial)
    return phases or not b.serial


def earliest_phases(instructions: Sequence[Work], edges: list[Edge]) -> list[int]:
    """For each instruction the first phase in which it can run.

    A serial instruction runs at the end of its phase: it may use what that phase has written;
    what it writes itself can be used in the next phase (or by a later serial instruction). A loop
    of phases follows the phase of its number.
    """
    phase_of = [0] * len(instructions)
    for i, j, later in edges:
        phase_of[j] = max(phase_of[j], phase_of[i] + later)
    last = max(phase_of, default=0)
    at_end = [i for i, p in zip(instructions, phase_of, strict=True) if p == last]
    if any(i.serial and isinstance(i, Repeated) for i in at_end):
        last += any(i.final for i in instructions)
    return [last if i.final else p for i, p in zip(instructions, phase_of, strict=True)]


def delayed(instructions: Sequence[Work], edges: list[Edge], phase_of: list[int]) -> list[int]:
    """Move batch work that nobody needs earlier into the phase of its first aligned user.

    So a mini-batch is gathered right before the layer that reads it, while it is in the cache; and
    a weight's gradient is computed where its update takes it from the cache.
    """
    result = list(phase_of)
    users: dict[int, list[tuple[int, bool]]] = {}
    for i, j, later in edges:
        users.setdefault(i, []).append((j, later))
    for i in range(len(instructions) - 1, -1, -1):
        mine = instructions[i]
        if mine.key is None or i not in users or any(access.flag for access in mine.accesses):
            continue
        if mine.key[0] == "batch" or any(
            not later and _updates(instructions[j]) for j, later in users[i]
        ):
            result[i] = max(result[i], min(result[j] - later for j, later in users[i]))
    return result


def _updates(instruction: Work) -> bool:
    """Whether it changes a parameter (and what an optimiser keeps for it)."""
    return _writes(instruction, "params")


def _writes(instruction: Work, segment: str) -> bool:
    return any(a.writes and a.root.segment == segment for a in instruction.accesses)


#: for each instruction those that it has to come after (or after what comes after them)
_Waits = Mapping[Work, set[Work]]


def _groups(
    instructions: Sequence[Work], grains: dict[tuple[str, int], int], waits: _Waits
) -> list[Group]:
    """Gather instructions with equal keys, keeping the order wherever one depends on another."""
    groups: list[Group] = []
    remaining = list(instructions)
    while remaining:
        key = remaining[0].key
        taken: list[Work] = []
        left: dict[Work, None] = {}
        for instruction in remaining:
            if instruction.key == key and waits[instruction].isdisjoint(left):
                taken.append(instruction)
            else:
                left[instruction] = None
        assert key is not None
        parts = [taken] if key[0] == "batch" else _connected(taken, waits)
        groups.extend(_group(part, grains[key]) for part in parts)
        remaining = list(left)
    return groups


def _connected(instructions: Sequence[Work], waits: _Waits) -> list[list[Work]]:
    """Split a group of weight instructions into those that share data: one for each weight."""
    parts: list[list[Work]] = []
    for instruction in instructions:
        joined = [p for p in parts if not waits[instruction].isdisjoint(p)]
        merged = [i for p in joined for i in p] + [instruction]
        parts = [p for p in parts if not any(p is q for q in joined)] + [merged]
    return parts


def _group(instructions: list[Work], grain: int) -> Group:
    first = instructions[0]
    block = block_of(instructions, grain)
    return Group(first.items, grain, min(block, max(first.items, 1)), instructions)


def block_of(instructions: Sequence[Work], grain: int) -> int:
    """How many items make a block: what fits in the cache, but no less than what its calls read as
    a whole, and no fewer items than a kernel asks for."""
    first = instructions[0]
    per_item = sum(i.bytes_per_item for i in instructions)
    whole = sum(i.whole_bytes for i in instructions)
    samples = first.key is not None and first.key[0] == "batch"
    rows = first.multiplier if samples else 0
    fewest = most(*(i.fewest for i in instructions))
    found: int = compute(_block, per_item, whole, rows, fewest, grain)
    return found


def _block(per_item: int, whole: int, rows: int, fewest: int, grain: int) -> int:
    """`block_of`, in numbers; `rows`: of each sample, where items are samples."""
    block = max(BLOCK_BYTES, whole) // max(per_item, 1)
    if rows:
        block = max(block, BLOCK_ROWS // rows, 1)
    return max(max(block, fewest) // grain, 1) * grain
