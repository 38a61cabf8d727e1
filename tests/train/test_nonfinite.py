"""What is reported when a number is not finite: the layer and, in a sequence, the time step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim
from fastnn.errors import NonFiniteError
from fastnn.graph.value import Value

STEPS, BAD = 7, 4


class Fused(nn.Module):
    def __init__(self, cell: str):
        self.layer, self.out = getattr(nn, cell)(3, 5), nn.Linear(5, 2)

    def forward(self, x: Value) -> Any:
        return self.out(self.layer(x)[0])


class Looped(nn.Module):
    def __init__(self) -> None:
        self.cell, self.out = nn.Linear(8, 5), nn.Linear(5, 2)

    def forward(self, x: Value) -> Any:
        def step(x_t: Value, h: Value) -> tuple[Value, Value]:
            new = ops.tanh(self.cell(ops.concatenate(x_t, h)))
            return new, new

        return self.out(ops.loop(step, x, ops.zeros_state(x, 5))[0])


def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, STEPS, 3)).astype(np.float32)
    x[2, BAD] = np.nan
    x[1, BAD + 1] = np.inf
    return x, np.zeros((4, STEPS, 2), np.float32)


@pytest.mark.parametrize("cell", ["RNN", "LSTM", "GRU"])
def test_time_step_in_a_fused_layer(cell: str) -> None:
    step = fnn.compile(Fused(cell), "mse", optim.SGD(lr=0.1))
    with pytest.raises(NonFiniteError, match=rf"_forward in layer, time step {BAD}\."):
        step(*data())


def test_time_step_in_a_loop() -> None:
    step = fnn.compile(Looped(), "mse", optim.SGD(lr=0.1))
    with pytest.raises(NonFiniteError, match=rf"in .*, time step {BAD}\."):
        step(*data())


def test_bce_of_logits_says_what_it_takes() -> None:
    x, y = np.full((4, 1), -3.0, np.float32), np.zeros((4, 1), np.float32)
    model = nn.Linear(1, 1)
    model.weight.value[...] = 1.0
    with pytest.raises(NonFiniteError, match=r"takes outputs in \[0, 1\]: .*'bce_with_logits'"):
        fnn.Trainer(model, "bce").fit(-x, y, verbose=False)


def test_kl_div_of_probabilities_says_what_it_takes() -> None:
    x = np.full((8, 3), 1e30, np.float32)
    y = np.full((8, 3), 1e30, np.float32)
    with pytest.raises(NonFiniteError, match=r"KLDivLoss takes outputs that are logarithms of"):
        fnn.Trainer(nn.Linear(3, 3), nn.KLDivLoss()).fit(x, y, verbose=False)
