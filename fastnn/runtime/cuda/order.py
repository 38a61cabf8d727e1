"""The launches of a step, in order: those of a loop once, with the loop around them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastnn.cached import cached
from fastnn.kernels.cuda import joined
from fastnn.kernels.declare import kernel_of
from fastnn.plan.branches import MOST_LAUNCHES, Place, Touch, branches, touches_of
from fastnn.plan.program import PlannedCall, PlannedRepeat, Program, calls_of, time_steps
from fastnn.runtime.cuda.place import Launch
from fastnn.runtime.cuda.place import Place as Where

if TYPE_CHECKING:
    from fastnn.runtime.cuda.gpu import Gpu
    from fastnn.runtime.cuda.simulated import SimulatedGpu

#: steps of the loops around something, the outermost first
Steps = tuple[int, ...]


class Leaves:
    """The calls of a program's phases, which are looked at when somebody asks."""

    def __init__(self, program: Program):
        self.program = program

    @cached
    def calls(self) -> list[tuple[PlannedCall, ...]]:
        """Of each phase."""
        return [tuple(calls_of([leaf])) for leaf in self.program.leaves()]


@dataclass(frozen=True)
class Sent:
    """What is launched for a phase of a program: `count` calls."""

    launch: Launch
    leaves: Leaves
    number: int
    count: int

    @property
    def calls(self) -> tuple[PlannedCall, ...]:
        """The calls of the program that it makes."""
        return self.leaves.calls[self.number]

    def touches(self, program: Program, steps: Steps) -> list[Touch]:
        """What it touches in a step of the loops around it."""
        moved = (call.at(steps) if steps else call for call in self.calls)
        return [t for call in moved for t in touches_of(program, call)]


@dataclass(frozen=True)
class Other:
    """What is launched beside or in place of the program's calls, and what it touches."""

    launch: Launch
    touched: tuple[Touch, ...]
    count: int = 0

    def touches(self, program: Program, steps: Steps) -> list[Touch]:
        """What it touches."""
        return list(self.touched)


@dataclass(frozen=True)
class Again:
    """Steps of a loop: what is launched so many times, from step `begin` on."""

    length: int
    body: tuple[Sent | Again, ...]
    begin: int = 0


#: steps of a loop that ends where its sequences do, between two looks whether any goes on
STEPS_TOGETHER = 32
#: what a step launches, loops as loops
Item = Sent | Other | Again


class Part:
    """Launches that are sent together, as one graph where there are graphs.

    Attributes:
        host: the function of the host that is called before them; None: there is none.
        wanted: floats on the device; where all are 0 when it comes to these launches, they are
            left out. None: they are always made.
        sent: how often they have been sent.
        since: with which time of these they are a graph.
        replay: what replays them as a graph.
    """

    since = 2

    def __init__(
        self, program: Program, items: list[Item], host: int | None = None,
        wanted: Where | None = None,
    ):  # fmt: skip
        self.program, self.items, self.host, self.wanted = program, items, host, wanted
        self.sent = 0
        self.replay: Launch | None = None

    def __len__(self) -> int:
        """How many launches, those of loops as often as they are made."""
        return _count(self.items)

    @property
    def nodes(self) -> int:
        """How many launches its graphs have."""
        return len(self)

    def each(self) -> Iterator[tuple[Sent | Other, Steps]]:
        """All launches in order, with the steps of the loops around them."""
        return each(self.items)

    def launches(self) -> Iterator[Callable[[], None]]:
        for one, steps in self.each():
            yield functools.partial(one.launch, *steps) if steps else one.launch

    def branches(self) -> list[Place]:
        """Where each launch runs in a graph; empty: all in one branch."""
        if len(self) > MOST_LAUNCHES:
            return []
        return branches([one.touches(self.program, steps) for one, steps in self.each()])

    def captured(self, gpu: Gpu | SimulatedGpu) -> Launch | None:
        """What replays them as a graph; None where there are none."""
        return gpu.capture(self.launches(), self.branches())

    def send(self) -> None:
        for one, steps in self.each():
            one.launch(*steps)


def ends_early(loop: PlannedRepeat) -> bool:
    """Whether the host looks, now and then, if any sequence of a loop goes on."""
    return loop.running is not None and loop.length > STEPS_TOGETHER


def cut(loop: PlannedRepeat, body: tuple[Sent | Again, ...]) -> Iterator[tuple[Again, int | None]]:
    """A loop that ends where its sequences do, in pieces of which the host decides whether they are
    made: each with the step whose mask says so (None: it is made in any case).

    Pieces lie between the same points in time on the way back as on the way forward, and go by the
    mask of the same step, the first in time: so both make the same steps.
    """
    pieces = range(0, loop.length, STEPS_TOGETHER)
    for time in reversed(pieces) if loop.reverse else pieces:
        length = min(STEPS_TOGETHER, loop.length - time)
        begin = loop.length - time - length if loop.reverse else time
        first = begin + length - 1 if loop.reverse else begin
        yield Again(length, body, begin), first if time else None


def _count(items: Sequence[Item]) -> int:
    return sum(i.length * _count(i.body) if isinstance(i, Again) else 1 for i in items)


def each(items: Sequence[Item], steps: Steps = ()) -> Iterator[tuple[Sent | Other, Steps]]:
    """All launches of items in order, with the steps of the loops around them, those of `steps`
    first."""
    for item in items:
        if isinstance(item, Again):
            for t in range(item.begin, item.begin + item.length):
                yield from each(item.body, (*steps, t))
        else:
            yield item, steps


def calls_host(calls: Sequence[PlannedCall]) -> bool:
    """Whether a call stands for a function of the host."""
    return bool(calls) and kernel_of(calls[0].kernel).traits.host


def host_number(calls: Sequence[PlannedCall]) -> int:
    """Which function of the host a call stands for."""
    return int(calls[0].operands[0])  # type: ignore[arg-type]


def marked(
    marks: Any, launch: Launch, calls: Sequence[PlannedCall], loops: Sequence[PlannedRepeat]
) -> Launch:
    """A launch within NVTX ranges: the layer's name, and in it the kernel's."""
    kernel = joined.AND.join(call.kernel for call in calls)

    def within(*steps: int) -> None:
        time = time_steps(loops, steps)
        layers = dict.fromkeys(call.scope + time for call in calls if call.scope or time)
        marks.push_range(" + ".join(layers) or "(step)", domain="fastnn")
        marks.push_range(kernel, domain="fastnn")
        try:
            launch(*steps)
        finally:
            marks.pop_range(domain="fastnn")
            marks.pop_range(domain="fastnn")

    return within
