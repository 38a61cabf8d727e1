"""Random numbers on CUDA are those of the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnn.kernels.random.cpu
import fastnn.kernels.random.cuda  # noqa: F401
from tests.kernels.common import DTYPES
from tests.kernels.cuda.common import compute_both, compute_cuda
from tests.kernels.test_random import as_signed, control_of, expected_uniform

SHAPES = [(1, 1), (2, 17), (3, 67)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_same_bits(shape: tuple[int, int], dtype: Any) -> None:
    x, control = np.random.default_rng(1).standard_normal(shape), control_of(3, 4)
    given = dict(control=control, stream=1)
    out = {"y": shape}
    compute_both("dropout", dtype, out, exact=True, x=x, keep=0.6, scale=1 / 0.6, **given)
    for rate in (0.0, 0.25, 0.4, 1.0):
        compute_both("dropout_at", dtype, out, exact=True, x=x, rate=[rate], **given)
    for alpha in (0.1, 1.0, 3.0):
        compute_both("mixing_share", dtype, {"share": (1,)}, alpha=alpha, **given)
    compute_both("uniform", dtype, out, exact=True, low=-2.0, high=3.0, **given)
    compute_both("normal", dtype, out, mean=1.0, std=2.0, **given)


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_follow_the_documented_rule(dtype: Any) -> None:
    seed, step, stream = 0x9ABCDEF012345678, 2**32 + 7, 5
    given = dict(control=control_of(as_signed(seed), step), low=0.0, high=1.0, stream=stream)
    y = compute_cuda("uniform", dtype, {"y": (3, 67)}, **given)["y"]
    np.testing.assert_array_equal(y.ravel(), expected_uniform(y.size, seed, step, stream))
