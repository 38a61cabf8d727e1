"""Convolutions of many channels, whose kernels on the CPU work on tiles of images or on strips of
vectors, against sums over windows in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastnn import ops
from tests.convolved import results

Product = Callable[[np.ndarray, np.ndarray], np.ndarray]


def check(
    x_shape: tuple[int, ...], outputs: int, groups: int, forward: Product, to_x: Product,
    to_w: Product,
) -> None:  # fmt: skip
    """A 3x3 convolution with padding 1; the products are those of one place of the window."""
    rng = np.random.default_rng(x_shape[2] * x_shape[3])
    n, channels, high, wide = x_shape
    x, w, b = (
        rng.normal(size=s) for s in (x_shape, (outputs, channels // groups, 3, 3), (outputs,))
    )
    dy = rng.normal(size=(n, outputs, high, wide))
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    y, dx, dw = np.zeros(dy.shape) + b[:, None, None], np.zeros(padded.shape), np.zeros(w.shape)
    for i, j in np.ndindex(3, 3):
        window: Any = np.s_[:, :, i : i + high, j : j + wide]
        y += forward(padded[window], w[:, :, i, j])
        dx[window] += to_x(dy, w[:, :, i, j])
        dw[:, :, i, j] = to_w(dy, padded[window])
    got = results(
        lambda *v: ops.conv2d(*v, padding=1, groups=groups),
        *(v.astype(np.float32) for v in (x, w, b)), seed=dy.astype(np.float32),
    )  # fmt: skip
    wanted = y, dx[:, :, 1:-1, 1:-1], dw, dy.sum((0, 2, 3))
    for this, that in zip(got, wanted, strict=True):
        np.testing.assert_allclose(this, that, rtol=1e-4, atol=2e-6 * np.abs(that).max())


@pytest.mark.parametrize(("high", "wide"), [(8, 8), (9, 8), (8, 11), (14, 10)])
def test_sizes_that_go_by_tiles_and_sizes_that_do_not(high: int, wide: int) -> None:
    check(
        (3, 32, high, wide), 48, 1,
        lambda x, w: np.einsum("nchw,kc->nkhw", x, w),
        lambda dy, w: np.einsum("nkhw,kc->nchw", dy, w),
        lambda dy, x: np.einsum("nkhw,nchw->kc", dy, x),
    )  # fmt: skip


def test_depthwise_by_strips_by_vectors_and_a_rest() -> None:
    channels = 2 * 4 * 16 + 16 + 5  # with 512 bits, too
    check(
        (2, channels, 6, 7), channels, channels,
        lambda x, w: x * w[..., None],
        lambda dy, w: dy * w[..., None],
        lambda dy, x: (dy * x).sum((0, 2, 3))[:, None],
    )  # fmt: skip
