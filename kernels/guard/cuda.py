"""The guard: parameters stay finite (see `cpu.py`). On CUDA it looks at gradients themselves.

Updates of one call copy what they change in a doubtful step (`update/cuda.py`). F words of the
guard: flags, set by any thread in any order and read by later launches. P elements of a segment, S
steps and G groups of the schedule, L words of the control block.
"""

from __future__ import annotations

from typing import Any

from ..control_block import BROKEN, DOUBT, LARGE, NOT_FINITE, SAVED, STOP
from ..cuda.device import ONE_THREAD, cast, cuda, flat, thread_number
from ..declare import ceil_div, cuda_kernel, helper
from ..simd import absolute
from . import cpu
from .shared import INFINITY, LARGEST, doubtful

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


@helper
def copy(x: Any, saved: Any) -> None:
    """saved = x, both flat, by all threads of the grid."""
    for i in range(cuda.grid(1), saved.shape[0], cuda.gridsize(1)):
        saved[i] = x[i]


@cuda_kernel(like=cpu.safeguard, launch=lambda s: _blocks(s["P"]))
def safeguard(
    control, schedule, guard, x, saved, slot1, saved1, slot2, saved2, slot3, saved3, always
):
    """Copies for the updates that are made in passes, and copy nothing themselves."""
    if control[STOP] != 0:  # what lies there is needed
        return
    doubt = doubtful(control, schedule, guard, always)
    if doubt:
        if cuda.grid(1) == 0:
            guard[SAVED] = 1
        copy(x, saved)
        copy(slot1, saved1)
        copy(slot2, saved2)
        copy(slot3, saved3)


@cuda_kernel(like=cpu.latch, launch=lambda s: ONE_THREAD, one_block=True)
def latch(control, guard):
    if thread_number() == 0 and control[STOP] == 0:
        if guard[BROKEN] != 0:
            control[STOP] = NOT_FINITE
        else:
            guard[DOUBT] = guard[LARGE]
            guard[LARGE] = 0
            guard[SAVED] = 0
