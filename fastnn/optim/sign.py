"""Signs of numbers, for rules that look at nothing else of a gradient."""

from __future__ import annotations

from typing import Any

from fastnn.kernels.declare import helper
from fastnn.kernels.simd import fill_like, where


@helper
def sign(x: Any) -> Any:
    """1, -1, or x itself where it is 0 or NaN (so that a NaN isn't lost)."""
    return where(x > 0.0, fill_like(x, 1.0), where(x < 0.0, fill_like(x, -1.0), x))
