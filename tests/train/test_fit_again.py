"""What a fit leaves for the next one and for its next epoch: bound programs, a data order."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn
from fastnn.callbacks import Callback
from fastnn.runtime.cpu import runtime
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
def test_large_data_of_fits_before_are_not_kept(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "KEPT_BYTES", limit)
    trainer, alive = made(), []
    for _ in range(3):
        x = X.copy()
        trainer.fit(x, Y, batch_size=25, verbose=False)
        alive.append(weakref.ref(x))
        del x
    gc.collect()
    assert [found() is not None for found in alive] == [limit > 0, limit > 0, True]


class Orders(Callback):
    """The data order of each epoch, and of the one after it if that has been drawn."""

    def __init__(self) -> None:
        self.found: list[np.ndarray] = []

    def on_epoch_end(self, epoch: int, logs: Any) -> None:
        self.found.append(np.array(self.trainer.session.memory["order"]))


def test_orders_are_those_of_their_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    before = feeds.order_of

    def order_of(data: Any, shuffle: Any, seed: int, epoch: int) -> np.ndarray:
        drawn.append(epoch)
        return before(data, shuffle, seed, epoch)

    monkeypatch.setattr(feeds, "order_of", order_of)
    trainer, orders = made(), Orders()
    trainer.fit(X, Y, epochs=3, batch_size=16, callbacks=orders, verbose=False)
    trainer.fit(X, Y, epochs=2, batch_size=16, callbacks=orders, verbose=False)
    assert drawn == [0, 1, 2, 3, 4]  # each once, and none that no epoch needs
    for epoch, order in enumerate(orders.found):
        assert (order == permutation(4, epoch, 50)).all()


def test_an_order_is_drawn_while_steps_run(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, busy = made(), []
    before = feeds.order_of

    def order_of(*args: Any) -> np.ndarray:
        busy.append(trainer.session.runtime._run is not None)
        return before(*args)

    monkeypatch.setattr(feeds, "order_of", order_of)
    trainer.fit(X, Y, epochs=3, batch_size=16, verbose=False)
    assert busy == [False, True, True]
