"""The verifier: checks a finished program by byte ranges, knowing nothing of the planner's ways.

It checks that equal letters are equal sizes, that operands lie within their segments, that every
buffer read from work memory was written before in the same step and not taken over by another one
since, and that within a phase no two operands touch the same bytes, one of them written, unless each
item's part is the same for both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastnn.errors import ProgramError
from fastnn.kernels.declare import KERNELS, Array
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
    split: tuple[object, ...] | None  # how the bytes are divided among workers; None: not at all


def verify(program: Program) -> None:
    """Raise `ProgramError` for the first fault found."""
    written: set[tuple[int, int]] = set()
    for number, phase in enumerate(program.phases):
        touches: list[_Touch] = []
        for group in phase.groups:
            for call in group.calls:
                mine = _touches(program, call, group)
                for touch in mine:
                    _check_written(number, touch, written)
                    _check_apart(number, touch, touches)
                    touches.append(touch)  # a call's own operands must be apart, too
                _note(written, mine)
        for call in phase.serial:
            mine = _touches(program, call, None)
            for touch in mine:
                _check_written(number, touch, written)
            _note(written, mine)


def _touches(program: Program, call: PlannedCall, group: PlannedGroup | None) -> list[_Touch]:
    if call.kernel not in KERNELS:
        raise ProgramError(f"no kernel is called {call.kernel!r}")
    kernel = KERNELS[call.kernel]
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
                parameter.reads, parameter.writes, split,
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


def _check_apart(number: int, touch: _Touch, others: list[_Touch]) -> None:
    for other in others:
        if (
            other.segment == touch.segment
            and other.begin < touch.end
            and touch.begin < other.end
            and (other.writes or touch.writes)
            and (other.split is None or other.split != touch.split)
        ):
            raise ProgramError(
                f"phase {number}: {touch.call.kernel}.{touch.name} and "
                f"{other.call.kernel}.{other.name} touch the same memory of {touch.segment!r} "
                f"[{max(other.begin, touch.begin)}, {min(other.end, touch.end)}) without a barrier"
            )


def _check_written(number: int, touch: _Touch, written: set[tuple[int, int]]) -> None:
    if touch.segment != "work" or not touch.reads or touch.begin == touch.end:
        return
    if (touch.begin, touch.end) not in written:
        raise ProgramError(
            f"phase {number}: {touch.call.kernel}.{touch.name} reads work memory "
            f"[{touch.begin}, {touch.end}), which no call has written, or which another buffer "
            "has taken over"
        )


def _note(written: set[tuple[int, int]], touches: list[_Touch]) -> None:
    """Add what was written; a buffer that overlaps an older one ends the older one's life."""
    for touch in touches:
        if touch.segment == "work" and touch.writes and touch.end > touch.begin:
            span = (touch.begin, touch.end)
            if span not in written:
                written -= {w for w in written if w[0] < touch.end and touch.begin < w[1]}
                written.add(span)
