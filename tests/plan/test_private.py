"""Which memory of a loop's steps is that of one step: each case by hand, at its border."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from fastnn import nn, ops
from fastnn.graph.graph import Graph
from fastnn.graph.value import Repeat, Value
from fastnn.plan.call import Call
from fastnn.plan.private import shared_by_steps

STEPS, SHAPE, SIZE = 4, (5, 8), 40
#: slices of a call: read from, written to, each with how many elements it moves on in a step
Move = tuple[tuple[int, int], tuple[int, int]]


def loop(moves: Sequence[Move], alone: bool = True) -> tuple[list[Call], Value, Value, Repeat]:
    """Calls in a loop: an input to the buffer's first slice, then from slice to slice of it."""
    graph, repeat = Graph(5), Repeat(STEPS)
    x, out = graph.input("x", (8,)), graph.value(SHAPE, batched=True, name="out")
    buffer = graph.value((STEPS + 1, *SHAPE), name="buffer")

    def at(place: int, stride: int) -> Value:
        return graph.view(buffer, SHAPE, True, place * SIZE, {repeat: stride * SIZE})

    def copy(x: Value, y: Value, repeats: tuple[Repeat, ...] = (repeat,)) -> Call:
        return Call("affine", {"x": x, "y": y, "scale": 1.0, "shift": 0.0}, "", repeats=repeats)

    calls = [copy(x if k is None else at(*k), out if k2 is None else at(*k2)) for k, k2 in moves]
    if not alone:
        calls.append(copy(at(0, 0), out, ()))
    return calls, buffer, out, repeat


WRITTEN_THEN_READ = [(None, (0, 1)), ((0, 1), None)]
CASES = {
    "a step's own": (WRITTEN_THEN_READ, True),
    "carried to the next step": ([((0, 1), (1, 1))], False),
    "read before it is written": ([((0, 1), None), (None, (0, 1))], False),
    "written and read at places that move differently": ([(None, (0, 1)), ((0, 0), None)], False),
}


@pytest.mark.parametrize("name", CASES)
def test_what_a_step_has_for_itself(name: str) -> None:
    moves, own = CASES[name]
    calls, buffer, out, repeat = loop(moves)
    changed, private = shared_by_steps(calls, [out])
    assert list(private.values()) == ([(repeat,)] if own else [])
    touched = {value.root for call in changed for _, _, value in call.arrays()}
    assert (buffer in touched) is not own  # a slice does for what has been a slice for each step
    assert not own or {root.size for root in private} == {SIZE}


def test_what_is_looked_at_after_the_loop() -> None:
    calls, buffer, out, _ = loop(WRITTEN_THEN_READ)
    assert shared_by_steps(calls, [out, buffer]) == (calls, {})
    calls, _, out, _ = loop(WRITTEN_THEN_READ, alone=False)
    assert shared_by_steps(calls, [out])[1] == {}


def test_a_last_state_that_no_step_reads() -> None:
    class Last(nn.Module):
        def forward(self, x):
            return ops.loop(lambda x_t, h: (x_t, x_t * 2.0), x, ops.zeros_state(x, 3))[1]

    x = np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float32)
    np.testing.assert_array_equal(Last().predict(x), 2 * x[:, -1])
