"""Nets and data for tests of single steps."""

from __future__ import annotations

import numpy as np

from fastnn import nn

RNG = np.random.default_rng(0)

X = RNG.normal(size=(24, 6)).astype(np.float32)

Y = RNG.integers(0, 3, 24)


def net(dropout: float = 0.0) -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, 16), nn.BatchNorm(16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 3)
    )


def state(model: nn.Module) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in model.state_dict().items()}
