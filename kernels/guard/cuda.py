"""The guard: parameters stay finite (see `cpu.py`). On CUDA it looks at gradients themselves.

Updates copy what they change in a doubtful step (`update/cuda.py`). F words of the guard: flags,
set by any thread in any order and read by later launches. L words of the control block.
"""

from __future__ import annotations

from typing import Any

from ..control_block import BROKEN, DOUBT, LARGE, NOT_FINITE, SAVED, STOP
from ..cuda.device import ONE_THREAD, cast, cuda, flat, thread_number
from ..declare import ceil_div, cuda_kernel, helper
from ..simd import absolute
from . import cpu
from .shared import INFINITY, LARGEST

THREADS = 256


def _blocks(size: int) -> tuple[int, int]:
    return max(min(ceil_div(size, 4 * THREADS), 1024), 1), THREADS


@helper
def report(guard: Any, value: Any) -> None:
    """Tell the guard of a parameter that was written."""
    if guard.size > 0 and not absolute(value) < LARGEST:
        guard[LARGE] = 1
        if not absolute(value) < INFINITY:
            guard[BROKEN] = 1


@cuda_kernel(like=cpu.check_size, launch=lambda s: _blocks(s["N"] * s["C"]))
def check_size(x, guard, limit):
    top = cast(x, limit)
    for i in range(cuda.grid(1), x.size, cuda.gridsize(1)):
        if not absolute(flat(x)[i]) < top:
            guard[DOUBT] = 1


@cuda_kernel(like=cpu.latch, launch=lambda s: ONE_THREAD, one_block=True)
def latch(control, guard):
    if thread_number() == 0 and control[STOP] == 0:
        if guard[BROKEN] != 0:
            control[STOP] = NOT_FINITE
        else:
            guard[DOUBT] = guard[LARGE]
            guard[LARGE] = 0
            guard[SAVED] = 0
