"""What the processes of the tests do: functions that they can import."""

from __future__ import annotations

import os
import signal
from typing import Any

import numpy as np

import fastnn as fnn
from fastnn import nn, optim
from fastnn.parallel import Group

RNG = np.random.default_rng(2)
X = RNG.normal(size=(26, 5)).astype(np.float32)
Y = RNG.integers(0, 3, 26)


def trainer(on_gradients: Any = None) -> fnn.Trainer:
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    return fnn.Trainer(
        model, "cross_entropy", optim.Adam(lr=0.02), workers=1, seed=3, on_gradients=on_gradients,
        device="cpu",
    )  # fmt: skip


def train(group: Group) -> tuple[slice, dict[str, bytes], list[float]]:
    """This process's samples, its parameters after two epochs, and its losses."""
    made, mine = trainer(group.average), group.share(24)
    history = made.fit(
        X[mine], Y[mine], epochs=2, batch_size=12 // group.size, shuffle=False, verbose=False
    ).history
    found = {name: a.tobytes() for name, a in made.get_parameters().items()}
    return mine, found, list(history["loss"])


def fails(group: Group) -> None:
    if group.rank == 1:
        raise ValueError("no data here")
    train(group)


def dies(group: Group) -> None:
    if group.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    train(group)


def has_fewer_steps(group: Group) -> None:
    count = 24 if group.rank else 12
    trainer(group.average).fit(X[:count], Y[:count], epochs=1, batch_size=12, verbose=False)


def has_another_model(group: Group) -> None:
    group.average({"w": np.zeros(3 + group.rank, np.float32)})
