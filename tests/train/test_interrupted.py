"""Ctrl-C at any line of a training: it goes on as if it had not been interrupted."""

from __future__ import annotations

import linecache
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, optim
from fastnn.engine.session import Session
from fastnn.kernels import control_block
from fastnn.runtime.cpu import team
from fastnn.runtime.cpu.team import Team
from fastnn.train.hooks import CallbackList
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


def every_line(way: str, workers: int, stride: int, tick: Callable[[], None] = lambda: None) -> int:
    whole = trainer(workers)
    fit(whole, way)
    run = trainer(workers)
    fit(run, way)
    lines = interrupting.moments(lambda: fit(trainer(workers), way), "line")
    wanted, steps = state(whole), whole.step
    for moment in range(0, lines, stride):
        tick()
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


class Interrupts(fnn.callbacks.Callback):
    """Raises KeyboardInterrupt before the n-th line of the training's code in the epoch's end."""

    def __init__(self, number: int):
        self.number, self.came = number, False

    def on_test_end(self, logs: dict[str, float]) -> None:
        sys.settrace(self._trace)

    def _trace(self, frame: Any, event: str, argument: Any) -> Any:
        caller = frame
        while caller is not None and caller.f_code.co_name != "end_epoch":
            caller = caller.f_back
        return None if caller is None else self._line

    def _line(self, frame: Any, event: str, argument: Any) -> Any:
        if event == "line":
            self.number -= 1
            if self.number < 0:
                sys.settrace(None)
                self.came = True
                raise KeyboardInterrupt
        return self._line


def test_epoch_and_place_agree_after_ctrl_c_at_any_line_of_an_epochs_end() -> None:
    number, came = 0, True
    before = sys.gettrace()
    while came:
        run, callback = trainer(1), Interrupts(number)
        try:
            run.fit(X, Y, epochs=1, validation=(X, Y), callbacks=[callback], verbose=False)
        finally:
            sys.settrace(before)
        came = callback.came
        assert run.epoch == run.place[0], f"before line number {number}"
        assert run.cursor == run.place[1], f"before line number {number}"
        number += 1
    assert number > 10


def test_steps_of_a_run_that_ctrl_c_twice_leaves_going_on_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, y = np.tile(X, (2000, 1)), np.tile(Y, 2000)
    whole, run = trainer(2), trainer(2)
    whole.fit(x, y, epochs=1, batch_size=10, verbose=False)
    came: list[str] = []

    def interrupt(*_: Any) -> None:
        came.append("wait")
        raise KeyboardInterrupt

    def trace(frame: Any, event: str, argument: Any) -> Any:
        return line if frame.f_code is Team.start.__code__ else None

    def line(frame: Any, event: str, argument: Any) -> Any:
        text = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        if came == ["wait"] and text.startswith("finish("):
            came.append("finish")
            raise KeyboardInterrupt
        return line

    before, compiled = sys.gettrace(), team._compiled
    monkeypatch.setattr(
        team, "_compiled", lambda name: interrupt if name == "wait" else compiled(name)
    )
    sys.settrace(trace)
    try:
        run.fit(x, y, epochs=1, batch_size=10, verbose=False)
    finally:
        sys.settrace(before)
        monkeypatch.undo()
    assert came == ["wait", "finish"]
    if run.place[0] == 0:
        run.fit(x, y, epochs=1, batch_size=10, verbose=False)
    assert run.step == whole.step
    assert state(run) == state(whole)


# ---------------------------------------------------------------- a run that is left behind

LONG, BAD = 300_000, 60_000


def left_behind(model: nn.Module, monkeypatch: pytest.MonkeyPatch, bad: bool = False) -> Any:
    """A trainer of the model whose run goes on, though Ctrl-C again and again has ended `fit`."""
    run = fnn.Trainer(model, "mse", optim.SGD(lr=0.01), workers=2, device="cpu")
    x = np.tile(X, (LONG // len(X), 1))
    if bad:
        x[BAD, 0] = 3e38
    came: list[str] = []

    def interrupt(*_: Any) -> None:
        came.append("")
        raise KeyboardInterrupt

    def trace(frame: Any, event: str, argument: Any) -> Any:
        return line if frame.f_code is Team.start.__code__ else None

    def line(frame: Any, event: str, argument: Any) -> Any:
        text = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        if came and text.startswith("finish("):
            monkeypatch.setattr(Session, "synchronize", interrupt)
            interrupt()
        return line

    before = sys.gettrace()
    monkeypatch.setattr(CallbackList, "update", interrupt)
    sys.settrace(trace)
    try:
        run.fit(x, x[:, 1:], batch_size=2 if bad else 1, shuffle=False, verbose=False)
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
        monkeypatch.undo()
    assert len(came) > 2
    return run, x


def linear() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3))
    model.store(seed=0)
    return model


def fit_again(model: nn.Module) -> Any:
    other = fnn.Trainer(model, "mse", optim.SGD(lr=0.01), device="cpu", seed=0)
    other.fit(X, X[:, :3], batch_size=10, verbose=False)


def one_step(model: nn.Module) -> Any:
    fnn.compile(model, "mse", optim.SGD(lr=0.01), device="cpu", seed=0)(X, X[:, :3])


def overwrite(model: nn.Module) -> None:
    model.load_state_dict({name: array * 0.5 for name, array in linear().state_dict().items()})


NEXT: dict[str, Callable[[nn.Module], Any]] = {
    "another trainer": fit_again,
    "a step": one_step,
    "predict": lambda model: model.predict(X),
    "state_dict": lambda model: model.state_dict(),
    "load_state_dict": overwrite,
    "value": lambda model: model.named_parameters()["0.weight"].value,
}


@pytest.mark.parametrize("way", NEXT)
def test_who_comes_next_waits_for_a_run_that_was_left_behind(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = linear()
    run, x = left_behind(model, monkeypatch)
    NEXT[way](model)
    done = run.step
    assert 0 < done < len(x), "the run was to be cut off"
    again = linear()
    whole = fnn.Trainer(again, "mse", optim.SGD(lr=0.01), workers=1, device="cpu")
    whole.fit(x[:done], x[:done, 1:], batch_size=1, shuffle=False, verbose=False)
    NEXT[way](again)
    assert run.step == done
    for name, array in model.state_dict().items():
        assert array.tobytes() == again.state_dict()[name].tobytes()


def test_a_bad_step_of_a_run_that_was_left_behind_is_undone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm(8), nn.Linear(8, 3))
    run, _ = left_behind(model, monkeypatch, bad=True)
    while not run.session.control[control_block.STOP]:
        time.sleep(0.001)
    state = model.state_dict()
    assert all(np.isfinite(array).all() for array in state.values())
    assert run.step == BAD // 2
    fit_again(model)
