"""The learning-rate range test."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, optim
from fastnn.errors import OptionError
from fastnn.train.range_test import _found


def data() -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)
    return x, (x @ np.arange(1, 6, dtype=np.float32))[:, None]


def test_a_quadratic_bowl() -> None:
    """Where the stable rates are known: below 2 by the largest curvature, here about 2."""
    x, y = data()
    model = nn.Linear(5, 1)
    before = {n: a.copy() for n, a in model.state_dict().items()}
    schedule = optim.schedules.Constant(1e-9)
    found = fnn.range_test(
        model, "mse", optim.SGD(schedule=schedule), x, y, low=1e-4, high=100.0, device="cpu"
    )
    curvature = np.linalg.eigvalsh(2 * x.T @ x / len(x))[-1]
    assert found.suggestion is not None
    assert 0.001 < found.suggestion < 2 / curvature
    assert found.diverged
    assert 2 / curvature < found.rates[-1] < 20 / curvature
    assert len(found.rates) == len(found.losses) == len(found.smoothed)
    np.testing.assert_allclose(np.diff(np.log(found.rates)), np.log(1e6) / 99)
    assert all((before[n] == a).all() for n, a in model.state_dict().items())
    again = fnn.range_test(model, "mse", optim.SGD(), x, y, low=1e-4, high=100.0, device="cpu")
    np.testing.assert_array_equal(found.losses, again.losses)


def test_a_loss_that_never_falls_has_no_suggestion() -> None:
    x, y = data()
    found = fnn.range_test(
        nn.Linear(5, 1), "mse", optim.SGD(maximize=True), x, y, low=0.1, high=10.0, device="cpu"
    )
    assert found.suggestion is None
    assert found.diverged


def test_its_picture(tmp_path: Path, monkeypatch: Any) -> None:
    x, y = data()
    found = fnn.range_test(nn.Linear(5, 1), "mse", "sgd", x, y, steps=20, device="cpu")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="matplotlib"):
        found.plot()
    monkeypatch.undo()
    pytest.importorskip("matplotlib")
    found.plot(tmp_path / "rates.png")
    assert (tmp_path / "rates.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"low": 0.0}, "expected 0 < low < high, got low=0"),
        ({"low": 1.0, "high": 0.1}, "expected 0 < low < high"),
        ({"steps": 3}, "expected steps to be a whole number >= 10"),
        ({"batch_size": 0}, "expected batch_size to be a whole number >= 1"),
    ],
)
def test_bad_options(options: dict[str, Any], words: str) -> None:
    x, y = data()
    with pytest.raises(OptionError, match=words):
        fnn.range_test(nn.Linear(5, 1), "mse", "sgd", x, y, **options)


def test_the_first_losses_do_not_end_the_search() -> None:
    """Chance may make them the lowest of all; none of them is smoothed by many others."""
    rates = np.geomspace(1e-6, 10.0, 50)
    losses = np.full(50, 1.03)
    losses[0] = 0.7
    losses[25:32] = np.linspace(1.03, 0.85, 7)
    losses[32:] = np.linspace(0.85, 3.0, 18)
    found = _found(rates, losses, losses, False).suggestion
    assert found is not None
    assert rates[25] <= found <= rates[31]
    assert _found(rates, losses, np.linspace(1.0, 2.0, 50), False).suggestion is None


@pytest.mark.parametrize("steps", [30, 60])
def test_the_steepest_place_is_suggested(steps: int) -> None:
    """A symmetric fall is steepest in its middle."""
    rates, middle = np.geomspace(1e-4, 1.0, steps), steps // 2
    place = np.arange(steps)
    losses = 1 / (1 + np.exp(1.5 * (place - middle)))
    losses[place > 2 * steps // 3] += 2.0
    assert _found(rates, losses, losses, True).suggestion == rates[middle]
