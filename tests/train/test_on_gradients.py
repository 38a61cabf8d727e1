"""A function of the host that is called between gradients and updates."""

from __future__ import annotations

import copy
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, optim
from fastnn.errors import BusyError, NonFiniteError, OptionError
from fastnn.testing.null import null_device

Gradients = Mapping[str, np.ndarray]
RNG = np.random.default_rng(0)
X = RNG.normal(size=(100, 12))
Y = RNG.integers(0, 3, 100)
WORKERS = [1, 2, 3, 4]


def network() -> nn.Module:
    return nn.Sequential(
        nn.Linear(12, 70), nn.BatchNorm(70), nn.Tanh(), nn.Dropout(0.2), nn.Linear(70, 3)
    )


class Loop(nn.Module):
    """A state that grows by a product with a weight, over three steps."""

    def __init__(self) -> None:
        self.weight, self.out = nn.Linear(9, 9), nn.Linear(9, 3)
        self.first = nn.Linear(4, 9)

    def forward(self, x: Any) -> Any:
        def step(x: Any, h: Any) -> Any:
            h = fnn.ops.tanh(self.first(x) + self.weight(h))
            return h, h

        return self.out(fnn.ops.loop(step, x, fnn.ops.zeros_state(x, 9))[1])


def see(gradients: Gradients) -> None:
    assert all(array.any() for array in gradients.values())


def contents(trained: Any) -> dict[str, bytes]:
    """All that training keeps."""
    memory = trained.session.memory
    slots = {name: memory[name].tobytes() for name in memory if name.startswith("slots/")}
    return slots | {name: array.tobytes() for name, array in trained.model.state_dict().items()}


def steps(hook: Any, workers: int = 2, x: Any = X, count: int = 4, **more: Any) -> Any:
    dtype = more.get("dtype", "float32")
    step = fnn.compile(
        network(), "cross_entropy", optim.Adam(lr=0.01, clip_global_norm=0.5), workers=workers,
        device="cpu", on_gradients=hook, **more,
    )  # fmt: skip
    losses = [step(x.astype(dtype), Y) for _ in range(count)]
    return losses, contents(step)


def trainer_of(hook: Any, workers: int = 2, **more: Any) -> fnn.Trainer:
    return fnn.Trainer(
        network(), "cross_entropy", optim.Adam(lr=0.01), metrics=["accuracy"], workers=workers,
        device="cpu", on_gradients=hook, **more,
    )  # fmt: skip


def fit(trainer: fnn.Trainer, epochs: int = 2, **more: Any) -> Any:
    return trainer.fit(X, Y, epochs=epochs, batch_size=32, verbose=False, **more).history


# ---------------------------------------------------------------- what it gets, and may change


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("guard", [True, False])
def test_looking_changes_no_bit(dtype: str, guard: bool) -> None:
    more: Any = {"dtype": dtype, "stop_on_nonfinite": guard}
    plain = trainer_of(None, 1, **more)
    expected = steps(None, 1, **more), fit(plain), contents(plain)
    for workers in WORKERS:
        trainer = trainer_of(see, workers, **more)
        found = steps(see, workers, **more), fit(trainer), contents(trainer)
        assert found == expected


def test_loops_and_recurrent_layers() -> None:
    x = X.reshape(100, 3, 4).astype(np.float32)
    for make in (Loop, lambda: nn.Sequential(nn.LSTM(4, 8), nn.Flatten(), nn.Linear(24, 3))):
        runs = []
        for hook, workers in ((None, 1), (see, 1), (see, 3)):
            step = fnn.compile(make(), "cross_entropy", "adam", workers=workers, on_gradients=hook)
            runs.append(([step(x, Y) for _ in range(3)], contents(step)))
        assert runs[0] == runs[1] == runs[2]


