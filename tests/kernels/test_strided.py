"""Copies by strides, gathering, reductions of rows and stacks of products, against NumPy."""

import numpy as np
import pytest

import fastnn.kernels.matmul.cpu_batched
import fastnn.kernels.reduce.cpu_along
import fastnn.kernels.strided.cpu  # noqa: F401
from fastnn.kernels.declare import KERNELS
from fastnn.testing.kernels import call
from tests import naive
from tests.kernels.common import DTYPES, EDGES, close, compute

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", EDGES)
def test_copies(size, dtype):
    x = RNG.normal(size=(2, 3, size)).astype(dtype)
    for axes in ((0, 2, 1), (2, 0, 1), (1, 0, 2), (2, 1, 0)):
        strides = np.array([3 * size, size, 1])[list(axes)]
        want = x.transpose(axes)
        given = {"extents": want.shape[:2], "strides": strides[:2], "begin": 0, "step": strides[2]}
        y = compute("copy_strided", dtype, {"y": (want[..., 0].size, want.shape[2])},
                    x=x.ravel(), **given)["y"]  # fmt: skip
        np.testing.assert_array_equal(y.reshape(want.shape), want)
    ids = np.arange(6 * size)
    given = {"extents": [1], "strides": [0], "begin": 3 * size - 1, "step": -1, "width": 3 * size}
    out = {"y": (2, 3 * size)}
    y = compute("copy_strided_integers", dtype, out, x=ids.reshape(2, -1), **given)["y"]
    np.testing.assert_array_equal(y, ids.reshape(2, -1)[:, ::-1])
    y = compute("copy_strided_rows", dtype, out, x=x.reshape(2, -1), **given)["y"]
    np.testing.assert_array_equal(y, x.reshape(2, -1)[:, ::-1])
    given = {"extents": [size], "strides": [1], "begin": 0, "step": size, "width": 3}
    y = compute("copy_strided_rows", dtype, out, x=x.reshape(2, -1), **given)["y"]
    np.testing.assert_array_equal(y.reshape(2, size, 3), x.transpose(0, 2, 1))
    given = {"extents": [4], "strides": [0], "begin": 1, "step": 0}
    y = compute("copy_strided", dtype, {"y": (4, size)}, x=x.ravel(), **given)["y"]
    np.testing.assert_array_equal(y, np.full((4, size), x.ravel()[1]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_transposes_by_blocks(dtype):
    """Of as many rows as a vector has elements, fewer and more; also beginning within a block."""
    for width, rows in ((4, 8), (8, 16), (9, 19), (17, 33), (33, 7)):
        x = RNG.normal(size=(2, width, rows)).astype(dtype)
        want = x.transpose(0, 2, 1)
        given = {"extents": [rows], "strides": [1], "begin": 0, "step": rows, "width": width}
        y = compute("copy_strided_rows", dtype, {"y": (2, rows * width)}, x=x.reshape(2, -1),
                    **given)["y"]  # fmt: skip
        np.testing.assert_array_equal(y.reshape(want.shape), want)
        given = {"extents": [2, rows], "strides": [width * rows, 1], "begin": 0, "step": rows}
        y = compute("copy_strided", dtype, {"y": (2 * rows, width)}, x=x.ravel(), **given)["y"]
        np.testing.assert_array_equal(y.reshape(want.shape), want)


@pytest.mark.parametrize("size", EDGES)
@pytest.mark.parametrize("step", [1, 2, -3])
def test_spread(size, step):
    x, width = RNG.normal(size=(2, size)), abs(step) * size + 2
    start = width - 1 if step < 0 else 1
    given = {
        "axes": [[5, 4, -2, 2, size]],
        "start": start,
        "step": step,
        "count": size,
        "width": width,
    }
    y = compute(
        "spread_strided",
        np.float64,
        {"y": (2, 5 * width)},
        x=np.stack([x, x]).reshape(2, -1),
        fill=0.5,
        **given,
    )["y"]
    want = np.full((5, width), 0.5)
    want[np.ix_([4, 2], start + step * np.arange(size))] = x
    np.testing.assert_array_equal(y.reshape(2, 5, width), [want, want])


@pytest.mark.parametrize("size", EDGES)
def test_gather(size):
    x, index, dy = (
        RNG.normal(size=(3, size)),
        RNG.integers(0, size, (3, 20)),
        RNG.normal(size=(3, 20)),
    )
    y = compute("gather_columns", np.float64, {"y": (3, 20)}, x=x, index=index)["y"]
    np.testing.assert_array_equal(y, np.take_along_axis(x, index, 1))
    want = np.zeros((3, size))
    np.add.at(want, (np.arange(3)[:, None], index), dy)
    dx = compute("gather_columns_backward", np.float64, {"dx": x.shape}, index=index, dy=dy)["dx"]
    np.testing.assert_allclose(dx, want, atol=1e-13)


REDUCTIONS = {
    "max_columns": lambda x: x.max(1),
    "product_columns": lambda x: x.prod(1),
    "logsumexp_columns": lambda x: naive.logsumexp(x, 1),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", EDGES)
@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions(name, size, dtype):
    x = RNG.uniform(0.8, 1.2, (4, size)).astype(dtype)
    y = compute(name, dtype, {"y": (4,)}, x=x)["y"]
    close(y, REDUCTIONS[name](x.astype(float)), dtype, 10)


@pytest.mark.parametrize("size", [1, 2, 3, 17])
@pytest.mark.parametrize("name", REDUCTIONS)
def test_gradients_of_reductions(name, size):
    x, dy = RNG.permutation(np.linspace(-1, 1, 3 * size)).reshape(3, size), RNG.normal(size=3)
    given = {} if name == "product_columns" else {"y": REDUCTIONS[name](x)}
    dx = compute(f"{name}_backward", np.float64, {"dx": x.shape}, x=x, dy=dy, **given)["dx"]
    want = naive.numeric_gradient(REDUCTIONS[name], x, dy)
    np.testing.assert_allclose(dx, want, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("flags", [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_running_sums(flags, dtype):
    for size in EDGES:
        x = RNG.normal(size=(3, size)).astype(dtype)
        turned = x[:, ::-1] if flags[0] else x
        want = turned.astype(float).cumsum(1) - (turned if flags[1] else 0)
        given = {"reverse": flags[0], "exclusive": flags[1]}
        y = compute("running_sum", dtype, {"y": x.shape}, x=x, **given)["y"]
        close(y, want[:, ::-1] if flags[0] else want, dtype, 20)


#: general ones, and those with a column, a row, or dots of some vectors and a part of one
STACKS = [(1, 1, 1), (3, 5, 2), (9, 17, 33), (33, 64, 31), (3, 77, 1), (5, 1, 19), (4, 36, 1)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("m", "c", "k"), STACKS)
def test_stacks_of_products(m, c, k, dtype):
    a, b, dy = (RNG.normal(size=(3, *s)).astype(dtype) for s in ((m, c), (c, k), (m, k)))
    y = compute("matmul_forward", dtype, {"y": (3, m, k)}, a=a, b=b)["y"]
    close(y, a.astype(float) @ b, dtype, 20)
    db = compute("matmul_backward_b", dtype, {"db": (3, c, k)}, a=a, dy=dy)["db"]
    close(db, a.transpose(0, 2, 1).astype(float) @ dy, dtype, 20)
    given = {"a": dy, "b": b}
    da = compute("matmul_transposed_forward", dtype, {"y": (3, m, c)}, **given)["y"]
    close(da, dy.astype(float) @ b.transpose(0, 2, 1), dtype, 20)


@pytest.mark.parametrize("dtype", DTYPES)
def test_zeros_behind_a_column_change_no_bit_of_a_dot_product(dtype):
    for size in (1, 7, 8, 20, 33, 64):
        a, b = (RNG.normal(size=(2, *s)).astype(dtype) for s in ((3, size), (size, 1)))
        longer = np.zeros((2, 3, size + 45), dtype), np.zeros((2, size + 45, 1), dtype)
        longer[0][:, :, :size], longer[1][:, :size] = a, b
        y = compute("matmul_forward", dtype, {"y": (2, 3, 1)}, a=a, b=b)["y"]
        z = compute("matmul_forward", dtype, {"y": (2, 3, 1)}, a=longer[0], b=longer[1])["y"]
        np.testing.assert_array_equal(y, z)


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 16, 23])
@pytest.mark.parametrize("columns", [2, 5, 8, 33])
def test_transposes_of_any_size_and_in_any_parts(rows, columns):
    """Eight rows are copied at once where there are so many, in an axis and in a worker's part."""
    x = np.random.default_rng(0).normal(size=(3, columns, rows)).astype(np.float32)
    extents, strides = np.array([3, rows]), np.array([columns * rows, 1])
    given = dict(extents=extents, strides=strides, begin=0, step=rows)
    for cut in {0, 1, min(5, 3 * rows), 3 * rows - 1}:
        y = np.full((3 * rows, columns), np.nan, np.float32)
        for lo, hi in ((0, cut), (cut, 3 * rows)):
            call(KERNELS["copy_strided"], lo, hi, x=x.ravel(), y=y, **given)
        np.testing.assert_array_equal(y.reshape(3, rows, columns), x.transpose(0, 2, 1))
    y = np.full((2, 3 * rows * columns), np.nan, np.float32)
    twice = np.stack([x.ravel(), -x.ravel()])
    call(KERNELS["copy_strided_rows"], x=twice, y=y, **given, width=columns)
    want = x.transpose(0, 2, 1).ravel()
    np.testing.assert_array_equal(y, np.stack([want, -want]))
