"""A function of the gradients that fails, is interrupted, or breaks them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import fastnn as fnn
from fastnn import optim
from fastnn.errors import NonFiniteError
from tests.train.on_gradients import (
    WORKERS,
    Fails,
    Gradients,
    X,
    Y,
    contents,
    fit,
    network,
    steps,
    trainer_of,
)


@pytest.mark.parametrize("error", [LookupError("lost"), KeyboardInterrupt(), SystemExit(2)])
@pytest.mark.parametrize("guard", [True, False])
@pytest.mark.parametrize("workers", WORKERS)
def test_an_exception_undoes_the_step(error: BaseException, workers: int, guard: bool) -> None:
    step = fnn.compile(
        network(), "cross_entropy", optim.Adam(lr=0.01), workers=workers, stop_on_nonfinite=guard,
        on_gradients=Fails(error, 3, 4),
    )  # fmt: skip
    plain = fnn.compile(
        network(), "cross_entropy", optim.Adam(lr=0.01), workers=1, stop_on_nonfinite=guard
    )
    x = X.astype(np.float32)
    losses = [step(x, Y) for _ in range(2)]
    before = contents(step)
    for _ in range(2):
        with pytest.raises(type(error)) as caught:
            step(x, Y)
        assert caught.value is error
        assert contents(step) == before
        assert step.steps == 2
    losses += [step(x, Y) for _ in range(3)]
    assert losses == [plain(x, Y) for _ in range(5)]
    assert contents(step) == contents(plain)


@pytest.mark.parametrize("workers", WORKERS)
def test_fit_goes_on_where_it_was_cut_off(workers: int) -> None:
    """In the middle of an epoch, and what is reported of it is that of each sample once."""
    plain = trainer_of(None, 1)
    expected = fit(plain, 3)
    trainer = trainer_of(Fails(LookupError("lost"), 6, 8), workers)
    for step in (5, 6):
        with pytest.raises(LookupError, match="lost"):
            fit(trainer, 3)
        assert trainer.step == step
    found = fit(trainer, 2)
    assert all(found[name] == expected[name][1:] for name in ("loss", "accuracy"))
    assert contents(trainer) == contents(plain)


def test_ctrl_c_in_fit_and_resume() -> None:
    plain = trainer_of(None, 1)
    expected = fit(plain, 2)
    trainer = trainer_of(Fails(KeyboardInterrupt(), 2))
    first = trainer.fit(X, Y, epochs=2, batch_size=32, verbose=False)
    assert (first.stopped, trainer.step) == ("interrupted", 1)
    assert fit(trainer, 2)["loss"] == expected["loss"]
    assert contents(trainer) == contents(plain)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_signal_ends_a_wait(workers: int) -> None:
    """It waits for what never comes, and Ctrl-C comes twice."""
    never = threading.Event()

    def waits(gradients: Gradients) -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            never.wait()
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            never.wait()

    step = fnn.compile(network(), "cross_entropy", "adam", workers=workers, on_gradients=waits)
    before = contents(step)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            step(X.astype(np.float32), Y)
        assert contents(step) == before
        assert step.steps == 0
    trainer = trainer_of(waits, workers)
    before = contents(trainer)
    assert trainer.fit(X, Y, verbose=False).stopped == "interrupted"
    assert contents(trainer) == before


INTERRUPTED = """
import os, random, signal, sys, threading, time
from tests.train.on_gradients import contents, fit, trainer_of

def hook(gradients):
    calls.append(sum(float(array.sum()) for array in gradients.values()))
    time.sleep(0.001 * (len(calls) % 4))

def handler(number, frame):
    if inside.pop("fit", None):
        raise KeyboardInterrupt

def shoot():
    for shots in range(10**9):  # fewer and fewer, so that a slow machine comes to an end
        time.sleep(0.02 * random.random() * (1 + shots / 10))
        os.kill(os.getpid(), signal.SIGINT)

calls, inside, epochs = [], {}, 25
expected = fit(plain := trainer_of(None, 1), epochs)
trainer, found = trainer_of(hook, int(sys.argv[1])), {}
signal.signal(signal.SIGINT, handler)
threading.Thread(target=shoot, daemon=True).start()
while trainer.epoch < epochs:
    try:
        inside["fit"] = True
        fit(trainer, epochs - trainer.epoch)
        inside.clear()
    except KeyboardInterrupt:
        pass
    found.update(zip(trainer.history.epoch, trainer.history.history.get("loss", ())))
assert contents(trainer) == contents(plain)
assert all(loss == expected["loss"][epoch] for epoch, loss in found.items())
assert found
print("the same", flush=True)
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_interrupts_at_any_moment_leave_the_same_run(workers: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(workers)],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "the same" in done.stdout, done.stderr


@pytest.mark.parametrize("size", [np.nan, np.inf, 1e38])
def test_gradients_that_would_break_parameters(size: float) -> None:
    def breaks(gradients: Gradients) -> None:
        calls.append(0)
        if len(calls) == 3:
            gradients["4.weight"][1, 2] = size

    for workers in (1, 3):
        calls: list[int] = []
        trainer = trainer_of(breaks, workers)
        trainer.optimizer = optim.SGD(lr=0.1)
        step = fnn.compile(
            network(), "cross_entropy", optim.SGD(lr=100.0), workers=workers, on_gradients=breaks
        )
        x = X.astype(np.float32)
        for _ in range(2):
            step(x, Y)
        before = contents(step)
        with pytest.raises(NonFiniteError, match=r"4\.weight") as caught:
            step(x, Y)
        assert ("came from on_gradients" in str(caught.value)) == (not np.isfinite(size))
        assert contents(step) == before
        assert np.isfinite(step(x, Y))


def test_without_the_guard_nan_passes() -> None:
    def breaks(gradients: Gradients) -> None:
        gradients["4.weight"][1, 2] = np.nan

    _, state = steps(breaks, stop_on_nonfinite=False, count=1)
    weight = np.frombuffer(state["4.weight"], np.float32).reshape(3, 70)
    assert np.isnan(weight[1, 2])


def test_not_called_where_the_loss_is_not_finite() -> None:
    calls = []
    step = fnn.compile(network(), "cross_entropy", "adam", on_gradients=lambda g: calls.append(0))
    with pytest.raises(NonFiniteError):
        step(np.where(X[3, 2] == X, np.inf, X).astype(np.float32), Y)
    assert not calls
