"""Large recurrent nets on CUDA, which make their turns in a loop; and planning that does not grow
with a loop's steps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops
from fastnn.errors import ProgramError
from fastnn.kernels.declare import CUDA_KERNELS
from fastnn.plan import planner
from fastnn.plan.coverage import Coverage, Moving, merged, share_of
from fastnn.plan.program import Count, PlannedRepeat, Program, calls_of
from fastnn.plan.verify import verify
from fastnn.runtime.cpu.table import Table
from fastnn.testing.null import null_device

CELLS: dict[str, Any] = {
    "rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU, "reset before": nn.GRU, "bptt": nn.LSTM,
}  # fmt: skip
OPTIONS: dict[str, Any] = {"reset before": {"reset": "before"}, "bptt": {"bptt": 3}}


#: blocks with little memory: recurrent weights don't fit
SMALL = (1, 50_000, 1)


def program(name: str, steps: int) -> Program:
    """A training step's program on CUDA."""
    model = nn.Sequential(CELLS[name](3, 100, **OPTIONS.get(name, {})), nn.Linear(100, 2))
    with null_device("cuda", SMALL) as null:
        step = fnn.compile(_Outputs(model), "mse", "sgd")
        step(np.zeros((4, steps, 3), np.float32), np.zeros((4, steps, 2)))
    return null.programs[-1]


class _Outputs(nn.Module):
    def __init__(self, both: Any):
        self.cell, self.head = both[0], both[1]

    def forward(self, x: Any) -> Any:
        return self.head(self.cell(x)[0])


def names(program: Program) -> list[str]:
    """The kernels of all calls: of products less the ending by which the sizes decide."""
    products = "linear_backward_weight", "linear_backward_input", "linear_forward"
    return [
        next((name for name in products if call.kernel.startswith(name)), call.kernel)
        for call in program.calls()
    ]


def loops(program: Program) -> list[PlannedRepeat]:
    return [phase for phase in program.phases if isinstance(phase, PlannedRepeat)]


@pytest.mark.parametrize("name", CELLS)
def test_turns_are_a_loop(name):
    """As many calls for 200 steps as for 20; each turn's kernel is told its number."""
    few, many = program(name, 20), program(name, 200)
    assert names(few) == names(many)
    forward, backward = loops(many)
    assert (forward.length, forward.reverse) == (200, False)
    assert (backward.length, backward.reverse) == (200, True)
    for loop, count in ((forward, Count(0, (1,))), (backward, Count(199, (-1,)))):
        turns = [c for c in calls_of(loop.body) if "_step_" in c.kernel]
        assert turns
        assert all(count in call.operands for call in turns)
    assert many.launch_count - few.launch_count == 180 * (len(forward.body) + len(backward.body))


def test_turns_that_leave_a_step_out_are_found():
    """A loop of one turn fewer does not write the last step of its outputs."""
    good = program("lstm", 5)
    verify(good)
    first = next(p for p in good.phases if isinstance(p, PlannedRepeat))
    for bad in (replace(first, length=4), _without_moving(first)):
        phases = tuple(bad if phase is first else phase for phase in good.phases)
        with pytest.raises(ProgramError, match="was not written"):
            verify(replace(good, phases=phases))


def _without_moving(loop: PlannedRepeat) -> PlannedRepeat:
    """The loop with the same turn in each step."""

    def still(phase: Any) -> Any:
        calls = tuple(
            replace(c, operands=tuple(0 if isinstance(o, Count) else o for o in c.operands))
            for c in phase.serial
        )
        return replace(phase, serial=calls)

    return replace(loop, body=tuple(map(still, loop.body)))


def test_shares_that_move():
    kernel = CUDA_KERNELS["lstm_step_forward"]
    sizes = {"B": 4, "T": 6, "H": 8, "turn": 2}
    assert share_of(kernel, sizes, {}) == (2, 3, 6)
    assert share_of(kernel, sizes, {"turn": (3, 1)}) == Moving((2, 3, 6), (3, 1))
    assert merged([(2, 3, 6), (0, 1, 6), (1, 2, 6), (4, 5, 6)]) == [(0, 3, 6), (4, 5, 6)]
    cover = Coverage()
    for share in ((0, 4, 6), (4, 6, 6)):
        assert cover.missing(0, 60, 1) == 0
        cover.write_share(0, 60, 1, share)
    assert cover.missing(0, 60, 1) is None


def test_a_layer_by_turns_within_a_loop():
    """Its turns are a loop in each step of the other one; what they write is there in that step."""

    class Inner(nn.Module):
        def __init__(self) -> None:
            self.cell = nn.LSTM(3, 100)

        def forward(self, x: Any) -> Any:
            def body(x_t: Any, h: Any) -> Any:
                h = h + ops.mean(self.cell(x_t)[0], axis=1)
                return h, h

            return ops.loop(body, x, ops.zeros_state(x, 100))[0]

    counts = []
    for steps in (3, 30):
        with null_device("cuda", SMALL) as null:
            step = fnn.compile(Inner(), "mse", "sgd")
            step(np.zeros((4, steps, 5, 3), np.float32), np.zeros((4, steps, 100)))
        counts.append(names(null.programs[-1]))
    assert counts[0] == counts[1]
    assert "lstm_step_backward" in counts[0]


class Cell(nn.Module):
    """A loop in a group; with `mixed` one of phases."""

    def __init__(self, mixed: bool):
        self.mix, self.mixed = nn.Linear(5, 3), mixed

    def forward(self, x: Any) -> Any:
        def step(x_t: Any, h: Any) -> Any:
            h = ops.tanh(self.mix(ops.concatenate(x_t, h)))
            h = h - ops.mean(h, axis=0) if self.mixed else h
            return h, h

        return ops.loop(step, x, ops.zeros_state(x, 3))[0]


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_two_thousand_steps_are_planned_like_twenty(mixed, device, monkeypatch):
    """By counts: what is planned and proved, the tables of the run loop, and what each step of the
    loop is made of are the same."""
    asked: list[int] = []
    for name in ("instructions_of", "verify"):
        function = getattr(planner, name)

        def counted(*given: Any, function: Any = function) -> Any:
            before = profiled[0]
            found = function(*given)
            asked.append(profiled[0] - before)
            return found

        monkeypatch.setattr(planner, name, counted)
    profiled = [0]
    missing = Coverage.missing

    def looked(self: Any, *given: Any, **more: Any) -> Any:
        profiled[0] += 1
        return missing(self, *given, **more)

    monkeypatch.setattr(Coverage, "missing", looked)
    found = []
    for steps in (20, 2000):
        asked.clear()
        with null_device(device) as null:
            step = fnn.compile(Cell(mixed), "mse", "adam")
            step(np.zeros((6, steps, 2), np.float32), np.zeros((6, steps, 3)))
        made = null.programs[-1]
        table = Table(made)
        found.append(
            [
                names(made), len(table.rows), len(table.calls), len(table.lengths), list(asked),
            ]
        )  # fmt: skip
        assert steps in table.lengths
    assert found[0] == found[1]
