"""The square root of a mean of squares, as optimisers divide by it."""

from __future__ import annotations

from typing import Any

from fastnn.kernels.declare import helper
from fastnn.kernels.simd import fma, maximum, pick, twice_sqrt


@helper
def twice_root(squares: Any) -> Any:
    """Twice the root of squares, at least twice that of the smallest normal number.

    Subnormal numbers are flushed to 0: squares of float32 gradients below 1e-19 are lost. Divided
    by their root alone (with an epsilon that is smaller still) a gradient would be a step of any
    size; so the step shrinks with the gradient instead. NaN stays NaN (second operand), an
    estimated variance that rounding has made negative counts as 0, and infinity stays infinite.
    """
    tiny = pick(squares, 1.1754943508222875e-38, 2.2250738585072014e-308)
    return twice_sqrt(maximum(tiny, squares))


@helper
def over_root(a: Any, squares: Any, factor: Any, eps: Any) -> Any:
    """a / (factor * root of squares + eps), the root as in `twice_root`; 0 for infinite squares."""
    return a / fma(twice_root(squares), 0.5 * factor, eps)
