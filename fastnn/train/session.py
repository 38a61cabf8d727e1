"""A session: memory, programs and workers that run steps over data in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastnn.errors import OptionError
from fastnn.kernels import clock as words
from fastnn.nn.parameter import ParameterStore
from fastnn.plan.program import Program
from fastnn.runtime.cpu.ahead import compile_missing
from fastnn.runtime.cpu.cost import default_workers
from fastnn.runtime.cpu.execute import (
    BoundProgram,
    Memory,
    Team,
    aligned_zeros,
    allocate,
    available_cores,
)


def check_workers(workers: int | str) -> int | str:
    if workers == "auto":
        return workers
    if not isinstance(workers, (int, np.integer)) or isinstance(workers, bool) or workers < 1:
        raise OptionError(f"workers: expected 'auto' or a whole number >= 1, got {workers!r}")
    return int(workers)


class Session:
    """Runs programs that share a model's parameters.

    Args:
        store: the parameters' memory.
        slots: names of the optimiser's slots.
        totals: how many running totals (loss and metrics).
        workers: number of workers, or "auto" to choose by the work in a step.
    """

    def __init__(
        self, store: ParameterStore, slots: Sequence[str], totals: int, workers: int | str
    ):
        self.store = store
        self.workers = check_workers(workers)
        self.clock = aligned_zeros(words.LENGTH, np.int64)
        self.totals = aligned_zeros(2 * totals, np.float64)
        self.memory: Memory = {**store.memory, "clock": self.clock, "totals": self.totals}
        for slot in slots:
            self.memory[f"slots/{slot}"] = aligned_zeros(store.size, store.dtype)
        self.running = False  # whether workers may be in the middle of a step
        self._teams: dict[int, Team] = {}

    def set(self, name: str, array: np.ndarray) -> None:
        """Provide an external segment; programs bound before keep the one they have."""
        self.memory[name] = array

    def bind(self, program: Program) -> BoundProgram:
        """Give a program its memory (and compile what is not yet compiled)."""
        allocate(program, self.memory)
        compile_missing(program, self.memory)
        return BoundProgram(program, dict(self.memory))

    def team(self, program: Program) -> Team:
        """The workers for runs of a program."""
        count = self.workers if isinstance(self.workers, int) else default_workers(program)
        if count not in self._teams:
            self._teams[count] = Team(count)
        return self._teams[count]

    def run(self, segments: Sequence[tuple[BoundProgram, int]], poll: Callable[[], None]) -> int:
        """Run programs so many steps each, one after the other; returns the reason of a stop or 0.

        The clock's CURSOR is kept, RUN_STEP starts from 0.
        """
        self.store.check()
        self.clock[[words.RUN_STEP, words.STOP_REQUEST, words.STOP]] = 0
        team = self.team(segments[0][0].program)
        self.running = True
        try:
            team.start(team.describe(segments, self.clock), poll)
        finally:
            self.running = False
        return int(self.clock[words.STOP])

    def means(self, names: Sequence[str]) -> dict[str, float]:
        """The running means so far."""
        sums, counts = self.totals[0::2].copy(), self.totals[1::2].copy()
        return {
            name: float(s / c) if c else float("nan")
            for name, s, c in zip(names, sums, counts, strict=True)
        }


def worker_note(program: Program, workers: int | str) -> str:
    """What was decided about workers, for people."""
    chosen = workers if isinstance(workers, int) else default_workers(program)
    return f"{chosen} of {available_cores()} cores"


def segments_for(
    full: Any, rest: Any, samples: int, batch: int, begin: int = 0
) -> list[tuple[Any, int]]:
    """Steps that cover samples begin..samples: whole batches, then the rest."""
    steps, remainder = divmod(samples - begin, batch)
    found = [(full, steps)] if steps else []
    if remainder and rest is not None:
        found.append((rest, 1))
    return found
