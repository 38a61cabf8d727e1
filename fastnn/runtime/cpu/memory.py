"""Memory for programs and tables."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn.errors import OutOfMemoryError
from fastnn.plan.program import Program

#: the memory of a run: segment name -> array
Memory = dict[str, np.ndarray]


def aligned_zeros(size: int, dtype: Any = np.uint8) -> np.ndarray:
    """An array of `size` elements that begins on a page boundary, filled with zeros.

    Raises OutOfMemoryError where there is not as much.
    """
    item = np.dtype(dtype).itemsize
    try:
        raw = np.zeros(size * item + 4096, np.uint8)
    except (MemoryError, ValueError) as error:  # ValueError: more than can be counted
        raise OutOfMemoryError(
            f"the machine is out of memory: {size * item:,} bytes were requested; use a smaller "
            "model, a smaller batch_size or shorter sequences"
        ) from error
    start = -raw.ctypes.data % 4096
    return raw[start : start + size * item].view(dtype)


def constants_of(program: Program) -> np.ndarray:
    """The contents of the constant segment."""
    constants = aligned_zeros(-(-program.sizes["constant"] // 8) * 8)
    for offset, data in program.constants:
        constants[offset : offset + data.nbytes] = np.ascontiguousarray(data).reshape(-1).view("u1")
    return constants


def in_words(data: np.ndarray) -> np.ndarray:
    """The bytes of an array as int64 words, filled up with zeros."""
    words = np.zeros(-(-data.nbytes // 8), np.int64)
    words.view(np.uint8)[: data.nbytes] = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    return words
