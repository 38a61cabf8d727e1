"""One program for many lengths and batch sizes, with the bits of programs of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops
from tests.train.sizes.tagger import (
    IGNORED,
    LENGTHS,
    TAGS,
    WORDS,
    Tagger,
    batch,
    fits,
    in_turn,
    numbers,
    planned,
    same,
    trainer,
)


def test_every_path_has_the_bits_of_exact_lengths(exact):
    data = [batch(steps) for steps in LENGTHS[:10]]
    weighted = [(x, y, np.random.default_rng(3).random(y.shape) * (y >= 0)) for x, y in data]

    def run(workers: int) -> tuple[Any, tuple[int, ...]]:
        model = Tagger(bidirectional=True)
        made = trainer(model, metrics=["accuracy", "top_2_accuracy"], workers=workers)
        found: list[Any] = [numbers(made.fit(data, epochs=2, validation=data[::-1], verbose=False))]
        found.append(made.evaluate([batch(steps, 4) for steps in LENGTHS[:10]]))
        for x, y in data:  # as arrays: gathered, four at a time, two are left
            found.append(numbers(made.fit(x, y, batch_size=4, verbose=False)))
            found.append(made.evaluate(x, y, batch_size=4))
            found.append(made.predict(x, batch_size=4))
        found.append(numbers(made.fit(weighted, verbose=False)))
        step = fnn.compile(model, nn.CrossEntropyLoss(ignore_index=IGNORED), workers=workers)
        for use in (step, step.evaluate, step.gradients):
            found += [use(*given) for given in [*data, *weighted]]
        state = {name: np.array(value) for name, value in model.state_dict().items()}
        counts = tuple(map(planned, (made, model._own_predictor(), step)))
        assert len(made._built) == 10 * 8
        return (found, state), counts

    few = [run(workers) for workers in (1, 2, 3)]
    exact()
    expected, all_counts = run(2)
    assert all_counts == (10 * 8, 10 * 2, 10 * 6)
    for found, counts in few:
        assert same(found, expected)
        assert counts < (36, 6, 24)  # data in memory have a plan for each array's steps


# ---------------------------------------------------------------- what may be trained


def column(y: Any, lengths: Any) -> Any:
    return y * ops.sigmoid(y[:, :, :1]) + y[:, :, 1:2]


BETWEEN: dict[str, Callable[..., Any]] = {
    "add": lambda y, _: y + y,
    "subtract": lambda y, _: y - ops.tanh(y),
    "multiply": lambda y, _: y * ops.sigmoid(y),
    "affine": lambda y, _: 1.0 - 2.0 * y,
    "negate": lambda y, _: -y,
    "relu": lambda y, _: ops.relu(y),
    "leaky_relu": lambda y, _: ops.leaky_relu(y),
    "gelu": lambda y, _: ops.gelu(y),
    "silu": lambda y, _: ops.silu(y),
    "split": lambda y, _: ops.concatenate(*ops.split(y, 2)[::-1]),
    "column": column,
}

CELLS: dict[str, Any] = {
    "rnn": {"cell": nn.RNN}, "gru": {"cell": nn.GRU}, "both ways": {"bidirectional": True},
    "peepholes": {"peepholes": True}, "bptt": {"bptt": 3},
    "reset before": {"cell": nn.GRU, "reset": "before"},
}  # fmt: skip

LOSSES: dict[str, tuple[Any, Any]] = {
    "mse": (nn.MSELoss(), None), "mae": (nn.L1Loss(), None), "huber": (nn.HuberLoss(), None),
    "bce": (nn.BCEWithLogitsLoss(), ["accuracy"]),
    "weights": (nn.CrossEntropyLoss([1, 2, 0.5, 3, 1], IGNORED, 0.1), None),
    "nll": (nn.NLLLoss(ignore_index=IGNORED), None),
    "sum": (nn.CrossEntropyLoss(ignore_index=IGNORED, reduction="sum"), None),
}  # fmt: skip


def few_and_exact(make: Callable[[], nn.Module], exact: Any, *rest: Any) -> fnn.Trainer:
    made, found = fits(make(), *rest)
    exact()
    others, expected = fits(make(), *rest)
    assert same(found, expected)
    assert planned(others) == len(LENGTHS)
    assert planned(made) <= 4
    return made


@pytest.mark.parametrize("name", BETWEEN)
def test_layers_that_may_be_trained(name, exact):
    few_and_exact(lambda: Tagger(between=BETWEEN[name]), exact, [batch(n) for n in LENGTHS])


@pytest.mark.parametrize("name", CELLS)
def test_cells(name, exact):
    few_and_exact(lambda: Tagger(**CELLS[name]), exact, [batch(n) for n in LENGTHS])


def test_sums_in_double_precision(exact):
    """There the order of a sum shows: in each loss, and in what gradients are divided by."""
    rng, found = np.random.default_rng(0), []
    data = [(*batch(n, 9), rng.random((9, n))) for n in LENGTHS]
    for _ in range(2):
        loss = nn.CrossEntropyLoss(ignore_index=IGNORED)
        step = fnn.compile(Tagger(), loss, "sgd", dtype="float64")
        made = trainer(step.model, loss, dtype="float64", metrics=["nll"])
        found.append([[step(*given), made.evaluate([given])] for given in data])
        found.append([step.gradients(*given) for given in data])
        exact()
    assert same(found[:2], found[2:])


class Scores(Tagger):
    def forward(self, ids: Any, lengths: Any) -> Any:
        return ops.log_softmax(super().forward(ids, lengths))


@pytest.mark.parametrize("name", LOSSES)
def test_losses(name, exact):
    loss, metrics = LOSSES[name]

    def given(steps: int) -> tuple[Any, ...]:
        x, y = batch(steps)
        if name in ("weights", "nll", "sum"):
            return x, y
        kept = (y >= 0).astype(np.float32)
        return x, (np.eye(TAGS, dtype=np.float32)[y] * kept[..., None]), kept

    make = Scores if name == "nll" else Tagger
    few_and_exact(make, exact, [given(n) for n in LENGTHS], loss, metrics)


class Spelling(nn.Module):
    """Letters of each word through one cell, words through another."""

    def __init__(self) -> None:
        self.letters, self.speller = nn.Embedding(WORDS, 4), nn.GRU(4, 5)
        self.cell, self.head = nn.LSTM(5, 8), nn.Linear(8, TAGS)

    def forward(self, letters: Any, spelt: Any, lengths: Any) -> Any:
        samples, steps, size = letters.shape
        x = self.letters(ops.reshape(letters, samples * steps, size))
        _, (last,) = self.speller(x, lengths=ops.reshape(spelt, samples * steps))
        y, _ = self.cell(ops.reshape(last, samples, steps, -1), lengths=lengths)
        return self.head(y)


def test_sequences_in_sequences(exact):
    def given(steps: int) -> tuple[Any, np.ndarray]:
        rng = np.random.default_rng(steps)
        (_, lengths), y = batch(steps)
        letters = rng.integers(0, WORDS, (len(y), steps, 7))
        return (letters, rng.integers(0, 8, (len(y), steps)), lengths), y

    few_and_exact(Spelling, exact, [given(n) for n in LENGTHS])


class Classifier(nn.Module):
    """The last state and an input that have no steps, so that dropout is the same; leaky sums."""

    def __init__(self) -> None:
        self.cell, self.drop = nn.GRU(4, 8), nn.Dropout(0.4)
        self.head = nn.Linear(12, TAGS)

    def forward(self, x: Any, lengths: Any, extra: Any) -> Any:
        slow, _ = ops.leaky(x, lengths=lengths)
        _, (last,) = self.cell(slow, lengths=lengths)
        return self.head(ops.concatenate(self.drop(last), extra))


def test_one_target_for_a_sequence(exact):
    def given(steps: int) -> tuple[Any, np.ndarray]:
        rng = np.random.default_rng(steps)
        x, extra = rng.normal(size=(6, steps, 4)), rng.normal(size=(6, 4))
        return (x, rng.integers(0, steps + 1, 6), extra), rng.integers(0, TAGS, 6)

    data = [given(n) for n in LENGTHS]
    few_and_exact(Classifier, exact, data, nn.CrossEntropyLoss(), ["accuracy"])


class Wide(Tagger):
    """Weights so large that there are other kernels where there are many rows."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, 800), nn.Linear(800, 800)
        self.head = nn.Linear(800, TAGS)

    def forward(self, ids: Any, lengths: Any) -> Any:
        y, _ = self.cell(self.vectors(ids), lengths=lengths)
        return self.head(ops.relu(self.down(ops.relu(self.up(y)))))


