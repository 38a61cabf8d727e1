"""Maxima of a rectified image: taken before the ReLU, with the same results and gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastnn import nn, ops, testing
from fastnn.engine.predictor import Predictor
from fastnn.plan.program import calls_of


def image() -> np.ndarray:
    """Many equal numbers, windows without a positive one, NaN."""
    x = np.random.default_rng(0).integers(-3, 3, (2, 3, 5, 6)).astype(np.float64)
    x[0, 0, :2, :2] = -1.0
    x[1, 2, 3, 2] = np.nan
    return x


def pooled(x: Any, channels: str = "first") -> Any:
    return ops.max_pool2d(ops.relu(x), 2, channels=channels)


@pytest.mark.parametrize("channels", ["first", "last"])
def test_results_and_gradients_are_those_of_the_order_that_is_written(channels: str) -> None:
    x = image() if channels == "first" else np.ascontiguousarray(image().transpose(0, 2, 3, 1))
    found = testing.apply(lambda x: pooled(x, channels), x)
    slope = testing.apply(lambda x: ops.gradient(ops.sum(pooled(x, channels) * 3.0), x), x)
    if channels == "last":
        found, slope = found.transpose(0, 3, 1, 2), slope.transpose(0, 3, 1, 2)
    right = np.maximum(image(), 0)
    four = np.stack([right[:, :, i:4:2, j:6:2] for i in (0, 1) for j in (0, 1)])
    np.testing.assert_array_equal(found, four.max(0))
    first, want = np.argmax((four == four.max(0)) | np.isnan(four), 0), np.zeros_like(right)
    for number, (i, j) in enumerate((i, j) for i in (0, 1) for j in (0, 1)):
        want[:, :, i:4:2, j:6:2] = 3.0 * ((first == number) & ~(four[number] <= 0))
    np.testing.assert_array_equal(slope, want)


class Pooled(nn.Module):
    def __init__(self, both: bool, stride: int = 2):
        self.both, self.stride = both, stride

    def forward(self, x: Any) -> Any:
        y = ops.relu(x)
        z = ops.max_pool2d(y, 2, stride=self.stride, channels="last")
        return (z, y) if self.both else z


@pytest.mark.parametrize(("both", "stride", "size"), [(False, 2, 6), (True, 2, 36), (False, 1, 30)])
def test_the_image_is_rectified_only_if_somebody_reads_it(
    both: bool, stride: int, size: int
) -> None:
    x = np.nan_to_num(image()).astype(np.float32).transpose(0, 2, 3, 1).copy()
    predictor = Predictor(Pooled(both, stride), 1)
    found = predictor(x)
    if both:
        np.testing.assert_array_equal(found[1], np.maximum(x, 0))
    (forward,) = predictor._forwards.values()
    calls = [c for c in calls_of(forward.built.program.phases) if c.kernel == "relu_forward"]
    sizes = [int(np.prod(call.operands[0].dims)) // 6 for call in calls]
    assert sum(sizes) == size
