"""Activations, arithmetic, broadcasts, sums and moves of columns on CUDA."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnn.kernels.broadcast.cpu
import fastnn.kernels.broadcast.cuda
import fastnn.kernels.elementwise.cpu
import fastnn.kernels.elementwise.cuda
import fastnn.kernels.reduce.cpu
import fastnn.kernels.reduce.cuda
import fastnn.kernels.sequence.cpu
import fastnn.kernels.sequence.cuda
import fastnn.kernels.shape.cpu
import fastnn.kernels.shape.cuda  # noqa: F401
from fastnn.kernels.declare import CUDA_KERNELS
from fastnn.testing.kernels import call_cuda
from tests import naive
from tests.kernels.common import DTYPES, close
from tests.kernels.cuda.common import compute_both, compute_cuda
from tests.kernels.test_elementwise import REALS, SAVED, SMOOTH_SOFTPLUS, oracle, sample

#: lengths of a row: multiples of 4 (loaded four at a time) and others
WIDTHS = [1, 2, 16, 17, 31, 32, 33]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SAVED)
def test_function_values(name: str, dtype: Any) -> None:
    reals = REALS.get(name, {})
    for shape in ((1, 1), (3, 5), (2, 16)):
        x = sample(name, shape, 1, dtype)
        y = compute_both(f"{name}_forward", dtype, {"y": shape}, x=x, **reals)["y"]
        close(y, oracle(name, reals)(x.astype(np.float64)), dtype)


@pytest.mark.parametrize("name", SAVED)
def test_function_gradients(name: str) -> None:
    reals = SMOOTH_SOFTPLUS if name == "softplus" else REALS.get(name, {})
    function, shape = oracle(name, reals), (3, 7)
    x, dy = sample(name, shape, 2), np.random.default_rng(3).standard_normal(shape)
    given = {SAVED[name]: x if SAVED[name] == "x" else function(x), "dy": dy, **reals}
    dx = compute_both(f"{name}_backward", np.float64, {"dx": shape}, **given)["dx"]
    np.testing.assert_allclose(dx, naive.numeric_gradient(function, x, dy), rtol=1e-6, atol=1e-8)
    single = compute_both(f"{name}_backward", np.float32, {"dx": shape}, **given)["dx"]
    close(single, dx, np.float32)


def test_special_values() -> None:
    x = np.array([[0.0, -0.0, np.inf, -np.inf, np.nan, 1e-42, -700.0, 700.0]])
    for name in SAVED:
        for dtype in DTYPES:
            compute_both(f"{name}_forward", dtype, {"y": x.shape}, x=x, **REALS.get(name, {}))


def test_in_place() -> None:
    x = sample("gelu", (3, 8), 6, np.float32)
    y = np.empty_like(x)
    call_cuda(CUDA_KERNELS["gelu_forward"], x=x, y=y)
    call_cuda(CUDA_KERNELS["gelu_forward"], x=x, y=x)
    np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("dtype", DTYPES)
def test_arithmetic(dtype: Any) -> None:
    a, b, c = np.random.default_rng(7).standard_normal((3, 3, 6)) + 4
    out = {"y": a.shape}
    for name in ("add", "subtract", "multiply", "divide"):
        compute_both(f"{name}_forward", dtype, out, exact=True, a=a, b=b)
    compute_both("multiply_backward_a", dtype, {"da": a.shape}, exact=True, b=b, dy=c)
    compute_both("multiply_backward_b", dtype, {"db": a.shape}, exact=True, a=a, dy=c)
    compute_both("divide_backward_a", dtype, {"da": a.shape}, exact=True, b=b, dy=c)
    compute_both("divide_backward_b", dtype, {"db": a.shape}, exact=True, b=b, y=a, dy=c)
    compute_both("negate", dtype, out, exact=True, x=a)
    y = compute_both("affine", dtype, out, exact=True, x=a, scale=1.5, shift=-0.25)["y"]
    close(y, 1.5 * a - 0.25, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", WIDTHS)
def test_broadcasts(width: int, dtype: Any) -> None:
    rng = np.random.default_rng(9)
    a, row, column = rng.random((5, width)), rng.random(width), rng.random(5)
    for name, b in (
        ("add_row", row), ("multiply_row", row), ("add_column", column),
        ("multiply_column", column),
    ):  # fmt: skip
        compute_both(name, dtype, {"y": a.shape}, exact=True, a=a, b=b)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (3, 33), (33, 3), (70, 17), (2, 130)])
def test_sums(shape: tuple[int, int], dtype: Any) -> None:
    a, b = np.random.default_rng(10).uniform(0.5, 1.5, (2, *shape)).astype(dtype)
    wide, (n, c) = a.astype(np.float64), shape
    close(compute_cuda("sum_rows", dtype, {"y": (c,)}, x=a)["y"], wide.sum(0), dtype)
    close(compute_cuda("sum_columns", dtype, {"y": (n,)}, x=a)["y"], wide.sum(1), dtype)
    close(compute_cuda("dot_columns", dtype, {"y": (n,)}, a=a, b=b)["y"], (wide * b).sum(1), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [1, 2, 17, 32])
def test_moving_columns(width: int, dtype: Any) -> None:
    rng = np.random.default_rng(11)
    for offset, k in ((0, width), (3, width + 3), (2, width + 9)):
        x, y = rng.random((5, width)), rng.random((5, k))
        compute_both("insert_columns", dtype, {}, exact=True, x=x, y=y, offset=offset)
        compute_both("extract_columns", dtype, {"y": x.shape}, exact=True, x=y, offset=offset)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("single", [True, False])
def test_prelu(single: bool, dtype: Any) -> None:
    rng = np.random.default_rng(12)
    for shape in ((3, 17), (40, 2)):
        x, dy = rng.standard_normal((2, *shape))
        weight = rng.uniform(0.1, 0.5, 1 if single else shape[1])
        compute_both("prelu_forward", dtype, {"y": shape}, x=x, weight=weight)
        compute_both("prelu_backward_input", dtype, {"dx": shape}, x=x, weight=weight, dy=dy)
        name = "prelu_backward_weight_" + ("single" if single else "columns")
        compute_both(name, dtype, {"dweight": weight.shape}, x=x, dy=dy, factor=10)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pieces", [1, 2, 3])
def test_maxout(pieces: int, dtype: Any) -> None:
    rng = np.random.default_rng(14)
    x = rng.integers(-2, 3, (5, pieces * 9)).astype(dtype)  # many ties
    x[0, 0] = np.nan
    dy, out = rng.random((5, 9)), {"y": (5, 9)}
    y = compute_both("maxout_forward", dtype, out, exact=True, x=x)["y"]
    compute_both("maxout_backward", dtype, {"dx": x.shape}, exact=True, x=x, y=y, dy=dy)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("C", [1, 3, 8, 17])
def test_sequences(C: int, dtype: Any) -> None:
    x = np.random.default_rng(15).integers(0, 99, (3, 5, C))
    out = {"y": (5, 3, C)}
    y = compute_both("swap_leading", dtype, out, exact=True, x=x)["y"]
    np.testing.assert_array_equal(y, x.swapaxes(0, 1))
    compute_both("swap_leading_ids", dtype, out, exact=True, x=x)
    lengths = np.array([0, 3, 6, 7])
    y = compute_both("length_mask", dtype, {"y": (4, 6)}, exact=True, lengths=lengths)["y"]
    np.testing.assert_array_equal(y.sum(1), [0, 3, 6, 6])
    found = compute_both("mask_length", dtype, {"y": (4,)}, exact=True, mask=y)["y"]
    np.testing.assert_array_equal(found, [0, 3, 6, 6])
    running, full = y.T.copy(), np.full((6, 4, C), np.nan)
    found = compute_both("clear_ended", dtype, {}, exact=True, running=running[4], y=full[4])["y"]
    np.testing.assert_array_equal(np.isnan(found), np.repeat(running[4] != 0, C).reshape(4, C))
    running[3:] = 0
    found = compute_both("clear_idle", dtype, {}, exact=True, running=running, y=full[:, 0])["y"]
    np.testing.assert_array_equal(np.isnan(found).all(axis=1), [1, 1, 1, 0, 0, 0])