def test_large_weights(exact):
    data = [batch(n, 3) for n in (2, 3, 4, 9, 5, 14, 20, 25, 6, 31)]
    _, found = fits(Wide(), data)
    exact()
    assert same(found, fits(Wide(), data)[1])


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_few_rows(samples, exact):
    """Up to four rows a product's gradient is summed in another order."""
    data, found = [batch(n, samples) for n in (7, 5, 4, 3, 2, 1)], []
    for _ in range(2):
        step = fnn.compile(Tagger(), nn.CrossEntropyLoss(ignore_index=IGNORED), "sgd", seed=1)
        found.append([step.gradients(*given) for given in data])
        exact()
    assert same(*found)


# ---------------------------------------------------------------- what mixes steps


def positions(y: Any, lengths: Any) -> Any:
    return y + np.arange(y.shape[1])[None, :, None] * 0.1


def attention(y: Any, lengths: Any) -> Any:
    return ops.softmax(y @ ops.transpose(y, 0, 2, 1), axis=-1) @ y


def branch(y: Any, lengths: Any) -> Any:
    return ops.tanh(y) if y.shape[1] % 3 else ops.relu(y)


def decayed(y: Any, lengths: Any) -> Any:
    last = ops.loop(lambda y_t, h: (h, h * 0.5 + y_t), y, ops.zeros_state(y, y.shape[2]))[1]
    return y + ops.reshape(last, (y.shape[0], 1, y.shape[2]))