def test_gets_the_gradients_by_name_in_the_callers_thread() -> None:
    seen: list[dict[str, np.ndarray]] = []

    def keep(gradients: Gradients) -> None:
        assert threading.get_ident() == caller
        seen.append({name: array.copy() for name, array in gradients.items()})

    caller, model = threading.get_ident(), network()
    model.freeze("1.*")  # type: ignore[attr-defined]
    step = fnn.compile(
        model, "cross_entropy", optim.SGD(lr=0.1, clip_value=1e-3), workers=2, on_gradients=keep
    )
    x = X.astype(np.float32)
    wanted = step.gradients(x, Y)
    assert not seen
    step(x, Y)
    assert list(seen[0]) == list(step.parameters) == list(wanted)
    for name, gradient in wanted.items():
        assert seen[0][name].shape == gradient.shape
        assert seen[0][name].tobytes() == gradient.tobytes()


@pytest.mark.parametrize("workers", WORKERS)
def test_what_it_writes_is_what_updates_take(workers: int) -> None:
    def halve(gradients: Gradients) -> None:
        for gradient in gradients.values():
            gradient *= 0.5

    results = []
    for hook, rate in ((halve, 0.25), (None, 0.125)):
        step = fnn.compile(
            network(), "cross_entropy", optim.SGD(lr=rate), workers=workers, on_gradients=hook
        )
        results.append(([step(X.astype(np.float32), Y) for _ in range(5)], contents(step)))
    assert results[0] == results[1]


def test_gradients_are_those_that_it_left() -> None:
    def zero(gradients: Gradients) -> None:
        gradients["0.weight"][...] = 0.0

    step = fnn.compile(network(), "cross_entropy", "sgd", on_gradients=zero)
    before = step.model.state_dict()["0.weight"]
    step(X.astype(np.float32), Y)
    assert not step.parameters["0.weight"].grad.any()
    assert step.parameters["4.weight"].grad.any()
    assert step.model.state_dict()["0.weight"].tobytes() == before.tobytes()


def test_last_batches_callbacks_and_evaluation() -> None:
    counts = {"hook": 0, "batch": 0}

    class Counting(fnn.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any) -> None:
            counts["batch"] += 1

    def count(gradients: Gradients) -> None:
        counts["hook"] += 1

    trainer = trainer_of(count)
    fit(trainer, callbacks=[Counting()], validation=0.1)
    assert counts == {"hook": 6, "batch": 6}
    trainer.evaluate(X, Y)
    assert counts["hook"] == 6


# ---------------------------------------------------------------- what it must not do


@pytest.mark.parametrize("wrong", [3, "mean", dict])
def test_wrong_options(wrong: Any) -> None:
    for make in (fnn.Trainer, fnn.compile):
        with pytest.raises(OptionError, match="on_gradients: expected a function"):
            make(network(), "cross_entropy", on_gradients=wrong)


def test_it_is_chosen_once() -> None:
    trainer: Any = trainer_of(None)
    with pytest.raises(AttributeError):
        trainer.on_gradients = see
    assert trainer.on_gradients is None


def test_new_arrays_are_not_taken_silently() -> None:
    def replaces(gradients: Any) -> None:
        gradients["0.weight"] = np.zeros((70, 12))

    with pytest.raises(TypeError, match="item assignment"):
        steps(replaces)
    with pytest.raises(OptionError, match=r"returns None, got dict; to change a gradient write"):
        steps(lambda gradients: dict(gradients))


def test_no_other_step_within_it() -> None:
    found: list[str] = []

    def nested(gradients: Gradients) -> None:
        for attempt in attempts if not found else []:
            try:
                attempt()
            except BusyError as error:
                found.append(str(error))
        assert trainer.evaluate(X, Y)["loss"] > 0
        assert step.model.predict(x).shape == (100, 3)

    x = X.astype(np.float32)
    step = fnn.compile(network(), "cross_entropy", "adam", on_gradients=nested)
    trainer = trainer_of(None)
    attempts: list[Callable[[], Any]] = [
        lambda: step(x, Y),
        lambda: step.evaluate(x, Y),
        lambda: step.gradients(x, Y),
    ]
    step(x, Y)
    assert len(found) == 3
    assert all("within on_gradients" in text for text in found)
    found.clear()
    trainer = trainer_of(nested)
    attempts = [lambda: trainer.session.run([], lambda: None), lambda: fit(trainer)]
    fit(trainer, 1)
    assert len(found) == 2
    assert "within on_gradients" in found[0]
    assert trainer.step == 4


