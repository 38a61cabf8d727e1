"""What is packed is packed once a step, however often products read it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim
from fastnn.testing.null import null_device


class Uses(nn.Module):
    """A layer that is used some times, in both directions."""

    def __init__(self, times: int):
        self.times, self.first, self.linear = times, nn.Linear(40, 40), nn.Linear(40, 40)

    def forward(self, x: Any) -> Any:
        x = self.first(x)
        for _ in range(self.times):
            x = ops.tanh(self.linear(x))
        return x


def packs(times: int) -> dict[str, int]:
    x = np.zeros((200, 40), np.float32)
    with null_device() as null:
        fnn.compile(Uses(times), "mse", "sgd")(x, x)
    names = [call.kernel for call in null.programs[-1].calls()]
    return {name: names.count(name) for name in set(names) if name.startswith("pack_panels")}


@pytest.mark.parametrize("times", [2, 4])
def test_weights_that_are_read_often_are_packed_once(times: int) -> None:
    assert packs(1)["pack_panels_transposed"] == 1
    assert packs(times) == packs(1)


@pytest.mark.parametrize(
    ("outputs", "precision", "count"), [(64, "highest", 1), (8, "highest", 0), (64, "bf16", 0)]
)
def test_weights_of_convolutions_are_packed_where_they_are_wide_and_exact(
    outputs: int, precision: str, count: int
) -> None:
    """Packing would round weights for lower precisions, and windows are not rounded."""
    net = nn.Sequential(nn.Conv1d(4, outputs, 3), nn.Flatten(), nn.Linear(outputs * 8, 2))
    with null_device("cpu") as null:
        step = fnn.compile(net, "mse", optim.SGD(lr=0.1), precision=precision)
        step(np.zeros((8, 4, 10), np.float32), np.zeros((8, 2), np.float32))
    names = [call.kernel for call in null.programs[0].calls()]
    assert names.count("pack_panels") == count
    assert names.count("convolution_forward") == 1
