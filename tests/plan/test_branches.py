"""Branches: whatever meets in memory is ordered, and what need not wait does not."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim
from fastnn.plan.branches import (
    END,
    Touch,
    branches,
    dependencies,
    longest,
    meet,
    touches_of,
)
from fastnn.plan.program import Program
from fastnn.testing.null import null_device


class Tagger(nn.Module):
    def __init__(self, **options: Any) -> None:
        self.net = nn.LSTM(3, 8, **options)
        self.out = nn.Linear(16 if options.get("bidirectional") else 8, 4)

    def forward(self, x: Any) -> Any:
        return self.out(self.net(x)[0])


class Cells(nn.Module):
    def __init__(self) -> None:
        self.cell = nn.GRUCell(3, 4)

    def forward(self, x: Any) -> Any:
        def step(x_t: Any, h: Any) -> Any:
            h = self.cell(x_t, h)
            return h, h

        return ops.loop(step, x, ops.zeros_state(x, 4))[0]


def flat() -> tuple[nn.Module, tuple[int, ...]]:
    return nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.BatchNorm(20), nn.Linear(20, 4)), (6,)


MODELS: dict[str, Callable[[], tuple[nn.Module, tuple[int, ...]]]] = {
    "flat": flat,
    "lstm": lambda: (Tagger(num_layers=2), (5, 3)),
    "both ways": lambda: (Tagger(bidirectional=True), (5, 3)),
    "loop": lambda: (Cells(), (5, 3)),
}


def planned(name: str) -> Program:
    model, shape = MODELS[name]()
    steps = shape[:-1]
    with null_device("cuda") as null:
        trainer = fnn.Trainer(model, "mse", optim.Adam(1e-3, clip_global_norm=1.0))
        x, y = np.zeros((8, *shape), np.float32), np.zeros((8, *steps, 4), np.float32)
        trainer.fit(x, y, epochs=1, batch_size=8, verbose=False)
    return null.programs[0]


def touched(program: Program) -> list[list[Touch]]:
    calls = [call for _, call, _ in program.steps()]
    return [
        [touch for k in launch for touch in touches_of(program, calls[k])]
        for launch in program.launches()
    ]


def ordered(touches: Sequence[Sequence[Touch]], most: int) -> None:
    """Launches that meet follow each other along branches and events."""
    places = branches(touches, most)
    assert max((p.branch for p in places), default=0) < most
    before: list[set[int]] = []
    last: dict[int, int] = {}
    for k, place in enumerate(places):
        mine = set(place.waits) | ({last[place.branch]} if place.branch in last else set())
        before.append(mine.union(*(before[j] for j in mine)) if mine else set())
        last[place.branch] = k
        assert all(j < k and places[j].branch != place.branch for j in place.waits)
    for j, k in itertools.combinations(range(len(touches)), 2):
        assert j in before[k] or not meet(touches[j], touches[k]), (j, k)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("most", [1, 2, 3, 8])
def test_what_meets_is_ordered(name: str, most: int) -> None:
    ordered(touched(planned(name)), most)


@pytest.mark.parametrize("seed", range(30))
def test_any_touches(seed: int) -> None:
    draw = random.Random(seed)
    touches = []
    for _ in range(draw.randrange(1, 40)):
        mine = []
        for _ in range(draw.randrange(1, 4)):
            begin = draw.randrange(12)
            end = draw.choice([begin + draw.randrange(1, 4), END])
            mine.append(Touch(draw.choice("ab"), begin, end, draw.choice("rrrwf")))
        touches.append(mine)
    for most in (1, 2, 5):
        ordered(touches, most)


def test_reads_and_flags_do_not_wait_for_each_other() -> None:
    read, flag, write = (Touch("a", 0, 8, how) for how in "rfw")
    assert dependencies([[read], [read]]) == [[], []]
    assert dependencies([[flag], [flag]]) == [[], []]
    assert dependencies([[write], [read], [flag], [write]]) == [[], [0], [1], [2]]
    assert dependencies([[write], [Touch("a", 8, 9, "w")], [Touch("b", 0, 9, "w")]]) == [[], [], []]


def test_arrays_of_the_caller_are_touched_as_a_whole() -> None:
    """The program does not know how large they are."""
    program = planned("flat")
    found = [
        (touch.begin, touch.end)
        for call in program.calls()
        for (_, _, operand), touch in zip(call.arrays(), touches_of(program, call), strict=True)
        if operand.external
    ]
    assert set(found) == {(0, END)}


@pytest.mark.parametrize("name", ["flat", "lstm", "both ways"])
def test_no_launch_waits_for_memory_alone(name: str) -> None:
    """Buffers that side by side may be in use do not share memory."""
    program = planned(name)
    calls = [call for _, call, _ in program.steps()]
    apart = []
    for launch in program.launches():
        mine = []
        for k in launch:
            touches = touches_of(program, calls[k])
            for (_, _, operand), touch in zip(calls[k].arrays(), touches, strict=True):
                own = f"work {operand.buffer}" if operand.segment == "work" else touch.segment
                mine.append(touch._replace(segment=own))
        apart.append(mine)
    assert dependencies(touched(program)) == dependencies(apart)


def test_directions_run_side_by_side() -> None:
    both, one = (touched(planned(name)) for name in ("both ways", "lstm"))
    assert longest(both) < 0.6 * len(both)
    assert longest(one) < 0.8 * len(one)


def test_a_long_program_stays_in_one_branch() -> None:
    touches = [[Touch("a", k, k + 1, "w")] for k in range(700)]
    assert {place.branch for place in branches(touches)} == {0}
    assert len({place.branch for place in branches(touches[:100])}) > 1
