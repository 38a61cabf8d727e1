"""Convolution and pooling kernels called directly: whatever scratch memory there is, nothing beside
an array is touched, and the results are those of plain loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastnn.kernels.convolution import cpu as convolution
from fastnn.kernels.convolution import cpu_weight
from fastnn.kernels.pooling import cpu as pooling
from fastnn.testing.kernels import call
from tests.kernels.test_matmul import packed, poisoned

GUARD = 1e30


def guarded(wholes: list[np.ndarray]) -> bool:
    """Whether the zones around arrays are as they were."""
    return all((w[:64] == w.dtype.type(GUARD)).all() and (w[-64:] == w.dtype.type(GUARD)).all()
               for w in wholes)  # fmt: skip


def naive(x: np.ndarray, w: np.ndarray, dy: np.ndarray, a: dict[str, int]) -> list[np.ndarray]:
    """y, dx and dw in float64."""
    high, wide = x.shape[1:3]
    _, p, q, _ = dy.shape
    room = np.zeros((len(x), high + 20, wide + 20, x.shape[3]))
    inner = np.s_[:, a["top"] : a["top"] + high, a["left"] : a["left"] + wide]
    room[inner] = x
    y, dw, spread = np.zeros(dy.shape), np.zeros(w.shape), np.zeros_like(room)
    for i in range(w.shape[0]):
        for j in range(w.shape[1]):
            top, left = i * a["dilation_h"], j * a["dilation_w"]
            at = np.s_[:, top : top + (p - 1) * a["stride_h"] + 1 : a["stride_h"],
                       left : left + (q - 1) * a["stride_w"] + 1 : a["stride_w"]]  # fmt: skip
            y += room[at] @ w[i, j]
            dw[i, j] = np.einsum("npqc,npqk->ck", room[at], dy)
            spread[at] += dy @ w[i, j].T
    return [y, spread[inner], dw.reshape(-1, w.shape[3])]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_windows_in_any_scratch_memory(dtype: str) -> None:
    """With room for a padded sample and without, for a few windows or many, in two ranges."""
    rng, close = np.random.default_rng(5), 2e-4 if dtype == "float32" else 1e-12
    for turn in range(120):
        c, k = int(rng.choice([1, 1, 2, 6, 8])), int(rng.choice([1, 6, 8, 17]))
        (i, j), (h, w) = rng.integers(1, 5, 2), rng.integers(1, 12, 2)
        pads = rng.integers(0, 4, 4)
        a = dict(zip(("stride_h", "stride_w", "dilation_h", "dilation_w"),
                     map(int, rng.integers(1, 3, 4)), strict=True))  # fmt: skip
        span = (i - 1) * a["dilation_h"] + 1, (j - 1) * a["dilation_w"] + 1
        p, q = (int((size + pads[k] + pads[k + 2] - span[k]) // a[s] + 1)
                for k, (size, s) in enumerate(((h, "stride_h"), (w, "stride_w"))))  # fmt: skip
        if min(p, q) < 1:
            continue
        a |= {"top": int(pads[0]), "left": int(pads[1])}
        x, weight, dy = (rng.normal(size=s).astype(dtype)
                         for s in ((2, h, w, c), (i, j, c, k), (2, p, q, k)))  # fmt: skip
        want = naive(x, weight, dy, a)
        depth = int(i * j * c)
        extent = (p - 1) * a["stride_h"] + span[0], (q - 1) * a["stride_w"] + span[1]
        padded = int(extent[0] * extent[1] * c + 32) if rng.random() < 0.8 else 0
        windows = int(rng.integers(1, 4)) * depth + (q * (depth + 24) if c == 1 else 0)
        (y, *held), (dx, *more), (dw, *rest) = (poisoned(v.shape, dtype) for v in want)
        room, whole = poisoned((2, windows + padded), dtype)
        options = {"groups": 1, "room": room, **a}
        none = np.empty(0, dtype)
        for n in (0, 1):
            matrix = packed(weight.reshape(depth, k)) if turn % 2 else none.reshape(0, 0)
            call(convolution.convolution_forward, n, n + 1, x=x, w=weight, w_packed=matrix,
                 bias=none, y=y, **options)  # fmt: skip
            call(convolution.convolution_backward_input, n, n + 1, dy=dy, w=weight,
                 w_packed=packed(weight.reshape(depth, k), True), dx=dx, **options)  # fmt: skip
        count = int(rng.integers(1, p * q + 1)) + -(-4 * padded // depth)
        count += int(rng.choice([0, 80, 900]))  # for packed gradients, too
        options["room"], last = poisoned((depth, count), dtype)
        cut = int(rng.integers(0, depth + 1))
        for lo, hi in ((0, cut), (cut, depth)):
            if lo < hi:
                call(cpu_weight.convolution_backward_weight, lo, hi, x=x, dy=dy, dw=dw,
                     kernel_w=int(j), **options)  # fmt: skip
        for found, right in zip((y, dx, dw), want, strict=True):
            np.testing.assert_allclose(found, right, rtol=close, atol=close, err_msg=f"{a} {c} {k}")
        assert guarded([*held, *more, *rest, whole, last])


@pytest.mark.parametrize("kernel", [(2, 2), (1, 4), (3, 2)])
@pytest.mark.parametrize("channels", [1, 3, 6, 8, 9, 16, 17])
def test_maxima_side_by_side(channels: int, kernel: tuple[int, int]) -> None:
    """NaN where there is one, the gradient to the first of equals, nothing written beside lines."""
    rng = np.random.default_rng(channels)
    high, wide = kernel
    for h, w in ((high, wide), (4, 6), (5, 7), (8, 9), (3, 12)):
        x = rng.integers(-2, 3, (2, h, w, channels)).astype(np.float32)
        x[rng.random(x.shape) < 0.1] = np.nan
        shape = (2, h // high, w // wide, channels)
        dy = rng.normal(size=shape).astype(np.float32)
        (y, one), (dx, two) = poisoned(shape, "float32"), poisoned(x.shape, "float32")
        a: dict[str, Any] = {"dilation_h": 1, "dilation_w": 1, "top": 0, "left": 0}
        a |= {"kernel_h": high, "kernel_w": wide, "stride_h": high, "stride_w": wide}
        for n in (1, 0):  # in any order: no sample writes into another
            call(pooling.max_pool_forward, n, n + 1, x=x, y=y, **a)
            call(pooling.max_pool_backward, n, n + 1, x=x, y=y, dy=dy, dx=dx, **a)
        places = [np.s_[:, i : h // high * high : high, j : w // wide * wide : wide]
                  for i in range(high) for j in range(wide)]  # fmt: skip
        all_of = np.stack([x[at] for at in places])
        np.testing.assert_array_equal(y, all_of.max(0))
        first, want = np.argmax((all_of == y) | np.isnan(all_of), 0), np.zeros_like(x)
        for number, at in enumerate(places):
            want[at] = np.where(first == number, dy, 0)
        np.testing.assert_array_equal(dx, want)
        assert guarded([one, two])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kernel", [(2, 2), (1, 4), (3, 2)])
@pytest.mark.parametrize("channels", [1, 3, 6, 8, 9, 16, 17])
def test_averages_side_by_side(channels: int, kernel: tuple[int, int], dtype: str) -> None:
    """The bits of sums in order and one division, nothing written beside lines."""
    rng = np.random.default_rng(channels)
    high, wide = kernel
    for h, w in ((high, wide), (4, 6), (5, 7), (8, 9), (3, 12)):
        x = rng.normal(size=(2, h, w, channels)).astype(dtype)
        shape = (2, h // high, w // wide, channels)
        dy = rng.normal(size=shape).astype(dtype)
        places = [np.s_[:, i : h // high * high : high, j : w // wide * wide : wide]
                  for i in range(high) for j in range(wide)]  # fmt: skip
        for divisor in (0, 3, 8):
            (y, one), (dx, two) = poisoned(shape, dtype), poisoned(x.shape, dtype)
            a: dict[str, Any] = {"top": 0, "left": 0, "adaptive": 0, "padding_counts": 1}
            a |= {"kernel_h": high, "kernel_w": wide, "stride_h": high, "stride_w": wide}
            for n in (1, 0):  # in any order: no sample writes into another
                call(pooling.avg_pool_forward, n, n + 1, x=x, y=y, divisor=divisor, **a)
                call(pooling.avg_pool_backward, n, n + 1, dy=dy, dx=dx, divisor=divisor, **a)
            total, want = np.zeros(shape, dtype), np.zeros_like(x)
            parts = x.dtype.type(divisor or high * wide)
            for at in places:
                total, want[at] = total + x[at], dy / parts
            np.testing.assert_array_equal(y, total / parts)
            np.testing.assert_array_equal(dx, want)
            assert guarded([one, two])
