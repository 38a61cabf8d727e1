"""Programs made by hand, and a session's worth of memory to run them in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastnn.graph.graph import Graph
from fastnn.graph.value import Value
from fastnn.kernels import control_block
from fastnn.kernels.declare import kernel
from fastnn.ops.declare import apply_effect
from fastnn.ops.feeding import advance
from fastnn.plan.planner import plan
from fastnn.plan.program import Program
from fastnn.runtime.cpu.execute import BoundProgram, allocate
from fastnn.runtime.cpu.memory import Memory
from fastnn.runtime.cpu.team import Team
from fastnn.runtime.segment import aligned_zeros


@kernel
def spread(
    table: "in whole r[R]",  # read as a whole: needs a barrier after it was written
    y: "out rows r[R]",
    lo: "begin",
    hi: "end",
):
    """y[i] = sum(table) + i."""
    total = 0.0
    for k in range(table.shape[0]):
        total += table[k]
    for i in range(lo, hi):
        y[i] = total % 1000.0 + i


@kernel
def count_up(
    counts: "inout rows i[R]",
    lo: "begin",
    hi: "end",
):
    """counts[i] += 1."""
    for i in range(lo, hi):
        counts[i] += 1


@kernel
def scale_up(x: "inout rows f[R]", factor: "real", lo: "begin", hi: "end"):
    """x[i] *= factor."""
    for i in range(lo, hi):
        x[i] *= factor


def build(
    fill: Callable[[Graph], dict[str, Value]], dtype: str = "float32", stop: bool = True
) -> Program:
    """A program of the calls that `fill` adds, and the end of a step."""
    graph = Graph(1, True, dtype)
    places = fill(graph)
    if stop:
        advance(graph.control(), 1)
    return plan(graph, places, carried=("state", "counts", "x"))


class Run:
    """A bound program with a team and its own memory."""

    def __init__(self, program: Program, workers: int, **segments: np.ndarray):
        self.control = aligned_zeros(control_block.LENGTH, np.int64)
        self.memory: Memory = {"control": self.control, **segments}
        allocate(program, self.memory)
        self.bound = BoundProgram(program, self.memory)
        self.team = Team(workers)

    def start(
        self, steps: int, poll: Callable[[], Any] = lambda: None, every: float = 0.01
    ) -> None:
        self.last = self.team.describe([(self.bound, steps)], self.control)
        self.team.start(self.last, poll, every)

    def call(self, steps: int) -> None:
        self.team.call(self.team.describe([(self.bound, steps)], self.control))


def ring(items: int, phases: int) -> Program:
    """Phases that each read all of what the phase before has written, in buffers by turns; a count
    of what each item has been through."""

    def fill(graph: Graph) -> dict[str, Value]:
        a = graph.leaf("a", (items,), "state", dtype="r", offset=0)
        b = graph.leaf("b", (items,), "state", dtype="r", offset=items)
        counts = graph.leaf("counts", (items,), "counts", dtype="i", offset=0)
        for k in range(phases):
            source, target = (a, b) if k % 2 == 0 else (b, a)
            apply_effect(graph, "spread", table=source, y=target)
        apply_effect(graph, "count_up", counts=counts)
        return {}

    return build(fill)
