"""Mixup: shares, inputs, losses, what is reported, and that only training has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim
from fastnn.errors import OptionError
from fastnn.kernels.declare import KERNELS
from tests.kernels.test_random import control_of

RNG = np.random.default_rng(0)
X, IDS, Y = RNG.normal(size=(12, 3)), RNG.integers(0, 4, 12), RNG.normal(size=(12, 4))


def shares(alpha: float, count: int) -> np.ndarray:
    found = np.zeros(1)
    values = []
    for step in range(count):
        KERNELS["mixing_share"](found, control_of(7, step), alpha, 1)
        values.append(found[0])
    return np.array(values)


@pytest.mark.parametrize("alpha", [0.1, 0.4, 1.0, 2.5])
def test_shares_have_their_distribution(alpha: float) -> None:
    """Mean and spread of |s - 1/2| against NumPy's beta numbers."""
    found = shares(alpha, 4000)
    want = np.random.default_rng(1).beta(alpha, alpha, 200_000)
    want = np.maximum(want, 1 - want)
    assert ((found >= 0.5) & (found <= 1.0)).all()
    for power in (1, 2):
        a, b = (found - 0.5) ** power, (want - 0.5) ** power
        assert a.mean() == pytest.approx(b.mean(), abs=5 * b.std() / np.sqrt(len(found)))


LOSSES: dict[str, tuple[Any, np.ndarray]] = {
    "cross-entropy": (nn.CrossEntropyLoss(), IDS),
    "weighted": (nn.CrossEntropyLoss(weight=[1.0, 2.0, 3.0, 4.0], label_smoothing=0.1), IDS),
    "sum": (nn.MSELoss(reduction="sum"), Y),
    "mean": (nn.MSELoss(), Y),
    "own": (lambda o, t: ops.mean(ops.square(o - t)), Y),
}


@pytest.mark.parametrize("name", LOSSES)
def test_is_the_loss_of_the_mixture(name: str) -> None:
    loss, y = LOSSES[name]
    model = nn.Linear(3, 4)
    step = fnn.compile(model, loss, optim.SGD(lr=0.0), dtype="float64", seed=7, mixup=0.4)
    plain = fnn.compile(model, loss, optim.SGD(lr=0.0), dtype="float64")
    for s in shares(0.4, 3):
        mixed = s * X + (1 - s) * X[::-1]
        want = s * plain.evaluate(mixed, y) + (1 - s) * plain.evaluate(mixed, y[::-1])
        slopes, own, other = (
            step.gradients(X, y), plain.gradients(mixed, y), plain.gradients(mixed, y[::-1]),
        )  # fmt: skip
        assert step(X, y) == pytest.approx(want, rel=1e-12)
        for key, value in slopes.items():
            np.testing.assert_allclose(value, s * own[key] + (1 - s) * other[key], atol=1e-12)
    assert step.evaluate(X, y) == plain.evaluate(X, y)


def test_soft_labels() -> None:
    """The loss is the cross-entropy with mixed one-hot labels."""
    step = fnn.compile(nn.Linear(3, 4), "cross_entropy", optim.SGD(lr=0.0), dtype="float64",
                       seed=7, mixup=0.4)  # fmt: skip
    s = shares(0.4, 1)[0]
    mixed = s * X + (1 - s) * X[::-1]
    soft = s * np.eye(4)[IDS] + (1 - s) * np.eye(4)[IDS[::-1]]
    model = step.model
    logits = mixed @ model.weight.value.T + model.bias.value
    logits -= np.log(np.exp(logits).sum(1, keepdims=True))
    assert step(X, IDS) == pytest.approx(-(soft * logits).sum(1).mean(), rel=1e-12)


def test_weights_go_with_their_targets() -> None:
    weights = RNG.random(12)
    model = nn.Linear(3, 4)
    options: dict[str, Any] = {"dtype": "float64", "seed": 7}
    step = fnn.compile(model, "cross_entropy", optim.SGD(lr=0.0), mixup=0.4, **options)
    plain = fnn.compile(model, "cross_entropy", optim.SGD(lr=0.0), **options)
    s = shares(0.4, 1)[0]
    mixed = s * X + (1 - s) * X[::-1]
    want = s * plain.evaluate(mixed, IDS, weights)
    want += (1 - s) * plain.evaluate(mixed, IDS[::-1], weights[::-1])
    assert step(X, IDS, weights) == pytest.approx(want, rel=1e-12)


