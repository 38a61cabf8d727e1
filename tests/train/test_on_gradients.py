"""A function of the host that is called between gradients and updates."""

from __future__ import annotations

import copy
import multiprocessing
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, optim
from fastnn.errors import BusyError, OptionError
from fastnn.testing.null import null_device
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
