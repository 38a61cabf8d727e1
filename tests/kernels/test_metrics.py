"""Accuracy and its relatives."""

import numpy as np
import pytest

import fastnn.kernels.metrics.cpu  # noqa: F401
from tests.kernels.common import DTYPES, EDGES, compute


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("C", EDGES)
def test_accuracy(C, dtype):
    rng = np.random.default_rng(C)
    x = rng.integers(0, 4, (40, C)).astype(dtype)  # ties everywhere
    target = np.where(rng.random(40) < 0.5, x.argmax(1), rng.integers(0, C, 40))
    hit = compute("accuracy", dtype, {"hit": (40,)}, x=x, target=target)["hit"]
    np.testing.assert_array_equal(hit, x.argmax(1) == target)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("C", EDGES)
@pytest.mark.parametrize("k", [1, 3])
def test_top_k(k, C, dtype):
    rng = np.random.default_rng(C)
    x = rng.integers(0, 4, (40, C)).astype(dtype)
    target = rng.integers(0, C, 40)
    hit = compute("top_k", dtype, {"hit": (40,)}, x=x, target=target, k=k)["hit"]
    best = np.argsort(-x, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(hit, (best == target[:, None]).any(1))


def test_what_is_no_hit():
    x = np.array([[1.0, np.nan], [1.0, 2.0], [1.0, 2.0]])
    target = np.array([1, -100, 2])
    for name, more in (("accuracy", {}), ("top_k", {"k": 2})):
        hit = compute(name, np.float64, {"hit": (3,)}, x=x, target=target, **more)["hit"]
        np.testing.assert_array_equal(hit, 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("C", EDGES)
def test_binary_accuracy(C, dtype):
    rng = np.random.default_rng(C)
    x, target = rng.standard_normal((9, C)), rng.integers(0, 2, (9, C))
    given = dict(x=x, target=target, threshold=0.25)
    hit = compute("binary_accuracy", dtype, {"hit": (9,)}, **given)["hit"]
    want = ((x.astype(dtype) > 0.25) == (target == 1)).mean(1)
    np.testing.assert_allclose(hit, want, rtol=1e-6)


def test_an_output_at_the_threshold_is_not_above_it():
    given = dict(x=np.full((2, 1), 0.5), target=np.array([[0.0], [1.0]]), threshold=0.5)
    hit = compute("binary_accuracy", np.float64, {"hit": (2,)}, **given)["hit"]
    np.testing.assert_array_equal(hit, [1, 0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("C", [1, 2, 5, 17, 33])
def test_largest(C, dtype):
    x = np.random.default_rng(3).integers(0, 4, (40, C)).astype(dtype)  # with ties
    np.testing.assert_array_equal(compute("largest", dtype, {"y": (40,)}, x=x)["y"], x.argmax(1))
    x[3, C // 2] = np.nan
    assert compute("largest", dtype, {"y": (40,)}, x=x)["y"][3] == -1
