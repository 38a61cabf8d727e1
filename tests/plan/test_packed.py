"""What is packed is packed once a step, however often products read it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops
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
    x = np.zeros((64, 40), np.float32)
    with null_device() as null:
        fnn.compile(Uses(times), "mse", "sgd")(x, x)
    names = [call.kernel for call in null.programs[-1].calls()]
    return {name: names.count(name) for name in set(names) if name.startswith("pack_panels")}


@pytest.mark.parametrize("times", [2, 4])
def test_weights_that_are_read_often_are_packed_once(times: int) -> None:
    assert packs(1)["pack_panels_transposed"] == 1
    assert packs(times) == packs(1)
