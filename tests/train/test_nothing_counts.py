"""Losses in which nothing counts: all weights are 0, or all targets ignored."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import callbacks, nn, optim
from fastnn.errors import DataError

C = 4
QUIET = dict(verbose=False)


class Two(nn.Module):
    """Two outputs of one input."""

    def __init__(self) -> None:
        self.a, self.b = nn.Linear(5, C), nn.Linear(5, C)

    def forward(self, x: Any) -> Any:
        return self.a(x), self.b(x)


def test_a_batch_in_which_nothing_counts_changes_nothing() -> None:
    x = np.ones((6, 3), np.float32)
    y = np.array([-1, -1, -1, 1, 0, -1])
    loss = nn.CrossEntropyLoss(ignore_index=-1, label_smoothing=0.1)
    trainer = fnn.Trainer(nn.Linear(3, 4), loss, optim.SGD(lr=0.1), ["accuracy"], device="cpu")
    before = trainer.get_parameters()
    with pytest.raises(DataError, match=r"^epoch 1: nothing counts in the loss, .*ignore_index"):
        trainer.fit(x[:3], y[:3], batch_size=2, **QUIET)
    assert trainer.history.stopped == "nothing counted in the loss"
    after = trainer.get_parameters()
    assert all((after[n] == before[n]).all() for n in before)
    whole, parts = (trainer.evaluate(x, y, batch_size=b)["loss"] for b in (6, 3))
    assert whole == pytest.approx(parts, rel=1e-6)
    assert math.isfinite(trainer.fit(x, y, batch_size=3, shuffle=False, **QUIET)["loss"][0])
    step = fnn.compile(nn.Linear(3, 4), loss, optim.SGD(lr=0.1), device="cpu")
    assert not any(g.any() for g in step.gradients(x[:3], y[:3]).values())
    assert step(x[:3], y[:3]) == 0.0
    assert step(x[:3], y[3:], np.zeros(3)) == 0.0


def test_a_loss_in_which_nothing_counts_leaves_the_others() -> None:
    rng = np.random.default_rng(7)
    x, ids, none = rng.normal(size=(6, 5)), rng.integers(0, C, 6), np.full(6, -100)
    trainer = fnn.Trainer(
        Two(), [nn.CrossEntropyLoss(ignore_index=-100)] * 2, loss_weights=[2.0, 3.0],
        dtype="float64", device="cpu",
    )  # fmt: skip
    found = trainer.evaluate(x, (ids, none), batch_size=4)
    z = trainer.predict(x)[0]
    rows = np.log(np.exp(z).sum(axis=1)) - z[np.arange(6), ids]
    assert found["loss"] == pytest.approx(2.0 * rows.mean(), rel=1e-12)
    assert math.isnan(found["output1_loss"])
    with pytest.raises(DataError, match=r"^evaluation: nothing counts in the loss"):
        trainer.evaluate(x, (none, none), batch_size=4)


def test_weights_that_are_all_0_are_refused() -> None:
    """Where a loss of nothing would be NaN; a batch alone may have them."""
    rng = np.random.default_rng(3)
    x, y, w = rng.normal(size=(8, 3)).astype("f"), rng.integers(0, C, 8), np.zeros(8)
    half = np.repeat([0.0, 1.0], 4)

    def trainer() -> fnn.Trainer:
        return fnn.Trainer(nn.Linear(3, C), "cross_entropy", "sgd", ["accuracy"], device="cpu")

    def refused(who: str, **options: Any) -> None:
        made = trainer()
        before = made.get_parameters()
        with pytest.raises(
            DataError, match=f"sample_weight: expected some numbers > 0 for the {who}"
        ):
            made.fit(x, y, batch_size=4, **options, **QUIET)
        assert all((made.get_parameters()[n] == before[n]).all() for n in before)
        assert made.step == 0

    refused("training data, got 8 times 0", sample_weight=w)
    refused("training data, got 4 times 0", sample_weight=half, validation=0.5)
    refused("data to evaluate, got 4 times 0", sample_weight=1 - half, validation=0.5)
    refused("data to evaluate, got 8 times 0", validation=(x, y, w))
    with pytest.raises(DataError, match="some numbers > 0 for the data to evaluate, got 8 times 0"):
        trainer().evaluate(x, y, sample_weight=w)
    with pytest.raises(DataError, match="evaluation: nothing counts in the loss"):
        trainer().evaluate([(x, y, w), (x, y, w)])
    with pytest.raises(DataError, match=r"epoch 1: nothing counts in the loss, .*sample_weight"):
        trainer().fit([(x, y, w)], **QUIET)
    for data in ({"x": x, "y": y, "sample_weight": half}, {"x": [(x, y, w), (x, y, half)]}):
        made = trainer()
        found = made.fit(**data, **QUIET, **({"batch_size": 4} if "y" in data else {}))
        assert all(math.isfinite(found[n][0]) for n in ("loss", "accuracy"))
        found = made.evaluate(**data)
        want = made.evaluate(x[4:], y[4:])
        assert found == pytest.approx(want, rel=1e-6)


def test_an_epoch_that_a_callback_ends_at_once_reports_nothing() -> None:
    class Stops(callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.trainer.stop_training = True

    trainer = fnn.Trainer(nn.Linear(3, C), "cross_entropy", "sgd", device="cpu")
    trainer.fit(np.ones((8, 3), np.float32), np.zeros(8, int), callbacks=Stops(), **QUIET)


def test_statistics_of_its_own_batch_alone_normalise() -> None:
    """Such a model is trained on batches like any other; it is evaluated on all samples at once."""
    model = nn.Sequential(nn.BatchNorm(2, affine=False, track_running_stats=False), nn.Linear(2, 1))
    trainer = fnn.Trainer(model, "mse", optim.SGD(lr=0.1), dtype="float64", device="cpu")
    rng = np.random.default_rng(0)
    x, y = rng.normal(3.0, 2.0, size=(10, 2)), rng.normal(size=(10, 1))
    history = trainer.fit(x, y, epochs=3, batch_size=5, verbose=False, validation=(x, y))
    z = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
    made = z @ np.array(model[1].weight).T + np.array(model[1].bias)
    want = np.square(made - y).mean()
    np.testing.assert_allclose(trainer.evaluate(x, y, batch_size=4)["loss"], want, rtol=1e-9)
    np.testing.assert_allclose(history["val_loss"][-1], want, rtol=1e-9)
