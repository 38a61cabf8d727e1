"""Loops whose body is launched again and again: it is captured once, for any number of steps.

The launches of such a body read their arguments from memory (`rows.py`). The first launch of a step
(the kernel `next_step`) writes those that move, from a table, and counts the step. So no step is
named by the host, and neither the graph nor the table grows with the length of the loop. A short
body is captured for several steps at once, so that the cost of a launch of the graph is that of
many kernels; steps that are left are made one by one, by a graph of one step.

Programs of other sizes within a larger one have the same launches with other words: they have
tables of their own, which are copied to the place that the graph reads, and share the graph.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastnn.cached import cached
from fastnn.kernels.declare import CUDA_KERNELS
from fastnn.plan.program import Operand, PlannedRepeat, Program, leaves
from fastnn.runtime import cache
from fastnn.runtime.cuda import ahead, rows
from fastnn.runtime.cuda.made import Made
from fastnn.runtime.cuda.order import Again, Part, Sent, Steps, cut, each, ends_early
from fastnn.runtime.cuda.place import Launch, Piece, Place, nothing
from fastnn.runtime.cuda.rows import row_of

if TYPE_CHECKING:
    from fastnn.runtime.cuda.gpu import Gpu
    from fastnn.runtime.cuda.simulated import SimulatedGpu

#: launches of a graph at least, if the body is captured for several steps
LEAST = 128
#: steps that it is captured for, at most: a divisor of the steps between two looks at a mask
MOST_TIMES = 32
#: bytes of a word, and those before the words: the counter of steps
WORD, HEAD = 8, 64


def times_of(count: int) -> int:
    """Steps for which a body of so many launches is captured: a power of 2."""
    times = 1
    while times < MOST_TIMES and times * count < LEAST:
        times *= 2
    return times


class Table(NamedTuple):
    """The arguments of a body's launches, for several steps one after the other.

    Attributes:
        words: of all launches, in the first steps.
        rows: where each launch's words begin.
        moves: for each word that moves its number, what it is in the first step, and by what it
            grows with each further one; those of the first of the steps come first.
        once: how many of these belong to the first of the steps.
    """

    words: np.ndarray
    rows: list[int]
    moves: np.ndarray
    once: int


def table_of(launches: Sequence[tuple[Any, Steps]], times: int) -> Table:
    """The table for launches, each with its steps of the loops within the body."""
    words = [row_of(launch.arguments) for launch, _ in launches]
    sizes = [len(row) for row in words]
    begins = [0, *np.cumsum(sizes).tolist()]
    moves: list[tuple[int, int, int]] = []
    for (launch, inner), own, begin in zip(launches, words, begins, strict=False):
        for number, value, (stride, *others) in launch.words:
            first = value + sum(by * step for by, step in zip(others, inner, strict=True))
            own[number] = first
            if stride:
                moves.append((begin + number, first, stride))
    one, size = np.array(moves, np.int64).reshape(-1, 3), begins[-1]
    every = np.concatenate([one + one[:, 2:] * [0, k, 0] + [k * size, 0, 0] for k in range(times)])
    whole = np.concatenate(words * times)
    whole[every[:, 0]] = every[:, 1]
    rows = [k * size + begin for k in range(times) for begin in begins[:-1]]
    return Table(whole, rows, every, len(one))


class Body:
    """What is launched for some steps of a loop at once; the words are in memory.

    Args:
        gpu: the device.
        launches: of one step.
        table: of all words.
        times: how many steps are launched at once, at most.
    """

    def __init__(self, gpu: Gpu | SimulatedGpu, launches: Sequence[Any], table: Table, times: int):
        self.gpu, self.times = gpu, times
        self.size = HEAD + WORD * (table.words.size + table.moves.size)
        self.piece = piece = gpu.allocate(self.size, "loop")
        self._counter = Place(piece, 0, (1,), "int64")
        self._words = Place(piece, HEAD, table.words.shape, "int64")
        self._moves = HEAD + table.words.nbytes
        self._launches, self._rows, self._once = list(launches), table.rows, table.once
        self._graphs: dict[int, Launch] = {}  # by how many steps they make

    def load(self, source: Piece) -> None:
        """Take the words of a program, those of the loop's first step."""
        self.gpu.duplicate(source, self.piece, self.size)

    def begin_at(self, step: int) -> None:
        """The step that comes next."""
        self.gpu.upload(np.array([step], np.int64), self.piece)

    def make(self, steps: int) -> None:
        """Make so many steps, from where the last ones ended."""
        times = self.times
        while steps:
            for _ in range(steps // times):
                self._several(times)()
            steps, times = steps % times, times // 2

    def _several(self, times: int) -> Launch:
        """What makes so many steps, a power of 2."""
        if times not in self._graphs:
            operands: dict[str, Any] = {
                "moves": Place(self.piece, self._moves, (times * self._once, 3), "int64"),
                "by": times, "counter": self._counter, "words": self._words,
            }  # fmt: skip
            first = self.gpu.prepared(CUDA_KERNELS["next_step"], "float32", "", operands)
            found = [first] + [
                launch.from_row(self._words.address + WORD * row)
                for launch, row in zip(self._launches * times, self._rows, strict=False)
            ]
            self._graphs[times] = self.gpu.capture(found, ()) or functools.partial(_send, found)
        return self._graphs[times]


def _send(launches: Sequence[Launch]) -> None:
    for launch in launches:
        launch()


#: bodies by what they launch, as long as a program uses them
Bodies = weakref.WeakValueDictionary[Any, Body]


class Loop:
    """A loop of a program on a device, whose body is launched again and again.

    Args:
        gpu: the device.
        items: what a step of it launches.
        bodies: those of programs of all sizes that have the same memory, by what they launch.
        number: which loop of the program it is.
    """

    def __init__(
        self, gpu: Gpu | SimulatedGpu, items: Sequence[Sent | Again], bodies: Bodies,
        number: int,
    ):  # fmt: skip
        self.gpu, self.items, self.bodies, self.number = gpu, items, bodies, number
        self._own: Body | None = None  # the body, if no other program had it before

    @cached
    def _launches(self) -> list[tuple[Any, Steps]]:
        return [(one.launch, t) for one, t in each(self.items) if one.launch is not nothing]

    @property
    def nodes(self) -> int:
        """How many launches its graphs have, at most; 0 where they are another program's."""
        count = len(self._launches)
        if not count or self.bodies.get(self._table[1], self._own) is not self._own:
            return 0
        return count * (2 * times_of(count) - 1)

    @cached
    def _table(self) -> tuple[Table, Any]:
        """The arguments of its launches, and what bodies that these can share have in common."""
        own = self._launches
        table = table_of(own, times_of(len(own)))
        alike = tuple((launch.variant, launch.how) for launch, _ in own)
        return table, (self.number, alike, table.moves[:, 0].tobytes())

    @cached
    def _ready(self) -> tuple[Body, Piece]:
        """The body, and the words that this program has it take."""
        own, (table, key) = self._launches, self._table
        body = self.bodies.get(key)
        if body is None:
            body = Body(self.gpu, [launch for launch, _ in own], table, times_of(len(own)))
            self.bodies[key] = self._own = body
        content = np.concatenate(
            [np.zeros(HEAD // WORD, np.int64), table.words, table.moves.ravel()]
        )
        source = self.gpu.allocate(content.nbytes, "loop")
        self.gpu.upload(content, source)
        return body, source

    def make(self, begin: int, length: int) -> None:
        """Make so many steps, from this one on."""
        if not self._launches:
            return
        body, source = self._ready
        body.load(source)
        if begin:
            body.begin_at(begin)
        body.make(length)


class Repeated(Part):
    """Steps of such a loop. It is captured when they are made for the first time."""

    since = 1

    def __init__(self, program: Program, steps: Again, loop: Loop, wanted: Place | None = None):
        super().__init__(program, [steps], wanted=wanted)
        self.steps, self.loop = steps, loop

    @property
    def nodes(self) -> int:
        return self.loop.nodes if self.steps.begin == 0 else 0

    def captured(self, gpu: Gpu | SimulatedGpu) -> Launch:
        return functools.partial(self.loop.make, self.steps.begin, self.steps.length)


def parts_of(
    program: Program, loop: PlannedRepeat, body: tuple[Sent | Again, ...],
    place: Callable[[Operand], Place], repeated: Loop | None,
) -> Iterator[Part]:  # fmt: skip
    """Parts of a loop, several of one that ends where its sequences do, and one for what follows.

    Args:
        program: whose it is.
        loop, body: the loop, and what a step of it launches.
        place: where an operand lies.
        repeated: what makes its steps; None: they are all nodes of a graph.
    """
    pieces = cut(loop, body) if ends_early(loop) else [(Again(loop.length, body), None)]
    for steps, first in pieces:
        wanted = None
        if first is not None:
            assert loop.running is not None
            wanted = place(loop.running).at((first,))
        if repeated is None:
            yield Part(program, [steps], wanted=wanted)
        else:
            yield Repeated(program, steps, repeated, wanted)
    yield Part(program, [])


def in_loops(program: Program) -> Iterator[int]:
    """Which of the program's phases, loops' counted once, are in loops."""
    number = 0
    for phase in program.phases:
        begin = number
        number += sum(1 for _ in leaves([phase]))
        if isinstance(phase, PlannedRepeat):
            yield from range(begin, number)


def compile_missing(gpu: Gpu | SimulatedGpu, dtype: str, made: Iterable[tuple[Made, bool]]) -> bool:
    """Compile kernels that are not in the cache; those of bodies (True) in both forms at once, so
    that Numba works on them once. Returns whether all of these can read their arguments from rows.
    """
    plain: list[ahead.Variant] = []
    rows_of: list[ahead.Variant] = []
    for one, repeated in made:
        variant = one.kernel, dtype, one.data
        if not gpu.has(*variant):
            plain.append((*variant, gpu.cc))
        if repeated and not gpu.has(*variant, row=True):
            rows_of.append((*variant, gpu.cc))
    ahead.compile_missing(plain, rows_of)
    refused = [v[0] for v in dict.fromkeys(rows_of) if rows.code(*v) == rows.NONE]
    for kernel in refused:
        cache.note(
            f"kernel {kernel.name!r} can't be made to read its arguments from memory: loops that "
            "launch it are captured with all their steps, which takes longer for each length"
        )
    return not refused
