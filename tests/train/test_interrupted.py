"""Ctrl-C at any line of a training: it goes on as if it had not been interrupted."""

from __future__ import annotations

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, optim
from tests.runtime import interrupting

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 4)).astype(np.float32)
Y = RNG.integers(0, 3, 50)
EPOCHS = 3


def trainer(workers: int) -> fnn.Trainer:
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm(8), nn.Dropout(0.3), nn.Linear(8, 3))
    decay = optim.schedules.Exponential(0.99)
    options = optim.Adam(lr=0.01, schedule=decay)
    return fnn.Trainer(model, "cross_entropy", options, metrics=["accuracy"], workers=workers)


def fit(run: fnn.Trainer, ways: str) -> None:
    left = EPOCHS - run.place[0]
    held_out = (X[:10], Y[:10]) if ways == "validation" else None
    batches = [(X[k : k + 16], Y[k : k + 16]) for k in range(0, 50, 16)]
    if ways == "batches":
        run.fit(batches, epochs=left, verbose=False)
    else:
        run.fit(X, Y, epochs=left, batch_size=16, validation=held_out, verbose=False)


def state(run: fnn.Trainer) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in run.model.state_dict().items()}


@pytest.mark.parametrize("way", ["arrays", "validation", "batches"])
def test_ctrl_c_at_any_line_of_fit(way: str) -> None:
    """Some lines here, many more by `python -m tests.runtime.interrupts`."""
    every_line(way, 2, 701)


def every_line(way: str, workers: int, stride: int) -> int:
    whole = trainer(workers)
    fit(whole, way)
    run = trainer(workers)
    fit(run, way)
    lines = interrupting.moments(lambda: fit(trainer(workers), way), "line")
    wanted, steps = state(whole), whole.step
    for moment in range(0, lines, stride):
        run = trainer(workers)
        interrupting.interrupt_at(lambda run=run: fit(run, way), moment, "line")
        turns = 0
        while run.place[0] < EPOCHS:
            fit(run, way)
            turns += 1
            assert turns < 5
        assert run.step == steps, f"after an interrupt before line number {moment}"
        assert state(run) == wanted, f"after an interrupt before line number {moment}"
    return lines
