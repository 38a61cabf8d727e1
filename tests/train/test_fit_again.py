"""What a fit leaves for the next one and for its next epoch: bound programs, a data order."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn
from fastnn.callbacks import Callback, LambdaCallback
from fastnn.errors import DataError
from fastnn.runtime.cpu import runtime, team
from fastnn.runtime.cpu.orders import CpuOrders
from fastnn.train import feeds
from fastnn.train.slices import permutation

RNG = np.random.default_rng(0)
X = RNG.standard_normal((50, 5)).astype(np.float32)
Y = np.arange(50) % 3


def made() -> fnn.Trainer:
    return fnn.Trainer(nn.Linear(5, 3), "cross_entropy", "adam", seed=4)


def bits(trainer: fnn.Trainer) -> bytes:
    return b"".join(np.asarray(v).tobytes() for v in trainer.get_parameters().values())


@pytest.fixture
def bound(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The programs that are bound from now on."""
    found: list[Any] = []
    before = runtime.CpuRuntime.bind

    def bind(self: Any, program: Any) -> Any:
        found.append(program)
        return before(self, program)

    monkeypatch.setattr(runtime.CpuRuntime, "bind", bind)
    return found


def test_the_same_data_are_not_bound_again(bound: list[Any]) -> None:
    trainer, whole = made(), made()
    for _ in range(4):
        trainer.fit(X, Y, batch_size=16, verbose=False)
        if len(bound) > 2:  # the whole batches, and the last one
            pytest.fail("bound again")
    whole.fit(X, Y, epochs=4, batch_size=16, verbose=False)
    assert bits(trainer) == bits(whole)


def test_other_data_are_read() -> None:
    """Another array, and the same one with other numbers."""
    trainer, other = made(), made()
    x = X.copy()
    trainer.fit(x, Y, batch_size=16, verbose=False)
    x[:] = -X
    trainer.fit(x, Y, batch_size=16, verbose=False)
    trainer.fit(2 * X, Y, batch_size=16, verbose=False)
    trainer.fit(2 * X, Y[::-1], batch_size=10, verbose=False)
    for data, labels, batch in ((X, Y, 16), (-X, Y, 16), (2 * X, Y, 16), (2 * X, Y[::-1], 10)):
        other.session.runtime._latest.clear()
        other.session.runtime._described = None
        other.fit(data.copy(), labels.copy(), batch_size=batch, verbose=False)
    assert bits(trainer) == bits(other)


