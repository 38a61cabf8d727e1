"""Passes over rows and columns of a parameter: sums over more than a few vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastnn import optim
from fastnn.kernels.declare import KERNELS
from fastnn.kernels.update.shared import SHARED
from fastnn.testing.kernels import call
from tests.kernels.common import DTYPES


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_of_squares(dtype: Any) -> None:
    """Of rows and of columns; gradients that a factor of 1 scales give the bits of those that are
    taken as they are, whichever vector a number lies in, and infinite ones too."""
    optim.Adafactor().kernels()
    g = np.random.default_rng(0).normal(size=(5, 157)).astype(dtype)
    g[1, 2], g[3, 156] = np.inf, -np.inf
    hyper, own = np.zeros(SHARED + 6, dtype), np.array([0.5], dtype)
    hyper[1:4] = 1.0, np.inf, 1.0
    found: dict[str, list[np.ndarray]] = {"rows": [], "columns": []}
    for scale in (None, np.ones(1, dtype)):
        sums, y = np.full(5, np.nan), np.full(157, np.nan, dtype)
        given = {"g": g, "hyper": hyper, "own": own, "scale": scale}
        call(KERNELS["adafactor_squares"], **given, s0=sums)
        call(KERNELS["square_columns"], **given, y=y)
        found["rows"].append(sums)
        found["columns"].append(y)
    squares = 0.5 * g.astype(np.float64) ** 2
    for (one, other), axis in zip(found.values(), (1, 0), strict=True):
        assert one.tobytes() == other.tobytes()
        np.testing.assert_allclose(one, squares.sum(axis), rtol=10 * np.finfo(dtype).eps)
