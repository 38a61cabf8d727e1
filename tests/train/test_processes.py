"""Models in other processes: forked, spawned, from a fork server, by joblib."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, optim

RNG = np.random.default_rng(0)
X = RNG.normal(size=(200, 6)).astype(np.float32)
Y = RNG.integers(0, 3, 200)
#: seconds; generous: a child that has not answered by then never will
PATIENCE = 300

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm(16), nn.ReLU(), nn.Linear(16, 3))


def answers(method: str, functions: list[Callable[[], Any]]) -> list[Any]:
    """What functions give in children, all of them at the same time."""
    context: Any = multiprocessing.get_context(method)
    children = []
    for function in functions:
        here, there = context.Pipe()
        child = context.Process(target=_answer, args=(there, function), daemon=True)
        child.start()
        there.close()
        children.append((child, here))
    try:
        found = [here.recv() if here.poll(PATIENCE) else "no answer" for _, here in children]
        for child, _ in children:
            child.join(PATIENCE)
            assert child.exitcode == 0
        return found
    finally:
        for child, here in children:
            child.kill()
            child.join()
            here.close()


def _answer(there: Any, function: Callable[[], Any]) -> None:
    there.send(function())
    there.close()


class Used:
    """A model that has predicted, been trained and stepped, and what comes next."""

    def __init__(self, workers: int):
        self.model, self.other = net(), net()
        self.trainer = fnn.Trainer(self.model, "cross_entropy", optim.Adam(), workers=workers)
        self.step = fnn.compile(self.other, "cross_entropy", workers=workers)
        self.trainer.fit(X, Y, batch_size=20, verbose=False)
        self.step(X, Y)
        self.model.predict(X)
        self.model.predict(X[:3])

    def predict(self) -> bytes:
        whole = self.model.predict(X, batch_size=16)
        assert np.allclose(self.model.predict(X[:3]), whole[:3], rtol=1e-6)
        return whole.tobytes()

    def evaluate(self) -> dict[str, float]:
        return self.trainer.evaluate(X, Y)

    def fit(self, batch: int = 20) -> bytes:
        history = self.trainer.fit(X, Y, epochs=2, batch_size=batch, verbose=False)
        assert history.stopped == "completed"
        return self.model.predict(X).tobytes()

    def steps(self) -> list[float]:
        return [self.step(X, Y) for _ in range(5)]


@forks
@pytest.mark.parametrize("workers", [1, 3])
def test_forked_children_go_on(workers: int) -> None:
    """All that the parent has in use can be used on in a child, with the same bits."""
    used = Used(workers)
    ways = [used.predict, used.evaluate, used.fit, used.steps]
    found = answers("fork", [*ways, *ways])
    wanted = [way() for way in ways]
    assert found == wanted + wanted


@forks
def test_forked_children_of_children() -> None:
    used = Used(3)
    found = answers("fork", [lambda: (used.predict(), _forked(used.predict))])
    assert found == [(used.predict(), used.predict())]


def _forked(function: Callable[[], bytes]) -> bytes:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, function()[:60000])
        os._exit(0)
    os.close(writer)
    parts = []
    while part := os.read(reader, 65536):
        parts.append(part)
    os.waitpid(child, 0)
    return b"".join(parts)


@forks
def test_a_fork_in_the_middle_of_a_run() -> None:
    """While another thread of the parent trains and predicts, with the threads that do it."""
    used, wanted, stop = Used(3), Used(3).predict(), threading.Event()
    busy = Used(3)

    def work() -> None:
        while not stop.is_set():
            busy.trainer.fit(X, Y, batch_size=5, verbose=False)
            busy.steps()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(3):
            # the child's run goes on within the epoch that the parent is in, in batches of its size
            ways = [used.predict, used.predict, busy.steps, lambda: len(busy.fit(5))]
            found = answers("fork", ways)
            assert found[:2] == [wanted, wanted]
            assert np.isfinite(found[2]).all()
            assert found[3] == len(wanted)
    finally:
        stop.set()
        thread.join(PATIENCE)
    assert not thread.is_alive()


@forks
def test_serving_from_forked_workers() -> None:
    """As gunicorn does with preload: the model is made and warmed up once, requests come after."""
    used = Used(2)
    rows = used.model.predict(X)

    def serve() -> bool:
        results: list[bool] = []

        def request(k: int) -> None:
            for row in range(k, 100, 4):
                one = used.model.predict(X[row : row + 1])
                results.append(bool(np.allclose(one[0], rows[row], rtol=1e-6, atol=1e-7)))

        threads = [threading.Thread(target=request, args=(k,)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return len(results) == 100 and all(results)

    assert answers("fork", [serve] * 3) == [True] * 3


def from_nothing() -> bytes:
    """A training from its beginning."""
    return Used(2).fit()


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_children_that_begin_anew(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"{method} does not exist here")
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None, raising=False)
    assert answers(method, [from_nothing]) == [from_nothing()]


def test_joblib() -> None:
    joblib = pytest.importorskip("joblib")
    Used(2)
    found = joblib.Parallel(n_jobs=2)(joblib.delayed(from_nothing)() for _ in range(2))
    assert found == [from_nothing()] * 2
    threads = joblib.Parallel(n_jobs=2, prefer="threads")(
        joblib.delayed(from_nothing)() for _ in range(2)
    )
    assert threads == found
