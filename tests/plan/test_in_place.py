"""States of loops that lie in one place: bytes, calls, and the same numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastnn import nn, ops
from fastnn.engine.predictor import Predictor
from fastnn.kernels.declare import KERNELS
from fastnn.nn.positions import Place
from fastnn.plan.program import Program, calls_of
from fastnn.tasks.translators import TransformerTranslator
from fastnn.testing import gradcheck, kernels


class Steps(nn.Module):
    """Causal attention, step by step or at once; `until` ends a sequence whose input is negative,
    and `late` reads the keys of the step before after the new ones are there."""

    def __init__(self, until: bool = False, late: bool = False, stepwise: bool = True):
        self.attention, self.until, self.late = nn.MultiHeadAttention(8, 2), until, late
        self.stepwise = stepwise

    def forward(self, x: Any) -> Any:
        if not self.stepwise:
            return self.attention(x, causal=True)

        def step(x: Any, state: Any) -> Any:
            place = Place(state[0])
            y, (keys, values) = self.attention.step(x, (state[1], state[2]), place)
            if self.late:
                y = y + ops.sum(keys - state[1], 1)
            return y, (place.after, keys, values)

        start = (Place.start(x, x.shape[1]), *self.attention.cache(x, x.shape[1]))
        if not self.until:
            return ops.loop(step, x, start)[0]
        shown = [ops.reshape(x, (x.shape[0], *x.shape[1:]))]
        outputs, finals, lengths = ops.loop(
            step, shown[0], start, until=lambda y, state: ops.less(y[:, 0], -0.3)
        )
        return outputs, *finals, lengths


def run(model: nn.Module, *x: Any, workers: int = 1) -> tuple[Any, Program]:
    predictor = Predictor(model, workers)
    found = predictor(*x)
    (forward,) = predictor._forwards.values()
    return found, forward.built.program


def names(program: Program) -> list[str]:
    return [call.kernel for call in calls_of(program.phases)]


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("steps", [1, 2, 17])
def test_rows_join_keys_where_they_lie(steps: int) -> None:
    model, whole, x = Steps(), Steps(stepwise=False), normal(3, steps, 8)
    whole.load_state_dict(model.state_dict())
    found, program = run(model, x)
    np.testing.assert_allclose(found, whole.predict(x), rtol=1e-5, atol=1e-6)
    assert names(program).count("put_row_in_place") == 2
    for workers in (2, 3):
        np.testing.assert_array_equal(run(model, x, workers=workers)[0], found)


def test_memory_grows_with_the_steps_and_not_with_their_square() -> None:
    small, large = (run(Steps(), normal(1, n, 8))[1].sizes["work"] for n in (200, 400))
    assert large < 2.2 * small
    late = [run(Steps(late=True), normal(1, n, 8))[1] for n in (200, 400)]
    assert late[1].sizes["work"] > 3 * late[0].sizes["work"]  # old keys are asked for too late
    assert names(late[0]).count("put_row_in_place") == 1  # the values


def test_what_has_ended_stays() -> None:
    model, x = Steps(until=True), normal(5, 9, 8)
    model.attention.in_proj_bias.value = normal(24)  # else rows past the end are zeros anyway
    (outputs, written, keys, _, lengths), program = run(model, x)
    assert names(program).count("put_row_in_place") == 2
    assert 1 <= lengths.min() < lengths.max()
    np.testing.assert_array_equal(written.sum(1), lengths)
    for k, n in enumerate(lengths):
        assert (keys[k, :n] != 0).all()
        assert (keys[k, n:] == 0).all()
        assert (outputs[k, n:] == 0).all()
        again = run(model, x[k : k + 1])[0]
        np.testing.assert_array_equal(again[2][0], keys[k])


def translator(steps: int) -> tuple[nn.Module, Any]:
    class Writer(nn.Module):
        def __init__(self) -> None:
            self.net = TransformerTranslator(12, 8, 2, 1, 8, 0.0)

        def forward(self, ids: Any, lengths: Any) -> Any:
            return self.net.write(ids, lengths, steps=steps, width=3)

    ids = np.random.default_rng(1).integers(2, 12, (4, 5))
    return Writer(), (ids, np.array([5, 2, 3, 4]))


def test_beam_search_keeps_one_of_each_cache() -> None:
    model, given = translator(9)
    (symbols, lengths, scores), program = run(model, *given)
    found = names(program)
    assert found.count("put_row_in_place") == 2
    assert found.count("beam_reorder_in_place") >= 2
    assert "put_row_forward" not in found
    for k in range(4):  # a sample by itself: other samples end at other steps
        alone = run(model, given[0][k : k + 1], given[1][k : k + 1])[0]
        np.testing.assert_array_equal(alone[0][0], symbols[k])
        np.testing.assert_allclose(alone[2][0], scores[k], rtol=1e-5)
    for workers in (2, 3):
        again = run(model, *given, workers=workers)[0]
        for a, b in zip(again, (symbols, lengths, scores), strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_longer_beam_search_takes_memory_of_its_length() -> None:
    small, large = (
        run(translator(n)[0], *translator(n)[1])[1].sizes["work"] for n in (120, 240)
    )  # fmt: skip
    assert large < 2.3 * small


def test_a_recurrent_search_takes_no_memory_for_a_step() -> None:
    """Beside symbols and masks: 64 units of 24 hypotheses would be 6 KB a step."""

    class Writer(nn.Module):
        def __init__(self, steps: int):
            self.decoder, self.steps = nn.AttentionDecoder(9, 8, 64, 16), steps

        def forward(self, x: Any) -> Any:
            return self.decoder.write(x, steps=self.steps, width=6)

    model, x = Writer(100), normal(4, 5, 16)
    short, long = run(model, x), run(Writer(140), x)
    assert long[1].sizes["work"] - short[1].sizes["work"] < 40 * 3000
    for workers in (2, 3):
        for a, b in zip(run(model, x, workers=workers)[0], short[0], strict=True):
            np.testing.assert_array_equal(a, b)


class Put(nn.Module):
    def forward(self, x: Any, row: Any, at: Any) -> Any:
        return ops.put_row(x, row, at)


def test_a_row_has_gradients() -> None:
    x, row, at = normal(4, 3, 2), normal(4, 2), np.array([0, 2, -1, 3])
    want = x.copy()
    want[0, 0], want[1, 2] = row[0], row[1]
    np.testing.assert_array_equal(Put().predict(x, row, at), want)

    class Scaled(nn.Module):
        def __init__(self) -> None:
            self.a, self.b = nn.Parameter((4, 3, 2), 0.5), nn.Parameter((4, 2), 0.3)

        def forward(self, x: Any, row: Any, at: Any) -> Any:
            y = ops.put_row(ops.multiply(x, self.a), ops.multiply(row, self.b), at)
            return ops.multiply(y, y)

    assert gradcheck(Scaled(), x, row, at)


@pytest.mark.parametrize("size", [1, 5, 19])
def test_kernels_write_the_rows_and_nothing_else(size: int) -> None:
    """Two tables of a sequence, of which the second sequence has ended, and the third has no such
    row in its first table."""
    x, row = normal(3, 2, 4, size), normal(3, 2, size)
    at, running = np.array([[0, 3], [1, 1], [4, 2]]), np.array([1, 0, 1], np.float32)
    want = x.copy()
    want[0, 0, 0], want[0, 1, 3], want[2, 1, 2] = row[0, 0], row[0, 1], row[2, 1]
    given = {"row": row.reshape(3, -1), "at": at, "running": running}
    flat, y = x.reshape(3, -1).copy(), np.full((3, 8 * size), np.nan, np.float32)
    kernels.call(KERNELS["put_row_forward"], x=flat, y=y, **given)
    np.testing.assert_array_equal(y, want.reshape(3, -1))
    kernels.call(KERNELS["put_row_in_place"], x=flat, **given)
    np.testing.assert_array_equal(flat, want.reshape(3, -1))
    drow = np.full((3, 2 * size), np.nan, np.float32)
    kernels.call(KERNELS["put_row_backward_row"], at=at, running=running, dy=flat, drow=drow)
    taken = np.zeros((3, 2, size), np.float32)
    taken[0], taken[2, 1] = row[0], row[2, 1]
    np.testing.assert_array_equal(drow, taken.reshape(3, -1))
