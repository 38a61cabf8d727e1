"""Trainings with a function of the gradients, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

import fastnn as fnn
from fastnn import nn, optim

Gradients = Mapping[str, np.ndarray]

RNG = np.random.default_rng(0)

X = RNG.normal(size=(100, 12))

Y = RNG.integers(0, 3, 100)

WORKERS = [1, 2, 3, 4]


def network() -> nn.Module:
    return nn.Sequential(
        nn.Linear(12, 70), nn.BatchNorm(70), nn.Tanh(), nn.Dropout(0.2), nn.Linear(70, 3)
    )


def contents(trained: Any) -> dict[str, bytes]:
    """All that training keeps."""
    memory = trained.session.memory
    slots = {name: memory[name].tobytes() for name in memory if name.startswith("slots/")}
    return slots | {name: array.tobytes() for name, array in trained.model.state_dict().items()}


def steps(hook: Any, workers: int = 2, x: Any = X, count: int = 4, **more: Any) -> Any:
    dtype = more.get("dtype", "float32")
    step = fnn.compile(
        network(), "cross_entropy", optim.Adam(lr=0.01, clip_global_norm=0.5), workers=workers,
        device="cpu", on_gradients=hook, **more,
    )  # fmt: skip
    losses = [step(x.astype(dtype), Y) for _ in range(count)]
    return losses, contents(step)


def trainer_of(hook: Any, workers: int = 2, **more: Any) -> fnn.Trainer:
    return fnn.Trainer(
        network(), "cross_entropy", optim.Adam(lr=0.01), metrics=["accuracy"], workers=workers,
        device="cpu", on_gradients=hook, **more,
    )  # fmt: skip


def fit(trainer: fnn.Trainer, epochs: int = 2, **more: Any) -> Any:
    return trainer.fit(X, Y, epochs=epochs, batch_size=32, verbose=False, **more).history


# ---------------------------------------------------------------- exceptions and interrupts


class Fails:
    """Raises an exception in some of its calls."""

    def __init__(self, error: BaseException, *at: int):
        self.error, self.at, self.calls = error, at, 0

    def __call__(self, gradients: Gradients) -> None:
        self.calls += 1
        if self.calls in self.at:
            for gradient in gradients.values():
                gradient[...] = 1e9
            raise self.error
