"""Depthwise convolutions called directly: beside plain loops in float64, and with the same bits
whatever way an element goes: with others in registers, at a border, in part of a vector."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastnn.kernels.convolution import cpu_depthwise, cpu_depthwise_weight
from fastnn.testing.kernels import call
from tests.kernels.test_matmul import poisoned
from tests.kernels.test_windows import guarded, naive

STEPS = ("stride_h", "stride_w", "dilation_h", "dilation_w")


def alone(x: np.ndarray, w: np.ndarray, dy: np.ndarray, a: dict[str, int]) -> list[np.ndarray]:
    """y, dx and dw in float64, each channel by itself."""
    found = [naive(x[..., c : c + 1], w[..., c : c + 1], dy[..., c : c + 1], a)
             for c in range(x.shape[3])]  # fmt: skip
    return [np.concatenate(parts, axis=-1) for parts in zip(*found, strict=True)]


def computed(
    x: np.ndarray, w: np.ndarray, b: np.ndarray, dy: np.ndarray, a: dict[str, int], cut: int = 0
) -> list[np.ndarray]:
    """y, dx and dw by the kernels: samples one by one, of dw the channels from `cut` on first."""
    dtype, channels = x.dtype.name, x.shape[3]
    (y, *one), (dx, *two) = poisoned(dy.shape, dtype), poisoned(x.shape, dtype)
    dw, *three = poisoned((w.shape[0] * w.shape[1], channels), dtype)
    for n in range(len(x)):
        call(cpu_depthwise.depthwise_forward, n, n + 1, x=x, w=w, bias=b, y=y, **a)
        call(cpu_depthwise.depthwise_backward_input, n, n + 1, dy=dy, w=w, dx=dx, **a)
    for lo, hi in ((cut, channels), (0, cut)):
        if lo < hi:
            call(cpu_depthwise_weight.depthwise_backward_weight, lo, hi, x=x, dy=dy, dw=dw,
                 kernel_w=w.shape[1], **a)  # fmt: skip
    assert guarded([*one, *two, *three])
    return [y, dx, dw]


def check(
    rng: Any, dtype: str, size: tuple[int, int], kernel: tuple[int, int], channels: int,
    a: dict[str, int], pads: tuple[int, int],
) -> bool:  # fmt: skip
    """A convolution, unless it has no windows; `pads` are the zeros behind an image."""
    p, q = ((extent + before + behind - (taps - 1) * dilation - 1) // stride + 1
            for extent, before, behind, taps, dilation, stride in zip(
                size, (a["top"], a["left"]), pads, kernel,
                (a["dilation_h"], a["dilation_w"]), (a["stride_h"], a["stride_w"]),
                strict=True))  # fmt: skip
    if min(p, q) < 1:
        return False
    x, w, dy = (rng.normal(size=s).astype(dtype) for s in
                ((2, *size, channels), (*kernel, 1, channels), (2, p, q, channels)))  # fmt: skip
    bias = rng.normal(size=channels if rng.random() < 0.7 else 0).astype(dtype)
    found = computed(x, w, bias, dy, a, int(rng.integers(0, channels + 1)))
    right = alone(x, w, dy, a)
    right[0] += bias if bias.size else 0.0
    close = 1e-4 if dtype == "float32" else 1e-11
    for this, that in zip(found, right, strict=True):
        np.testing.assert_allclose(this, that, rtol=close, atol=close, err_msg=f"{a} {kernel}")
    # a few channels fill no vector: each element is computed on its own
    for lo in range(0, channels, 3):
        some = np.s_[..., lo : lo + 3]
        few = [np.ascontiguousarray(v[some]) for v in (x, w, bias, dy)]
        for this, that in zip(found, computed(*few, a), strict=True):
            np.testing.assert_array_equal(this[some], that, err_msg=f"{a} {kernel} {size}")
    return True


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_depthwise_of_any_shape(dtype: str) -> None:
    rng, turns = np.random.default_rng(3), 0
    for _ in range(150):
        kernel = int(rng.integers(1, 6)), int(rng.choice([1, 2, 3, 3, 3, 4, 5, 6, 7]))
        size = int(rng.integers(1, 9)), int(rng.integers(1, 24))
        a = dict(zip(STEPS, (int(rng.choice([1, 1, 2, 3])) for _ in STEPS), strict=True))
        a |= {"top": int(rng.integers(0, 4)), "left": int(rng.integers(0, 5))}
        channels = int(rng.choice([1, 5, 8, 16, 17, 31, 32, 37, 64, 70]))
        behind = int(rng.integers(0, 4)), int(rng.integers(0, 5))
        turns += check(rng, dtype, size, kernel, channels, a, behind)
    assert turns > 80


@pytest.mark.parametrize("columns", [1, 2, 3, 4, 5, 6, 7, 9, 15, 16, 17, 33])
def test_lines_of_any_length(columns: int) -> None:
    """Of 3x3 kernels with padding 1, as most nets have them."""
    a = {**dict.fromkeys(STEPS, 1), "top": 1, "left": 1}
    for rows in (1, 2, 3, 5):
        for channels in (16, 24, 64):
            rng = np.random.default_rng(columns + 100 * rows)
            assert check(rng, "float32", (rows, columns), (3, 3), channels, a, (1, 1))


def test_what_is_outside_of_an_image_is_no_product() -> None:
    """Infinite weights beside the border give nothing that is no number."""
    a = {**dict.fromkeys(STEPS, 1), "top": 1, "left": 1}
    x, w = np.ones((1, 5, 9, 16), np.float32), np.ones((3, 3, 1, 16), np.float32)
    w[0], w[:, 0] = np.inf, np.inf
    y, dx, _ = computed(x, w, np.zeros(0, np.float32), x, a)
    assert y[0, 0, 0, 0] == 4.0
    assert dx[0, -1, -1, 0] == 4.0
    assert not np.isnan(y).any()
    assert not np.isnan(dx).any()
