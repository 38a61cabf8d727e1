"""Models used by several threads at a time."""

from __future__ import annotations

import copy
import os
import pickle
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, optim
from fastnn.engine.access import Access, AccessControl, access_to
from fastnn.errors import BusyError
from fastnn.train.hooks import LambdaCallback

RNG = np.random.default_rng(0)
X = RNG.normal(size=(600, 6)).astype(np.float32)
Y = RNG.integers(0, 3, 600)
#: generous: a thread that has not ended by then never will
PATIENCE = 300


def net(width: int = 16) -> nn.Module:
    return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 3))


def together(*functions: Callable[[], Any]) -> list[Any]:
    """Results (or errors) of functions that begin at the same moment, each in a thread."""
    gate = threading.Barrier(len(functions))
    results: list[Any] = [None] * len(functions)

    def work(k: int) -> None:
        gate.wait()
        try:
            results[k] = functions[k]()
        except Exception as error:
            results[k] = error

    threads = [threading.Thread(target=work, args=(k,), daemon=True) for k in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads)
    return results


@pytest.fixture(autouse=True)
def many_switches():
    """Threads take turns ten times as often as usual. (More often a busy machine gets nowhere: each
    turn waits for a core.)"""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-4)
    yield
    sys.setswitchinterval(before)


def test_predictions_of_one_model():
    """Each thread gets its own rows, from the first call on."""
    for _ in range(3):
        model, twin = net(), net()
        wanted = twin.predict(X)

        def rows(k: int, model: nn.Module = model, wanted: Any = wanted) -> int:
            found = 0
            for turn in range(30):
                part = slice(40 * k + turn, 40 * k + turn + 1 + 7 * (turn % 5))
                found += np.array_equal(model.predict(X[part]), wanted[part])
                found += np.array_equal(model.predict(X, batch_size=64 + k), wanted)
            return found

        assert together(*(lambda k=k: rows(k) for k in range(4))) == [60] * 4


def test_evaluations_of_one_trainer():
    trainer = fnn.Trainer(net(), "cross_entropy", metrics=["accuracy"])
    parts = [(X[100 * k : 100 * k + 90], Y[100 * k : 100 * k + 90]) for k in range(4)]
    wanted = [trainer.evaluate(*part) for part in parts]
    found = together(*(lambda p=p: [trainer.evaluate(*p) for _ in range(8)] for p in parts))
    assert found == [[w] * 8 for w in wanted]


@pytest.mark.parametrize("workers", [1, 3])
def test_models_side_by_side(workers: int):
    """Training in threads gives the bits of training one after the other."""

    def train(k: int) -> dict[str, bytes]:
        model = net(8 + k)
        trainer = fnn.Trainer(model, "cross_entropy", optim.Adam(lr=0.01), seed=k, workers=workers)
        trainer.fit(X, Y, epochs=2, batch_size=32, verbose=False)
        step = fnn.compile(model, "cross_entropy", "sgd", workers=workers)
        for _ in range(20):
            step(X[:40], Y[:40])
        return {n: a.tobytes() for n, a in model.state_dict().items()}

    wanted = [train(k) for k in range(4)]
    for _ in range(3):
        assert together(*(lambda k=k: train(k) for k in range(4))) == wanted


def test_training_of_one_model_is_refused_to_others():
    model = net()
    trainers = [fnn.Trainer(model, "cross_entropy") for _ in range(2)]
    step = fnn.compile(model, "cross_entropy")
    inside, go_on = threading.Event(), threading.Event()

    def pause(batch: int, logs: Any) -> None:
        inside.set()
        assert go_on.wait(PATIENCE)

    def fit() -> Any:
        hold = LambdaCallback(on_train_batch_end=pause)
        return trainers[0].fit(X, Y, batch_size=200, callbacks=[hold], verbose=False).stopped

    thread_results: list[Any] = []
    thread = threading.Thread(target=lambda: thread_results.append(fit()))
    thread.start()
    assert inside.wait(PATIENCE)
    message = "another thread is training this model"
    with pytest.raises(BusyError, match=f"^fit: {message} .fit.; wait for it"):
        trainers[1].fit(X, Y, verbose=False)
    with pytest.raises(BusyError, match=f"^fit: {message}"):
        trainers[0].fit(X, Y, verbose=False)
    with pytest.raises(BusyError, match=f"^a step: {message}"):
        step(X, Y)
    with pytest.raises(BusyError, match=f"^predict: {message} .fit., its parameters change"):
        model.predict(X)
    with pytest.raises(BusyError, match=f"^evaluate: {message}"):
        trainers[1].evaluate(X, Y)
    net().predict(X)  # another model
    go_on.set()
    thread.join(PATIENCE)
    assert thread_results == ["completed"]
    trainers[1].fit(X, Y, verbose=False)
    step(X, Y)
    model.predict(X)


