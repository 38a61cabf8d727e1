"""What cases of kept programs are made with, and the table of them.

A case is a function that trains, evaluates or predicts; what is bound meanwhile is its programs.
Sizes are small: nothing is computed, only planned.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import fastnn as fnn
from fastnn import nn, optim

Case = Callable[[], None]
#: by name, in order
CASES: dict[str, Case] = {}
#: options of `null_device` beyond the kind, by case
LIMITS: dict[str, dict[str, Any]] = {"lstm_by_turns": {"block_limits": (1, 50_000)}}


def case(make: Case) -> Case:
    CASES[make.__name__] = make
    return make


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def ids(*shape: int, below: int = 4) -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape) % below


def fit(
    model: nn.Module, x: Any, y: Any, loss: Any = "mse", optimizer: Any = None, batch: int = 8,
    sample_weight: Any = None, **options: Any,
) -> fnn.Trainer:  # fmt: skip
    trainer = fnn.Trainer(model, loss, optimizer or optim.SGD(lr=0.1), **options)
    fit = dict(epochs=1, batch_size=batch, verbose=False, sample_weight=sample_weight)
    trainer.fit(x, y, **fit)
    return trainer


def compiled(model: nn.Module, loss: Any = "mse", **options: Any) -> Any:
    return fnn.compile(model, loss, optim.SGD(lr=0.1), **options)


class Calls(nn.Module):
    """A layer that is one function."""

    def __init__(self, function: Callable[..., Any], **layers: nn.Module):
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, *inputs: Any) -> Any:
        return self.function(self, *inputs)
