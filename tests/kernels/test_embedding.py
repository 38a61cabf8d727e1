"""Rows of a table by id."""

import numpy as np
import pytest

import fastnn.kernels.embedding.cpu  # noqa: F401
from tests import naive
from tests.kernels.common import DTYPES, EDGES, close, compute


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("C", EDGES)
def test_forward(C, dtype):
    rng = np.random.default_rng(1)
    table = rng.standard_normal((9, C)).astype(dtype)
    ids = rng.integers(0, 9, 20)
    y = compute("embedding_forward", dtype, {"y": (20, C)}, ids=ids, table=table)["y"]
    np.testing.assert_array_equal(y, naive.embedding(ids, table))


@pytest.mark.parametrize("wrong", [-1, 9, 2**40])
def test_an_id_outside_the_table_gives_nan(wrong):
    table = np.ones((9, 20))
    ids = np.array([0, wrong, 8])
    y = compute("embedding_forward", np.float32, {"y": (3, 20)}, ids=ids, table=table)["y"]
    assert np.isnan(y[1]).all()
    np.testing.assert_array_equal(y[[0, 2]], 1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("C", EDGES)
@pytest.mark.parametrize("padding", [-1, 3])
def test_backward(padding, C, dtype):
    rng = np.random.default_rng(2)
    V, N = 7, 40
    ids = rng.integers(0, V, N)
    ids[ids == 5] = 4  # a row that is never used
    dy = rng.standard_normal((N, C)).astype(dtype)
    got = compute(
        "embedding_backward", dtype, {"dtable": (V, C)}, ids=ids, dy=dy, padding_index=padding
    )["dtable"]
    want = np.zeros((V, C))
    for n, row in enumerate(ids):
        want[row] += dy[n] * (row != padding)
    close(got, want, dtype)
    assert not got[5].any()


def test_gradient():
    rng = np.random.default_rng(3)
    ids = rng.integers(0, 5, 12)
    table, dy = rng.standard_normal((5, 3)), rng.standard_normal((12, 3))
    got = compute(
        "embedding_backward", np.float64, {"dtable": (5, 3)}, ids=ids, dy=dy, padding_index=-1
    )["dtable"]
    want = naive.numeric_gradient(lambda t: naive.embedding(ids, t), table, dy)
    np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-8)
