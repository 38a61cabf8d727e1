"""The verifier: checks a finished program by byte ranges, knowing nothing of the planner's ways.

It checks that equal letters are equal sizes, that operands lie within their segments, that every
buffer read from work memory was written before in the same step and not taken over by another one
since, and that within a phase no two operands touch the same bytes, one of them written, unless
each item's part is the same for both. Local memory is checked likewise, within each group.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass

import numpy as np

from fastnn.errors import ProgramError
from fastnn.kernels.declare import Array, declared
from fastnn.plan.program import Operand, PlannedCall, PlannedGroup, Program


@dataclass(frozen=True)
class _Touch:
    call: PlannedCall
    name: str
    segment: str
    begin: int
    end: int
    reads: bool
    writes: bool
    buffer: int
    split: tuple[object, ...] | None  # how the bytes are divided among workers; None: not at all


def verify(program: Program) -> None:
    """Raise `ProgramError` for the first fault found."""
    written = _Written("work")
    for number, phase in enumerate(program.phases):
        touches: list[_Touch] = []
        for group in phase.groups:
            local, of_group = _Written("local"), []
            for call in group.calls:
                mine = _touches(program, call, group)
                for spans in (written, local):
                    spans.check(number, mine)
                    spans.note(mine)
                of_group += mine
            _check_apart(number, [t for t in of_group if t.segment == "local"])
            touches += [t for t in of_group if t.segment != "local"]
        _check_apart(number, touches)
        for call in phase.serial:
            mine = _touches(program, call, None)
            written.check(number, mine)
            written.note(mine)


def _touches(program: Program, call: PlannedCall, group: PlannedGroup | None) -> list[_Touch]:
    kernel = declared(call.kernel)
    if kernel is None:
        raise ProgramError(f"no kernel is called {call.kernel!r}")
    letters: dict[str, int] = {}
    found = []
    for (name, parameter), operand in zip(kernel.params.items(), call.operands, strict=True):
        if not isinstance(parameter, Array) or operand is None:
            continue
        if not isinstance(operand, Operand):
            raise ProgramError(f"{call.kernel}, {name}: expected an array operand, got {operand!r}")
        if len(operand.dims) != len(parameter.dims):
            raise ProgramError(f"{call.kernel}, {name}: expected {parameter}, got {operand}")
        if not operand.external:
            for letter, size in zip(parameter.dims, operand.dims, strict=True):
                if letters.setdefault(letter, size) != size:
                    raise ProgramError(
                        f"{call.kernel}, {name}: {letter} is {letters[letter]} and {size}"
                    )
        item = np.dtype(program.dtype).itemsize if operand.dtype == "f" else 8
        size = int(np.prod(operand.dims, dtype=np.int64)) * item
        if operand.segment == "local":
            if group is None or parameter.axis != "rows" or operand.per_item * group.items != size:
                raise ProgramError(
                    f"{call.kernel}, {name}: local memory is for the rows of a group's items"
                )
            size = operand.per_item * group.block
        limit = program.sizes.get(operand.segment, operand.offset + size)
        if operand.offset < 0 or operand.offset + size > limit:
            raise ProgramError(
                f"{call.kernel}, {name}: [{operand.offset}, {operand.offset + size}) lies outside "
                f"{operand.segment!r}, which has {limit} bytes"
            )
        split = None
        if group is not None and parameter.axis != "whole":
            split = (group.items, group.grain, parameter.axis, operand.offset, size)
        found.append(
            _Touch(
                call, name, operand.segment, operand.offset, operand.offset + size,
                parameter.reads, parameter.writes, operand.buffer, split,
            )
        )  # fmt: skip
    if group is not None and kernel.items in letters:
        expected = group.items * call.multiplier
        if letters[kernel.items] != expected:
            raise ProgramError(
                f"{call.kernel}: its items {kernel.items} are {letters[kernel.items]}, but its "
                f"group has {group.items} times {call.multiplier}"
            )
    return found


def _check_apart(number: int, touches: list[_Touch]) -> None:
    """No two touches of a phase share bytes, one writing, unless they are split alike."""
    spans: dict[tuple[str, int, int], list[_Touch]] = {}
    for touch in touches:
        if touch.end > touch.begin:
            spans.setdefault((touch.segment, touch.begin, touch.end), []).append(touch)
    active: list[list[_Touch]] = []
    for (segment, begin, _), group in sorted(spans.items(), key=lambda item: item[0]):
        active = [g for g in active if g[0].segment == segment and g[0].end > begin]
        for other in active:
            if any(t.writes for t in (*group, *other)):
                writer = next(t for t in (*group, *other) if t.writes)
                _overlap(number, writer, other[0] if writer in group else group[0])
        if any(t.writes for t in group):
            for touch in group[1:]:
                if touch.split is None or touch.split != group[0].split:
                    _overlap(number, group[0], touch)
        active.append(group)


def _overlap(number: int, a: _Touch, b: _Touch) -> None:
    raise ProgramError(
        f"phase {number}: {a.call.kernel}.{a.name} and {b.call.kernel}.{b.name} touch the same "
        f"memory of {a.segment!r} [{max(a.begin, b.begin)}, {min(a.end, b.end)}) without a barrier"
    )


class _Written:
    """Which bytes of a segment hold which buffer's data: spans that don't overlap."""

    def __init__(self, segment: str) -> None:
        self.segment = segment
        self.begins: list[int] = []
        self.spans: list[tuple[int, int, int]] = []  # begin, end, buffer; sorted

    def check(self, number: int, touches: list[_Touch]) -> None:
        """Everything read was written before, and not taken over by another buffer since."""
        for touch in touches:
            if touch.segment != self.segment or not touch.reads:
                continue
            position = touch.begin
            k = max(bisect.bisect_right(self.begins, position) - 1, 0)
            while position < touch.end and k < len(self.spans):
                begin, end, buffer = self.spans[k]
                if begin > position or buffer != touch.buffer:
                    break
                position, k = max(position, end), k + 1
            if position < touch.end:
                raise ProgramError(
                    f"phase {number}: {touch.call.kernel}.{touch.name} reads {self.segment} memory "
                    f"[{touch.begin}, {touch.end}), of which byte {position} was not written, or "
                    "another buffer has taken it over"
                )

    def note(self, touches: list[_Touch]) -> None:
        for touch in touches:
            if touch.segment == self.segment and touch.writes and touch.end > touch.begin:
                self._write(touch.begin, touch.end, touch.buffer)

    def _write(self, begin: int, end: int, buffer: int) -> None:
        first = max(bisect.bisect_right(self.begins, begin) - 1, 0)
        last = first
        kept: list[tuple[int, int, int]] = []
        while last < len(self.spans) and self.spans[last][0] < end:
            b, e, owner = self.spans[last]
            if e <= begin:
                kept.append((b, e, owner))
            else:
                kept += [(b, begin, owner)] if b < begin else []
                kept += [(end, e, owner)] if e > end else []
            last += 1
        kept.append((begin, end, buffer))
        kept.sort()
        self.spans[first:last] = kept
        self.begins[first:last] = [span[0] for span in kept]
