"""Which numbers of workers a program may run on, and what is known of each (see `choosing`)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastnn.cached import cached
from fastnn.plan.formula import SizedProgram
from fastnn.plan.program import Program
from fastnn.runtime.cpu import layout
from fastnn.runtime.cpu.choosing import HOLD
from fastnn.runtime.cpu.cost import Cost
from fastnn.runtime.cpu.execute import available_cores
from fastnn.runtime.segment import aligned_zeros

#: seconds that a run takes, by estimate, before threads are started for numbers that may not be
#: used: for the next candidate, and for all
NEXT, ALL = 0.5e-3, 20e-3


def ladder(most: int) -> list[int]:
    """Numbers of workers up to so many: 1, 2, 3, 4, 6, 8, 12, 16, ... and the last."""
    found = [n for k in range(most.bit_length()) for n in (1 << k, 3 << k >> 1)]
    return sorted({n for n in found if 1 <= n <= most} | {most})


class Choice:
    """The candidates for a program, and measurements of them.

    Args:
        program: the program.
        cores: the largest number of workers.
    """

    def __init__(self, program: Program, cores: int):
        cost = Cost(program)
        self.candidates = ladder(max(min(cores, cost.most), 1) if cost.may_gain else 1)
        first = cost.fastest(self.candidates)
        self.words = aligned_zeros(
            layout.CHOICE_WORDS + layout.CANDIDATE_WORDS * len(self.candidates), np.int64
        )
        words = self.words
        #: the same in a memory that Python reads more quickly than an array
        self.read = words.data
        words[layout.CHOICE_COUNT] = len(self.candidates)
        words[layout.CHOICE_CURRENT] = self.candidates.index(first)
        words[layout.CHOICE_TRIED], words[layout.CHOICE_SIDE] = -1, 1
        self.estimates = [cost.seconds(n) for n in self.candidates]
        rows = words[layout.CHOICE_WORDS :].reshape(-1, layout.CANDIDATE_WORDS)
        rows[:, layout.CANDIDATE_WORKERS] = self.candidates
        rows[:, layout.CANDIDATE_ESTIMATE] = [max(int(1e9 * s), 1) for s in self.estimates]
        rows[:, layout.CANDIDATE_HOLD] = HOLD

    @cached
    def address(self) -> int:
        """Of the words; 0 where there is nothing to choose."""
        return int(self.words.ctypes.data) if len(self.candidates) > 1 else 0

    @property
    def current(self) -> int:
        """How many workers have proved quickest so far."""
        return self.candidates[self.read[layout.CHOICE_CURRENT]]

    def most(self, steps: int) -> int:
        """The number of the last candidate that a run of so many steps may try."""
        current, last = self.read[layout.CHOICE_CURRENT], len(self.candidates) - 1
        seconds = self.estimates[current] * steps + self.read[layout.CHOICE_ELAPSED] / 1e9
        return last if seconds >= ALL else min(current + (seconds >= NEXT), last)


def choice_of(program: Program) -> Choice:
    """The choice for a program: programs that follow from the same formulas share one where their
    sizes have as many bits."""
    cores, kept = available_cores(), _kept(program)
    key: tuple[Any, ...] = ("workers",)
    if isinstance(program, SizedProgram) and program.formula is not None:
        key = (*key, *(size.bit_length() for size in program.given))
    found: Choice | None = kept.get((*key, cores))
    if found is None:
        found = kept[*key, cores] = Choice(program, cores)
    return found


def unit_of(program: Program) -> int:
    """How much work a step is, for comparing it with steps of the same choice."""
    if isinstance(program, SizedProgram) and program.formula is not None:
        return max(math.prod(program.given), 1)
    return 1


def _kept(program: Program) -> dict[Any, Any]:
    if isinstance(program, SizedProgram) and program.formula is not None:
        return program.formula.kept
    return program.__dict__.setdefault("_choices", {})
