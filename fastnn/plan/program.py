"""A program: plain data that a runtime can bind and run."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fastnn.cached import cached
from fastnn.kernels import types
from fastnn.kernels.declare import Array, kernel_of

#: bytes of an element, by its letter and the program's float type: asked for with each operand
item_size = functools.cache(types.item_size)

#: what a call and an operand of it take as objects of Python, about
CALL_BYTES, OPERAND_BYTES = 300, 300


@dataclass(frozen=True, slots=True)
class Operand:
    """An array in memory: segment, byte offset, sizes at the kernel's rank, element type letter.

    `external` arrays belong to the caller; their sizes are taken when the program is bound.
    `buffer` numbers what the planner placed as one piece; views and slices of it have its number.
    `per_item` is not 0 for memory in the segment "local": bytes of one item of the group. Each
    worker has its own, for one block of items; `dims` are those of the whole array.
    `strides` are the bytes by which it moves on in each step of the loops around its call, the
    outermost first; () where it stays.
    """

    segment: str
    offset: int
    dims: tuple[int, ...]
    dtype: str
    external: bool = False
    buffer: int = 0
    per_item: int = 0
    strides: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.segment}+{self.offset}{list(self.dims)}{_moving(self.strides)}"


@dataclass(frozen=True, slots=True)
class Count:
    """An integer that is `first` in the first step of all loops and moves on by `strides`."""

    first: int
    strides: tuple[int, ...]

    def at(self, steps: Sequence[int]) -> int:
        """The number in one step of the loops."""
        return moved(self.first, self.strides, steps)

    def __str__(self) -> str:
        return f"{self.first}{_moving(self.strides)}"


def _moving(strides: tuple[int, ...]) -> str:
    return f" by {', '.join(map(str, strides))}" if strides else ""


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """A kernel by name, with its operands in the order of its parameters.

    An operand is an `Operand`, a number (or `Count`), or None for an absent array.
    """

    kernel: str
    operands: tuple[Operand | Count | float | int | None, ...]
    multiplier: int
    scope: str

    def arrays(self) -> list[tuple[str, Array, Operand]]:
        """Its arrays that are not absent: name and use of the parameter, and the operand."""
        params = kernel_of(self.kernel).params.items()
        return [
            (name, parameter, operand)
            for (name, parameter), operand in zip(params, self.operands, strict=True)
            if type(operand) is Operand and isinstance(parameter, Array)
        ]

    def at(self, steps: Sequence[int]) -> PlannedCall:
        """The call in one step of the loops around it."""
        operands = tuple(
            _at(o, steps) if isinstance(o, (Operand, Count)) and o.strides else o
            for o in self.operands
        )
        return replace(self, operands=operands)


def _at(operand: Operand | Count, steps: Sequence[int]) -> Operand | int:
    if isinstance(operand, Count):
        return operand.at(steps)
    return replace(operand, offset=moved(operand.offset, operand.strides, steps), strides=())


def moved(first: int, strides: Sequence[int], steps: Sequence[int]) -> int:
    """What is `first` in the first step of loops, in another one."""
    if not strides:
        return first
    return first + sum(stride * t for stride, t in zip(strides, steps, strict=True))


@dataclass(frozen=True)
class PlannedRepeat:
    """A loop: in a group its calls (or loops), elsewhere phases (or loops of phases).

    Attributes:
        length: steps.
        body: what is done in each.
        fresh: buffers of which no step needs what was there before it.
        reverse: whether the first step to be made is the last in time.
        running: floats, one for each sequence, that say whether it goes on (not 0) in the first
            step made, and how they move on; None: all steps are made. Those may be left out of
            which all are 0: the last ones in time, once zero they stay so. Of a loop in a group
            each block of items is looked at alone.
    """

    length: int
    body: tuple[Any, ...]
    fresh: tuple[Operand, ...] = ()
    reverse: bool = False
    running: Operand | None = None

    def time(self, step: int) -> int:
        return self.length - 1 - step if self.reverse else step


@dataclass(frozen=True)
class PlannedGroup:
    items: int
    grain: int
    block: int
    calls: tuple[PlannedCall | PlannedRepeat, ...]


@dataclass(frozen=True)
class PlannedPhase:
    groups: tuple[PlannedGroup, ...]
    serial: tuple[PlannedCall, ...]


def along(strides: Mapping[Any, int], loops: Sequence[Any]) -> tuple[int, ...]:
    """How something moves in each of the loops; () where it stays."""
    moving = tuple(strides.get(loop, 0) for loop in loops)
    return moving if any(moving) else ()


def calls_of(items: Iterable[Any]) -> Iterator[PlannedCall]:
    """The calls of phases, groups and loops, each once, in order."""
    for item in items:
        if isinstance(item, PlannedCall):
            yield item
        elif isinstance(item, PlannedRepeat):
            yield from calls_of(item.body)
        elif isinstance(item, PlannedGroup):
            yield from calls_of(item.calls)
        else:
            yield from calls_of((*item.groups, *item.serial))


@dataclass(frozen=True)
class Program:
    """One step of a computation.

    Attributes:
        phases: what runs between barriers, and loops of such.
        sizes: bytes needed of each segment that the program itself defines ("work", "constant",
            "input", and for each worker "local").
        constants: contents of the constant segment as (offset, array).
        places: where values of interest lie: name -> operand.
        dtype: NumPy name of the float type.
        batch: samples in a step.
        carried: further segments that hold something before a step begins, by name.
        within: the program for larger sizes whose phases and memory this one has
            (`plan/sizes.py`); None: it has its own.
    """

    phases: tuple[PlannedPhase | PlannedRepeat, ...]
    sizes: dict[str, int]
    constants: tuple[tuple[int, np.ndarray], ...]
    places: dict[str, Operand]
    dtype: str
    batch: int
    carried: tuple[str, ...] = ()
    within: Program | None = field(default=None, repr=False, compare=False)

    @cached
    def nbytes(self) -> int:
        """About how much memory the program's own description takes, beside the larger one's."""
        calls, constants = self.calls(), [data for _, data in self.constants]
        if self.within is not None:
            theirs = {id(call) for call in self.within.calls()}
            calls = [call for call in calls if id(call) not in theirs]
            theirs = {id(data) for _, data in self.within.constants}
            constants = [data for data in constants if id(data) not in theirs]
        operands = sum(len(call.operands) for call in calls)
        held = sum(data.nbytes for data in constants)
        return CALL_BYTES * len(calls) + OPERAND_BYTES * operands + held

    def leaves(self) -> Iterator[PlannedPhase]:
        """All phases, those of loops once."""
        yield from leaves(self.phases)

    def calls(self) -> list[PlannedCall]:
        """All calls in an order in which one worker would run them, those of a loop once."""
        return list(calls_of(self.phases))

    def steps(self) -> Iterator[tuple[int, PlannedCall, tuple[int, ...]]]:
        """What one worker does, loops step by step: each call with its number among `calls`, as it
        is in the step (its scope says which), and the steps of the loops around it."""
        calls = self.calls()
        numbers = {id(call): k for k, call in enumerate(calls)}
        for number, loops, steps in _steps(self.phases, (), (), numbers):
            call = calls[number]
            if loops:
                call = replace(call.at(steps), scope=call.scope + time_steps(loops, steps))
            yield number, call, steps

    def times(self) -> Iterator[tuple[PlannedCall, int]]:
        """All calls, and how often a step makes each."""
        return _times(self.phases, 1)

    def launches(self) -> list[list[int]]:
        """The steps (by place in `steps`) of each launch, for a device on which a phase is one."""
        phases = {id(call): n for n, leaf in enumerate(self.leaves()) for call in calls_of([leaf])}
        phase_of = [phases[id(call)] for call in self.calls()]
        found: list[list[int]] = []
        before = None
        for place, (number, _, steps) in enumerate(self.steps()):
            launch = phase_of[number], steps
            if launch == before:
                found[-1].append(place)
            else:
                found.append([place])
            before = launch
        return found

    @property
    def launch_count(self) -> int:
        """How many launches a step has, on a device on which a phase is one."""
        return _count(self.phases)

    def __str__(self) -> str:
        lines = [f"program: {self.dtype}, batch {self.batch}, {self.sizes}"]
        return "\n".join(lines + _phase_lines(self.phases, "phase "))


def leaves(phases: Iterable[PlannedPhase | PlannedRepeat]) -> Iterator[PlannedPhase]:
    """All of these phases, those of loops once."""
    for phase in phases:
        if isinstance(phase, PlannedRepeat):
            yield from leaves(phase.body)
        else:
            yield phase


def _times(items: Iterable[Any], count: int) -> Iterator[tuple[PlannedCall, int]]:
    for item in items:
        if isinstance(item, PlannedCall):
            yield item, count
        elif isinstance(item, PlannedRepeat):
            yield from _times(item.body, count * item.length)
        elif isinstance(item, PlannedGroup):
            yield from _times(item.calls, count)
        else:
            yield from _times((*item.groups, *item.serial), count)


def _count(phases: Iterable[PlannedPhase | PlannedRepeat]) -> int:
    return sum(
        phase.length * _count(phase.body) if isinstance(phase, PlannedRepeat) else 1
        for phase in phases
    )


def time_steps(loops: Sequence[PlannedRepeat], steps: Sequence[int]) -> str:
    """In which step of loops something is, for people."""
    return "".join(f", time step {loop.time(t)}" for loop, t in zip(loops, steps, strict=True))


def _steps(
    items: Iterable[Any], loops: tuple[PlannedRepeat, ...], steps: tuple[int, ...],
    numbers: dict[int, int],
) -> Iterator[tuple[int, tuple[PlannedRepeat, ...], tuple[int, ...]]]:  # fmt: skip
    for item in items:
        if isinstance(item, PlannedCall):
            yield numbers[id(item)], loops, steps
        elif isinstance(item, PlannedRepeat):
            for t in range(item.length):
                yield from _steps(item.body, (*loops, item), (*steps, t), numbers)
        elif isinstance(item, PlannedGroup):
            yield from _steps(item.calls, loops, steps, numbers)
        else:
            yield from _steps((*item.groups, *item.serial), loops, steps, numbers)


def _phase_lines(phases: Sequence[PlannedPhase | PlannedRepeat], name: str) -> list[str]:
    lines: list[str] = []
    for number, phase in enumerate(phases):
        if isinstance(phase, PlannedRepeat):
            lines.append(f"{name}{number}: {_head(phase)}")
            lines += [f"    {line}" for line in _phase_lines(phase.body, f"{name}{number}.")]
            continue
        for group in phase.groups:
            lines.append(
                f"{name}{number}: {group.items} items, grain {group.grain}, blocks of {group.block}"
            )
            lines += [f"    {line}" for line in _call_lines(group.calls)]
        lines.append(f"{name}{number}: barrier" + (", serial:" if phase.serial else ""))
        lines += [f"    {line}" for line in _call_lines(phase.serial)]
    return lines


def _call_lines(calls: Sequence[PlannedCall | PlannedRepeat]) -> list[str]:
    lines: list[str] = []
    for call in calls:
        if isinstance(call, PlannedRepeat):
            lines += [_head(call), *(f"    {line}" for line in _call_lines(call.body))]
        else:
            lines.append(_line(call))
    return lines


def _head(repeat: PlannedRepeat) -> str:
    ends = "" if repeat.running is None else f", while any of {repeat.running} is not 0"
    return f"{repeat.length} times" + (", backward in time" if repeat.reverse else "") + ends + ":"


def _line(call: PlannedCall) -> str:
    operands = ", ".join("-" if o is None else str(o) for o in call.operands)
    times = f" x{call.multiplier}" if call.multiplier != 1 else ""
    return f"{call.kernel}({operands}){times}  # {call.scope}"
