"""Convolution kernels called directly on a part of their items, with groups and gaps in windows, or
by tiles: values beside plain loops, and the same bits whatever scratch memory and ranges there are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastnn.kernels.convolution import cpu as convolution
from fastnn.kernels.convolution import cpu_weight
from fastnn.kernels.convolution import cpu_winograd as tiles
from fastnn.kernels.pooling import cpu as pooling
from fastnn.testing.kernels import call
from tests.kernels.test_matmul import packed, poisoned
from tests.kernels.test_windows import guarded, naive

#: groups, channels and outputs of each, dilation along lines
GAPS = [(1, 3, 5, 2), (3, 2, 4, 1), (2, 3, 9, 2)]


@pytest.mark.parametrize(("groups", "own", "outputs", "dilation"), GAPS)
def test_windows_with_gaps(groups: int, own: int, outputs: int, dilation: int) -> None:
    """What overlapping windows add to an element of the gradient to the input is added in the order
    of their positions, however many windows there is room for."""
    rng, depth = np.random.default_rng(groups), 3 * 3 * own
    a = {"stride_h": 1, "stride_w": 1, "dilation_h": 1, "dilation_w": dilation}
    a |= {"top": 1, "left": 2}
    h, w = 4, 6
    p, q = h, w + 4 - 2 * dilation
    x = rng.normal(size=(2, h, w, groups * own)).astype(np.float32)
    weight = rng.normal(size=(3, 3, own, groups * outputs)).astype(np.float32)
    dy = rng.normal(size=(2, p, q, groups * outputs)).astype(np.float32)
    whole = np.zeros((3, 3, groups * own, groups * outputs))
    blocks = [(slice(g * own, (g + 1) * own), slice(g * outputs, (g + 1) * outputs))
              for g in range(groups)]  # fmt: skip
    for channels, units in blocks:
        whole[:, :, channels, units] = weight[:, :, :, units]
    y, dx, dw = naive(x, whole, dy, a)
    dw = dw.reshape(whole.shape)
    dw = np.concatenate([dw[:, :, c, k] for c, k in blocks], axis=3).reshape(depth, -1)
    turned = packed(weight.reshape(depth, -1), True)
    options: dict[str, Any] = {"groups": groups, **a}
    first: list[np.ndarray] = []
    for windows in (p * q, 1, q + 2):
        found, around = zip(*(poisoned(v.shape, "float32") for v in (y, dx, dw)), strict=True)
        room, beside = poisoned((2, windows * depth), "float32")
        none = np.empty(0, np.float32)
        for n in (1, 0):
            call(convolution.convolution_forward, n, n + 1, x=x, w=weight, bias=none, y=found[0],
                 w_packed=none.reshape(0, 0), room=room, **options)  # fmt: skip
            call(convolution.convolution_backward_input, n, n + 1, dy=dy, w=weight, dx=found[1],
                 w_packed=turned, room=room, **options)  # fmt: skip
        room, more = poisoned((depth, windows), "float32")
        for lo, hi in ((0, own + 1), (own + 1, depth)):
            call(cpu_weight.convolution_backward_weight, lo, hi, x=x, dy=dy, dw=found[2],
                 kernel_w=3, room=room, **options)  # fmt: skip
        for this, right in zip(found, (y, dx, dw), strict=True):
            np.testing.assert_allclose(this, right, rtol=2e-5, atol=2e-5)
        first = first or [np.array(v) for v in found]
        np.testing.assert_array_equal(found[0], first[0])
        np.testing.assert_array_equal(found[1], first[1])
        assert guarded([*around, beside, more])


@pytest.mark.parametrize(("dtype", "unit"), [("float32", 16), ("float64", 8)])
def test_tiles_in_ranges_of_planes(dtype: str, unit: int) -> None:
    """Each range of planes has its own scratch memory, and writes its own planes alone."""
    rng, channels, outputs = np.random.default_rng(unit), unit, 2 * unit
    a = {"stride_h": 1, "stride_w": 1, "dilation_h": 1, "dilation_w": 1, "top": 1, "left": 0}
    x = rng.normal(size=(3, 5, 6, channels)).astype(dtype)
    w = rng.normal(size=(3, 3, channels, outputs)).astype(dtype)
    dy = rng.normal(size=(3, 6, 4, outputs)).astype(dtype)
    y, _, dw = naive(x, w, dy, a)
    (u, one), (got, two) = poisoned((16, channels, outputs), dtype), poisoned(y.shape, dtype)
    for lo, hi in ((0, unit), (unit, outputs)):
        call(tiles.winograd_weights, lo, hi, w=w, u=u)
    numbers = 8 * 6 * channels + 64
    room, three = poisoned((3, numbers + 16 * 2 * 2 * (channels + outputs)), dtype)
    bias = rng.normal(size=outputs).astype(dtype)
    for n in (2, 0, 1):
        call(tiles.winograd_forward, n, n + 1, x=x, u=u, bias=bias, y=got, room=room, top=1, left=0,
             lines=2)  # fmt: skip
    close = {"float32": 1e-4, "float64": 1e-12}[dtype]
    np.testing.assert_allclose(got, y + bias, rtol=close, atol=close)
    each = 6 * (channels + outputs) + numbers // 4 + 1
    (du, four), (found, five) = poisoned(u.shape, dtype), poisoned(w.shape, dtype)
    (whole, six), (room, seven) = poisoned(u.shape, dtype), poisoned((16, each), dtype)
    for lo, hi in ((8, 12), (0, 8), (12, 16)):
        call(tiles.winograd_backward_weight, lo, hi, x=x, dy=dy, du=du, room=room, top=1, left=0)
    call(tiles.winograd_backward_weight, x=x, dy=dy, du=whole, room=room, top=1, left=0)
    np.testing.assert_array_equal(du, whole)
    for lo, hi in ((unit, outputs), (0, unit)):
        call(tiles.winograd_weights_gradient, lo, hi, du=du, dw=found)
    np.testing.assert_allclose(found.reshape(dw.shape), dw, rtol=close, atol=close)
    assert guarded([one, two, three, four, five, six, seven])


@pytest.mark.parametrize("channels", [3, 8])
def test_maxima_of_windows_over_the_end(channels: int) -> None:
    """Windows side by side of which the last ones have places outside (`ceil_mode`)."""
    rng = np.random.default_rng(channels)
    x = rng.normal(size=(2, 5, 7, channels)).astype(np.float32)
    dy = rng.normal(size=(2, 3, 4, channels)).astype(np.float32)
    a = {"kernel_h": 2, "kernel_w": 2, "stride_h": 2, "stride_w": 2}
    a |= {"dilation_h": 1, "dilation_w": 1, "top": 0, "left": 0}
    (y, one), (dx, two) = poisoned(dy.shape, "float32"), poisoned(x.shape, "float32")
    for n in (1, 0):
        call(pooling.max_pool_forward, n, n + 1, x=x, y=y, **a)
        call(pooling.max_pool_backward, n, n + 1, x=x, y=y, dy=dy, dx=dx, **a)
    image = np.full((2, 6, 8, channels), -np.inf, np.float32)
    image[:, :5, :7] = x
    np.testing.assert_array_equal(y, image.reshape(2, 3, 2, 4, 2, channels).max((2, 4)))
    largest = y.repeat(2, axis=1).repeat(2, axis=2)[:, :5, :7] == x
    np.testing.assert_array_equal(dx, largest * dy.repeat(2, axis=1).repeat(2, axis=2)[:, :5, :7])
    assert guarded([one, two])
