"""Loops in programs: where they stand, what memory they need, what the verifier finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops
from fastnn.errors import ProgramError
from fastnn.graph.graph import Graph
from fastnn.graph.trace import trace
from fastnn.kernels.declare import KERNELS
from fastnn.plan.planner import plan
from fastnn.plan.program import (
    Count,
    Operand,
    PlannedCall,
    PlannedPhase,
    PlannedRepeat,
    Program,
    calls_of,
)
from fastnn.plan.verify import verify
from fastnn.testing.null import null_device


class Elman(nn.Module):
    def __init__(self, mixed: bool = False):
        self.mixed = mixed
        self.new, self.old = nn.Linear(4, 6), nn.Linear(6, 6)

    def forward(self, x: Any) -> Any:
        def step(x_t: Any, h: Any) -> Any:
            h = ops.dropout(ops.tanh(self.new(x_t) + self.old(h)), 0.3)
            h = h - ops.mean(h, axis=0) if self.mixed else h
            return h, h

        return ops.loop(step, x, ops.zeros_state(x, 6))[0]


def program(steps: int = 7, mixed: bool = False, training: bool = True, batch: int = 9) -> Program:
    """A step's program: of training, or a prediction's."""
    x = np.zeros((batch, steps, 4), np.float32)
    with null_device() as null:
        model = Elman(mixed)
        if training:
            fnn.compile(model, "mse", "sgd")(x, np.zeros((batch, steps, 6), np.float32))
        else:
            model.predict(x)
    return null.programs[-1]


def change(item: Any, on: Callable[[Any], Any]) -> Any:
    """A program (or part of one) with each call and loop changed; None leaves it out."""
    if isinstance(item, tuple):
        return tuple(new for part in item if (new := change(part, on)) is not None)
    if isinstance(item, PlannedCall):
        return on(item)
    fields: tuple[str, ...] = ("groups", "serial") if isinstance(item, PlannedPhase) else ("calls",)
    fields = {Program: ("phases",), PlannedRepeat: ("body",)}.get(type(item), fields)
    item = replace(item, **{name: change(getattr(item, name), on) for name in fields})
    return on(item) if isinstance(item, PlannedRepeat) else item


def moving(call: PlannedCall) -> list[int]:
    return [k for k, o in enumerate(call.operands) if isinstance(o, Operand) and o.strides]


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_the_verifier_takes_loops_and_finds_what_is_missing(mixed: bool, training: bool) -> None:
    good = program(mixed=mixed, training=training)
    verify(good)
    assert "linear_forward" in {c.kernel for c in good.calls() if moving(c)}
    for missing in [c for c in good.calls() if c.kernel in ("tanh_forward", "swap_leading")]:
        with pytest.raises(ProgramError, match="not written"):
            verify(change(good, lambda c: None if c is missing else c))  # noqa: B023


def test_no_first_state() -> None:
    """Every step reads what the one before wrote; the first has none."""
    good = program(training=False)
    first = next(c for c in good.calls() if c.kernel == "affine" and not moving(c))
    with pytest.raises(ProgramError, match="was not written"):
        verify(change(good, lambda c: None if c is first else c))


def test_each_wrong_stride_is_found() -> None:
    """A place that moves another way than what was written: unless nobody else looks at it."""
    good = program(training=False)
    seen = 0
    for call in good.calls():
        for k in moving(call):
            for factor in (0, 2, -1):

                def on(c: Any) -> Any:
                    if c is not call:  # noqa: B023
                        return c
                    operands = list(c.operands)
                    strides = tuple(factor * s for s in operands[k].strides)  # noqa: B023
                    operands[k] = replace(operands[k], strides=strides)  # noqa: B023
                    return replace(c, operands=tuple(operands))

                parameter = list(KERNELS[call.kernel].arrays.values())[k]
                if factor == 0 and parameter.reads and call.kernel == "linear_forward":
                    continue  # reads the first step's again and again, which is there
                with pytest.raises(ProgramError):
                    verify(change(good, on))
                seen += 1
    assert seen >= 6


def test_a_step_too_many() -> None:
    good = program()
    longer = change(good, lambda c: replace(c, length=8) if isinstance(c, PlannedRepeat) else c)
    with pytest.raises(ProgramError):
        verify(longer)
    none = change(good, lambda c: replace(c, length=0) if isinstance(c, PlannedRepeat) else c)
    with pytest.raises(ProgramError, match="at least one step"):
        verify(none)


def test_strides_for_loops_that_are_not_there() -> None:
    good = program(training=False)
    call = good.calls()[0]
    place = next(k for k, o in enumerate(call.operands) if isinstance(o, Operand))
    operands = list(call.operands)
    operands[place] = replace(operands[place], strides=(4,))  # type: ignore[arg-type]
    with pytest.raises(ProgramError, match="is not in 0 loops"):
        verify(change(good, lambda c: replace(c, operands=tuple(operands)) if c is call else c))


@pytest.mark.parametrize("mixed", [False, True])
def test_memory_grows_by_what_each_step_keeps(mixed: bool) -> None:
    """A prediction: sequence, states and outputs have slices, all else one for all steps."""
    sizes = [program(steps, mixed, training=False).sizes["work"] for steps in (100, 300)]
    kept = 4 * 9 * (4 + 6)  # a step's x and state (which is the output)
    output = 4 * 9 * 6  # batch-first
    assert sizes[1] - sizes[0] <= 200 * (kept + output) + 512


def test_calls_are_as_many_for_any_length() -> None:
    few, many = program(5), program(500)
    assert [c.kernel for c in few.calls()] == [c.kernel for c in many.calls()]
    assert sum(1 for _ in many.steps()) > 90 * len(many.calls())


def test_sums_over_rows_stand_after_the_loop() -> None:
    """Gradients of weights and biases: one call for the rows of all steps."""
    found = program()
    after = [phase for phase in found.phases if isinstance(phase, PlannedPhase)]
    for kernel, rows in (("linear_backward_weight", 63), ("sum_rows", 63)):
        everywhere = [call for call in found.calls() if call.kernel == kernel]
        outside = [call for call in calls_of(after) if call.kernel == kernel]
        for call in outside:
            operand = call.operands[0]
            assert isinstance(operand, Operand)
            assert operand.dims[0] == rows
        assert len(outside) == len(everywhere) == 2


def test_a_program_in_steps() -> None:
    """Loop by loop, with scopes that name the time step, the gradient's backwards."""
    found = program(3)
    forward = [c for _, c, _ in found.steps() if c.kernel == "tanh_forward"]
    backward = [c for _, c, _ in found.steps() if c.kernel == "tanh_backward"]
    assert [c.scope.split(", ")[-1] for c in forward] == [f"time step {t}" for t in range(3)]
    assert [c.scope.split(", ")[-1] for c in backward] == [f"time step {t}" for t in (2, 1, 0)]
    places = [c.operands[1].offset for c in forward]  # type: ignore[union-attr]
    assert places[1] - places[0] == places[2] - places[1] == 4 * 9 * 6
    streams = [
        [c.operands[k] for _, c, _ in found.steps() if c.kernel == "dropout"]
        for k, o in enumerate(next(c for c in found.calls() if c.kernel == "dropout").operands)
        if isinstance(o, Count)
    ]
    assert len(streams) == 1
    assert streams[0][:3] == streams[0][:2:-1]  # the same masks, in reverse
    assert "3 times:" in str(found)
    assert "3 times, backward in time:" in str(found)


