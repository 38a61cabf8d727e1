"""Sequences of different lengths in transposed convolutions, pooling and up-sampling: what each
gives alone, whatever stands behind it, values and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastnn import nn, ops
from fastnn.errors import ShapeError
from fastnn.testing import gradcheck
from tests.convolved import results
from tests.graph.test_second_gradients import first

RNG = np.random.default_rng(0)
LENGTHS = np.array([11, 4, 9])
CHANNELS = 9
#: of a batch of sequences, channels last, and a weight; with lengths, too
Function = Callable[..., Any]


def transposed(**options: Any) -> Function:
    return lambda x, w, **n: ops.conv_transpose1d(x, w, None, **options, channels="last", **n)


def enlarged(**options: Any) -> Function:
    return lambda x, w, **n: ops.upsample(x + w[0, 0, 0], **options, channels="last", **n)


def norms(p: float, kernel: int, stride: int) -> Function:
    return lambda x, w, **n: ops.lp_pool1d(x + w[0, 0, 0], p, kernel, stride, channels="last", **n)


def averages(*options: int, **more: Any) -> Function:
    return lambda x, w, **n: ops.avg_pool1d(x + w[0, 0, 0], *options, **more, channels="last", **n)


def shared(windows: int) -> Function:
    return lambda x, w, **n: ops.adaptive_avg_pool1d(x + w[0, 0, 0], windows, channels="last", **n)


FUNCTIONS: dict[str, Function] = {
    "transposed": transposed(),
    "transposed, all options": transposed(
        stride=3, padding=2, output_padding=1, dilation=2, groups=3
    ),
    "transposed, cut": transposed(stride=1, padding=2),
    "norms": norms(2.0, 3, 2),
    "norms of small powers": norms(0.5, 2, 1),
    "averages over the end": averages(4, 3, 1, ceil_mode=True),
    "few windows": shared(3),
    "more windows than steps": shared(8),
    "nearest by factor": enlarged(scale_factor=1.7),
    "nearest, twice": enlarged(scale_factor=2),
    "nearest, fewer": enlarged(scale_factor=0.6),
    "nearest by size": enlarged(size=10),
    "linear by factor": enlarged(scale_factor=2.3, mode="linear"),
    "linear, fewer": enlarged(scale_factor=0.4, mode="linear"),
    "linear by size": enlarged(size=13, mode="linear"),
    "aligned by factor": enlarged(scale_factor=1.5, mode="linear", align_corners=True),
    "aligned by size": enlarged(size=6, mode="linear", align_corners=True),
}


def arrays(dtype: str) -> tuple[np.ndarray, np.ndarray]:
    x = RNG.uniform(0.2, 1.0, (3, 11, CHANNELS)).astype(dtype)
    return x, RNG.uniform(0.2, 1.0, (CHANNELS, 3, 3)).astype(dtype)


def poisoned(x: np.ndarray, lengths: Any, more: int = 0) -> np.ndarray:
    """The sequences with NaN behind them, and `more` steps of it."""
    found = np.concatenate([x, np.zeros((len(x), more, *x.shape[2:]), x.dtype)], 1)
    for k, n in enumerate(lengths):
        found[k, n:] = np.nan
    return found


def with_lengths(function: Function, lengths: np.ndarray) -> Function:
    def apply(x: Any, w: Any) -> Any:
        found = function(x, w, lengths=lengths)
        return found[0] if isinstance(found, tuple) else found

    return apply


def places(function: Function, x: np.ndarray, w: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The lengths of the results; of results that are all valid, as many as there are."""

    class Model(nn.Module):
        def forward(self, x: Any, n: Any) -> Any:
            return function(x, x.graph.constant(w), lengths=n)

    found = Model().to(x.dtype.name).predict(x, lengths)
    return found[1] if isinstance(found, tuple) else np.full(len(x), found.shape[1])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_sequence_is_as_alone(name: str) -> None:
    dtype = ("float32", "float64")[list(FUNCTIONS).index(name) % 2]
    function, (x, w), lengths = FUNCTIONS[name], arrays(dtype), LENGTHS
    near = {"rtol": 1e-5 if dtype == "float32" else 1e-12, "atol": 1e-12}
    (y,) = results(with_lengths(function, lengths), poisoned(x, lengths), w, seed=None)
    ends = places(function, poisoned(x, lengths), w, lengths)
    dy = RNG.normal(size=y.shape).astype(dtype)
    noisy = dy.copy()
    total = np.zeros(w.shape)
    alone = []
    for k, n in enumerate(lengths):
        one = results(function, x[k : k + 1, :n], w, seed=dy[k : k + 1, : ends[k]])
        assert one[0].shape[1] == ends[k]
        alone.append(one)
        total += one[2]
        noisy[k, ends[k] :] = np.nan
    y, dx, dw = results(with_lengths(function, lengths), poisoned(x, lengths), w, seed=noisy)
    for k, n in enumerate(lengths):
        np.testing.assert_allclose(y[k, : ends[k]], alone[k][0][0], **near)
        assert not y[k, ends[k] :].any()
        np.testing.assert_allclose(dx[k, :n], alone[k][1][0], **near)
        assert not dx[k, n:].any()
    np.testing.assert_allclose(dw, total, rtol=1e-4 if dtype == "float32" else 1e-11)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_bits_depend_on_neither_padding_nor_workers(name: str) -> None:
    function, (x, w), lengths = FUNCTIONS[name], arrays("float32"), np.array([11, 1, 0])
    bound = with_lengths(function, lengths)
    (y,) = results(bound, poisoned(x, lengths), w, seed=None)
    dy = RNG.normal(size=y.shape).astype(np.float32)
    y, dx, dw = results(bound, poisoned(x, lengths), w, seed=dy)
    assert not y[2].any()
    assert np.isfinite(dw).all()
    for workers in (2, 3):
        again = results(bound, poisoned(x, lengths), w, seed=dy, workers=workers)
        for one, other in zip((y, dx, dw), again, strict=True):
            np.testing.assert_array_equal(one, other)
    (longer,) = results(bound, poisoned(x, lengths, 5), w, seed=None)
    np.testing.assert_array_equal(longer[:, : y.shape[1]], y)
    assert not longer[:, y.shape[1] :].any()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_first_and_second(name: str) -> None:
    lengths = np.array([5, 2])
    x, w = RNG.uniform(0.2, 1.0, (2, 6, 3)), RNG.uniform(0.2, 1.0, (3, 3, 3))
    if "all options" in name:
        w = w[:, :1]
    bound = with_lengths(FUNCTIONS[name], lengths)
    kernel = nn.Parameter(w.shape, lambda shape, rng: w, transposed=True)
    assert gradcheck(bound, x, kernel)
    assert gradcheck(first(lambda *a: ops.square(bound(*a))), x, kernel)


