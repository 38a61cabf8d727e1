"""Embeddings, feeding, metrics and the kernels around a step on CUDA."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastnn.kernels import control_block
from fastnn.kernels.declare import CUDA_KERNELS
from fastnn.testing.kernels import call_cuda
from tests.kernels.common import DTYPES, close
from tests.kernels.cuda.common import compute_both, compute_cuda
from tests.kernels.test_step import block_of

ONE = {"y": (1,)}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("C", [1, 8, 17, 33])
def test_embedding(C: int, dtype: Any) -> None:
    rng = np.random.default_rng(1)
    table, ids = rng.random((9, C)), rng.integers(0, 9, 40)
    ids[ids == 5] = 4  # a row that is never used
    dy = rng.random((40, C))
    for padding in (-1, 3):
        given = dict(ids=ids, dy=dy, padding_index=padding)
        got = compute_both("embedding_backward", dtype, {"dtable": (9, C)}, exact=True, **given)
        assert not got["dtable"][5].any()
    ids[:3] = -1, 9, 2**40
    y = compute_both("embedding_forward", dtype, {"y": (40, C)}, ids=ids, table=table)["y"]
    assert np.isnan(y[:3]).all()
    assert not np.isnan(y[3:]).any()


@pytest.mark.parametrize(("N", "C", "bad"), [(1, 5, 7), (9, 33, 40), (9, 3, -1), (131, 2, 2**40)])
def test_the_gradient_of_a_table_of_many_rows(N: int, C: int, bad: int) -> None:
    """The bits of the kernel that looks at every row of the table."""
    rng = np.random.default_rng(1)
    V = 40
    ids, dy = rng.integers(0, 9, N), rng.random((N, C)).astype(np.float32)
    ids[N // 2], ids[0] = V - 1, bad
    given = dict(ids=ids, dy=dy, padding_index=5)
    want = np.zeros((V, C), np.float32)
    for n, row in enumerate(ids):
        if 0 <= row < V and row != 5:
            want[row] += dy[n]
    zeros = np.zeros((V, C))
    got = compute_cuda("embedding_backward_occurring", np.float32, {}, dtable=zeros, **given)
    assert got["dtable"].tobytes() == want.tobytes()
    assert want.any()


@pytest.mark.parametrize("C", [1, 8, 33])
def test_full(C: int) -> None:
    for dtype in DTYPES:
        y = compute_both("full", dtype, {"y": (7, C)}, exact=True, number=-0.5)["y"]
        np.testing.assert_array_equal(y, np.full((7, C), -0.5))


@pytest.mark.parametrize("source_type", ["float32", "float64", "uint8", "int16", "int64", "bool"])
def test_gather(source_type: str) -> None:
    rng = np.random.default_rng(2)
    source = (100 * rng.standard_normal((20, 5))).astype(np.int64).astype(source_type)
    given = dict(source=source, order=rng.permutation(20), control=block_of(CURSOR=7))
    for dtype in DTYPES:
        y = compute_both("gather_rows", dtype, {"y": (11, 5)}, exact=True, **given)["y"]
        np.testing.assert_array_equal(y, source[given["order"][7:18]].astype(dtype))
    if not source_type.startswith("float"):
        compute_both("gather_ids", np.float32, {"y": (11, 5)}, exact=True, **given)


@pytest.mark.parametrize("kind", ["rows", "ids"])
def test_scatter(kind: str) -> None:
    x, y = 100 * np.random.default_rng(3).random((6, 17)), np.full((20, 17), 7.0)
    if kind == "ids":
        x, y = x.astype(np.int64), y.astype(np.int64)
    call_cuda(CUDA_KERNELS[f"scatter_{kind}"], x=x, control=block_of(CURSOR=9), y=y)
    np.testing.assert_array_equal(y[9:15], x)
    np.testing.assert_array_equal(y[:9], 7)
    np.testing.assert_array_equal(y[15:], 7)


@pytest.mark.parametrize(("wrong", "stop"), [(7, 0), (-5, 0), (-1, 1), (10, 1)])
@pytest.mark.parametrize("place", [0, 39])
def test_check_range(place: int, wrong: int, stop: int) -> None:
    ids = np.arange(40) % 10
    ids[place] = wrong
    given = dict(ids=ids, control=block_of(STEP=2), low=0, high=10, ignored=-5)
    got = compute_both("check_range", np.float32, {}, exact=True, **given)["control"]
    assert got[control_block.STOP] == stop * control_block.OUT_OF_RANGE


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("N", [1, 2, 17, 33, 200])
def test_sums_of_the_batch(N: int, dtype: Any) -> None:
    rng = np.random.default_rng(4)
    x, weight = rng.standard_normal(N), rng.random(N) + 0.5
    for name in ("total", "mean"):
        compute_both(name, dtype, ONE, x=x)
        dx = compute_both(f"{name}_backward", dtype, {"dx": (N,)}, dy=[1.7])["dx"]
        close(dx, np.full(N, 1.7 / (N if name == "mean" else 1)), dtype)
    out = {"y": (1,), "denominator": (1,)}
    divisor = compute_both("weighted_mean", dtype, out, x=x, weight=weight)["denominator"]
    given = dict(denominator=divisor, dy=[1.7])
    compute_both("weighted_mean_backward", dtype, {"dx": (N,)}, exact=True, **given)
    compute_both("accumulate_rows", dtype, {}, x=x, total=[3.0, 10.0])
    compute_both("accumulate_pair", dtype, {}, x=x, y=weight, total=[3.0, 10.0])
    weight[::3], x[::3] = 0.0, np.nan
    compute_both("accumulate_weighted", dtype, {}, x=x, weight=weight, total=[3.0, 10.0])
    for name, given in (
        ("weighted_mean", dict(x=np.zeros(N), weight=np.zeros(N))),
        ("weighted_mean_backward", dict(denominator=[0.0], dy=[1.7])),
    ):
        shapes = out if name == "weighted_mean" else {"dx": (N,)}
        got = compute_both(name, dtype, shapes, exact=True, **given)
        assert not any(got[key].any() for key in shapes)
    partial = rng.random(N)
    compute_both("norm_sum", dtype, {"after": (1,)}, partial=partial, before=[2.0])


def test_sums_are_float64_inside() -> None:
    x = np.full(2001, 0.1, np.float32)
    x[0] = 1e6
    got = compute_cuda("total", np.float32, ONE, x=x)["y"]
    assert got[0] == np.float32(x.astype(np.float64).sum())


@pytest.mark.parametrize("dtype", DTYPES)
def test_small_ones(dtype: Any) -> None:
    total = [3.0, 10.0]
    compute_both("accumulate", dtype, {}, exact=True, value=[0.5], total=total, count=4)
    compute_both("accumulate_by", dtype, {}, exact=True, value=[0.5], total=total, count=[2.5])
    for norm in (0.0, 0.3, 7.0):
        compute_both("clip_scale", dtype, {"scale": (1,)}, exact=True, total=[norm], limit=0.8)
    for value in (0.0, 1e30, np.nan, np.inf, -np.inf):
        given = dict(value=[1.0, value], control=block_of(STEP=3))
        got = compute_both("check_finite", dtype, {}, exact=True, **given)["control"]
        assert got[control_block.STOP] == (0 if np.isfinite(value) else control_block.NOT_FINITE)
    for before in ({}, {"STOP_REQUEST": 1}):
        start = block_of(STEP=5, RUN_STEP=2, CURSOR=64, SEED=9, **before)
        compute_both("advance", dtype, {}, exact=True, control=start, batch=32)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("C", [1, 17, 33, 300])
def test_squared_norm(C: int, dtype: Any) -> None:
    compute_both("squared_norm", dtype, {"y": (3,)}, x=np.random.default_rng(5).random((3, C)))


def test_squared_norm_of_large_numbers() -> None:
    x = np.full((2, 40), 1e30)
    x[1, 5] = np.nan
    compute_both("squared_norm", np.float32, {"y": (2,)}, x=x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("C", [1, 2, 31, 33])
def test_metrics(C: int, dtype: Any) -> None:
    rng = np.random.default_rng(C)
    x = rng.integers(0, 4, (12, C)).astype(dtype)  # ties everywhere
    x[0, 0] = np.nan
    target = np.where(rng.random(12) < 0.5, x.argmax(1), rng.integers(0, C, 12))
    target[1:3] = -100, C
    out = {"hit": (12,)}
    compute_both("largest", dtype, {"y": out["hit"]}, exact=True, x=x)
    got = compute_both("accuracy", dtype, out, exact=True, x=x, target=target)["hit"]
    np.testing.assert_array_equal(got[3:], (x.argmax(1) == target)[3:])
    for k in (1, 3):
        compute_both("top_k", dtype, out, exact=True, x=x, target=target, k=k)
    ones = rng.integers(0, 2, (12, C))
    compute_both("binary_accuracy", dtype, out, x=x, target=ones, threshold=2.0)
