"""The verifier: checks a finished program by byte ranges, knowing nothing of the planner's ways.

It checks that equal letters are equal sizes, that operands lie within their segments, and that
within a phase no two operands touch the same bytes, one of them written, unless each item's part is
the same for both.

And it proves that no call reads what nobody wrote: a byte that is read was written before in the
same step, by calls whose parts make up the whole, and was not taken over by another buffer or by
scratch since; or it lies in a segment that holds something before a step begins (`GIVEN`). Local
memory is checked likewise, within each group. What people may look at after a step (the program's
places) has to be written by its end. Loops are proved by induction (`fastnn/plan/history.py`): the
first step, any later one after the one before, and what follows the loop. Of a loop that ends where
its sequences do, what it has written is there for loops and calls that go by the same ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fastnn.errors import ProgramError
from fastnn.kernels.declare import Array, declared, kernel_of
from fastnn.plan.coverage import Moving, Share, share_of
from fastnn.plan.history import History, masks_followed
from fastnn.plan.program import (
    Count,
    Operand,
    PlannedCall,
    PlannedGroup,
    PlannedPhase,
    PlannedRepeat,
    Program,
    item_size,
)
from fastnn.plan.spans import Span, alike, apart

#: segments that hold something before a step begins: the model and its optimiser, the run's state,
#: what the host or the caller provides
GIVEN = (
    "params", "buffers", "slots/", "control", "totals", "constant", "input", "data/", "order",
    "schedule", "guard", "saved/", "halves",
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
    span: Span
    parameter: Array
    share: Share | Moving | None  # what a "part" parameter writes
    buffer: int
    split: tuple[object, ...] | None  # how the bytes are divided among workers; None: not at all

    @property
    def begin(self) -> int:
        return self.span.begin

    @property
    def end(self) -> int:
        return self.span.end

    @property
    def writes(self) -> bool:
        return self.parameter.writes

    @property
    def flag(self) -> bool:
        return self.parameter.mode == "flag"


def verify(program: Program) -> None:
    """Raise `ProgramError` for the first fault found."""
    written = _Written(program)
    _verify_phases(program.phases, (), written)
    written.check_places()


def _verify_phases(
    phases: Sequence[PlannedPhase | PlannedRepeat], loops: tuple[int, ...], written: _Written
) -> None:
    """Check phases in the order in which they run, within loops of so many steps."""
    for number, phase in enumerate(phases):
        if not loops:
            written.phase = number
        if isinstance(phase, PlannedRepeat):
            inner = (*loops, phase.length)
            body = lambda: _verify_phases(phase.body, inner, written)  # noqa: B023, E731
            _follow(written, phase, inner, None, body)
            continue
        touches: list[_Touch] = []
        for group in phase.groups:
            written.history.drop("local")
            of_group: list[_Touch] = []
            _verify_calls(group.calls, loops, group, written, of_group)
            _check_apart(written.phase, [t for t in of_group if t.segment == "local"], len(loops))
            touches += [t for t in of_group if t.segment != "local"]
        _check_apart(written.phase, touches, len(loops))
        _verify_calls(phase.serial, loops, None, written, [])


def _verify_calls(
    calls: Sequence[PlannedCall | PlannedRepeat], loops: tuple[int, ...],
    group: PlannedGroup | None, written: _Written, found: list[_Touch],
) -> None:  # fmt: skip
    """Check calls in order; gathers what they touch."""
    for call in calls:
        if isinstance(call, PlannedRepeat):
            inner = (*loops, call.length)
            body = lambda: _verify_calls(call.body, inner, group, written, found)  # noqa: B023, E731
            found += _follow(written, call, inner, group, body)
        else:
            mine = _touches(written.program, call, group, loops)
            written.check(mine)
            written.note(mine)
            found += mine


def _follow(
    written: _Written, loop: PlannedRepeat, loops: tuple[int, ...], group: PlannedGroup | None,
    body: Callable[[], None],
) -> list[_Touch]:  # fmt: skip
    """Follow a loop; returns what it touches itself, beside its body."""
    if loop.length < 1 or not loop.body:
        raise ProgramError(f"expected a loop of calls and at least one step, got {loop}")
    if loop.running is None:
        written.history.follow(loop.length, body)
        return []
    looked = _looked_at(written.program, loop.running, loops, group)
    alone = written.looked.setdefault(looked.buffer, {})
    alone[id(loop)] = group is not None
    if len(alone) > 1 and any(alone.values()):
        raise ProgramError(
            f"loops that look at {loop.running} must make the same steps, but of one that stands "
            "in a group each block of items may end alone"
        )

    def step() -> None:
        written.check([looked])
        body()

    written.history.follow(loop.length, step, looked.buffer, loop.reverse)
    return [looked]


def _looked_at(
    program: Program, running: Operand, loops: tuple[int, ...], group: PlannedGroup | None
) -> _Touch:
    """What a loop looks at to see whether a step is to be made."""
    count = math.prod(running.dims)
    strides = running.strides or (0,) * len(loops)
    split = None
    if group is not None:
        split = (group.items, group.grain, "rows", count * item_size("f", program.dtype))
    fits = len(strides) == len(loops) and (group is None or count % group.items == 0)
    if running.segment != "work" or running.dtype != "f" or not fits:
        raise ProgramError(f"a loop cannot look at {running} to see whether sequences go on")
    end = running.offset + count * item_size("f", program.dtype)
    span = Span(running.offset, end, strides, loops)
    if span.hull()[0] < 0 or span.hull()[1] > program.sizes["work"]:
        raise ProgramError(f"{running}, which a loop looks at, lies outside 'work'")
    call = PlannedCall("loop", (running,), 1, "")
    parameter = Array("in", "rows", "f", ("B",))
    return _Touch(call, "running", "work", span, parameter, None, running.buffer, split)


def _touches(
    program: Program, call: PlannedCall, group: PlannedGroup | None, loops: tuple[int, ...]
) -> list[_Touch]:
    kernel = declared(call.kernel)
    if kernel is None:
        raise ProgramError(f"no kernel is called {call.kernel!r}")
    letters: dict[str, int] = {}
    found = []
    share = _share(call)
    for (name, parameter), operand in zip(kernel.params.items(), call.operands, strict=True):
        if isinstance(operand, Count) and len(operand.strides) != len(loops):
            raise ProgramError(f"{call.kernel}, {name}: {operand} is not in {len(loops)} loops")
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
        item = item_size(operand.dtype, program.dtype)
        size = math.prod(operand.dims) * item
        if operand.segment == "local":
            whole = group is not None and operand.per_item * group.items == size
            if group is None or parameter.axis != "rows" or not whole or operand.strides:
                raise ProgramError(
                    f"{call.kernel}, {name}: local memory is for the rows of a group's items"
                )
            size = operand.per_item * group.block
        strides = operand.strides or (0,) * len(loops)
        if len(strides) != len(loops):
            raise ProgramError(f"{call.kernel}, {name}: {operand} is not in {len(loops)} loops")
        span = Span(operand.offset, operand.offset + size, strides, loops)
        low, high = span.hull()
        limit = program.sizes.get(operand.segment, high)
        if low < 0 or high > limit:
            raise ProgramError(
                f"{call.kernel}, {name}: [{low}, {high}) lies outside {operand.segment!r}, which "
                f"has {limit} bytes"
            )
        split = None
        if group is not None and parameter.axis != "whole":
            split = (group.items, group.grain, parameter.axis, size)
        found.append(
            _Touch(call, name, operand.segment, span, parameter, share, operand.buffer, split)
        )
    if group is not None and kernel.items in letters:
        expected = group.items * call.multiplier
        if letters[kernel.items] != expected:
            raise ProgramError(
                f"{call.kernel}: its items {kernel.items} are {letters[kernel.items]}, but its "
                f"group has {group.items} times {call.multiplier}"
            )
    return found


def _share(call: PlannedCall) -> Share | Moving | None:
    """Which part of its "part" arrays a call writes."""
    kernel = kernel_of(call.kernel)
    if kernel.share is None:
        return None
    sizes: dict[str, object] = {}
    moving: dict[str, tuple[int, ...]] = {}
    for (name, parameter), operand in zip(kernel.params.items(), call.operands, strict=True):
        if isinstance(operand, Operand) and isinstance(parameter, Array):
            sizes.update(zip(parameter.dims, operand.dims, strict=False))
        elif isinstance(operand, Count):
            sizes[name] = operand.first
            if any(operand.strides):
                moving[name] = operand.strides
        elif not isinstance(parameter, Array):
            sizes[name] = operand
    return share_of(kernel, sizes, moving)


def _check_apart(number: int, touches: list[_Touch], shared: int) -> None:
    """No two touches of a phase share bytes, one writing, unless they are split alike.

    Of the `shared` outermost loops all are in the same step.
    """
    spans: dict[tuple[str, int, int, Span], list[_Touch]] = {}
    for touch in touches:
        if touch.end > touch.begin:
            spans.setdefault((touch.segment, *touch.span.hull(), touch.span), []).append(touch)
    active: list[tuple[int, list[_Touch]]] = []
    for (segment, begin, end, span), group in sorted(spans.items(), key=lambda item: item[0]):
        active = [(e, g) for e, g in active if g[0].segment == segment and e > begin]
        for _, other in active:
            if apart(span, other[0].span, shared):
                continue
            both = (*group, *other)
            writer = next((t for t in both if t.writes), None)
            if writer is not None and not (
                alike(span, other[0].span, shared)
                and writer.split is not None
                and all(t.split == writer.split for t in both)
            ):
                _overlap(number, writer, other[0] if writer in group else group[0])
        if any(t.writes for t in group) and not all(t.flag for t in group):
            for touch in group[1:]:
                if touch.split is None or touch.split != group[0].split:
                    _overlap(number, group[0], touch)
            if not alike(span, span, shared):
                _overlap(number, group[0], group[-1])
        active.append((end, group))


def _overlap(number: int, a: _Touch, b: _Touch) -> None:
    begin, end = max(a.span.hull()[0], b.span.hull()[0]), min(a.span.hull()[1], b.span.hull()[1])
    raise ProgramError(
        f"phase {number}: {a.call.kernel}.{a.name} and {b.call.kernel}.{b.name} touch the same "
        f"memory of {a.segment!r} [{begin}, {end}) without a barrier"
    )


class _Written:
    """Which bytes of the segments that a step writes hold which buffer's data."""

    def __init__(self, program: Program) -> None:
        self.program, self.history, self.phase = program, History(), 0
        #: loops by what they look at to see whether they go on: whether they stand in a group
        self.looked: dict[int, dict[int, bool]] = {}

    def matters(self, segment: str) -> bool:
        """Whether a segment holds only what the step writes; not something from the start."""
        if segment.startswith(WRITTEN):
            return True
        if segment.startswith(GIVEN) or segment in self.program.carried:
            return False
        raise ProgramError(
            f"expected memory in one of the segments {[*GIVEN, *WRITTEN]}, got {segment!r}"
        )

    def check(self, touches: list[_Touch]) -> None:
        """Everything read was written before, and not taken over by another buffer since."""
        for touch in touches:
            if not self.matters(touch.segment) or not touch.parameter.reads:
                continue
            byte = self._missing(touch, touches)
            if byte is not None:
                raise ProgramError(
                    f"phase {self.phase}: {touch.call.kernel}.{touch.name} reads {touch.segment} "
                    f"memory [{touch.begin}, {touch.end}), of which byte {byte} was not written, "
                    "or another buffer or scratch memory has taken it over"
                )

    def _missing(self, touch: _Touch, touches: list[_Touch]) -> int | None:
        begin, gaps, strides = touch.begin, touch.parameter.gaps, touch.span.strides
        owner, ends = _owner(touch), masks_followed(touch.parameter, (t.buffer for t in touches))
        while (
            byte := self.history.missing(
                touch.segment, begin, touch.end, owner, gaps, strides, ends
            )
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
            if self.matters(touch.segment):
                self.history.note(
                    touch.segment, touch.parameter, touch.begin, touch.end, _owner(touch),
                    touch.share, touch.span.strides,
                )  # fmt: skip

    def check_places(self) -> None:
        """What can be looked at after a step is there."""
        for name, place in self.program.places.items():
            if not self.matters(place.segment) or place.external:
                continue
            kind = item_size(place.dtype, self.program.dtype)
            size = math.prod(place.dims) * kind
            owner = 0 if place.segment == "grads" else place.buffer
            end = place.offset + size
            if self.history.missing(place.segment, place.offset, end, owner, True) is not None:
                raise ProgramError(
                    f"expected the step to write {name!r} at {place}, but some of it is not written"
                )


def _owner(touch: _Touch) -> int:
    """Work memory is used by buffers in turn; a gradient has its place for good."""
    return 0 if touch.segment == "grads" else touch.buffer
