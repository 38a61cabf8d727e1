"""Memory for programs and tables."""

from __future__ import annotations

from typing import Any

import numpy as np


def aligned_zeros(size: int, dtype: Any = np.uint8) -> np.ndarray:
    """An array of `size` elements that begins on a page boundary, filled with zeros."""
    item = np.dtype(dtype).itemsize
    raw = np.zeros(size * item + 4096, np.uint8)
    start = -raw.ctypes.data % 4096
    return raw[start : start + size * item].view(dtype)