def test_layers_take_lengths() -> None:
    """One behind another, with the lengths that each gives."""

    class Model(nn.Module):
        def __init__(self) -> None:
            self.up = nn.Upsample(scale_factor=1.5)
            self.back = nn.ConvTranspose1d(2, 3, 4, stride=2, padding=1)
            self.norm = nn.LPPool1d(2, 3, 2)
            self.share = nn.AdaptiveAvgPool1d(4)

        def forward(self, x: Any, lengths: Any) -> Any:
            for layer in (self.up, self.back, self.norm):
                x, lengths = layer(x, lengths)
            return self.share(x, lengths), lengths

    model, x, lengths = Model(), RNG.normal(size=(3, 2, 8)).astype(np.float32), np.array([8, 0, 5])
    y, ends = model.predict(np.where(np.arange(8) < lengths[:, None, None], x, np.nan), lengths)
    np.testing.assert_array_equal(ends, [11, 0, 6])  # 8 -> 12 -> 24 -> 11, 5 -> 7 -> 14 -> 6
    assert y.shape == (3, 3, 4)
    assert not y[1].any()
    one, end = model.predict(x[2:, :, :5], lengths[2:])
    np.testing.assert_array_equal(y[2:], one)
    assert end == 6


def test_what_is_refused() -> None:
    x = np.zeros((2, 3, 4, 4), np.float32)
    with pytest.raises(ShapeError, match="upsample: expected a sequence of 3 dimensions with len"):
        nn.Upsample(8).predict(x, np.array([4, 4]))
    for layer in (nn.GroupNorm(1, 3), nn.InstanceNorm2d(3)):
        with pytest.raises(ShapeError, match=r"expected sequences, of shape \(N, 3, T\), with len"):
            layer.predict(x, np.array([4, 4]))