MIXING: dict[str, Callable[..., Any]] = {
    "mean": lambda y, _: y - ops.mean(y, axis=1, keepdims=True),
    "maximum": lambda y, _: y - ops.max(y, axis=1, keepdims=True),
    "softmax over time": lambda y, _: ops.softmax(y, axis=1),
    "sum over time": lambda y, _: ops.cumsum(y, axis=1),
    "reversed": lambda y, _: y[:, ::-1],
    "last": lambda y, _: y - y[:, -1:],
    "turned": lambda y, _: ops.transpose(ops.transpose(y, 0, 2, 1), 0, 2, 1),
    "attention": attention,
    "positions": positions,
    "by steps": lambda y, _: y / y.shape[1],
    "branch": branch,
    "no lengths": lambda y, _: ops.leaky(y)[0],
    "the last state of a loop": decayed,
    "steps and units in turn": in_turn,
    "an array of the steps": lambda y, _: y * np.full(y.shape[2], 1.0 / y.shape[1]),
}


@pytest.mark.parametrize("name", MIXING)
def test_what_depends_on_the_steps(name, exact):
    data, found, models = [batch(n) for n in LENGTHS[:9]], [], []
    for _ in range(2):
        models.append(Tagger(between=MIXING[name]))
        made = trainer(models[-1])
        found.append(numbers(made.fit(data, epochs=2, verbose=False)))
        found.append([models[-1].predict(*x) for x, _ in data])
        if len(models) == 1:
            assert planned(made) <= 6
        exact()
    assert same(found[:2], found[2:])


@pytest.mark.parametrize(
    ("between", "loss"),
    [
        ("norm", None), ("batch_norm", None), ("drop", None), ("exp", None),
        ("", nn.CrossEntropyLoss()), ("", nn.CrossEntropyLoss(reduction="sum")),
    ],
)  # fmt: skip
def test_what_mixes_samples_or_draws_numbers(between, loss, exact):
    """Sums in another order, random numbers by place, infinity times 0, rows that count."""

    class Net(Tagger):
        def forward(self, ids: Any, lengths: Any) -> Any:
            y, _ = self.cell(self.vectors(ids), lengths=lengths)
            other = ops.exp if between == "exp" else getattr(self, between, lambda y: y)
            return self.head(other(y))

    data = [batch(n) for n in LENGTHS]
    if loss is not None:
        data = [(x, np.maximum(y, 0)) for x, y in data]
    found = []
    for _ in range(2):
        model = Net()
        made, logs = fits(model, data, loss)
        found.append((logs, [model.predict(*x) for x, _ in data]))
        few = [planned(one) for one in (made, model._own_predictor())]
        assert max(few) <= 4 if len(found) == 1 else few == [len(LENGTHS)] * 2
        exact()
    assert same(*found)


def test_a_change_of_the_model_is_seen(exact):
    """The model divides by its steps, after a while."""
    data, found = [batch(n) for n in LENGTHS[:10]], []
    for _ in range(2):
        model = Tagger()
        made = trainer(model)
        made.fit(data, verbose=False)
        model.between = lambda y, _: y / y.shape[1]
        made.fit(data, verbose=False)
        found.append([model.predict(*x) for x, _ in data])
        exact()
    assert same(*found)
