"""Loops on the device (or in the simulator) beside the CPU's: outputs, states and gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim
from fastnn.runtime.cuda import order

RNG = np.random.default_rng(6)


class Plain(nn.Module):
    def __init__(self) -> None:
        self.cell = nn.RNNCell(2, 3)

    def forward(self, x: Any) -> Any:
        return ops.loop(self.step, x, ops.zeros_state(x, 3))

    def step(self, x: Any, h: Any) -> Any:
        h = self.cell(x, h)
        return h, h


class Noisy(Plain):
    """Each step draws numbers of its own, and has a loop, whose gradient goes backwards within."""

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.inner = nn.Dropout(0.5), nn.Linear(2, 2)

    def step(self, x: Any, h: Any) -> Any:
        several = ops.stack([x, 2 * x, -x], axis=1)
        x = ops.loop(lambda a, b: (a, ops.tanh(self.inner(a) + self.drop(b))), several, x)[1]
        return super().step(x, h)


class Until(Plain):
    """Ends where the sum of a sequence has become large."""

    def forward(self, x: Any) -> Any:
        large = lambda _, h: ops.sum(h, axis=-1) > 0.3  # noqa: E731
        return ops.loop(self.step, x, ops.zeros_state(x, 3), until=large)[:2]


@pytest.mark.parametrize(
    ("model", "dtype"), [(Plain, "float32"), (Noisy, "float32"), (Until, "float64")]
)
def test_a_loop_gives_the_cpus_numbers(model: Any, dtype: str) -> None:
    x, target = RNG.normal(size=(2, 3, 2)).astype(dtype), RNG.normal(size=(2, 3)).astype(dtype)
    found = []
    for device in ("cpu", "cuda"):

        def loss(out: Any, y: Any) -> Any:
            return ops.mean(ops.square(out[0][:, 1] - y)) + ops.mean(ops.square(out[1]))

        step = fnn.compile(model(), loss, optim.SGD(0.5), dtype=dtype, seed=3, device=device)
        loss_before = step(x, target)
        gradients = step.gradients(x, target)
        found.append([loss_before, *gradients.values()])
    close = {"rtol": 1e-4, "atol": 1e-6} if dtype == "float32" else {"rtol": 1e-11, "atol": 1e-13}
    for cpu, gpu in zip(*found, strict=True):
        np.testing.assert_allclose(gpu, cpu, **close)


class Counted(nn.Module):
    """Adds up its input, each sequence until its sum is 3."""

    def forward(self, x: Any) -> Any:
        def step(x_t: Any, total: Any) -> Any:
            total = total + x_t
            return total * 2, total

        enough = lambda _, total: ops.sum(total, axis=1) >= 3  # noqa: E731
        return ops.loop(step, x, ops.zeros_state(x, 1), until=enough)


@pytest.mark.parametrize(("first", "made"), [(1.0, 4), (0.5, 6), (0.1, 9)])
def test_steps_in_which_no_sequence_goes_on_are_left_out(
    first: float, made: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In pieces of two steps, on the way back, too: the numbers are the CPU's."""
    monkeypatch.setattr(order, "STEPS_TOGETHER", 2)
    x = np.full((2, 9, 1), 1.5, np.float32)
    x[0] = first
    found, steps = [], {}
    for device in ("cpu", "cuda"):
        net = nn.Sequential(nn.Linear(1, 1), Counted())
        loss = lambda out, y: ops.mean(ops.square(out[0])) + ops.mean(ops.square(out[1]))  # noqa: E731
        step = fnn.compile(net, loss, optim.SGD(0.0), device=device, seed=1)
        net[0].weight.value, net[0].bias.value = np.ones((1, 1)), np.zeros(1)
        losses = [step(x), step(x)]
        found.append([*losses, *step.gradients(x).values(), *net.predict(x)])
        if device == "cuda":
            runtime: Any = step.session.runtime
            bounds = [b for b in runtime._bound.values() if len(b.parts) > 2]
            for part in (part for bound in bounds for part in bound.parts):
                for item in part.items:
                    if isinstance(item, order.Again):
                        key = item.begin, item.body[0].calls[0].scope
                        steps[id(part)] = (item.length, part.sent, part.wanted is None, key)
    for cpu, gpu in zip(*found, strict=True):
        np.testing.assert_allclose(gpu, cpu, rtol=1e-5, atol=1e-7)
    sent = sum(length for length, count, _, _ in steps.values() if count)
    ways = sum(always for _, _, always, _ in steps.values())  # loops, forward and back
    assert ways >= 2
    assert sent == ways * made
