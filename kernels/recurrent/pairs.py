"""Weights in pairs of bfloat16 numbers, as `cpu_row.multiply_pairs` reads them."""

from __future__ import annotations

import numpy as np

from ..rounding import round_bf16
from .shared import PAIRED


def in_pairs(weight: np.ndarray) -> np.ndarray | None:
    """A weight's columns, `PAIRED` at a time, as half as many words: of a group's first half in the
    upper halves of words, of its second half in the lower ones. None where a number is not finite
    in bfloat16."""
    rounded = round_bf16(np.ascontiguousarray(weight, np.float32))
    if not np.isfinite(rounded).all():
        return None
    rows, columns = rounded.shape
    halves = rounded.view(np.uint32).reshape(rows, columns // PAIRED, 2, PAIRED // 2)
    words = halves[:, :, 0] | halves[:, :, 1] >> np.uint32(16)
    return words.reshape(rows, columns // 2).view(np.float32)