@pytest.mark.parametrize("limit", [0, 1 << 30])
def test_programs_of_fits_before_are_kept_within_a_limit(
    limit: int, bound: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of memory beside the data, which no fit keeps (`test_memory_goes.py`): orders and rates."""
    monkeypatch.setattr(runtime, "KEPT_BYTES", limit)
    trainer = made()
    data = [(X.copy(), Y.copy()) for _ in range(3)]
    for _ in range(2):
        for x, y in data:
            trainer.fit(x, y, batch_size=25, verbose=False)
    assert len(bound) == (3 if limit else 6)


class Orders(Callback):
    """The data order of each epoch, and of the one after it if that has been drawn."""

    def __init__(self) -> None:
        self.found: list[np.ndarray] = []

    def on_epoch_end(self, epoch: int, logs: Any) -> None:
        self.found.append(np.array(self.trainer.session.memory["order"]))


def test_orders_are_those_of_their_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    before = CpuOrders._fill

    def fill(self: CpuOrders, seed: int, epoch: int) -> None:
        drawn.append(epoch)
        before(self, seed, epoch)

    monkeypatch.setattr(CpuOrders, "_fill", fill)
    trainer, orders = made(), Orders()
    trainer.fit(X, Y, epochs=3, batch_size=16, callbacks=orders, verbose=False)
    trainer.fit(X, Y, epochs=2, batch_size=16, callbacks=orders, verbose=False)
    assert drawn == [0, 1, 2, 3, 4]  # each once, and none that no epoch needs
    for epoch, order in enumerate(orders.found):
        assert (order == permutation(4, epoch, 50)).all()


def test_an_order_is_drawn_while_steps_run(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, busy = made(), []
    before = CpuOrders._fill

    def fill(self: CpuOrders, seed: int, epoch: int) -> None:
        busy.append(trainer.session.runtime._run is not None)
        before(self, seed, epoch)

    monkeypatch.setattr(CpuOrders, "_fill", fill)
    trainer.fit(X, Y, epochs=3, batch_size=16, verbose=False)
    assert busy == [False, True, True]


def test_orders_of_many_samples_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    for few in (49, 50):
        monkeypatch.setattr(feeds, "FEW", few)
        trainer = made()
        trainer.fit(X, Y, batch_size=16, verbose=False)
        assert (trainer.latest.feed.orders is not None) == (few == 50)


@pytest.fixture
def feeds_made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """For each feed that is made from now on its batch size."""
    found: list[Any] = []
    before = feeds.ArrayFeed.__init__

    def init(self: Any, *args: Any) -> None:
        found.append(args[2])  # its batch size: a feed that is kept would hold its arrays
        before(self, *args)

    monkeypatch.setattr(feeds.ArrayFeed, "__init__", init)
    return found


def test_the_same_arrays_are_checked_again_and_nothing_else(feeds_made: list[Any]) -> None:
    trainer, x, y = made(), X.copy(), Y.copy()
    trainer.fit(x, y, batch_size=16, verbose=False)
    trainer.fit(x, y, batch_size=16, verbose=False)
    assert len(feeds_made) == 1
    before, steps = bits(trainer), trainer.step
    for array, wrong, message in ((x, np.nan, "NaN or infinity"), (y, 3, r"integers in 0\.\.2")):
        right = array[7].copy()
        array[7] = wrong
        with pytest.raises(DataError, match=message):
            trainer.fit(x, y, batch_size=16, verbose=False)
        array[7] = right
    assert (bits(trainer), trainer.step) == (before, steps)
    # a callback may write what none may read
    spoil = LambdaCallback(on_epoch_begin=lambda epoch, logs: y.put(7, 3))
    with pytest.raises(DataError, match="integers"):
        trainer.fit(x, y, batch_size=16, callbacks=spoil, verbose=False)
    y[7] = Y[7]
    trainer.fit(x, y, batch_size=16, verbose=False)
    whole = made()
    whole.fit(X, Y, epochs=3, batch_size=16, verbose=False)
    assert bits(trainer) == bits(whole)


def test_what_differs_is_worked_out_anew(feeds_made: list[Any]) -> None:
    """Options, the same arrays with other shapes or more samples, and a model that has changed."""
    trainer, other = made(), made()
    x, y = X.copy(), Y.copy()
    calls: list[dict[str, Any]] = [
        {}, {"batch_size": 10}, {"batch_size": 10, "shuffle": False}, {"drop_last": True}, {},
        {"sample_weight": np.arange(50.0)}, {}, {"validation": 0.5}, {},
    ]  # fmt: skip

    def both(**options: Any) -> None:
        trainer.fit(x, y, **{"batch_size": 16, "verbose": False, **options})
        other.latest = None
        other.fit(x.copy(), y.copy(), **{"batch_size": 16, "verbose": False, **options})
        assert bits(trainer) == bits(other)

    for options in calls:
        both(**options)
    both(shuffle=False)
    trainer.fit(X, Y, batch_size=16, verbose=False)
    other.fit(X, Y, batch_size=16, verbose=False)
    both(shuffle=False)
    x.resize((60, 5), refcheck=False)  # nothing keeps it from that after a run
    y.resize(60, refcheck=False)
    both()
    y.resize(50, refcheck=False)
    with pytest.raises(DataError, match="60 inputs and 50 targets"):
        trainer.fit(x, y, batch_size=16, verbose=False)
    y.resize(60, refcheck=False)
    both()
    x.shape = (75, 4)
    with pytest.raises(DataError, match="75 inputs"):
        trainer.fit(x, y, batch_size=16, verbose=False)
    x.shape = (60, 5)
    both()
    for one in (trainer, other):
        one.model.bias.trainable = False
    count = len(feeds_made)
    both()
    assert len(feeds_made) == count + 2


def test_rates_are_those_of_now() -> None:
    """Changed between two runs, by a callback at the end of an epoch, and before a single step."""
    trainer, other = made(), made()

    def at_the_end(epoch: int, logs: Any) -> None:
        trainer.learning_rate *= 0.5

    def before(batch: int, logs: Any) -> None:
        if batch == 2:
            trainer.learning_rate *= 4.0

    calls: list[Callback | None] = [
        None, LambdaCallback(on_epoch_end=at_the_end), None,
        LambdaCallback(on_train_batch_end=before), None,
    ]  # fmt: skip
    rates = []
    for k, callback in enumerate(calls):
        trainer.fit(X, Y, epochs=2, batch_size=16, callbacks=callback, verbose=False)
        if k % 2 == 0:
            rates.append(trainer.learning_rate)
            assert (trainer.session.memory["schedule"] == rates[-1]).all()
    assert rates == [1e-3, 0.25e-3, 4e-3]
    assert trainer.history.stopped == "completed"
    for rate, batch in ((1e-3, 16), (0.5e-3, 16), (0.25e-3, 16), (0.1, 50)):
        other.learning_rate = rate
        other.latest = None
        other.fit(X, Y, epochs=1 + (batch == 16), batch_size=batch, verbose=False)
        assert (other.session.memory["schedule"] == rate).all()


def test_a_run_like_the_one_before_takes_few_calls() -> None:
    """Where an epoch takes 30 microseconds, Python's functions are what a fit takes: 154 calls when
    this was written, by which nobody has to wait for a clock."""
    trainer, count = made(), 0

    def counting(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event == "call"

    for _ in range(3):
        trainer.fit(X, Y, batch_size=25, verbose=False)
    before = sys.getprofile()
    sys.setprofile(counting)
    try:
        trainer.fit(X, Y, batch_size=25, verbose=False)
    finally:
        sys.setprofile(before)
    assert 100 < count <= 170


def test_arrays_may_be_resized_after_a_fit_that_did_not_begin() -> None:
    trainer, x, y = made(), X.copy(), Y.copy()

    def refuse(logs: Any) -> None:
        raise RuntimeError("not now")

    for _ in range(2):  # a feed that is new, and one that is taken up again
        with pytest.raises(RuntimeError, match="not now"):
            trainer.fit(
                x, y, batch_size=16, callbacks=LambdaCallback(on_train_begin=refuse), verbose=False
            )
    x.resize((60, 5), refcheck=False)
    y.resize(60, refcheck=False)
    trainer.fit(x, y, batch_size=16, verbose=False)


def test_a_short_run_is_done_by_the_thread_that_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    before = team.Team.start

    def start(self: Any, *args: Any, **named: Any) -> None:
        started.append(args[0])
        before(self, *args, **named)

    monkeypatch.setattr(team.Team, "start", start)
    trainer, other = made(), made()
    trainer.fit(X, Y, batch_size=16, verbose=False)
    assert not started
    monkeypatch.setattr(team, "SHORT", 0.0)
    other.fit(X, Y, batch_size=16, verbose=False)
    assert len(started) == 1
    assert bits(trainer) == bits(other)
    monkeypatch.undo()
    monkeypatch.setattr(team.Team, "start", start)
    trainer.fit(X, Y, batch_size=1, epochs=1, verbose=False)
    trainer.fit(np.tile(X, (8, 1)), np.tile(Y, 8), batch_size=1, verbose=False)  # too many steps
    assert len(started) == 2


def slowly(x: "in rows f[N,C]", y: "out rows f[N,C]", lo: "begin", hi: "end"):  # type: ignore
    for i in range(lo, hi):
        for j in range(x.shape[1]):
            y[i, j] = 2.0 * x[i, j]


def test_how_long_users_kernels_take_nobody_knows() -> None:
    own = fnn.define_op("test_slowly", fnn.kernel(slowly))

    class Model(nn.Module):
        def __init__(self) -> None:
            self.layer = nn.Linear(5, 3)

        def forward(self, x: Any) -> Any:
            return self.layer(own(x))

    trainer = fnn.Trainer(Model(), "cross_entropy")
    trainer.fit(X, Y, batch_size=25, verbose=False)
    assert not trainer.session.runtime._described.short
