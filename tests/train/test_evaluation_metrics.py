"""Metrics of an evaluation, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import metrics, nn, ops
from fastnn.errors import FastnnError, OptionError, ShapeError
from tests.train.test_evaluation import QUIET, C, Function, N, squares, two_heads
from tests.train.test_own_losses import rmse

# ---------------------------------------------------------------- metrics


def test_accuracy_is_what_the_loss_says() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(40, 5))
    classes = rng.integers(0, C, 40)
    hot = np.eye(C)[classes]
    model = nn.Linear(5, C)
    squashed = nn.Sequential(model, nn.Sigmoid())
    squashed.load_state_dict(squashed.state_dict())  # no trainer draws them anew
    out = model.predict(x)
    largest = (out.argmax(1) == classes).mean()
    signs = ((out > 0) == (hot > 0.5)).mean()

    def accuracy(model: nn.Module, loss: Any, y: np.ndarray, name: Any = "accuracy") -> float:
        return list(fnn.Trainer(model, loss, metrics=[name]).evaluate(x, y).values())[1]

    assert accuracy(model, "cross_entropy", classes) == pytest.approx(largest)
    assert accuracy(model, "cross_entropy", hot) == pytest.approx(largest)
    assert accuracy(model, "cross_entropy", hot, "top_1_accuracy") == pytest.approx(largest)
    assert accuracy(model, "bce_with_logits", hot) == pytest.approx(signs)
    assert accuracy(squashed, "bce", hot) == pytest.approx(signs)
    assert accuracy(squashed, "mse", hot, "categorical_accuracy") == pytest.approx(largest)
    assert accuracy(squashed, "mse", hot, metrics.binary_accuracy()) == pytest.approx(signs)
    single = fnn.Trainer(Function(lambda m, x: ops.reshape(m.fc(x), -1), fc=nn.Linear(5, 1)),
                         "bce_with_logits", metrics=["accuracy"])  # fmt: skip
    want = ((single.predict(x) > 0) == (hot[:, 0] > 0.5)).mean()
    assert single.evaluate(x, hot[:, 0])["accuracy"] == pytest.approx(want)


def precision(out: Any, y: Any) -> Any:
    return ops.multiply(out, y), out


def test_metrics_of_sums() -> None:
    rng = np.random.default_rng(2)
    x, y, w = rng.normal(size=(N, 5)), rng.normal(size=(N, 2)), rng.random(N)
    root = metrics.Metric("rmse", lambda o, y: ops.square(o - y), math.sqrt)
    mean = metrics.Metric("mean", lambda o, y: ops.mean(ops.absolute(o - y)))
    trainer = fnn.Trainer(
        nn.Linear(5, 2), "mse", metrics=[precision, root, mean, nn.HuberLoss(0.3)], dtype="float64"
    )
    out = trainer.predict(x)
    d = np.abs(out - y)
    want = {
        "loss": squares(out, y).mean(),
        "precision": (out * y).sum() / out.sum(),
        "rmse": math.sqrt(squares(out, y).mean()),
        "mean": d.mean(),
        "HuberLoss": np.where(d < 0.3, d**2 / 2, 0.3 * (d - 0.15)).mean(),
    }
    for batch in range(1, N + 1):
        assert trainer.evaluate(x, y, batch_size=batch) == pytest.approx(want, rel=1e-12)
    trainer = fnn.Trainer(nn.Linear(5, 2), "mse", metrics=[precision, root], dtype="float64")
    out, own = trainer.predict(x), w[:, None]
    found = trainer.evaluate(x, y, batch_size=4, sample_weight=w)
    assert found["precision"] == pytest.approx((own * out * y).sum() / (own * out).sum())
    assert found["rmse"] == pytest.approx(math.sqrt((own * squares(out, y)).sum() / w.sum() / 2))


X, Y = np.random.default_rng(0).normal(size=(2, N, 5))
IDS = np.arange(N) % 5
REFUSED: dict[str, tuple[Any, Any, dict[str, Any], str]] = {
    "a scalar": ("mse", Y, {"metrics": [rmse]}, "number for each row, got a single number"),
    "accuracy of a regression": ("mse", Y, {"metrics": ["accuracy"]}, "categorical_accuracy"),
    "classes of a regression": ("mse", Y, {"metrics": ["top_2_accuracy"]}, "class indices"),
    "too many classes": (
        "cross_entropy",
        IDS,
        {"metrics": ["top_6_accuracy"]},
        "number of class",
    ),
    "shape": ("cross_entropy", IDS, {"metrics": ["mse"]}, "metric mse"),
    "a class": ("mse", Y, {"metrics": [nn.MSELoss]}, "got a class"),
    "by name for one loss": ("mse", Y, {"metrics": {"a": "mae"}}, "plain list"),
    "loss weights for one": ("mse", Y, {"loss_weights": [1.0]}, "leave it out"),
    "binary without a threshold": ("mse", Y, {"metrics": ["binary_accuracy"]}, "threshold"),
    "two losses for one output": (["mse", "mse"], (Y, Y), {}, "2 outputs, one for each"),
    "names for one output": ({"a": "mse"}, {"a": Y}, {}, "return a dict from forward"),
    "wrong number of weights": (["mse"], Y, {"loss_weights": [1.0, 2.0]}, "one for each of"),
    "ignored probabilities": (nn.CrossEntropyLoss(ignore_index=1), abs(Y), {}, "class indices"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    loss, y, options, words = REFUSED[name]
    with pytest.raises(FastnnError, match=words):
        fnn.Trainer(nn.Linear(5, 5), loss, dtype="float64", **options).evaluate(X, y)


@pytest.mark.parametrize(
    ("loss", "y", "words"),
    [
        ("cross_entropy", IDS, r"one of the outputs, got 2 \(kind, place\).*pass a loss"),
        (
            {"kind": "cross_entropy", "where": "mse"},
            {"kind": IDS, "where": Y},
            "names have to agree",
        ),
        ({"kind": "cross_entropy"}, {"kind": IDS % C, "more": Y}, "names have to agree"),
        ({"kind": "cross_entropy"}, IDS % C, "pass a dict of targets"),
    ],
)
def test_losses_that_do_not_fit_the_outputs(loss: Any, y: Any, words: str) -> None:
    with pytest.raises(ShapeError, match=words):
        fnn.Trainer(two_heads(), loss, dtype="float64").fit(X, y, **QUIET)


def test_sample_weights_that_do_not_fit() -> None:
    trainer = fnn.Trainer(nn.Linear(5, 5), "mse", dtype="float64")
    for weights, words in (
        (np.ones(N - 1), "one for each of 9 samples, got 8"),
        (-np.ones(N), "numbers >= 0"),
        (np.full(N, np.nan), "finite"),
        (np.ones((N, 5)), r"shape \(9,\)"),
        ((np.ones(N), np.ones(N)), "one array, or one for each of 1"),
    ):
        with pytest.raises(FastnnError, match=words):
            trainer.evaluate(X, Y, sample_weight=weights)
    with pytest.raises(OptionError, match="leave out y, batch_size and sample_weight"):
        trainer.evaluate([(X, Y)], sample_weight=np.ones(N))


def test_a_program_gets_its_memory_once_for_all_batches_of_a_shape(monkeypatch: Any) -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(26, 3)).astype(np.float32), rng.integers(0, 2, 26)
    batches = [(x[k : k + 6], y[k : k + 6]) for k in range(0, 26, 6)]  # the last one has 2
    model = nn.Linear(3, 2)
    trainer = fnn.Trainer(model, "cross_entropy", metrics=["accuracy"])
    found = trainer.evaluate(batches)
    session, bound = trainer.evaluation().session, []
    bind = session.bind
    monkeypatch.setattr(session, "bind", lambda program: bound.append(program) or bind(program))
    assert trainer.evaluate(batches) == found
    assert not bound
    trainer.evaluate([(x[:5], y[:5])] * 3)
    assert len(bound) == 1
    for name, value in trainer.evaluate(x, y).items():
        assert value == pytest.approx(found[name], rel=1e-6)
    trainer.fit(batches, verbose=False)  # the same memory holds other parameters
    assert trainer.evaluate(batches)["loss"] == pytest.approx(trainer.evaluate(x, y)["loss"])
