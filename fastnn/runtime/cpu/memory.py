"""Memory for programs and tables."""

from __future__ import annotations

import numpy as np

from fastnn.plan.program import Program
from fastnn.runtime.segment import aligned_zeros

#: the memory of a run: segment name -> array
Memory = dict[str, np.ndarray]


def constants_of(program: Program) -> np.ndarray:
    """The contents of the constant segment."""
    constants = aligned_zeros(-(-program.sizes["constant"] // 8) * 8)
    for offset, data in program.constants:
        constants[offset : offset + data.nbytes].view(data.dtype)[:] = data.reshape(-1)
    return constants


def in_words(data: np.ndarray) -> np.ndarray:
    """The bytes of an array as int64 words, filled up with zeros."""
    words = np.zeros(-(-data.nbytes // 8), np.int64)
    words.view(np.uint8)[: data.nbytes] = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    return words
