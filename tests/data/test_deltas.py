"""How features change over time, and features scaled to mean 0 and deviation 1."""

import numpy as np
import pytest

from fastnn.data.audio import (
    Normaliser,
    deltas,
    normalise,
    with_deltas,
)
from fastnn.errors import DataError


@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_deltas(width, count):
    x = np.random.default_rng(0).normal(size=(count, 3)).astype(np.float32)
    expected = np.zeros((count, 3))
    for t in range(count):
        for n in range(1, width + 1):
            expected[t] += n * (x[min(t + n, count - 1)] - x[max(t - n, 0)])
    expected /= 2 * sum(n * n for n in range(1, width + 1))
    np.testing.assert_allclose(deltas(x, width), expected, rtol=1e-5, atol=1e-6)


def test_deltas_of_a_line():
    x = 3 * np.arange(20.0)[:, None] + 1
    np.testing.assert_allclose(deltas(x)[2:-2], 3, rtol=1e-6)
    full = with_deltas(x)
    assert full.dtype == np.float32
    np.testing.assert_allclose(full[4:-4], np.hstack([x[4:-4], 0 * x[4:-4] + 3, 0 * x[4:-4]]))
    assert with_deltas(x, order=0).shape == (20, 1)


def test_normalise():
    x = np.random.default_rng(0).normal([5, -100, 1e-4], [2, 0.1, 1e-5], (50, 3))
    found = normalise(x)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(found.std(axis=0), 1, rtol=1e-3)
    np.testing.assert_allclose(normalise(x, variance=False), x - x.mean(axis=0), atol=1e-4)


def test_what_does_not_change_becomes_zero():
    found = normalise(np.full((5, 2), [0.1, 0.0]))
    np.testing.assert_allclose(found, 0, atol=1e-6)


def test_normalise_globally():
    rng = np.random.default_rng(0)
    utterances = [rng.normal(7, 3, (n, 4)).astype(np.float32) for n in (3, 40, 20)]
    normaliser = Normaliser.fit(utterances)
    together = np.concatenate([normaliser(u) for u in utterances])
    np.testing.assert_allclose(together.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(together.std(axis=0), 1, rtol=1e-5)
    with pytest.raises(DataError, match="expected 4 features, got shape"):
        normaliser(np.zeros((3, 5)))
    with pytest.raises(DataError, match="at least one frame"):
        Normaliser.fit([])
