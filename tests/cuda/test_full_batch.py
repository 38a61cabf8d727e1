"""Full-batch methods on the device (or in the simulator) beside the CPU's, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, optim

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(2, 3, 1))

METHODS = {
    "lbfgs": lambda: optim.LBFGS(history_size=1, weight_decay=0.1),
    "cg": lambda: optim.ConjugateGradient(formula="fletcher-reeves"),
    "hessian-free": lambda: optim.HessianFree(),
    "marquardt": lambda: optim.LevenbergMarquardt(),
}


@pytest.mark.parametrize("name", METHODS)
def test_iterations(name: str) -> None:
    """An iteration; with a line search another one after the parameters have been moved."""
    found = []
    for device in ("cpu", "cuda"):
        trainer = fnn.Trainer(
            nn.Linear(1, 1), "mse", METHODS[name](), device=device, dtype="float64"
        )
        runs: list[dict[str, Any]] = []
        for _ in range(2 if name in ("lbfgs", "cg") else 1):
            history = trainer.fit(X, Y, epochs=1, verbose=False)
            runs.append({**history, **trainer.get_parameters()})
            trainer.model.bias.value[:] += 0.5
        found.append(runs)
    for cpu, cuda in zip(*found, strict=True):
        for key, value in cpu.items():
            np.testing.assert_allclose(cuda[key], value, rtol=1e-9, atol=1e-11, err_msg=key)
