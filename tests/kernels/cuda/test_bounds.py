"""What follows updates, and noise on gradients, on CUDA against the CPU's kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.kernels.common import DTYPES
from tests.kernels.cuda.common import compute_both
from tests.kernels.test_step import block_of

SHAPES = [(1, 1), (3, 5), (17, 33)]
RNG = np.random.default_rng(0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_bounds(shape: tuple[int, int], dtype: Any) -> None:
    p, rates = RNG.standard_normal(shape), np.array([[1.0, 2.0], [0.5, 0.05]])
    for limit in (1.0, -1.0):  # a negative one: nothing is updated
        hyper = np.array([0.0, 1.0, limit, 1.0])
        found = compute_both(
            "shrink", dtype, {}, p=p, hyper=hyper, control=block_of(RUN_STEP=1), schedule=rates,
            group=1, l1=3.0,
        )["p"]  # fmt: skip
        assert (found == 0.0).any() == (limit > 0 and (np.abs(p) < 0.15).any())
        squares = (p**2).sum(1)
        compute_both("limit_rows", dtype, {}, p=p, squares=squares, hyper=hyper, limit=0.5)
        factors = compute_both(
            "column_factors", dtype, {"factors": shape[1:]}, p=p, limit=0.5
        )["factors"]  # fmt: skip
        found = compute_both("limit_columns", dtype, {}, p=p, factors=factors, hyper=hyper)["p"]
        assert limit < 0 or (np.sqrt((found**2).sum(0)) < 0.5 + 1e-6).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_noise(shape: tuple[int, int], dtype: Any) -> None:
    g, noise = RNG.standard_normal((2, *shape))
    for scale in (np.zeros(0), [0.5]):
        compute_both(
            "add_noise", dtype, {"y": shape}, g=g, noise=noise, scale=scale,
            control=block_of(STEP=5), eta=0.3, every=2,
        )  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
def test_shift(dtype: Any) -> None:
    p, shift, g = RNG.standard_normal((3, 3, 5))
    for step in (0, 1):
        compute_both(
            "shift_parameter", dtype, {"y": (3, 5)}, p=p, shift=shift, g=g,
            control=block_of(STEP=step),
        )  # fmt: skip
