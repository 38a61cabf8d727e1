"""`precision="fp16"`: gradients are scaled, and steps whose gradients overflow are left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, optim
from fastnn.engine.scaling import FIRST
from fastnn.errors import NonFiniteError, OptionError
from fastnn.kernels import control_block
from fastnn.kernels.guard.scaling import GROWTH, MOST
from tests.train.test_precision import LABELS, SEQUENCES, Reader, X, Y, losses, mlp, trainer


def linear(**options: Any) -> fnn.Step:
    """A step of a linear layer with given weights, that is trained on `x @ w`'s sum times 1."""
    model = nn.Linear(4, 3, bias=False)
    model.weight.value[...] = np.linspace(-1, 1, 12).reshape(3, 4)
    options = {"optimizer": optim.SGD(lr=1.0), "precision": "fp16", "device": "cpu", **options}
    return fnn.compile(model, lambda y, t: (y * t).sum(), **options)


DATA = np.linspace(0.25, 1.75, 8, dtype=np.float32).reshape(2, 4)
ONES = np.ones((2, 3), np.float32)


@pytest.mark.parametrize(("make", "x", "y"), [(mlp, X, Y), (Reader, SEQUENCES, LABELS)])
def test_training(make: Any, x: Any, y: Any) -> None:
    """Nearly the losses of the highest precision; any number of workers has the same bits."""
    highest, lower = losses(make(), x, y), losses(make(), x, y, precision="fp16")
    assert highest != lower
    np.testing.assert_allclose(lower, highest, rtol=2e-3)
    for workers in (2, 3):
        assert losses(make(), x, y, precision="fp16", workers=workers) == lower


@pytest.mark.parametrize("keep", [False, True])
def test_small_gradients_are_not_lost(keep: bool) -> None:
    """1e-8 is 0 in float16; times the factor it is a number, and the gradient is that of 1e-8."""
    step = linear(keep_gradients=keep)
    found = step.gradients(DATA, np.float32(1e-8) * ONES)["weight"]
    np.testing.assert_allclose(found, 1e-8 * (ONES.T @ DATA), rtol=1e-3)
    before = step.model.weight.value.copy()
    step(DATA, np.float32(1e-8) * ONES)
    if keep:
        np.testing.assert_allclose(step.model.weight.grad, found, rtol=1e-6)
    step(DATA, np.float32(1e-3) * ONES)
    moved = before - step.model.weight.value
    np.testing.assert_allclose(moved, 1e-3 * (ONES.T @ DATA), rtol=2e-3)


def test_gradients_that_overflow_leave_a_step_out() -> None:
    """Nothing changes but the factor, until it is small enough; Adam counts no such step."""
    step = linear(optimizer=optim.Adam(lr=0.01, weight_decay=0.1))
    before = step.model.weight.value.copy()
    assert step.loss_scale == 2.0**FIRST
    large = 6.0 * ONES  # times 2^16 it is beyond 65,504, and half of that is, and 2^14 times it
    for skipped in (1, 2, 3):
        step(DATA, large)
        np.testing.assert_array_equal(step.model.weight.value, before)
        assert step.loss_scale == 2.0 ** (FIRST - skipped)
    for _ in range(3):
        step(DATA, large)
    assert step.steps == 6
    assert (step.model.weight.value != before).all()
    other = linear(optimizer=optim.Adam(lr=0.01, weight_decay=0.1))
    other.session.control[control_block.SCALE] = FIRST - 3
    for _ in range(3):
        other(DATA, large)
    np.testing.assert_array_equal(step.model.weight.value, other.model.weight.value)


def test_on_gradients_sees_them_unscaled_and_may_make_them_overflow() -> None:
    seen: list[np.ndarray] = []

    def look(gradients: Any) -> None:
        seen.append(gradients["weight"].copy())
        if len(seen) == 2:
            gradients["weight"][0, 0] = np.inf

    step = linear(on_gradients=look)
    step(DATA, 0.25 * ONES)
    np.testing.assert_allclose(seen[0], 0.25 * (ONES.T @ DATA), rtol=2.0**-11)
    before = step.model.weight.value.copy()
    step(DATA, 0.25 * ONES)
    np.testing.assert_array_equal(step.model.weight.value, before)
    assert step.loss_scale == 2.0 ** (FIRST - 1)


def test_the_factor_grows_after_many_good_steps() -> None:
    step = linear()
    step.session.control[control_block.GOOD] = GROWTH - 1
    step(DATA, 1e-3 * ONES)
    assert step.loss_scale == 2.0 ** (FIRST + 1)
    assert step.session.control[control_block.GOOD] == 0
    step.session.control[[control_block.SCALE, control_block.GOOD]] = MOST, GROWTH - 1
    step(DATA, 1e-6 * ONES)
    assert step.loss_scale == 2.0**MOST


def test_no_factor_is_small_enough() -> None:
    step = linear()
    for _ in range(FIRST):
        step(DATA, 1e6 * ONES)
    with pytest.raises(NonFiniteError, match=r"do not fit into float16.*precision='bf16'"):
        step(DATA, 1e6 * ONES)
    assert step.loss_scale == 1.0


def test_other_precisions_are_not_scaled() -> None:
    step = linear(precision="bf16")
    step(DATA, 1e6 * ONES)
    assert step.loss_scale == 1.0


def test_resume(tmp_path: Path) -> None:
    """The factor goes on, and so do the bits."""
    path = tmp_path / "half.safetensors"
    whole = losses(mlp(), X, Y, precision="fp16")
    first = trainer(mlp(), precision="fp16")
    first.fit(X, Y, epochs=3, batch_size=16, verbose=False)
    first.session.control[control_block.SCALE] = 9
    first.save(path)
    second = trainer(mlp(), precision="fp16")
    rest = second.fit(X, Y, epochs=6, batch_size=16, verbose=False, resume=path)
    assert list(rest["loss"])[-3:] == whole[3:]
    assert second.loss_scale == 2.0**9


def test_what_is_refused() -> None:
    with pytest.raises(OptionError, match=r"accumulate=2 sums gradients.*'bf16'"):
        trainer(mlp(), optimizer=optim.SGD(lr=0.1, accumulate=2), precision="fp16")
    with pytest.raises(OptionError, match=r"LBFGS searches.*'bf16'"):
        fnn.Trainer(mlp(), "cross_entropy", optim.LBFGS(), device="cpu", precision="fp16")


def test_gradients_are_numbers_though_the_next_step_overflows() -> None:
    """65,536 times a gradient of 20 is beyond float16; a smaller factor is not. It stays as it is
    for the next step, as do running statistics."""
    step = linear()
    found = step.gradients(DATA, 20 * ONES)["weight"]
    np.testing.assert_allclose(found, 20 * (ONES.T @ DATA), rtol=1e-3)
    assert step.loss_scale == 2.0**FIRST
    assert step(DATA, ONES) == step.evaluate(DATA, ONES)  # left out: nothing has changed
    assert step.loss_scale == 2.0 ** (FIRST - 1)