def test_samples_that_read_one_anothers_states_do_not_go_through_a_loop_alone() -> None:
    """All calls are split by samples; but one reads the states of all of them."""

    class Mixed(nn.Module):
        def forward(self, x: Any) -> Any:
            def step(x_t: Any, h: Any) -> Any:
                h = ops.tanh(ops.matmul(ops.softmax(x_t), h))
                return h, h

            return ops.loop(step, x, ops.zeros_state(x, 6))[0]

    with null_device() as null:
        Mixed().predict(np.zeros((16, 5, 16), np.float32))
    assert [type(phase) for phase in null.programs[-1].phases][1] is PlannedRepeat


def test_a_loop_in_a_loop_is_planned_once() -> None:
    class Nested(nn.Module):
        def forward(self, x: Any) -> Any:
            def outer(x_t: Any, h: Any) -> Any:
                h = ops.loop(lambda a, b: (a, ops.tanh(a + b)), x_t, h)[1]
                return h, h

            return ops.loop(outer, x, ops.zeros_state(x, 3))[0]

    graph = Graph(2)
    (y,) = trace(Nested(), graph, graph.input("x", (4, 5, 3)))
    found = plan(graph, {"y": y})
    assert sum(c.kernel == "tanh_forward" for c in found.calls()) == 1
    made = [c for _, c, _ in found.steps() if c.kernel == "tanh_forward"]
    assert len(made) == 20
    # an outer step needs nothing of the inner states of the one before
    assert len({c.operands[1].offset for c in made}) == 5  # type: ignore[union-attr]
