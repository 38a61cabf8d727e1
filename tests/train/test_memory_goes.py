"""Memory goes with the last reference to it: nothing waits for Python's garbage collector."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, optim
from fastnn.callbacks import Callback, EarlyStopping
from fastnn.engine.access import Access, access_to
from fastnn.nn.method import apply, fixed

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)
Found = dict[str, Any]


@pytest.fixture(autouse=True)
def _uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class Reader(nn.Module):
    def __init__(self) -> None:
        self.read, self.tell = nn.LSTM(3, 4), nn.Linear(4, 2)

    def forward(self, x: Any, lengths: Any) -> Any:
        return self.tell(self.read(x, lengths=lengths)[0])[:, -1]


def fitted() -> Found:
    """Fitted twice, evaluated, on arrays and batches, with callbacks that the caller keeps."""
    model, stopping = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), EarlyStopping()
    trainer = fnn.Trainer(model, "cross_entropy", optim.EMA(optim.Adam()), ["accuracy"], mixup=0.1)
    for _ in range(2):
        trainer.fit(X, Y, batch_size=10, validation=0.25, callbacks=stopping, verbose=False)
    trainer.fit([(X, Y)], verbose=False)
    trainer.evaluate(X, Y), trainer.evaluate([(X, Y), (X[:3], Y[:3])])
    assert stopping.trainer is trainer
    return {"trainer": trainer, "model": model, "callback": stopping}


def stepped() -> Found:
    """Steps of several sizes, with a function of the host."""
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm(8), nn.Dropout(0.5), nn.Linear(8, 2))
    step = fnn.compile(model, "cross_entropy", "nadam", on_gradients=lambda gradients: None)
    for size in (24, 7, 6, 5, 4):
        step(X[:size], Y[:size]), step.evaluate(X[:size], Y[:size])
    step.gradients(X, Y)
    return {"trainer": step, "model": model}


def lengths() -> Found:
    """Programs that follow from formulas."""
    model = Reader()
    trainer = fnn.Trainer(model, "cross_entropy")
    batches = [((np.ones((4, n, 3), np.float32), np.full(4, n)), Y[:4]) for n in (3, 9, 7, 6, 5, 4)]
    trainer.fit(batches, verbose=False)
    for inputs, _ in batches:
        model.predict(*inputs)
    return {"trainer": trainer, "model": model, "predictor": model.__dict__["_predictor"]}


def searched() -> Found:
    model = nn.Linear(4, 2)
    trainer = fnn.Trainer(model, "cross_entropy", optim.LBFGS())
    trainer.fit(X, Y, epochs=2, verbose=False)
    return {"trainer": trainer, "model": model}


def asked() -> Found:
    """A model that was looked at, predicted with and called by methods, also of small integers."""
    model = nn.Sequential(nn.Linear(4, 3))
    model.summary(print_fn=lambda text: None)
    model.predict(X), model.predict(X, batch_size=5), model.predict(X.astype(np.uint8))
    fixed(model)(X, precision="bf16"), apply(model, "forward", X)
    model.predictor()(X[:1])
    return {"model": model, "predictor": model.__dict__["_predictor"], "layer": model[0]}


@pytest.mark.parametrize("use", [fitted, stepped, lengths, searched, asked])
def test_nothing_waits_for_the_collector(use: Callable[[], Found]) -> None:
    found = use()
    kept, plans = found.pop("callback", None), []
    trainer = found.get("trainer", found.get("predictor"))
    runtime = trainer.session.runtime
    found |= {"runtime": runtime, "store": trainer.store}
    for number, plans in enumerate(trainer._plans._plans.values()):
        found |= {f"plan {number}": plans[0], f"program {number}": plans[0].program}
    memory = {name: array for name, array in runtime.memory.items() if array.base is not None}
    found |= {name: array.base for name, array in memory.items() if array.base.base is None}
    watched = {name: weakref.ref(thing) for name, thing in found.items()}
    assert len(watched) > 8
    if kept is not None:
        kept.model = None
    del found, trainer, runtime, plans, memory
    assert [name for name, thing in watched.items() if thing() is not None] == []
    if kept is not None:
        with pytest.raises(AttributeError, match="no run of `fit` is going on"):
            _ = kept.trainer


def test_data_go_with_the_run() -> None:
    """Of training, validation and evaluation; of batches, too."""
    model = nn.Linear(4, 2)
    trainer = fnn.Trainer(model, "cross_entropy")
    watched = []
    for given in range(5):
        x, y = X.copy(), Y.copy()
        if given < 2:
            trainer.fit(x, y, validation=(x[:9], y[:9]), batch_size=10, verbose=False)
        elif given == 2:
            trainer.evaluate(x, y)
        elif given == 3:
            trainer.fit([(x, y)], verbose=False)
        else:
            trainer.evaluate([(x, y)])
        watched += [weakref.ref(x), weakref.ref(y)]
        del x, y
    assert [array() is None for array in watched] == [True] * 10


class Keeps(Callback):
    """Looks whether data are there while steps run."""

    def on_epoch_end(self, epoch: int, logs: Any) -> None:
        self.found = "data/x0" in self.trainer.session.memory


def test_other_arrays_in_the_same_place_are_read_anew() -> None:
    """The next fit knows its arrays by where they lie: these have other numbers and labels."""
    trainer, plain = (fnn.Trainer(nn.Linear(4, 2), "cross_entropy", seed=3) for _ in range(2))
    whole, labels, keeps = X.copy(), Y.copy(), Keeps()
    for factor in (1, -2, 3):
        x, y = whole[:], labels[:]  # other objects
        x[:], y[:] = factor * X, (factor * X[:, 1] > 0)
        trainer.fit(x, y, batch_size=10, shuffle="balanced", callbacks=keeps, verbose=False)
        assert keeps.found
        assert "data/x0" not in trainer.session.memory
        plain.fit(x.copy(), y.copy(), batch_size=10, shuffle="balanced", verbose=False)
    for one, other in zip(*(t.get_parameters().values() for t in (trainer, plain)), strict=True):
        np.testing.assert_array_equal(one, other)
    whole[3, 2] = np.nan
    with pytest.raises(fnn.errors.DataError, match="NaN or infinity"):
        trainer.fit(whole, labels, batch_size=10, shuffle="balanced", verbose=False)
    assert "data/x0" not in trainer.session.memory


def test_a_look_is_forgotten() -> None:
    """At a parameter while this thread trains: the frames that look would stay."""
    model, watched = nn.Linear(4, 2), []

    class Noticed:
        pass

    def look() -> None:
        noticed = Noticed()
        watched.append(weakref.ref(noticed))
        assert model.weight.value.any()

    turn = access_to(model.store()).train(Access("a test", sys._getframe()))
    look()
    turn.end()
    assert watched[0]() is None


def test_readers_that_did_not_end_are_left_out() -> None:
    """An exception in the very moment of their end or begin: whoever trains next forgets them."""
    control = access_to(nn.Linear(4, 2).store())

    def reads() -> None:
        control.read(Access("a test", sys._getframe()))  # and does not say that it ends

    reads()
    assert control._reading
    control.train(Access("a test", sys._getframe())).end()
    assert not control._reading


def test_a_prediction_that_could_not_end_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Linear(4, 2)
    want, control = model.predict(X), access_to(model.store())

    def interrupted(self: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Access, "end", interrupted)
        with pytest.raises(KeyboardInterrupt):
            model.predict(X)
    assert control._reading
    predictor = model.__dict__["_predictor"]
    np.testing.assert_array_equal(model.predict(X), want)
    assert not control._reading
    assert len(predictor._idle) == 1  # and no further memory was needed
    assert not predictor._others
