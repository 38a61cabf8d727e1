"""Targets of bool and uint8: classes where the loss takes classes, else numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops
from fastnn.errors import ShapeError
from fastnn.nn.module import Module
from fastnn.train.time_gradients import time_gradients

RNG = np.random.default_rng(0)
X = RNG.normal(size=(23, 3)).astype(np.float32)
YES = RNG.random((23, 1)) < 0.5


def trained(y: Any, loss: Any, metrics: Any = (), model: Module | None = None, **more: Any) -> Any:
    """What a run reports, and the bits it ends with."""
    model = model or nn.Sequential(nn.Linear(3, 1), nn.Sigmoid())
    trainer = fnn.Trainer(model, loss, metrics=metrics, workers=1)
    trainer.fit(X, y, epochs=2, batch_size=8, verbose=False, **more)
    return trainer.evaluate(X, y), {n: a.tobytes() for n, a in model.state_dict().items()}


@pytest.mark.parametrize("kind", [np.bool_, np.uint8])
@pytest.mark.parametrize("loss", ["bce", "bce_with_logits", "mse", "huber", nn.BCELoss()])
def test_numbers_where_the_loss_takes_numbers(loss: Any, kind: Any) -> None:
    metrics = ["accuracy"] if "bce" in str(loss).lower() else []
    want = trained(YES.astype(np.float32), loss, metrics)
    assert trained(YES.astype(kind), loss, metrics) == want
    assert trained(YES.astype(kind), loss, metrics, validation=0.2) != want


@pytest.mark.parametrize("kind", [np.bool_, np.uint8])
def test_classes_where_the_loss_takes_classes(kind: Any) -> None:
    y = YES[:, 0]
    want = trained(y.astype(np.int64), "cross_entropy", ["accuracy"], nn.Linear(3, 2))
    assert trained(y.astype(kind), "cross_entropy", ["accuracy"], nn.Linear(3, 2)) == want


def test_one_hot_targets_of_bool_are_shares() -> None:
    y = np.eye(2, dtype=bool)[YES[:, 0].astype(int)]
    want = trained(y.astype(np.float32), "cross_entropy", ["accuracy"], nn.Linear(3, 2))
    assert trained(y, "cross_entropy", ["accuracy"], nn.Linear(3, 2)) == want


OWN: dict[str, Callable[[Any, Any], Any]] = {
    "arithmetic": lambda output, y: ops.mean(ops.square(output - y)),
    "mask": lambda output, y: ops.mean(ops.where(y, output, -output)),
}


@pytest.mark.parametrize("name", OWN)
def test_a_loss_of_your_own(name: str) -> None:
    assert trained(YES, OWN[name]) == trained(YES.astype(np.float32), OWN[name])


def test_each_loss_of_several_reads_its_target() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            self.a, self.b = nn.Linear(3, 2), nn.Linear(3, 1)

        def forward(self, x: Any) -> Any:
            return {"a": self.a(x), "b": self.b(x)}

    loss = {"a": "cross_entropy", "b": "bce_with_logits"}
    want = trained({"a": YES[:, 0].astype(int), "b": YES.astype(float)}, loss, model=Both())
    assert trained({"a": YES[:, 0], "b": YES}, loss, model=Both()) == want


def test_batches_steps_and_gradients_over_time() -> None:
    numbers = YES.astype(np.float32)
    trainers = [fnn.Trainer(nn.Linear(3, 1), "bce_with_logits", workers=1) for _ in range(2)]
    for trainer, y in zip(trainers, (YES, numbers), strict=True):
        trainer.fit([(X, y), (X[:9], y[:9])], verbose=False)
    assert trainers[0].evaluate([(X, YES)]) == trainers[1].evaluate([(X, numbers)])

    steps = [fnn.compile(nn.Linear(3, 1), "bce_with_logits", workers=1) for _ in range(2)]
    for _ in range(3):
        assert steps[0](X, YES) == steps[1](X, numbers)
    assert steps[0].evaluate(X, YES) == steps[1].evaluate(X, numbers)

    x = RNG.normal(size=(4, 5, 3)).astype(np.float32)
    model = nn.Sequential(nn.RNN(3, 1))
    y = x[..., :1] > 0
    found, want = (time_gradients(model, x, t, "bce_with_logits") for t in (y, y.astype(float)))
    for name in want:
        np.testing.assert_array_equal(found[name], want[name])


def test_what_fits_no_loss_is_told_as_before() -> None:
    with pytest.raises(ShapeError, match="expected a target of the output's shape"):
        trained(YES[:, 0], "bce")
    with pytest.raises(ShapeError, match="got integers"):
        trained(YES.astype(np.int64), "bce")


@pytest.mark.peers
def test_as_pytorch_has_it_after_float() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch says what is right")
    output = RNG.normal(size=(23, 1)).astype(np.float32)
    found = fnn.compile(nn.Sequential(nn.Linear(1, 1)), "bce_with_logits")
    found.model.load_state_dict({"0.weight": np.ones((1, 1)), "0.bias": np.zeros(1)})
    want = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.tensor(output), torch.tensor(YES).float()
    )
    assert found.evaluate(output, YES) == pytest.approx(float(want), rel=1e-6)
