"""Inputs by the names of the arguments of a model's forward."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn
from fastnn.errors import ShapeError

X = np.random.default_rng(0).normal(size=(4, 3, 2)).astype(np.float32)
N = np.array([1, 3, 2, 0])


class Sum(nn.Module):
    """With optional arguments, one before another."""

    def __init__(self) -> None:
        self.rnn = nn.RNN(2, 5)

    def forward(self, x: Any, scale: Any = None, lengths: Any = None) -> Any:
        y = self.rnn(x, lengths=lengths)[0]
        return y if scale is None else y * scale


class KeywordOnly(Sum):
    def forward(self, x: Any, *, lengths: Any = None) -> Any:  # type: ignore[override]
        return self.rnn(x, lengths=lengths)[0]


def made(kind: type[Sum] = Sum) -> Sum:
    model = kind()
    model.initialize(0)
    return model


def expected() -> np.ndarray:
    """By a model without optional arguments."""

    class Plain(Sum):
        def forward(self, x: Any, lengths: Any) -> Any:  # type: ignore[override]
            return self.rnn(x, lengths=lengths)[0]

    return made(Plain).predict(X, N)


def test_predict_takes_inputs_by_name() -> None:
    model, want = made(), expected()
    np.testing.assert_array_equal(model.predict(x=X, lengths=N), want)
    np.testing.assert_array_equal(model.predict(X, lengths=N, batch_size=2), want)
    np.testing.assert_array_equal(model(X, lengths=N), want)
    np.testing.assert_array_equal(fnn.Trainer(model, "mse").predict(X, lengths=N), want)


@pytest.mark.parametrize("kind", [Sum, KeywordOnly])
def test_an_argument_that_is_left_out_is_not_another_one(kind: type[Sum]) -> None:
    """Lengths were taken for the optional argument before them."""
    model = made(kind)
    want = expected()
    np.testing.assert_array_equal(model.predict({"x": X, "lengths": N}), want)
    np.testing.assert_array_equal(model.predict({"lengths": N, "x": X}), want)
    step = fnn.compile(model, "mse")
    assert step.evaluate({"x": X, "lengths": N}, want) == 0.0
    trainer = fnn.Trainer(model, "mse")
    assert trainer.evaluate({"lengths": N, "x": X}, want)["loss"] == 0.0


def test_names_that_are_none() -> None:
    model = made()
    with pytest.raises(ShapeError, match=r"expected inputs called \['x'\], got \['x', 'length'\]"):
        model.predict(X, length=N)
    with pytest.raises(ShapeError, match="expected each input once, got 'x' twice"):
        model.predict(X, x=X)
    with pytest.raises(ShapeError, match="pass all as a dict"):
        model.predict({"x": X}, lengths=N)
    with pytest.raises(ShapeError, match="pass all as a dict"):
        model.predict(X, X, N, X, lengths=N)
