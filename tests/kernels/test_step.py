"""Sums over the batch, running totals and the end of a step."""

import numpy as np
import pytest

from fastnn.kernels import control_block
from fastnn.kernels.step.cpu import sum_of_counted
from tests import naive
from tests.kernels.common import DTYPES, EDGES, close, compute

ONE = {"y": (1,)}


def column(size, dtype, seed=1):
    return np.random.default_rng(seed).standard_normal(size).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("N", EDGES)
def test_mean_and_total(N, dtype):
    x = column(N, dtype)
    wide = x.astype(np.float64)
    close(compute("mean", dtype, ONE, x=x)["y"], [wide.mean()], dtype)
    close(compute("total", dtype, ONE, x=x)["y"], [wide.sum()], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("N", EDGES)
def test_weighted_mean(N, dtype):
    x, weight = column(N, dtype), 0.5 + column(N, dtype, seed=2) ** 2
    out = {"y": (1,), "denominator": (1,)}
    got = compute("weighted_mean", dtype, out, x=x, weight=weight)
    divisor = weight.astype(np.float64).sum()
    close(got["denominator"], [divisor], dtype)
    close(got["y"], [x.astype(np.float64).sum() / divisor], dtype)


def test_weighted_mean_of_nothing_is_nothing():
    out = {"y": (1,), "denominator": (1,)}
    got = compute("weighted_mean", np.float32, out, x=np.zeros(3), weight=np.zeros(3))
    assert got["y"][0] == got["denominator"][0] == 0.0
    given = dict(denominator=np.zeros(1), dy=np.ones(1))
    assert not compute("weighted_mean_backward", np.float32, {"dx": (3,)}, **given)["dx"].any()
    for x, test in ((np.nan, np.isnan), (1.0, np.isinf)):
        got = compute("weighted_mean", np.float32, out, x=np.full(3, x), weight=np.zeros(3))
        assert test(got["y"][0])


def test_float64_inside():
    x = np.full(10_001, 0.1, np.float32)
    x[0] = 1e6
    want = x.astype(np.float64).sum()
    assert compute("total", np.float32, ONE, x=x)["y"][0] == np.float32(want)


@pytest.mark.parametrize("N", [1, 3, 17])
def test_gradients(N):
    x, weight, dy = column(N, np.float64), 0.5 + column(N, np.float64) ** 2, np.array([1.7])
    out = {"dx": (N,)}
    divisor = weight.sum(keepdims=True)
    given = dict(denominator=divisor, dy=dy)
    for got, function in (
        (compute("mean_backward", np.float64, out, dy=dy), np.mean),
        (compute("total_backward", np.float64, out, dy=dy), np.sum),
        (compute("weighted_mean_backward", np.float64, out, **given), lambda v: v.sum() / divisor),
    ):
        want = naive.numeric_gradient(function, x, dy)
        np.testing.assert_allclose(got["dx"], want, rtol=1e-7)


@pytest.mark.parametrize("dtype", DTYPES)
def test_accumulate(dtype):
    value, total = np.array([0.5]), np.array([3.0, 10.0])
    got = compute("accumulate", dtype, {}, value=value, total=total, count=4)["total"]
    np.testing.assert_array_equal(got, [5, 14])
    count = np.array([2.5])
    got = compute("accumulate_by", dtype, {}, value=value, total=total, count=count)["total"]
    np.testing.assert_array_equal(got, [4.25, 12.5])
    x = np.array([1.0, 0.0, 1.0, 1.0, 0.5])
    got = compute("accumulate_rows", dtype, {}, x=x, total=total)["total"]
    np.testing.assert_array_equal(got, [6.5, 15])
    weight, y = np.array([2.0, 0.0, 0.5, 0.0, 4.0]), np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    got = compute("accumulate_pair", dtype, {}, x=x, y=y, total=total)["total"]
    np.testing.assert_array_equal(got, [6.5, 25])
    x[[1, 3]] = np.nan  # weigh nothing
    got = compute("accumulate_weighted", dtype, {}, x=x, weight=weight, total=total)["total"]
    np.testing.assert_array_equal(got, [7.5, 16.5])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("C", [*EDGES, 1023, 1024, 1025, 3000])
def test_squared_norm(C, dtype):
    x = np.random.default_rng(3).standard_normal((9, C)).astype(dtype)
    partial = compute("squared_norm", dtype, {"y": (9,)}, x=x)["y"]
    close(partial, (x.astype(np.float64) ** 2).sum(1), dtype)


def test_squared_norm_of_large_numbers():
    x = np.full((2, 1100), 1e30, np.float32)
    x[1, 1050] = np.nan
    got = compute("squared_norm", np.float32, {"y": (2,)}, x=x)["y"]
    np.testing.assert_allclose(got, [1100e60, np.nan], rtol=1e-6)


def block_of(**given):
    result = np.zeros(control_block.LENGTH, np.int64)
    for name, value in given.items():
        result[getattr(control_block, name)] = value
    return result


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [0.0, 1e30, np.nan, np.inf, -np.inf])
def test_check_finite(value, dtype):
    got = compute("check_finite", dtype, {}, value=np.array([1.0, value]), control=block_of(STEP=3))
    stop = 0 if np.isfinite(value) else control_block.NOT_FINITE
    np.testing.assert_array_equal(got["control"], block_of(STEP=3, STOP=stop))


@pytest.mark.parametrize(
    ("before", "stop"),
    [
        ({}, 0),
        ({"STOP_REQUEST": 1}, control_block.REQUESTED),
        ({"STOP_REQUEST": 1, "STOP": control_block.NOT_FINITE}, control_block.NOT_FINITE),
    ],
)
def test_advance(before, stop):
    start = block_of(STEP=5, RUN_STEP=2, CURSOR=64, SEED=9, **before)
    got = compute("advance", np.float32, {}, control=start, batch=32)["control"]
    done = {"STEP": 6, "RUN_STEP": 3, "CURSOR": 96} if stop != control_block.NOT_FINITE else {}
    want = block_of(
        **{"STEP": 5, "RUN_STEP": 2, "CURSOR": 64, "SEED": 9, **before, **done, "STOP": stop}
    )
    np.testing.assert_array_equal(got, want)


def test_zeros_leave_the_bits_of_sums():
    rng = np.random.default_rng(0)
    for n in (0, 1, 3, 4, 5, 15, 16, 17, 63):
        x = rng.normal(size=n).astype(np.float32)
        expected = sum_of_counted(x)
        assert expected == pytest.approx(x.astype(np.float64).sum(), abs=1e-12)
        for size in (n, n + 1, n + 6, 2 * n + 3):
            padded = np.zeros(size, np.float32)
            padded[np.sort(rng.choice(size, n, replace=False))] = x
            assert sum_of_counted(padded) == expected
    assert np.isnan(sum_of_counted(np.array([0, np.nan, 0, 1.0])))