#: what looks at a model's numbers or sets them
ACCESSES: dict[str, Callable[[Any, str], Any]] = {
    "state_dict": lambda trainer, path: trainer.model.state_dict(),
    "value": lambda trainer, path: trainer.model[0].weight.value,
    "an array": lambda trainer, path: np.asarray(trainer.model[0].weight),
    "Module.save": lambda trainer, path: trainer.model.save(path),
    "Trainer.save": lambda trainer, path: trainer.save(path),
    "pickle": lambda trainer, path: pickle.dumps(trainer.model),
    "pickle of a trainer": lambda trainer, path: pickle.dumps(trainer),
    "deepcopy": lambda trainer, path: copy.deepcopy(trainer.model),
    "load_state_dict": lambda trainer, path: trainer.model.load_state_dict(net().state_dict()),
    "Module.load": lambda trainer, path: trainer.model.load(path + ".model"),
    "Trainer.load": lambda trainer, path: trainer.load(path + ".trainer"),
    "setting": lambda trainer, path: setattr(trainer.model[0].weight, "value", np.ones((16, 6))),
}


@pytest.mark.parametrize("way", ACCESSES)
def test_numbers_are_not_looked_at_while_another_thread_trains(way: str, tmp_path: Path) -> None:
    trainer, path = fnn.Trainer(net(), "cross_entropy", workers=1), str(tmp_path / "file")
    trainer.model.save(path + ".model")
    trainer.save(path + ".trainer")
    inside, go_on = threading.Event(), threading.Event()

    def pause(batch: int, logs: Any) -> None:
        ACCESSES["state_dict"](trainer, path)  # the thread that trains may
        ACCESSES["setting"](trainer, path)
        inside.set()
        assert go_on.wait(PATIENCE)

    hold = LambdaCallback(on_train_batch_end=pause)
    thread = threading.Thread(
        target=lambda: trainer.fit(X, Y, batch_size=len(X), callbacks=[hold], verbose=False)
    )
    thread.start()
    assert inside.wait(PATIENCE)
    before = trainer.store.memory["params"].tobytes()
    try:
        with pytest.raises(BusyError, match="another thread is training this model"):
            ACCESSES[way](trainer, path)
        assert trainer.store.memory["params"].tobytes() == before
        assert not os.path.exists(path)
    finally:
        go_on.set()
        thread.join(PATIENCE)
    ACCESSES[way](trainer, path)


class Twins(nn.Module):
    """Two layers whose weights always get the same gradient."""

    def __init__(self) -> None:
        self.first, self.second = (nn.Linear(500, 500, bias=False) for _ in range(2))
        self.load_state_dict(
            {f"{name}.weight": np.zeros((500, 500)) for name in ("first", "second")}
        )

    def forward(self, x: Any) -> Any:
        return self.first(x) + self.second(x)


def test_a_state_dict_is_that_between_two_steps() -> None:
    model = Twins()
    step = fnn.compile(model, lambda y, _: y.sum(), optim.SGD(lr=1.0), workers=1)
    data, done = np.ones((1, 500), np.float32), threading.Event()

    def steps() -> bool:
        try:
            for _ in range(300):
                step(data, data)
        finally:
            done.set()
        return True

    def looks() -> bool:
        while not done.is_set():
            first, second = model.state_dict().values()
            assert (first == first[0, 0]).all()
            assert (second == first[0, 0]).all()
        return True

    assert together(steps, looks, looks) == [True] * 3


def test_a_prediction_waits_for_a_step():
    model = net()
    step = fnn.compile(model, "cross_entropy", optim.SGD(lr=0.0), workers=1)
    wanted = model.predict(X)

    def steps() -> int:
        for _ in range(300):
            step(X, Y)
        return step.steps

    def predictions() -> bool:
        return all(np.array_equal(model.predict(X), wanted) for _ in range(100))

    assert together(steps, predictions, predictions) == [300, True, True]


