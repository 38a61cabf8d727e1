"""Losses of one's own: functions of outputs and targets."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim
from fastnn.errors import DataError, ShapeError
from fastnn.nn.loss_base import mean_of
from tests.train.test_evaluation import QUIET, Function, N, squares

# ---------------------------------------------------------------- losses of one's own


def rmse(out: Any, y: Any) -> Any:
    return ops.sqrt(ops.mean(ops.square(out - y)))


def two_means(o: Any, y: Any, first: Any, second: Any) -> Any:
    """Of a row's outputs, weighted by what the functions give for its first target."""
    a, b = ops.columns(o, 0, 1), ops.columns(o, 1, 2)
    weight, other = (f(ops.columns(y, 0, 1)) for f in (first, second))
    return mean_of(a * weight, weight) + mean_of(b * other, other)


def two_means_of(o: Any, y: Any, first: Any, second: Any) -> Any:
    return sum(np.average(o[:, k], weights=f(y[:, 0])) for k, f in enumerate((first, second)))


#: losses as functions, and NumPy's value for all samples
FUNCTIONS: dict[str, tuple[Any, Any]] = {
    "mean": (lambda o, y: ops.mean(ops.square(o - y)), lambda o, y: squares(o, y).mean()),
    "sum": (lambda o, y: ops.total(ops.square(o - y)) * 0.5, lambda o, y: squares(o, y).sum() / 2),
    "sum and a number": (
        lambda o, y: ops.total(ops.square(o - y)) + 3.0,
        lambda o, y: squares(o, y).sum() + 3.0,
    ),
    "two means": (
        lambda o, y: ops.mean(ops.square(o - y)) - 0.3 * ops.mean(ops.absolute(o)) + 1.0,
        lambda o, y: squares(o, y).mean() - 0.3 * np.abs(o).mean() + 1.0,
    ),
    "root": (rmse, lambda o, y: math.sqrt(squares(o, y).mean())),
    "sum by the batch's size": (
        lambda o, y: ops.total(ops.square(o - y)) / o.shape[0],
        lambda o, y: squares(o, y).sum() / len(o),
    ),
    "sums by the batch's size, with factors": (  # as people write a variational bound
        lambda o, y: (
            ops.sum(ops.square(o - y)) / o.shape[0]
            - 0.5 * ops.sum(1.0 + ops.absolute(o)) / o.shape[0]
        ),
        lambda o, y: (squares(o, y).sum() - 0.5 * (1.0 + np.abs(o)).sum()) / len(o),
    ),
    "mean times the batch's size": (
        lambda o, y: 0.5 * (ops.mean(ops.square(o - y)) * o.size),
        lambda o, y: squares(o, y).sum() / 2,
    ),
    "rows by the batch's size": (
        lambda o, y: ops.sum(ops.square(o - y) / o.shape[0]),
        lambda o, y: squares(o, y).sum() / len(o),
    ),
    "sum by an array of the batch's size": (
        lambda o, y: ops.sum(ops.square(o - y) * np.full(2, 1.0 / o.shape[0])),
        lambda o, y: squares(o, y).sum() / len(o),
    ),
    "a number by a sum": (
        lambda o, y: 2.0 / ops.total(ops.square(o - y)),
        lambda o, y: 2.0 / squares(o, y).sum(),
    ),
    "means with different weights": (
        lambda o, y: two_means(o, y, ops.square, ops.absolute),
        lambda o, y: two_means_of(o, y, np.square, np.abs),
    ),
    "mean and sum": (
        lambda o, y: ops.mean(ops.square(o - y)) + ops.total(o) * 0.01,
        lambda o, y: squares(o, y).mean() + o.sum() * 0.01,
    ),
}


DONT_ADD_UP = (
    "root", "mean and sum", "sum and a number", "a number by a sum", "means with different weights",
)  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_as_losses(name: str) -> None:
    loss, reference = FUNCTIONS[name]
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(N, 5)), rng.normal(size=(N, 2))
    trainer = fnn.Trainer(nn.Linear(5, 2), loss, optim.SGD(lr=0.0), dtype="float64", device="cpu")
    want = pytest.approx(reference(trainer.predict(x), y), rel=1e-12)
    for batch in (1, 2, 4, N):
        assert trainer.evaluate(x, y, batch_size=batch)["loss"] == want
    history = trainer.fit(x, y, batch_size=4, validation=(x, y), **QUIET)
    assert history["val_loss"][0] == want
    if name not in DONT_ADD_UP:
        assert history["loss"][0] == want
    batches = [(x[:5], y[:5]), (x[5:], y[5:])]
    mixed = ("rows by the batch's size", "sum by an array of the batch's size")
    if name in (*DONT_ADD_UP, *mixed):
        with pytest.raises(DataError, match="doesn't add up over batches"):
            trainer.evaluate(batches)
        assert trainer.evaluate([(x, y)])["loss"] == want
    else:
        assert trainer.evaluate(batches)["loss"] == want


