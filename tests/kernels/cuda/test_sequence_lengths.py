"""Kernels of sequences of different lengths on CUDA beside the CPU's and plain loops in float64:
windows that share out each sequence, and each stretched by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastnn.runtime.cuda import report
from tests.kernels.cuda.common import compute_both

report.declare_all()
LENGTHS = np.array([7, 0, 3, 1, 6])


def batch(dtype: Any, *shape: int, poison: bool = True) -> np.ndarray:
    x = np.random.default_rng(0).standard_normal((5, *shape)).astype(dtype)
    for n, length in enumerate(LENGTHS):
        x[n, length:] = np.nan if poison else x[n, length:]
    return x


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("windows", [1, 3, 9])
def test_windows_share_out_each_sequence(windows: int, dtype: Any) -> None:
    x, shape = batch(dtype, 7, 3), (5, windows, 3)
    y = compute_both("avg_pool_lengths_forward", dtype, {"y": shape}, x=x, lengths=LENGTHS)["y"]
    dy = batch(dtype, windows, 3, poison=False)
    want, back = np.zeros(shape), np.zeros(x.shape)
    for n, length in enumerate(LENGTHS):
        for p in range(windows if length else 0):
            part = slice(p * length // windows, -(-(p + 1) * length // windows))
            want[n, p] = x[n, part].astype(float).mean(0)
            back[n, part] += dy[n, p] / (part.stop - part.start)
    near = {"rtol": 1e-5 if dtype == np.float32 else 1e-12, "atol": 1e-6}
    np.testing.assert_allclose(y, want, **near)
    found = compute_both(
        "avg_pool_lengths_backward", dtype, {"dx": x.shape}, lengths=LENGTHS, dy=dy
    )
    np.testing.assert_allclose(found["dx"], back, **near)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("mode", [0, 1, 2])
@pytest.mark.parametrize("scale", [0.0, 0.6, 1.7])
def test_each_sequence_is_stretched_by_itself(scale: float, mode: int, dtype: Any) -> None:
    places = int(7 * scale) if scale else 5
    x, dy = batch(dtype, 7, 3), batch(dtype, places, 3, poison=False)
    given: dict[str, Any] = {"lengths": LENGTHS, "scale": scale, "mode": mode}
    y = compute_both("stretch_forward", dtype, {"y": dy.shape}, x=x, **given)["y"]
    ends = compute_both(
        "count_places", dtype, {"y": LENGTHS.shape}, exact=True, lengths=LENGTHS, scale=scale,
        shift=0 if scale else places,
    )["y"]  # fmt: skip
    want, back = np.zeros(dy.shape), np.zeros(x.shape)
    for n, (length, end) in enumerate(zip(LENGTHS, ends, strict=True)):
        assert end == (0 if length == 0 else int(length * scale) if scale else places)
        pace = 1 / scale if scale else length / places
        for j in range(end):
            at = {0: j * pace, 1: max((j + 0.5) * pace - 0.5, 0.0)}.get(mode, 0.0)
            if mode == 2 and end > 1:
                at = j * (length - 1) / (end - 1)
            low = min(int(at), length - 1)
            share = at - low if mode and low < length - 1 else 0.0
            for step, weight in ((low, 1 - share), (min(low + 1, length - 1), share)):
                want[n, j] += weight * x[n, step].astype(float)
                back[n, step] += weight * dy[n, j]
    near = {"rtol": 1e-5 if dtype == np.float32 else 1e-12, "atol": 1e-5}
    np.testing.assert_allclose(y, want, **near)
    found = compute_both("stretch_backward", dtype, {"dx": x.shape}, dy=dy, **given)["dx"]
    np.testing.assert_allclose(found, back, **near)
