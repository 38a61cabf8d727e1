"""Every optimiser trains the small handwritten digits to 97 %."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

import fastnn as fnn
from fastnn import nn, optim

#: rates where the default is for longer trainings
RATES: dict[str, float] = {
    "ASGD": 0.1, "Adafactor": 0.1, "Adagrad": 0.05, "Adam": 0.003, "AdamW": 0.003, "Adamax": 0.01,
    "DeltaBarDelta": 0.1, "LAMB": 0.01, "Lion": 1e-3, "Muon": 0.003, "NAdam": 0.003,
    "Quickprop": 0.1, "RAdam": 0.01, "RMSprop": 0.001, "SGD": 0.1, "VSGD": 10.0, "VSGDfd": 10.0,
}  # fmt: skip
ITERATIONS = ("ConjugateGradient", "HessianFree", "LBFGS")
WHOLE = ("DeltaBarDelta", "IRprop", "Quickprop", "Rprop")
#: LevenbergMarquardt's matrix is for smaller nets, see below
LEFT_OUT = ("EMA", "LevenbergMarquardt", "Lookahead", "Optimizer", "SWA")
NAMES = [n for n in optim.__all__ if isinstance(getattr(optim, n), type) and n not in LEFT_OUT]


@pytest.mark.parametrize("name", NAMES)
def test_digits(name: str) -> None:
    digits = load_digits()
    x = (digits.data - digits.data.mean(axis=0)) / (digits.data.std(axis=0) + 1e-3)
    x, y = x.astype(np.float32), digits.target
    optimizer = getattr(optim, name)(**({"lr": RATES[name]} if name in RATES else {}))
    model = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))
    trainer = fnn.Trainer(model, "cross_entropy", optimizer, metrics="accuracy", workers=1)
    size: dict[str, Any] = {"batch_size": len(x) if name in WHOLE else 32}
    epochs = 30 if name in ITERATIONS else 150 if name in WHOLE else 10
    trainer.fit(x, y, epochs=epochs, verbose=False, **({} if name in ITERATIONS else size))
    assert trainer.evaluate(x, y)["accuracy"] >= 0.97


def test_levenberg_marquardt() -> None:
    """A layer of 650 parameters on every fourth digit."""
    x, y = load_digits(return_X_y=True)
    x, y = ((x - x.mean(axis=0)) / (x.std(axis=0) + 1e-3)).astype(np.float32)[::4], y[::4]
    trainer = fnn.Trainer(
        nn.Linear(64, 10),
        "cross_entropy",
        optim.LevenbergMarquardt(),
        metrics="accuracy",
        workers=1,
    )
    trainer.fit(x, y, epochs=4, verbose=False)
    assert trainer.evaluate(x, y)["accuracy"] >= 0.97
