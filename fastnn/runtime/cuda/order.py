"""The launches of a step, in order: those of a loop once, with the loop around them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from fastnn.plan.branches import MOST_LAUNCHES, Place, Touch, branches, touches_of
from fastnn.plan.program import PlannedCall, Program
from fastnn.runtime.cuda.place import Launch

#: steps of the loops around something, the outermost first
Steps = tuple[int, ...]


@dataclass(frozen=True)
class Sent:
    """What is launched for calls of a program."""

    launch: Launch
    calls: tuple[PlannedCall, ...]

    @property
    def count(self) -> int:
        """How many calls of the program it makes."""
        return len(self.calls)

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
    """A loop: what is launched so many times."""

    length: int
    body: tuple[Sent | Again, ...]


#: what a step launches, loops as loops
Item = Sent | Other | Again


class Part:
    """Launches that are sent together, as one graph where there are graphs."""

    def __init__(self, program: Program, items: Sequence[Item]):
        self.program, self.items = program, items

    def __len__(self) -> int:
        """How many launches, those of loops as often as they are made."""
        return _count(self.items)

    def each(self) -> Iterator[tuple[Sent | Other, Steps]]:
        """All launches in order, with the steps of the loops around them."""
        return _each(self.items, ())

    def launches(self) -> Iterator[Callable[[], None]]:
        for one, steps in self.each():
            yield functools.partial(one.launch, *steps) if steps else one.launch

    def branches(self) -> list[Place]:
        """Where each launch runs in a graph; empty: all in one branch."""
        if len(self) > MOST_LAUNCHES:
            return []
        return branches([one.touches(self.program, steps) for one, steps in self.each()])

    def send(self) -> None:
        for one, steps in self.each():
            one.launch(*steps)


def _count(items: Sequence[Item]) -> int:
    return sum(i.length * _count(i.body) if isinstance(i, Again) else 1 for i in items)


def _each(items: Sequence[Item], steps: Steps) -> Iterator[tuple[Sent | Other, Steps]]:
    for item in items:
        if isinstance(item, Again):
            for t in range(item.length):
                yield from _each(item.body, (*steps, t))
        else:
            yield item, steps
