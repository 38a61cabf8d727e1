"""The schedule: which instructions run between which barriers, and in which groups.

Two instructions that touch the same memory, one of them writing, are *aligned* if their items are
split alike and each item touches only its own part: then every worker meets only its own data and
program order is enough. Otherwise a barrier has to stand between them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from fastnn.graph.graph import Value
from fastnn.plan.instruction import Access, Instruction

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
    instructions: list[Instruction]


@dataclass
class Phase:
    """Groups without a barrier between them; then a barrier with its serial instructions."""

    groups: list[Group] = field(default_factory=list)
    serial: list[Instruction] = field(default_factory=list)


def conflict(a: Instruction, b: Instruction) -> str | None:
    """Between `a` and a later `b`: None, "aligned" (order suffices) or "barrier"."""
    result = None
    for x in a.accesses:
        for y in b.accesses:
            if x.root is not y.root or not (x.writes or y.writes):
                continue
            if x.end <= y.begin or y.end <= x.begin or (x.flag and y.flag):
                continue
            if not aligned(a, x, b, y):
                return "barrier"
            result = "aligned"
    return result


def aligned(a: Instruction, x: Access, b: Instruction, y: Access) -> bool:
    return (
        a.key is not None
        and a.key == b.key
        and x.axis == y.axis != "whole"
        and (x.begin, x.end) == (y.begin, y.end)
    )


def schedule(instructions: list[Instruction]) -> list[Phase]:
    """Assign instructions to phases and groups: each as early as its dependencies allow."""
    edges = dependencies(instructions)
    phase_of = delayed(instructions, edges, earliest_phases(instructions, edges))
    count = 1 + max(phase_of, default=0)
    grains: dict[tuple[str, int], int] = {}
    for instruction in instructions:
        if instruction.key is not None:
            grain = -(-instruction.kernel.grain // instruction.multiplier)
            grains[instruction.key] = max(grains.get(instruction.key, 1), grain)
    phases = []
    for p in range(count):
        mine = [i for i, q in zip(instructions, phase_of, strict=True) if q == p]
        parallel = [i for i in mine if not i.serial]
        phases.append(Phase(_groups(parallel, grains), [i for i in mine if i.serial]))
    return phases


#: (earlier, later, whether they have to be in different phases)
Edge = tuple[int, int, bool]


class _Touched:
    """Who touched which spans of a buffer last: the last writer, and the readers since."""

    def __init__(self) -> None:
        self.spans: dict[tuple[int, int], tuple[list[int], list[int]]] = {}
        self.size = 0  # of all spans, where they are slices of one size side by side; else -1

    def users(self, access: Access) -> Iterator[int]:
        """Whom an access has to come after."""
        span = (access.begin, access.end)
        if self._slice(access):
            found = [self.spans[span]] if span in self.spans else []
        else:
            found = [
                touched
                for (begin, end), touched in self.spans.items()
                if begin < access.end and access.begin < end
            ]
        for writers, readers in found:
            yield from writers
            if access.writes:
                yield from readers

    def _slice(self, access: Access) -> bool:
        return self.size == access.end - access.begin and access.begin % max(self.size, 1) == 0

    def note(self, access: Access, user: int) -> None:
        if not self.spans:
            size = access.end - access.begin
            self.size = size if access.begin % max(size, 1) == 0 else -1
        elif not self._slice(access):
            self.size = -1
        span = (access.begin, access.end)
        if access.flag:  # one of many: what came before them still has to be waited for
            self.spans.setdefault(span, ([], []))[0].append(user)
        elif access.writes:
            self.spans[span] = ([user], [])
        else:
            self.spans.setdefault(span, ([], []))[1].append(user)


def dependencies(instructions: list[Instruction]) -> list[Edge]:
    """Pairs of instructions whose order matters, in the order of the later one.

    For each piece of memory only the last writer and the readers since are looked at: what came
    before is ordered through them. And parameters change after all kernels that may raise an
    exception, which ends the step at the next barrier: so it leaves the parameters as they were.
    """
    edges: list[Edge] = []
    last: dict[Value, _Touched] = {}
    raising: list[int] = []
    for j, b in enumerate(instructions):
        found: set[int] = set()
        for access in b.accesses:
            if access.root in last:
                found.update(last[access.root].users(access))
        for i in sorted(found):
            kind = conflict(instructions[i], b)
            if kind is not None:
                edges.append((i, j, kind == "barrier" and not b.serial))
        if raising and _updates(b):
            edges += [(i, j, not b.serial) for i in raising]
        if b.kernel.may_raise:
            raising.append(j)
        for access in b.accesses:
            last.setdefault(access.root, _Touched()).note(access, j)
    return edges


def earliest_phases(instructions: list[Instruction], edges: list[Edge]) -> list[int]:
    """For each instruction the first phase in which it can run.

    A serial instruction runs at the end of its phase: it may use what that phase has written;
    what it writes itself can be used in the next phase (or by a later serial instruction).
    """
    phase_of = [0] * len(instructions)
    for i, j, apart in edges:
        phase_of[j] = max(phase_of[j], phase_of[i] + apart)
    last = max(phase_of, default=0)
    return [last if i.final else p for i, p in zip(instructions, phase_of, strict=True)]


def delayed(instructions: list[Instruction], edges: list[Edge], phase_of: list[int]) -> list[int]:
    """Move batch work that nobody needs earlier into the phase of its first aligned user.

    So a mini-batch is gathered right before the layer that reads it, while it is in the cache; and
    a weight's gradient is computed where its update takes it from the cache.
    """
    result = list(phase_of)
    users: dict[int, list[tuple[int, bool]]] = {}
    for i, j, apart in edges:
        users.setdefault(i, []).append((j, apart))
    for i in range(len(instructions) - 1, -1, -1):
        mine = instructions[i]
        if mine.key is None or i not in users or any(access.flag for access in mine.accesses):
            continue
        if mine.key[0] == "batch" or any(
            not apart and _updates(instructions[j]) for j, apart in users[i]
        ):
            result[i] = max(result[i], min(result[j] - apart for j, apart in users[i]))
    return result


def _updates(instruction: Instruction) -> bool:
    """Whether it changes a parameter (and what an optimiser keeps for it)."""
    return any(a.writes and a.root.home == "params" for a in instruction.accesses)


def _groups(instructions: list[Instruction], grains: dict[tuple[str, int], int]) -> list[Group]:
    """Gather instructions with equal keys, keeping the order wherever one depends on another."""
    groups: list[Group] = []
    remaining = list(instructions)
    while remaining:
        key = remaining[0].key
        taken: list[Instruction] = []
        left: list[Instruction] = []
        for instruction in remaining:
            blocked = any(conflict(earlier, instruction) for earlier in left)
            if instruction.key == key and not blocked:
                taken.append(instruction)
            else:
                left.append(instruction)
        assert key is not None
        parts = [taken] if key[0] == "batch" else _connected(taken)
        groups.extend(_group(part, grains[key]) for part in parts)
        remaining = left
    return groups


def _connected(instructions: list[Instruction]) -> list[list[Instruction]]:
    """Split a group of weight instructions into those that share data: one for each weight."""
    parts: list[list[Instruction]] = []
    for instruction in instructions:
        joined = [p for p in parts if any(conflict(a, instruction) for a in p)]
        merged = [i for p in joined for i in p] + [instruction]
        parts = [p for p in parts if not any(p is q for q in joined)] + [merged]
    return parts


def _group(instructions: list[Instruction], grain: int) -> Group:
    """A block is what fits in the cache, but no less than what its calls read as a whole, and no
    fewer items than a kernel asks for."""
    first = instructions[0]
    per_item = max(sum(i.bytes_per_item for i in instructions), 1)
    whole = sum(i.whole_bytes for i in instructions)
    block = max(BLOCK_BYTES, whole) // per_item
    if first.key is not None and first.key[0] == "batch":
        block = max(block, BLOCK_ROWS // max(first.multiplier, 1), 1)
    block = max(block, *(-(-i.kernel.block // i.multiplier) for i in instructions))
    block = max(block // grain, 1) * grain
    return Group(first.items, grain, min(block, max(first.items, 1)), instructions)
