"""Data that are larger than the device's memory: sent batch by batch, and the same bits."""

from __future__ import annotations

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, optim
from fastnn.errors import DataError
from fastnn.runtime.cuda.execute import CudaRuntime
from fastnn.train.hooks import Callback

RNG = np.random.default_rng(3)
X = RNG.normal(size=(8, 2))
Y = (X[:, 0] > X[:, 1]).astype(np.uint8)
W = np.arange(8.0)


class Net(nn.Module):
    def __init__(self):
        self.inner, self.out = nn.Linear(2, 3), nn.Linear(3, 2)
        self.drop = nn.Dropout(0.5)

    def forward(self, x, more):
        return self.out(self.drop(ops_tanh(self.inner(x)) + more))


def ops_tanh(x):
    from fastnn import ops

    return ops.tanh(x)


def trainer_for():
    return fnn.Trainer(Net(), "cross_entropy", optim.Adam(lr=0.05), device="cuda", seed=4)


def bits(trainer):
    return {name: array.tobytes() for name, array in trainer.model.state_dict().items()}


DATA = {"x": X, "more": np.ones((8, 1), np.float32)}


@pytest.fixture
def small(monkeypatch):
    asked = []

    def holds(self, nbytes):
        asked.append(nbytes)
        return False

    def make_small():
        monkeypatch.setattr(CudaRuntime, "holds", holds)
        return asked

    return make_small


@pytest.mark.parametrize("drop_last", [False, True])
def test_training(small, drop_last):
    whole, cut = trainer_for(), trainer_for()
    options = dict(batch_size=3, sample_weight=W, drop_last=drop_last, verbose=False)
    want = whole.fit(DATA, Y, epochs=2, **options).history
    asked = small()
    seen = cut.fit(DATA, Y, epochs=2, **options).history
    assert asked == [X.nbytes + 8 * 4 + Y.nbytes + W.nbytes]
    assert bits(cut) == bits(whole)
    assert seen == want
    assert not any(name.startswith("data/") for name in cut.session.runtime.memory.segments)


def test_evaluation_and_prediction(small, monkeypatch):
    trainer = trainer_for()
    want = trainer.evaluate(DATA, Y, batch_size=3), trainer.predict(DATA, batch_size=3)
    small()
    assert trainer.evaluate(DATA, Y, batch_size=3) == want[0]
    np.testing.assert_array_equal(trainer.predict(DATA, batch_size=3), want[1])


def test_an_interrupted_epoch_goes_on(small, monkeypatch):
    class Interrupting(Callback):
        def on_train_batch_end(self, batch, logs):
            if batch == 1:
                raise KeyboardInterrupt

    small()
    whole, cut = trainer_for(), trainer_for()
    whole.fit(DATA, Y, epochs=1, batch_size=3, verbose=False)
    cut.fit(DATA, Y, epochs=1, batch_size=3, verbose=False, callbacks=[Interrupting()])
    assert cut.interrupted
    assert cut.place == (0, 6)
    with pytest.raises(DataError, match="no multiple of the batch size 4"):
        cut.fit(DATA, Y, epochs=1, batch_size=4, verbose=False)
    cut.fit(DATA, Y, epochs=1, batch_size=3, verbose=False)
    assert bits(cut) == bits(whole)