def test_report_and_metrics() -> None:
    """Of an epoch in batches; the accuracy is by the label that has most."""
    trainer = fnn.Trainer(
        nn.Linear(3, 4), "cross_entropy", optim.SGD(lr=0.0), ["accuracy"], dtype="float64", seed=7,
        mixup=0.4,
    )  # fmt: skip
    history = trainer.fit(X, IDS, batch_size=5, shuffle=False, verbose=False)
    plain = fnn.compile(trainer.model, "cross_entropy", "sgd", dtype="float64")
    total, right = 0.0, 0
    for s, rows in zip(shares(0.4, 3), (slice(0, 5), slice(5, 10), slice(10, 12)), strict=True):
        x, y = X[rows], IDS[rows]
        mixed = s * x + (1 - s) * x[::-1]
        total += len(x) * s * plain.evaluate(mixed, y)
        total += len(x) * (1 - s) * plain.evaluate(mixed, y[::-1])
        right += (trainer.predict(mixed).argmax(1) == y).sum()
    assert history["loss"][0] == pytest.approx(total / 12, rel=1e-12)
    assert history["accuracy"][0] == pytest.approx(right / 12)


def test_several_inputs_and_losses() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            self.left, self.right = nn.Linear(3, 4), nn.Linear(4, 4)

        def forward(self, a: Any, b: Any) -> Any:
            y = self.left(a) + self.right(b)
            return {"ids": y, "values": y * 2.0}

    trainer = fnn.Trainer(
        Two(), {"ids": "cross_entropy", "values": "mse"}, optim.Adam(lr=0.05), mixup=0.2
    )
    x = {"a": X.astype("f"), "b": Y.astype("f")}
    y = {"ids": IDS, "values": Y.astype("f")}
    history = trainer.fit(x, y, epochs=30, batch_size=12, verbose=False)
    assert history["loss"][-1] < history["loss"][0]


def test_workers_and_resume(tmp_path: Path) -> None:
    x, y = RNG.normal(size=(60, 6)).astype("f"), RNG.integers(0, 4, 60)
    options: dict[str, Any] = {"batch_size": 8, "verbose": False}

    def made(workers: int) -> fnn.Trainer:
        model = nn.Sequential(nn.Linear(6, 300), nn.ReLU(), nn.Linear(300, 4))
        return fnn.Trainer(model, "cross_entropy", "adam", workers=workers, mixup=0.4)

    def bits(trainer: fnn.Trainer) -> list[bytes]:
        return [v.tobytes() for v in trainer.get_parameters().values()]

    found = []
    for workers in (1, 2, 3, 4):
        trainer = made(workers)
        trainer.fit(x, y, epochs=2, **options)
        found.append(bits(trainer))
    assert all(one == found[0] for one in found)
    first = made(2)
    first.fit(x, y, epochs=1, **options)
    first.save(tmp_path / "run")
    again = made(3)
    again.fit(x, y, epochs=2, resume=tmp_path / "run", **options)
    assert bits(again) == found[0]


def test_wrong() -> None:
    for wrong in (-0.1, "a", float("nan"), float("inf")):
        with pytest.raises(OptionError, match="mixup"):
            fnn.Trainer(nn.Linear(3, 4), "mse", mixup=wrong)  # type: ignore[arg-type]
    model = nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 4))
    with pytest.raises(OptionError, match="mixup: expected floating-point inputs"):
        fnn.Trainer(model, "cross_entropy", mixup=0.2).fit(IDS, IDS, verbose=False)
    trainer = fnn.Trainer(nn.Linear(3, 4), "mse", "lbfgs", device="cpu", mixup=0.2)
    with pytest.raises(OptionError, match="draws random numbers"):
        trainer.fit(X, Y, verbose=False)