def test_steps_of_two_threads_are_done_or_refused():
    """Never lost, never done twice."""
    model, twin = net(), net()
    options = optim.SGD(lr=0.1)
    step = fnn.compile(model, "cross_entropy", options, workers=2)
    step(X, Y)

    def steps() -> int:
        done = 0
        for _ in range(300):
            try:
                step(X, Y)
                done += 1
            except BusyError:
                pass
        return done

    done = together(steps, steps)
    assert step.steps == sum(done) + 1
    other = fnn.compile(twin, "cross_entropy", options)
    for _ in range(step.steps):
        other(X, Y)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, twin.state_dict()[name])


def test_within_a_callback_the_model_may_be_used():
    model = net()
    trainer = fnn.Trainer(model, "cross_entropy")
    step = fnn.compile(model, "cross_entropy")
    seen = []

    def look(epoch: int, logs: Any) -> None:
        seen.append(model.predict(X[:5]).shape)
        seen.append(trainer.evaluate(X, Y)["loss"] > 0)
        seen.append(step(X, Y) > 0)
        with pytest.raises(BusyError, match="fit: called within fit of the same object"):
            trainer.fit(X, Y, verbose=False)

    trainer.fit(X, Y, epochs=2, callbacks=[LambdaCallback(on_epoch_end=look)], verbose=False)
    assert seen == 2 * [(5, 3), True, True]


def test_a_turn_ends_with_its_call():
    """Even where it could not say so: the thread has gone, or the call was left in between."""
    model = net()
    among = access_to(model.store())

    def leave() -> None:
        among.train(Access("fit", sys._getframe(), True))

    leave()
    assert together(lambda: model.predict(X[:2]).shape) == [(2, 3)]
    together(leave)
    fnn.Trainer(model, "cross_entropy").fit(X, Y, verbose=False)
    for again in (copy.deepcopy(among), pickle.loads(pickle.dumps(among))):
        assert isinstance(again, AccessControl)


def test_a_run_that_ends_while_others_look_at_it_does_not_cut_off_the_next(monkeypatch) -> None:
    """A prediction that was refused ended an epoch of the training early."""
    shared, cut = AccessControl(), []
    shared.running(Access("a run", sys._getframe()), lambda: cut.append(True))
    monkeypatch.setattr(Access, "held", lambda call: shared.ended(call))  # and so it is not held
    shared.synchronize()
    assert not cut


def test_a_call_is_held_while_a_generator_yields(monkeypatch) -> None:
    """A generator's frame has no caller any more, so who follows the calls looks again."""

    def frames() -> Any:
        yield sys._getframe()
        yield

    generator = frames()
    found = [next(generator)]
    call = Access("a run", sys._getframe())
    look = lambda: {call.thread: found.pop() if found else sys._getframe()}  # noqa: E731
    monkeypatch.setattr(sys, "_current_frames", look)
    assert call.held()


def test_a_fit_in_a_thread():
    """Not the main one, which predicts with a model of its own meanwhile."""
    trainer, model = fnn.Trainer(net(), "cross_entropy", workers=2), net()
    wanted = model.predict(X)
    results: list[Any] = []
    thread = threading.Thread(
        target=lambda: results.append(trainer.fit(X, Y, epochs=20, verbose=False).stopped)
    )
    thread.start()
    while thread.is_alive():
        np.testing.assert_array_equal(model.predict(X), wanted)
    assert results == ["completed"]
    assert trainer.epoch == 20


def test_training_waits_for_the_end_of_a_reading() -> None:
    shared, events = AccessControl(), []
    reading, end = threading.Event(), threading.Event()

    def read() -> None:
        turn = shared.read(Access("a prediction", sys._getframe()))
        reading.set()
        end.wait(PATIENCE)
        events.append("read")
        turn.end()

    def train() -> None:
        turn = shared.train(Access("a step", sys._getframe()))
        events.append("train")
        turn.end()

    threads = [threading.Thread(target=target, daemon=True) for target in (read, train)]
    threads[0].start()
    assert reading.wait(PATIENCE)
    threads[1].start()
    threads[1].join(0.2)  # it can't end before the reading does
    assert threads[1].is_alive()
    assert not events
    end.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert events == ["read", "train"]
