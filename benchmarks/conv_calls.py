"""A convolution's calls, taken out of a training step: forward pass and both gradients."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from threading import Thread
from typing import Any

import numpy as np

import fastnn as fnn
from fastnn import nn, ops, optim


class Convolved(nn.Module):
    """A 3x3 convolution of images that are a parameter, so that they get a gradient."""

    def __init__(self, x: np.ndarray, w: np.ndarray):
        self.image = nn.Parameter(x.transpose(0, 2, 3, 1).shape)
        self.image.value = x.transpose(0, 2, 3, 1)
        self.layer = nn.Conv2d(
            w.shape[1], w.shape[0], 3, padding=1, bias=False, channels="last"
        )  # fmt: skip
        self.layer.weight.value = w

    def forward(self, dy: Any) -> Any:
        return ops.multiply(self.layer(self.image), dy)


def whole_step(x: np.ndarray, w: np.ndarray, dy: np.ndarray, threads: int) -> Callable[[], float]:
    """A training step of such a model: the sum of its outputs times dy."""
    step = fnn.compile(Convolved(x, w), lambda y, _: ops.sum(y), optim.SGD(lr=0.0),
                       workers=threads)  # fmt: skip
    given, nothing = np.ascontiguousarray(dy.transpose(0, 2, 3, 1)), np.zeros(len(dy), np.float32)
    return lambda: float(step(given, nothing))


def convolution_calls(
    x: np.ndarray, w: np.ndarray, dy: np.ndarray, threads: int
) -> tuple[Callable[[], None], np.ndarray, np.ndarray]:
    """A function that makes the calls, and the gradients to the images and the weights."""
    model = Convolved(x, w)
    given = np.ascontiguousarray(dy.transpose(0, 2, 3, 1))
    step = fnn.compile(model, lambda y, _: ops.sum(y), optim.SGD(lr=0.0), workers=1,
                       keep_gradients=True)  # fmt: skip
    step(given, np.zeros(len(given), np.float32))
    dx, dw = model.image.grad.copy(), model.layer.weight.grad.copy()
    bound = next(iter(step._ready.values())).bound
    calls = []
    for number, call in enumerate(bound.planned):
        if call.kernel.startswith(("convolution_", "winograd_", "pack_")):
            function, record, count = bound.alone(number)
            calls.append((function, ctypes.c_int64(record.ctypes.data), count, record))

    def share(k: int, function: Any, address: Any, count: int) -> None:
        function(address, count * k // threads, count * (k + 1) // threads)

    def run(_kept: Any = (step, bound)) -> None:
        for function, address, count, _ in calls:
            team = [Thread(target=share, args=(k, function, address, count))
                    for k in range(1, threads)]  # fmt: skip
            for thread in team:
                thread.start()
            share(0, function, address, count)
            for thread in team:
                thread.join()

    return run, dx, dw
