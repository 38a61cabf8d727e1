"""Loops as they run: any number of workers, blocks, errors that name the step, Ctrl-C."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim
from fastnn.errors import KernelError
from fastnn.graph.op import OPS
from fastnn.kernels.declare import KERNELS, kernel
from fastnn.plan.program import PlannedPhase, PlannedRepeat, Program
from fastnn.testing.kernels import call
from fastnn.train.callbacks import Callback


class Cell(nn.Module):
    """A cell in a loop, or with `length` steps written one after the other."""

    def __init__(self, features: int, hidden: int, way: str, length: int = 0):
        self.hidden, self.way, self.length = hidden, way, length
        self.new, self.old = nn.Linear(features, hidden), nn.Linear(hidden, hidden)
        self.inner = nn.Linear(hidden, hidden)

    def step(self, x: Any, h: Any) -> Any:
        h = ops.tanh(self.new(x) + self.old(h))
        if self.way == "phases":  # each step needs all samples of the batch
            h = h - ops.mean(h, axis=0)
        if self.way == "nested":
            several = ops.reshape(ops.concatenate(h, h), h.shape[0], 2, self.hidden)
            h = ops.loop(lambda a, b: (a, ops.tanh(self.inner(a) + b)), several, h)[1]
        return h, h

    def forward(self, x: Any) -> Any:
        h = ops.zeros_state(x, self.hidden)
        if not self.length:
            return ops.loop(self.step, x, h)
        rows = []
        for t in range(self.length):
            h = self.step(x[:, t], h)[0]
            rows.append(ops.reshape(h, h.shape[0], 1, self.hidden))
        return ops.concatenate(*rows, axis=1), h


def program_of(model: nn.Module, *shape: int) -> Program:
    step = fnn.compile(model, lambda out, _: ops.mean(ops.square(out[0])), "sgd", workers=1)
    step(np.zeros(shape, np.float32), np.zeros(shape[0], np.float32))
    found: Program = next(iter(step._ready.values())).bound.program
    return found


def loops(program: Program) -> list[str]:
    """Where the loops of a program stand, the outer ones first."""
    found = []

    def look(items: Any, where: str) -> None:
        for item in items:
            if isinstance(item, PlannedRepeat):
                inner = "phases" if isinstance(item.body[0], PlannedPhase) else "group"
                found.append(inner)
                look(item.body, inner)
            elif isinstance(item, PlannedPhase):
                for group in item.groups:
                    look(group.calls, "group")

    look(program.phases, "")
    return found


def test_where_loops_stand() -> None:
    assert loops(program_of(Cell(4, 6, "rows"), 9, 5, 4)) == ["group", "group"]
    assert loops(program_of(Cell(4, 6, "phases"), 9, 5, 4)) == ["phases", "phases"]
    nested = ["phases", "group"]  # what the inner loop steps over is transposed first
    assert loops(program_of(Cell(4, 6, "nested"), 9, 5, 4)) == nested * 2


@pytest.mark.parametrize("way", ["rows", "phases", "nested"])
@pytest.mark.parametrize("batch", [1, 7, 130])
def test_the_bits_are_those_of_the_steps_one_by_one(way: str, batch: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, 5, 4)).astype(np.float32)
    y = rng.normal(size=(batch, 5, 6)).astype(np.float32)
    results = []
    for length in (0, 5):
        for workers in (1, 2, 3):
            model = Cell(4, 6, way, length)
            step = fnn.compile(
                model, lambda out, y: ops.mean(ops.square(out[0] - y)), "sgd", workers=workers
            )
            gradients = step.gradients(x, y)
            losses = [step(x, y), step(x, y)]
            results.append((losses, gradients, model.state_dict()))
    for losses, gradients, state in results[1:3]:  # any number of workers
        assert losses == results[0][0]
        for name, value in results[0][1].items():
            np.testing.assert_array_equal(gradients[name], value)
        for name, value in results[0][2].items():
            np.testing.assert_array_equal(state[name], value)
    for losses, gradients, _ in results[3:]:
        assert losses[0] == results[0][0][0]
        for name, value in results[0][1].items():  # summed in another order
            np.testing.assert_allclose(gradients[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("way", ["rows", "phases", "nested"])
def test_predictions_in_blocks(way: str) -> None:
    """More samples than a block holds, local memory in the body."""
    x = np.random.default_rng(1).normal(size=(700, 6, 4)).astype(np.float32)
    model, other = Cell(4, 40, way), Cell(4, 40, way, 6)
    model.store("float32", 0), other.store("float32", 0)
    rows, last = model.predict(x, batch_size=700)
    expected, state = other.predict(x, batch_size=700)
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_array_equal(last, state)


def fails_forward(x: "in rows f[N,C]", y: "out rows f[N,C]", lo: "begin", hi: "end"):
    for i in range(lo, hi):
        if x[i, 0] > 100.0:
            raise ValueError("too large")
        for j in range(x.shape[1]):
            y[i, j] = x[i, j]


def fails_backward(dy: "in rows f[N,C]", dx: "out rows f[N,C]", lo: "begin", hi: "end"):
    for i in range(lo, hi):
        for j in range(dy.shape[1]):
            dx[i, j] = dy[i, j]


@pytest.fixture
def fails() -> Iterator[Any]:
    yield fnn.define_op("fails", kernel(fails_forward), kernel(fails_backward))
    for name in ("fails_forward", "fails_backward"):
        del KERNELS[name]
    OPS.pop("fails", None)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("mixed", [False, True])
def test_errors_name_time_step_and_item(workers: int, mixed: bool, fails: Any) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            self.scale = nn.Parameter((2,), "ones")

        def forward(self, x: Any) -> Any:
            def step(x_t: Any, h: Any) -> Any:
                h = ops.tanh(h * self.scale + ops.tanh(fails(x_t * 1.0)))
                return h, (h - ops.mean(h, axis=0) if mixed else h)

            return ops.loop(step, x, ops.zeros_state(x, 2))[0]

    x = np.ones((9, 20, 2), np.float32)
    x[5, 13] = 500.0
    step = fnn.compile(Model(), "mse", "sgd", workers=workers)
    with pytest.raises(KernelError, match=r"fails_forward.*, time step 13, item 5: .*too large"):
        step(x, x)
    x[5, 13] = 1.0
    assert np.isfinite(step(x, x))  # and the next step begins anew


class Last(nn.Module):
    def __init__(self) -> None:
        self.cell = Cell(1, 6, "rows")

    def forward(self, x: Any) -> Any:
        return self.cell(x)[1]


class Interrupt(Callback):
    def update(self, step: int, logs: Any) -> None:
        if step > 2:
            raise KeyboardInterrupt


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_in_a_long_loop(workers: int) -> None:
    """The run ends at a step's end: the parameters are those after so many steps."""
    rng = np.random.default_rng(2)
    x = np.tile(rng.normal(size=(8, 1000, 1)), (500, 1, 1)).astype(np.float32)
    y = np.tile(rng.normal(size=(8, 6)), (500, 1)).astype(np.float32)

    def run(samples: int, callbacks: Any = ()) -> fnn.Trainer:
        trainer = fnn.Trainer(Last(), "mse", optim.SGD(lr=0.01), workers=workers)
        trainer.fit(
            x[:samples], y[:samples], epochs=1, batch_size=4, verbose=False, shuffle=False,
            callbacks=callbacks,
        )  # fmt: skip
        return trainer

    broken = run(len(x), [Interrupt()])
    assert broken.history.stopped == "interrupted"
    assert 2 < broken.step < len(x) // 4
    whole = run(4 * broken.step).model.state_dict()
    for name, value in broken.model.state_dict().items():
        np.testing.assert_array_equal(value, whole[name])


class Late(nn.Module):
    """Samples are mixed in a state that shows in the outputs two steps later only."""

    def forward(self, x: Any) -> Any:
        def step(x_t: Any, state: Any) -> Any:
            a, b = state
            return a * 1.0, (b * 1.0, x_t - ops.mean(x_t, axis=0))

        zeros = ops.zeros_state(x, 2)
        return ops.loop(step, x, (zeros, zeros))[0]


def test_samples_that_are_mixed_through_a_state_are_not_cut_into_batches() -> None:
    x = np.random.default_rng(3).normal(size=(6, 5, 2)).astype(np.float32)
    whole = Late().predict(x, batch_size=6)
    np.testing.assert_allclose(whole[:, 2:], x[:, :3] - x[:, :3].mean(axis=0), atol=1e-6)
    np.testing.assert_array_equal(Late().predict(x, batch_size=2), whole)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("C", [1, 7, 16, 33])
def test_full(C: int, dtype: str) -> None:
    y = np.zeros((5, C), dtype)
    call(KERNELS["full"], 1, 4, y=y, number=-0.5)
    expected = np.zeros((5, C))
    expected[1:4] = -0.5
    np.testing.assert_array_equal(y, expected)
