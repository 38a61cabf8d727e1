"""The square root of a mean of squares, as optimisers divide by it."""

from __future__ import annotations

from typing import Any

from fastnn.kernels.declare import helper
from fastnn.kernels.simd import maximum, pick, quick_sqrt


@helper
def root_of(squares: Any) -> Any:
    """The root of squares, at least that of the smallest normal number.

    Subnormal numbers are flushed to 0: squares of float32 gradients below 1e-19 are lost. Divided
    by their root alone (with an epsilon that is smaller still) a gradient would be a step of any
    size; so the step shrinks with the gradient instead. NaN stays NaN (second operand), and an
    estimated variance that rounding has made negative counts as 0.
    """
    tiny = pick(squares, 1.1754943508222875e-38, 2.2250738585072014e-308)
    return quick_sqrt(maximum(tiny, squares))