# ---------------------------------------------------------------- exceptions and interrupts


class Fails:
    """Raises an exception in some of its calls."""

    def __init__(self, error: BaseException, *at: int):
        self.error, self.at, self.calls = error, at, 0

    def __call__(self, gradients: Gradients) -> None:
        self.calls += 1
        if self.calls in self.at:
            for gradient in gradients.values():
                gradient[...] = 1e9
            raise self.error


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
from tests.train.test_on_gradients import contents, fit, trainer_of

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


# ---------------------------------------------------------------- copies, programs, processes


def test_copies_call_it_too() -> None:
    hook = Fails(LookupError("lost"))
    trainer = trainer_of(hook)
    fit(trainer, 1)
    twin = copy.deepcopy(trainer)
    assert fit(trainer) == fit(twin)
    assert contents(trainer) == contents(twin)
    other: Any = twin.on_gradients
    assert (hook.calls, other.calls) == (12, 12)


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
@pytest.mark.parametrize("make", [network, lambda: nn.Linear(12, 3)])
def test_stands_between_gradients_and_updates(make: Callable[[], nn.Module], kind: str) -> None:
    """And after the look at the loss, which nothing before the updates waits for in a small net."""
    with null_device(kind) as null:
        trainer = fnn.Trainer(
            make(), "cross_entropy", "adam", metrics=["accuracy"], on_gradients=see
        )
        fit(trainer, 1)
    names = [call.kernel for call in null.programs[0].calls()]
    [host] = [k for k, name in enumerate(names) if name.startswith("call_host")]
    update = optim.Adam().kernels()[1]
    updates = [k for k, name in enumerate(names) if name.startswith(update)]
    assert min([*updates, names.index("accumulate_rows")]) > host > names.index("check_finite")
    assert max(k for k, name in enumerate(names) if name.startswith("linear_backward")) < host


def _half(rank: int, other: Connection, results: Any) -> None:
    """One of two processes, each with half of every batch."""

    def average(gradients: Gradients) -> None:
        for gradient in gradients.values():
            other.send_bytes(gradient.tobytes())
            theirs = np.frombuffer(other.recv_bytes(), gradient.dtype).reshape(gradient.shape)
            gradient += theirs
            gradient *= 0.5

    model = nn.Sequential(nn.Linear(12, 20), nn.Tanh(), nn.Linear(20, 3))
    step = fnn.compile(
        model, "cross_entropy", optim.Adam(lr=0.01), dtype="float64", workers=1,
        on_gradients=average,
    )  # fmt: skip
    for _ in range(6):
        step(X[rank::2], Y[rank::2])
    results.put((rank, {name: array.copy() for name, array in model.state_dict().items()}))


def test_two_processes_train_as_one() -> None:
    context = multiprocessing.get_context("spawn")
    ends, results = context.Pipe(), context.Queue()
    children = [context.Process(target=_half, args=(k, ends[k], results)) for k in (0, 1)]
    for child in children:
        child.start()
    found = dict(results.get(timeout=120) for _ in children)
    for child in children:
        child.join()
    model = nn.Sequential(nn.Linear(12, 20), nn.Tanh(), nn.Linear(20, 3))
    step = fnn.compile(model, "cross_entropy", optim.Adam(lr=0.01), dtype="float64")
    for _ in range(6):
        step(X, Y)
    for name, array in model.state_dict().items():
        assert found[0][name].tobytes() == found[1][name].tobytes()
        np.testing.assert_allclose(found[0][name], array, rtol=0, atol=1e-9)
