"""Sizes of one plan on the device (or in the simulator): the bits of programs of their own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim
from fastnn.engine import plans

SHAPES = [(3, 5), (2, 3), (3, 2)]


class Tagger(nn.Module):
    def __init__(self) -> None:
        self.cell, self.head = nn.LSTM(2, 3), nn.Linear(3, 2)

    def forward(self, x: Any, lengths: Any) -> Any:
        return self.head(self.cell(x, lengths=lengths)[0])


class Looping(nn.Module):
    def __init__(self) -> None:
        self.mix, self.drop = nn.Linear(4, 2), nn.Dropout(0.4)

    def forward(self, x: Any, lengths: Any) -> Any:
        def step(x_t: Any, h: Any) -> Any:
            h = ops.tanh(self.mix(ops.concatenate(x_t, h)))
            return self.drop(h), h

        return ops.loop(step, x, ops.zeros_state(x, 2), lengths)[0]


def series(samples: int, steps: int) -> tuple[Any, np.ndarray]:
    rng = np.random.default_rng([samples, steps])
    x = rng.normal(size=(samples, steps, 2)).astype(np.float32)
    return (x, rng.integers(1, steps + 1, samples)), rng.normal(size=(samples, steps, 2))


@pytest.mark.parametrize("model", [Tagger, Looping])
def test_smaller_sizes_have_the_bits_of_their_own_programs(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for _ in range(2):
        step = fnn.compile(model(), "mse", optim.SGD(0.1), device="cuda", seed=4)
        losses = [step(*series(*shape)) for shape in SHAPES]
        found.append([losses, *(p.value.copy() for p in step.model.parameters())])
        planned = sum(map(len, step._plans._plans.values()))
        assert planned == (1 if len(found) == 1 else len(SHAPES))
        monkeypatch.setattr(plans, "resized", lambda *_: None)
        monkeypatch.setattr(plans, "EXACT", 10**9)
    for shared, own in zip(*found, strict=True):
        np.testing.assert_array_equal(shared, own)
