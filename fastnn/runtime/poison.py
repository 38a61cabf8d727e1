"""A mode for tests: before each step, memory that it may read only after writing holds NaN.

`FASTNN_POISON=1` turns it on (fastnn's own tests run with it): work and local memory, the gradients
that the step writes and the rows of predictions are filled with a pattern that is a signalling NaN
in either float type and an absurd number as an integer. So a call that reads what nobody wrote
shows in the results, instead of finding what an earlier step left there. Programs are the same
otherwise; where the mode is off, nothing of it is in them.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from fastnn.kernels.declare import Array, declared
from fastnn.plan.program import Operand, Program

#: NaN as a float64, and each half as a float32; 9.2e18 as an integer
WORD = 0x7FF7FFFF7FBFFFFF


def enabled() -> bool:
    return os.environ.get("FASTNN_POISON", "0") not in ("", "0")


def fill(array: np.ndarray) -> None:
    """Fill an array (C-contiguous) now."""
    raw = array.reshape(-1).view(np.uint8)
    whole = raw.size // 8 * 8
    raw[:whole].view(np.int64)[:] = WORD
    raw[whole : raw.size // 4 * 4].view(np.int32)[:] = WORD & 0xFFFFFFFF


def spans(program: Program) -> list[tuple[str, int, int]]:
    """What a step writes before it reads it: segment, first byte, number of bytes."""
    found = {("work", 0, program.sizes["work"])}
    item = np.dtype(program.dtype).itemsize
    for call in program.calls():
        kernel: Any = declared(call.kernel)
        for parameter, operand in zip(kernel.params.values(), call.operands, strict=True):
            if not (isinstance(parameter, Array) and isinstance(operand, Operand)):
                continue
            if operand.segment == "grads" and parameter.writes:
                size = int(np.prod(operand.dims, dtype=np.int64)) * item
                found.add(("grads", operand.offset, size))
    return sorted(span for span in found if span[2] >= 8)