@pytest.mark.parametrize("cell", [nn.LSTM, nn.SCRN])
def test_sum_by_the_batch_size_of_a_model_with_carried_states(cell: Any) -> None:
    def by_size(o: Any, y: Any) -> Any:
        return ops.sum(ops.square(o - y)) / o.shape[0]

    def mean(o: Any, y: Any) -> Any:
        return ops.mean(ops.sum(ops.square(o - y), axis=(1, 2)))

    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(12, 5, 3)), rng.normal(size=(12, 5, 2))
    found = []
    for loss in (by_size, mean):
        core = cell(3, 2, stateful=4)
        model = nn.Sequential(core, nn.Linear(core.output_size, 2))
        trainer = fnn.Trainer(model, loss, optim.SGD(lr=0.01), dtype="float64", device="cpu")
        history = trainer.fit(x, y, batch_size=4, validation=(x[:8], y[:8]), **QUIET)
        values = trainer.evaluate(x, y, batch_size=4)
        batches = trainer.evaluate([(x[k : k + 4], y[k : k + 4]) for k in (0, 4, 8)])
        found.append([history["loss"][0], history["val_loss"][0], values["loss"], batches["loss"]])
    assert found[0] == pytest.approx(found[1], rel=1e-12)


class BySize(nn.Module):
    """Outputs that hold the batch's size: as a factor, or as the share of a mean's rows."""

    def __init__(self, function: Any) -> None:
        self.out, self.function = nn.Linear(5, 2), function

    def forward(self, x: Any) -> Any:
        return self.function(self.out(x), x)


@pytest.mark.parametrize(
    "function",
    [
        lambda o, x: o / x.shape[0],
        lambda o, x: ops.gradient(ops.mean(ops.square(o)), o),
    ],
)
def test_outputs_that_follow_the_batch_size(function: Any) -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(N, 5)), rng.normal(size=(N, 2))
    trainer = fnn.Trainer(
        BySize(function), "mse", "sgd", metrics=["mae"], dtype="float64", device="cpu"
    )
    want = trainer.evaluate(x, y)
    reference = squares(trainer.predict(x), y).mean()
    assert want["loss"] == pytest.approx(reference, rel=1e-12)
    for batch in (1, 2, 4):
        assert trainer.evaluate(x, y, batch_size=batch) == want
    with pytest.raises(DataError, match="doesn't add up over batches"):
        trainer.evaluate([(x[:5], y[:5]), (x[5:], y[5:])])


class Joined(nn.Module):
    """Ops that are made anew at each use: joins, both directions of a layer, a loop."""

    def __init__(self, factor: Any) -> None:
        self.both, self.mix = nn.GRU(5, 3, bidirectional=True), nn.Linear(9, 3)
        self.out, self.factor = nn.Linear(3, 2), factor

    def forward(self, x: Any) -> Any:
        def step(x_t: Any, h: Any) -> Any:
            h = ops.tanh(self.mix(ops.concatenate(x_t, h * self.factor(x))))
            return h, h

        y, _ = self.both(x)
        return self.out(ops.loop(step, y, ops.zeros_state(x, 3))[0])


@pytest.mark.parametrize(
    ("factor", "adds_up"),
    [
        (lambda _: 0.5, True), (lambda x: 5 / x.shape[0], False),
        (lambda x: np.full(3, 5 / x.shape[0]), False),
    ],
)  # fmt: skip
def test_a_function_as_loss_of_a_model_with_joins_and_loops(factor: Any, adds_up: bool) -> None:
    """Batches add up unless a step in the loop follows the batch's size."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(N, 4, 5)), rng.normal(size=(N, 4, 2))
    loss, reference = FUNCTIONS["sum by the batch's size"]
    trainer = fnn.Trainer(Joined(factor), loss, dtype="float64", device="cpu")
    want = pytest.approx(reference(trainer.predict(x, batch_size=N), y), rel=1e-12)
    assert trainer.evaluate([(x, y)])["loss"] == want
    batches = [(x[:5], y[:5]), (x[5:], y[5:])]
    if adds_up:
        assert trainer.evaluate(batches)["loss"] == want
        assert trainer.evaluate(x, y, batch_size=2)["loss"] == want
    else:
        with pytest.raises(DataError, match="doesn't add up over batches"):
            trainer.evaluate(batches)


def test_a_function_with_sample_weights_returns_rows() -> None:
    rng = np.random.default_rng(1)
    x, y, w = rng.normal(size=(N, 5)), rng.normal(size=(N, 2)), rng.random(N)
    trainer = fnn.Trainer(
        nn.Linear(5, 2), lambda o, y: ops.sum_features(ops.square(o - y)), dtype="float64"
    )
    rows = squares(trainer.predict(x), y).sum(1)
    for batch in (2, N):
        found = trainer.evaluate(x, y, batch_size=batch, sample_weight=w)["loss"]
        assert found == pytest.approx((rows * w).sum() / w.sum(), rel=1e-12)
    with pytest.raises(ShapeError, match="return rows, not their mean"):
        fnn.Trainer(nn.Linear(5, 2), rmse).fit(x, y, sample_weight=w, **QUIET)


def test_data_that_cannot_be_cut() -> None:
    """With (time, batch, features) the first dimension is no sample's."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(N, 2, 5)), rng.normal(size=(N, 2, 3))
    model = Function(lambda m, x: m.rnn(x)[0], rnn=nn.GRU(5, 3, batch_first=False))
    trainer = fnn.Trainer(model, "mse", optim.SGD(lr=0.0), dtype="float64", device="cpu")
    want = pytest.approx(squares(trainer.predict(x), y).mean(), rel=1e-12)
    for batch in (1, 4, N):
        assert trainer.evaluate(x, y, batch_size=batch)["loss"] == want
    for options in ({"batch_size": 4}, {"batch_size": N}):
        with pytest.raises(DataError, match=r"batch_first=False.*iterable of whole batches"):
            trainer.fit(x, y, **options, **QUIET)
    assert trainer.fit(x, y, batch_size=N, shuffle=False, **QUIET)["loss"][0] == want
    assert trainer.fit([(x, y)], validation=(x, y), **QUIET)["val_loss"][0] == want
