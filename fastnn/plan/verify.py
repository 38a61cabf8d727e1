"""The verifier: checks a finished program by byte ranges, knowing nothing of the planner's ways.

It checks that equal letters are equal sizes, that operands lie within their segments, and that
within a phase no two operands touch the same bytes, one of them written, unless each item's part is
the same for both.

And it proves that no call reads what nobody wrote: a byte that is read was written before in the
same step, by calls whose parts make up the whole, and was not taken over by another buffer or by
scratch since; or it lies in a segment that holds something before a step begins (`GIVEN`). Local
memory is checked likewise, within each group. What people may look at after a step (the program's
places) has to be written by its end.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastnn.errors import ProgramError
from fastnn.graph.coverage import Coverage, Share, note, share_of
from fastnn.kernels import types
from fastnn.kernels.declare import Array, declared
from fastnn.plan.program import Operand, PlannedCall, PlannedGroup, Program

#: segments that hold something before a step begins: the model and its optimiser, the run's state,
#: what the host or the caller provides
GIVEN = (
    "params", "buffers", "slots/", "clock", "totals", "constant", "input", "data/", "order",
    "schedule", "guard", "saved/",
)  # fmt: skip
#: segments of which a step may read only what it has written itself
WRITTEN = ("work", "local", "grads", "result/")
#: gradients begin at multiples of so many elements; what lies between them is zero for good
GRADIENT_ALIGN = 16


@dataclass(frozen=True)
class _Touch:
    call: PlannedCall
    name: str
    segment: str
    begin: int
    end: int
    parameter: Array
    share: Share | None  # what a "part" parameter writes
    buffer: int
    split: tuple[object, ...] | None  # how the bytes are divided among workers; None: not at all
    flag: bool = False

    @property
    def writes(self) -> bool:
        return self.parameter.writes


def verify(program: Program) -> None:
    """Raise `ProgramError` for the first fault found."""
    written = _Written(program)
    for number, phase in enumerate(program.phases):
        touches: list[_Touch] = []
        for group in phase.groups:
            written.covers["local"] = Coverage()
            of_group: list[_Touch] = []
            for call in group.calls:
                mine = _touches(program, call, group)
                written.check(number, mine)
                written.note(mine)
                of_group += mine
            _check_apart(number, [t for t in of_group if t.segment == "local"])
            touches += [t for t in of_group if t.segment != "local"]
        _check_apart(number, touches)
        for call in phase.serial:
            mine = _touches(program, call, None)
            written.check(number, mine)
            written.note(mine)
    written.check_places()


def _touches(program: Program, call: PlannedCall, group: PlannedGroup | None) -> list[_Touch]:
    kernel = declared(call.kernel)
    if kernel is None:
        raise ProgramError(f"no kernel is called {call.kernel!r}")
    letters: dict[str, int] = {}
    found = []
    share = _share(call)
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
        item = types.item_size(operand.dtype, program.dtype)
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
                parameter, share, operand.buffer, split,
                parameter.mode == "flag",
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


def _share(call: PlannedCall) -> Share | None:
    """Which part of its "part" arrays a call writes."""
    kernel = declared(call.kernel)
    assert kernel is not None
    sizes: dict[str, object] = {}
    for (name, parameter), operand in zip(kernel.params.items(), call.operands, strict=True):
        if isinstance(operand, Operand) and isinstance(parameter, Array):
            sizes.update(zip(parameter.dims, operand.dims, strict=False))
        elif not isinstance(parameter, Array):
            sizes[name] = operand
    return share_of(kernel, sizes)


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
            for touch in [] if all(t.flag for t in group) else group[1:]:
                if touch.split is None or touch.split != group[0].split:
                    _overlap(number, group[0], touch)
        active.append(group)


def _overlap(number: int, a: _Touch, b: _Touch) -> None:
    raise ProgramError(
        f"phase {number}: {a.call.kernel}.{a.name} and {b.call.kernel}.{b.name} touch the same "
        f"memory of {a.segment!r} [{max(a.begin, b.begin)}, {min(a.end, b.end)}) without a barrier"
    )


class _Written:
    """Which bytes of the segments that a step writes hold which buffer's data."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.covers: dict[str, Coverage] = {}

    def of(self, segment: str) -> Coverage | None:
        """What is written of a segment; None for one that holds something from the start."""
        if segment.startswith(WRITTEN):
            return self.covers.setdefault(segment, Coverage())
        if segment.startswith(GIVEN) or segment in self.program.carried:
            return None
        raise ProgramError(
            f"expected memory in one of the segments {[*GIVEN, *WRITTEN]}, got {segment!r}"
        )

    def check(self, number: int, touches: list[_Touch]) -> None:
        """Everything read was written before, and not taken over by another buffer since."""
        for touch in touches:
            cover = self.of(touch.segment)
            if cover is None or not touch.parameter.reads:
                continue
            byte = self._missing(cover, touch)
            if byte is not None:
                raise ProgramError(
                    f"phase {number}: {touch.call.kernel}.{touch.name} reads {touch.segment} "
                    f"memory [{touch.begin}, {touch.end}), of which byte {byte} was not written, "
                    "or another buffer or scratch memory has taken it over"
                )

    def _missing(self, cover: Coverage, touch: _Touch) -> int | None:
        begin = touch.begin
        while (
            byte := cover.missing(begin, touch.end, _owner(touch), touch.parameter.gaps)
        ) is not None:
            if touch.segment != "grads":
                return byte
            # one update of several gradients passes over the gaps between them
            size = GRADIENT_ALIGN * np.dtype(self.program.dtype).itemsize
            begin = -(-byte // size) * size
            if begin == byte:
                return byte
        return None

    def note(self, touches: list[_Touch]) -> None:
        for touch in touches:
            cover = self.of(touch.segment)
            if cover is not None:
                note(cover, touch.parameter, touch.begin, touch.end, _owner(touch), touch.share)

    def check_places(self) -> None:
        """What can be looked at after a step is there."""
        for name, place in self.program.places.items():
            cover = self.of(place.segment)
            if cover is None or place.external:
                continue
            kind = types.item_size(place.dtype, self.program.dtype)
            size = int(np.prod(place.dims, dtype=np.int64)) * kind
            owner = 0 if place.segment == "grads" else place.buffer
            if cover.missing(place.offset, place.offset + size, owner, gaps=True) is not None:
                raise ProgramError(
                    f"expected the step to write {name!r} at {place}, but some of it is not written"
                )


def _owner(touch: _Touch) -> int:
    """Work memory is used by buffers in turn; a gradient has its place for good."""
    return 0 if touch.segment == "grads" else touch.buffer
