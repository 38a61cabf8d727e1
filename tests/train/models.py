"""Small models and data that the tests of training share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import fastnn as fnn
from fastnn import nn, ops, optim


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 20), nn.Tanh(), nn.Linear(20, 4))


def regularised() -> nn.Module:
    """Dropout and batch norm."""
    return nn.Sequential(
        nn.Linear(6, 24), nn.BatchNorm(24), nn.ReLU(), nn.Dropout(0.3), nn.Linear(24, 17),
        nn.Dropout(0.2, classic=True), nn.BatchNorm(17), nn.Linear(17, 4),
    )  # fmt: skip


def wide() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 700), nn.GELU(), nn.LayerNorm(700), nn.Linear(700, 4))


class Tagger(nn.Module):
    """Ids through an embedding, a residual block with layer norm, two paths joined."""

    def __init__(self) -> None:
        self.embed = nn.Embedding(11, 8, padding_idx=0)
        self.norm = nn.LayerNorm(8)
        self.up, self.down = nn.Linear(8, 19), nn.Linear(19, 8)
        self.gate = nn.Linear(8, 8)
        self.slope = nn.PReLU(19)
        self.join = nn.Concatenate()
        self.head = nn.Linear(16, 4)

    def forward(self, ids: Any) -> Any:
        x = self.embed(ids)  # (batch, time, 8)
        h = x + self.down(self.slope(self.up(self.norm(x))))
        g = ops.sigmoid(self.gate(x)) * h
        return self.head(self.join(h, g))


def vectors(samples: int, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(samples, 6)).astype(np.float32)
    return x, (np.abs(x[:, :4]).argmax(axis=1)).astype(np.int64)


def sentences(samples: int, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    ids = np.random.default_rng(seed).integers(0, 11, (samples, 5))
    return ids, ids % 4


#: name -> (model, data)
MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Any]]] = {
    "mlp": (mlp, vectors),
    "regularised": (regularised, vectors),
    "wide": (wide, vectors),
    "tagger": (Tagger, sentences),
}

#: every optimiser, in each of its forms
OPTIMIZERS: dict[str, Callable[..., optim.Optimizer]] = {
    "sgd": lambda **more: optim.SGD(lr=0.05, **more),
    "momentum": lambda **more: optim.SGD(lr=0.05, momentum=0.9, dampening=0.1, **more),
    "nesterov": lambda **more: optim.SGD(lr=0.05, momentum=0.9, nesterov=True, **more),
    "adagrad": lambda **more: optim.Adagrad(
        lr=0.05, lr_decay=0.01, initial_accumulator_value=0.1, **more
    ),
    "rmsprop": lambda **more: optim.RMSprop(lr=0.01, **more),
    "rmsprop centered": lambda **more: optim.RMSprop(lr=0.01, centered=True, **more),
    "rmsprop momentum": lambda **more: optim.RMSprop(lr=0.01, momentum=0.8, **more),
    "rmsprop centered momentum": lambda **more: optim.RMSprop(
        lr=0.01, momentum=0.8, centered=True, **more
    ),
    "adadelta": lambda **more: optim.Adadelta(lr=0.7, **more),
    "adam": lambda **more: optim.Adam(lr=0.01, betas=(0.8, 0.95), **more),
    "adamw": lambda **more: optim.AdamW(lr=0.01, weight_decay=0.1, **more),
}


def fresh(name: str, **options: Any) -> fnn.Trainer:
    """A trainer of one of `MODELS`."""
    options.setdefault("seed", 5)
    return fnn.Trainer(MODELS[name][0](), "cross_entropy", **options)


def state(trainer: fnn.Trainer) -> dict[str, bytes]:
    """The bits of everything that training changes."""
    kept = ("params", "buffers", "slots/")
    found = {n: a.tobytes() for n, a in trainer.session.memory.items() if n.startswith(kept)}
    found["control"] = trainer.session.control[:2].tobytes()
    return found
