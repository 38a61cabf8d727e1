"""Loops whose bodies are launched again and again, in the simulator too: the bits of those whose
launches are made step by step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim
from fastnn.runtime.cuda import again, bound, order


class Looping(nn.Module):
    """Each step draws numbers of its own and has a loop, whose gradient goes backwards within; all
    of them add to the gradient of what is outside."""

    def __init__(self) -> None:
        self.mix, self.first, self.drop = nn.Linear(4, 2), nn.Linear(2, 2), nn.Dropout(0.4)

    def forward(self, x: Any, lengths: Any) -> Any:
        outside = ops.tanh(self.first(x[:, 0]))

        def step(x_t: Any, h: Any) -> Any:
            several = ops.stack([x_t, h], axis=1)
            x_t = ops.loop(lambda a, b: (a, ops.tanh(a + b * outside)), several, x_t)[1]
            h = ops.tanh(self.mix(ops.concatenate(x_t, h)) + outside)
            return self.drop(h), h

        return ops.loop(step, x, ops.zeros_state(x, 2), lengths)[0]


class Until(nn.Module):
    """Ends where the sum of a sequence has become large."""

    def __init__(self) -> None:
        self.cell = nn.RNNCell(2, 2)

    def forward(self, x: Any, lengths: Any) -> Any:
        def step(x_t: Any, h: Any) -> Any:
            h = self.cell(x_t, h)
            return h, h

        large = lambda _, h: ops.sum(h, axis=-1) > 0.3  # noqa: E731
        return ops.loop(step, x, ops.zeros_state(x, 2), until=large)[0]


def series(steps: int, samples: int = 2) -> tuple[Any, np.ndarray]:
    rng = np.random.default_rng([samples, steps])
    x = rng.normal(size=(samples, steps, 2))
    return (x, rng.integers(1, steps + 1, samples)), rng.normal(size=(samples, steps, 2))


@pytest.mark.parametrize(
    ("model", "dtype", "sizes"), [(Looping, "float32", (5, 3)), (Until, "float64", (6,))]
)
def test_a_body_that_is_launched_again_gives_the_bits_of_single_launches(
    model: Any, dtype: str, sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At sizes that share a plan: losses, and parameters after updates."""
    monkeypatch.setattr(order, "STEPS_TOGETHER", 4)
    monkeypatch.setattr(again, "LEAST", 24)
    found, made = [], []
    make = again.Body.make
    monkeypatch.setattr(again.Body, "make", lambda body, n: (made.append(body), make(body, n)))
    for most in (10**9, -1):
        monkeypatch.setattr(bound, "MOST_LAUNCHES", most)
        made.clear()
        step = fnn.compile(model(), "mse", optim.SGD(0.1), device="cuda", dtype=dtype, seed=4)
        losses = [step(*series(steps)) for steps in sizes]
        found.append([losses, [p.value.copy() for p in step.model.parameters()]])
        assert len(set(made)) == (2 if most < 0 else 0)  # forward and back, for all sizes
    np.testing.assert_equal(found[1], found[0])
