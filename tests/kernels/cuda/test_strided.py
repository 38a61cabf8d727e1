"""Copies by strides, gathering, reductions of rows and stacks of products on CUDA."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnn.kernels.elementwise.cpu
import fastnn.kernels.elementwise.cuda
import fastnn.kernels.matmul.cpu_batched
import fastnn.kernels.matmul.cuda_batched
import fastnn.kernels.reduce.cpu_along
import fastnn.kernels.reduce.cuda_along
import fastnn.kernels.strided.cpu
import fastnn.kernels.strided.cuda  # noqa: F401
from tests.kernels.common import DTYPES, close
from tests.kernels.cuda.common import compute_both

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_copies(dtype: Any) -> None:
    x = RNG.normal(size=(2, 3, 5)).astype(dtype)
    given = {"extents": [5, 2], "strides": [1, 15], "begin": 0, "step": 5}
    got = compute_both("copy_strided", dtype, {"y": (10, 3)}, exact=True, x=x.ravel(), **given)
    np.testing.assert_array_equal(got["y"].reshape(5, 2, 3), x.transpose(2, 0, 1))
    given = {"extents": [2], "strides": [15], "begin": 14, "step": -2}
    got = compute_both("copy_strided", dtype, {"y": (2, 7)}, exact=True, x=x.ravel(), **given)
    np.testing.assert_array_equal(got["y"], x.reshape(2, 15)[:, :1:-2])
    given = {"extents": [5], "strides": [1], "begin": 10, "step": -5, "width": 3}
    want = x[:, ::-1].transpose(0, 2, 1).reshape(2, 15)
    got = compute_both(
        "copy_strided_rows", dtype, {"y": (2, 15)}, exact=True, x=x.reshape(2, 15), **given
    )
    np.testing.assert_array_equal(got["y"], want)
    ids = np.arange(30).reshape(2, 15)
    got = compute_both(
        "copy_strided_integers", dtype, {"y": (2, 15)}, exact=True, x=ids, **given
    )  # fmt: skip
    want = ids.reshape(2, 3, 5)[:, ::-1].transpose(0, 2, 1).reshape(2, 15)
    np.testing.assert_array_equal(got["y"], want)


@pytest.mark.parametrize("step", [1, 2, -2])
def test_spread(step: int) -> None:
    x = RNG.normal(size=(2, 2, 3))
    start = 7 if step < 0 else 1
    given = {"axes": [[5, 4, -2, 2, 3]], "start": start, "step": step, "count": 3, "fill": 0.5}
    y = compute_both(
        "spread_strided", np.float64, {"y": (2, 45)}, exact=True, x=x.reshape(2, 6), width=9,
        **given,
    )  # fmt: skip
    want = np.full((2, 5, 9), 0.5)
    want[:, 4:1:-2, start : start + 3 * step : step] = x
    np.testing.assert_array_equal(y["y"].reshape(2, 5, 9), want)


def test_gather_and_comparison() -> None:
    x, index = RNG.normal(size=(3, 40)), RNG.integers(0, 40, (3, 70))
    got = compute_both("gather_columns", np.float64, {"y": (3, 70)}, exact=True, x=x, index=index)
    np.testing.assert_array_equal(got["y"], np.take_along_axis(x, index, 1))
    dy, want = RNG.normal(size=(3, 70)), np.zeros((3, 40))
    np.add.at(want, (np.arange(3)[:, None], index), dy)
    got = compute_both(
        "gather_columns_backward", np.float64, {"dx": (3, 40)}, exact=True, index=index, dy=dy
    )
    np.testing.assert_allclose(got["dx"], want, atol=1e-13)
    got = compute_both(
        "compare_integers",
        np.float32,
        {"y": (3, 70)},
        exact=True,
        a=index,
        b=index[:, ::-1],
        relation=5,
    )
    np.testing.assert_array_equal(got["y"], index != index[:, ::-1])
    index[0, :2] = 2**24 + 1, -(2**40)
    got = compute_both("integers_to_floats", np.float32, {"y": (3, 70)}, exact=True, x=index)
    np.testing.assert_array_equal(got["y"], index.astype(np.float32))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 5), (9, 33), (2, 600)])
def test_reductions(shape: tuple[int, int], dtype: Any) -> None:
    rows = shape[0]
    x = RNG.uniform(0.5, 1.5, shape).astype(dtype)
    x[0, 1] = x[0, 0] = 2.0
    dy, row = RNG.normal(size=rows), {"y": (rows,)}
    y = compute_both("max_columns", dtype, row, exact=True, x=x)["y"]
    np.testing.assert_array_equal(y, x.max(1))
    compute_both("max_columns_backward", dtype, {"dx": shape}, x=x, y=y, dy=dy)
    y = compute_both("product_columns", dtype, row, x=x)["y"]
    compute_both("product_columns_backward", dtype, {"dx": shape}, x=x, dy=dy)
    y = compute_both("logsumexp_columns", dtype, row, x=x)["y"]
    close(y, np.log(np.exp(x.astype(float)).sum(1)), dtype, 5)
    compute_both("logsumexp_columns_backward", dtype, {"dx": shape}, x=x, y=y, dy=dy)
    for reverse, exclusive in ((0, 0), (1, 0), (0, 1), (1, 1)):
        given = {"reverse": reverse, "exclusive": exclusive}
        compute_both("running_sum", dtype, {"y": shape}, exact=True, x=x, **given)


def test_special_values() -> None:
    inf = np.inf
    x = np.array([[1.0, np.nan], [inf, 0.0], [-inf, -inf], [inf, np.nan], [-inf, np.nan]])
    for name in ("max_columns", "logsumexp_columns"):
        y = compute_both(name, np.float32, {"y": (5,)}, exact=True, x=x)["y"]
        np.testing.assert_array_equal(y, [np.nan, inf, -inf, np.nan, np.nan])
    dx = compute_both(
        "logsumexp_columns_backward", np.float32, {"dx": (1, 2)}, x=x[2:3], y=y[2:3], dy=np.ones(1)
    )["dx"]
    np.testing.assert_array_equal(dx, 0.0)


@pytest.mark.parametrize(("m", "c", "k"), [(1, 1, 1), (5, 33, 40)])
def test_stacks_of_products(m: int, c: int, k: int) -> None:
    a, b, dy = (RNG.normal(size=(3, *s)) for s in ((m, c), (c, k), (m, k)))
    y = compute_both("matmul_forward", np.float64, {"y": (3, m, k)}, a=a, b=b)["y"]
    np.testing.assert_allclose(y, a @ b, atol=1e-12)
    db = compute_both("matmul_backward_b", np.float64, {"db": (3, c, k)}, a=a, dy=dy)["db"]
    np.testing.assert_allclose(db, a.transpose(0, 2, 1) @ dy, atol=1e-12)
    da = compute_both("matmul_transposed_forward", np.float64, {"y": (3, m, c)}, a=dy, b=b)["y"]
    np.testing.assert_allclose(da, dy @ b.transpose(0, 2, 1), atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
def test_choices_and_powers(dtype: Any) -> None:
    from fastnn.kernels.elementwise.rows import TABLE

    numbers = [0.0, -0.0, 1.0, -1.0, 2.5, -2.0, 3.0]
    a, b = (x.reshape(7, 7) for x in np.meshgrid(numbers, numbers))
    given = {"a": a, "b": b, "dy": b - a, "mask": a, "y": a * b}
    kernels = [(n, ("a", "b"), "y") for n in ("less", "less_equal", "equal", "not_equal")]
    for f in TABLE.values():
        if f.inputs != ("x",):
            kernels.append((f"{f.name}_forward", f.inputs, "y"))
            kernels += [(name, inputs, output) for name, _, inputs, output in f.backward]
    for name, inputs, output in kernels:
        if name.startswith("power"):  # away from 0 and 1, where NumPy warns
            given |= {"a": np.abs(a) + 0.5}
        chosen = {key: given[key] for key in inputs}
        compute_both(name, dtype, {output: (7, 7)}, **chosen)
