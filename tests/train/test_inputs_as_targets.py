"""Training without targets: the inputs are the targets, of one loss or of several."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops
from fastnn.errors import ShapeError

RNG = np.random.default_rng(3)
X = RNG.normal(size=(24, 6)).astype(np.float32)
IDS = RNG.integers(0, 4, 24)
QUIET: dict[str, Any] = {"verbose": False, "epochs": 2, "batch_size": 8}


class Halves(nn.Module):
    """Two reconstructions of an input, by name or in order."""

    def __init__(self, named: bool):
        self.one, self.two, self.named = nn.Linear(6, 6), nn.Linear(6, 6), named

    def forward(self, x: Any, ids: Any = None) -> Any:
        found = {"one": self.one(x), "two": self.two(ops.tanh(x))}
        return found if self.named else tuple(found.values())


def mean(output: Any, target: Any) -> Any:
    return ops.mean(ops.square(output))


@pytest.mark.parametrize("named", [True, False])
def test_each_of_several_losses_gets_the_input(named: bool) -> None:
    losses: Any = {"one": "mse", "two": "mae"} if named else ["mse", "mae"]
    targets: Any = {"one": X, "two": X} if named else [X, X]
    alone, given = (fnn.Trainer(Halves(named), losses, "sgd") for _ in range(2))
    history = alone.fit(X, validation=0.25, **QUIET)
    assert dict(history) == dict(given.fit(X, targets, validation=0.25, **QUIET))
    assert alone.evaluate(X) == given.evaluate(X, targets)
    assert ("one_loss" if named else "output0_loss") in history
    step = fnn.compile(Halves(named), losses)
    assert step.evaluate(X) == step.evaluate(X, targets)


def test_batches_without_targets() -> None:
    losses = {"one": "mse", "two": mean}
    alone, batches = (fnn.Trainer(Halves(True), losses, "sgd") for _ in range(2))
    history = alone.fit(X, epochs=2, batch_size=8, shuffle=False, verbose=False)
    pairs = [(X[k : k + 8], None) for k in (0, 8, 16)]
    np.testing.assert_allclose(batches.fit(pairs, epochs=2, verbose=False)["loss"], history["loss"])


def test_functions_get_all_of_several_inputs() -> None:
    seen = []

    def loss(output: Any, target: Any) -> Any:
        seen.append(target)
        return ops.mean(ops.square(ops.subtract(output, target[0])))

    trainer = fnn.Trainer(Halves(True), {"one": loss, "two": loss}, "sgd", mixup=0.5)
    trainer.fit((X, 2 * X), **QUIET)
    assert all(isinstance(target, tuple) and len(target) == 2 for target in seen)


def test_inputs_with_the_names_of_losses_are_their_targets() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            self.fc = nn.Linear(6, 6)

        def forward(self, a: Any, b: Any) -> Any:
            return {"a": self.fc(a), "b": self.fc(b)}

    step, other = (fnn.compile(Two(), {"a": "mse", "b": "mse"}) for _ in range(2))
    both = {"a": X, "b": 2 * X}
    assert step.evaluate(both) == other.evaluate(both, both)


def test_a_loss_of_one_target_refuses_several_inputs() -> None:
    trainer = fnn.Trainer(Halves(True), {"one": "mse", "two": "mse"}, "sgd")
    with pytest.raises(ShapeError, match="expected one of the targets, got 2"):
        trainer.fit((X, IDS), **QUIET)
