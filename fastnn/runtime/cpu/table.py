"""A program as rows and calls, in the order in which the run loop goes through them."""

from __future__ import annotations

from collections.abc import Sequence

from fastnn.graph.memo import Memo
from fastnn.plan.program import (
    Operand,
    PlannedCall,
    PlannedGroup,
    PlannedPhase,
    PlannedRepeat,
    Program,
)
from fastnn.runtime.cpu import layout


class Table:
    """The run loop's tables, without addresses.

    Attributes:
        rows: one for each group and barrier, and where a loop of phases begins and ends.
        calls: those of groups and barriers; None where a loop in a group begins or ends.
        loops: for each of the calls the loops around it.
        innermost: for calls in loops, by their number, that of the innermost loop.
        phases: the numbers of the loops of phases.
        lengths: the numbers of steps of loops, by their number.
        reverse: of which loops the first step is the last in time.
        watches: what loops look at to see whether they go on, by their number, with the items that
            it is of.
        depth: how many loops are in one another, at most.
    """

    def __init__(self, program: Program):
        self.rows: list[list[int]] = []
        self.calls: list[PlannedCall | None] = []
        self.loops: list[tuple[PlannedRepeat, ...]] = []
        self.innermost: dict[int, int] = {}
        self.phases: set[int] = set()
        self.lengths: list[int] = []
        self.reverse: list[bool] = []
        self.watches: dict[int, tuple[Operand, int]] = {}
        self.depth = 0
        self._marks: dict[int, list[int]] = {}  # of the calls that are None, their words
        self._ends: list[tuple[list[int], int]] = []  # which word means a loop's address
        self._turns = Memo()
        self._phases(program.phases, ())

    def insert(self, row: list[int]) -> None:
        """Put a row before all others."""
        self.rows.insert(0, row)
        for other in self.rows:
            if other[0] in (layout.BEGIN, layout.AGAIN):
                other[3] += 1

    def words(self, loops: int) -> tuple[list[list[int]], list[list[int]]]:
        """Rows, and calls of which only where loops begin and end is filled in; `loops` is where
        the loops' words lie."""
        moved = {id(words): slot for words, slot in self._ends}

        def addressed(words: list[int]) -> list[int]:
            found, slot = list(words), moved.get(id(words))
            if slot is not None:
                found[slot] = loops + 8 * layout.LOOP_WORDS * words[slot]
            return found

        nothing = [0] * layout.CALL_WORDS
        calls = [addressed(self._marks.get(k, nothing)) for k in range(len(self.calls))]
        return [addressed(row) for row in self.rows], calls

    def _phases(
        self, phases: Sequence[PlannedPhase | PlannedRepeat], loops: tuple[PlannedRepeat, ...]
    ) -> None:
        for phase in phases:
            if isinstance(phase, PlannedRepeat):
                depth, number = self._enter(loops, phase, None)
                start = [layout.BEGIN, depth, number, 0, 0, 0, 0, 0]
                self.rows.append(start)
                self._ends.append((self.rows[-1], 2))
                first, begin = len(self.rows), len(self.calls)
                self._phases(phase.body, (*loops, phase))
                for k in range(begin, len(self.calls)):
                    self.innermost.setdefault(k, number)
                self.phases.add(number)
                self.rows.append([layout.AGAIN, depth, number, first, 0, 0, 0, 0])
                self._ends.append((self.rows[-1], 2))
                start[3] = len(self.rows)
                if phase.running is not None:  # none changes what others still look at
                    self.rows.append([layout.BARRIER, 0, 0, 0, len(self.calls), 0, 0, 0])
                continue
            for group in phase.groups:
                self._group(group, loops)
            first = len(self.calls)
            self._calls(phase.serial, loops, first, 1)
            self.rows.append([layout.BARRIER, 0, 0, 0, first, len(self.calls) - first, 0, 0])

    def _group(self, group: PlannedGroup, loops: tuple[PlannedRepeat, ...]) -> None:
        few = group.items <= group.grain * 4
        split = group.items, group.grain
        if split not in self._turns:
            self._turns[split] = len(self._turns)
        first = len(self.calls)
        self._calls(group.calls, loops, first, group.items)
        self.rows.append(
            [layout.GROUP, group.items, group.grain, group.block, first,
             len(self.calls) - first, self._turns[split] if few else 0, 0]
        )  # fmt: skip

    def _calls(
        self, calls: Sequence[PlannedCall | PlannedRepeat], loops: tuple[PlannedRepeat, ...],
        first: int, items: int,
    ) -> None:  # fmt: skip
        for call in calls:
            if isinstance(call, PlannedRepeat):
                depth, number = self._enter(loops, call, items)
                head = [0, depth, 0, number]
                self._mark(head, loops)
                begin = len(self.calls)
                self._calls(call.body, (*loops, call), first, items)
                for k in range(begin, len(self.calls)):
                    self.innermost.setdefault(k, number)
                end = [0, depth, begin - first, number]
                self._ends += [(head, 3), (end, 3)]
                self._mark(end, loops)
                head[2] = first - len(self.calls)
            else:
                self.calls.append(call)
                self.loops.append(loops)

    def _enter(
        self, loops: tuple[PlannedRepeat, ...], loop: PlannedRepeat, items: int | None
    ) -> tuple[int, int]:
        """Depth of a loop, and where its number of steps stands; `items`: of its group."""
        if loop.running is not None:
            count = loop.running.dims[0] if items is None else items
            self.watches[len(self.lengths)] = loop.running, count
        self.reverse.append(loop.reverse)
        self.depth = max(self.depth, len(loops) + 1)
        self.lengths.append(loop.length)
        return len(loops), len(self.lengths) - 1

    def _mark(self, words: list[int], loops: tuple[PlannedRepeat, ...]) -> None:
        self._marks[len(self.calls)] = words
        self.calls.append(None)
        self.loops.append(loops)
