"""Softmax and its logarithm over the last dimension on CUDA.

N rows, C classes. Global memory is read once and written once: in between a row is kept in shared
memory (or, where it is too long for that, in the output).

Short rows have a warp each, long ones a whole block (`row_place` says which): its threads take the
columns `first`, `first + step` and so on, and `row_sum` and `row_max` combine what they have found.
"""

from __future__ import annotations

from typing import Any

from ..cuda.device import cuda, flat
from ..cuda.rows import row_max, row_place, row_sum, rows_launch, rows_shared
from ..declare import cuda_kernel, helper
from ..scalar import exp, log
from ..simd import fma, maximum
from ..vector_math import INFINITY
from . import cpu

ROWS = {"launch": rows_launch, "shared": rows_shared, "bounds": 1024}


@helper
def row_top(x: Any, keep: Any, base: int, at: int, copies: bool, place: tuple) -> Any:
    """The largest element of a row that is not NaN (-inf where there is none); copies the row to
    `keep`, unless it is there."""
    narrow, _, first, step, size, _ = place
    high = -INFINITY
    j = first
    while j < size:
        v = x[base + j]
        if copies:
            keep[at + j] = v
        high = maximum(v, high)
        j += step
    return row_max(high, narrow)


@helper
def row_exp(keep: Any, at: int, shift: Any, place: tuple) -> Any:
    """keep = exp(keep - shift) over a row, and its sum."""
    narrow, _, first, step, size, _ = place
    total = 0.0
    j = first
    while j < size:
        e = exp(keep[at + j] - shift)
        keep[at + j] = e
        total += e
        j += step
    return row_sum(total, narrow)


@helper
def row_exp_sum(keep: Any, at: int, shift: Any, place: tuple) -> Any:
    """The sum of exp(keep - shift) over a row."""
    narrow, _, first, step, size, _ = place
    total = 0.0
    j = first
    while j < size:
        total += exp(keep[at + j] - shift)
        j += step
    return row_sum(total, narrow)


@helper
def softmax_row(x: Any, y: Any, keep: Any, at: int, base: int, place: tuple) -> None:
    """y = softmax of the row that begins at `base`; meanwhile it is in `keep` from `at` on."""
    _, _, first, step, size, _ = place
    scale = 1.0 / row_exp(keep, at, row_top(x, keep, base, at, True, place), place)
    j = first
    while j < size:
        y[base + j] = keep[at + j] * scale
        j += step


@cuda_kernel(like=cpu.softmax_forward, **ROWS)
def softmax_forward(x, y):
    N, C = x.shape
    memory = cuda.shared.array(0, x.dtype)
    place = row_place(N, C)
    base = place[1] * C
    if memory.size >= C:
        softmax_row(flat(x), flat(y), memory, place[5], base, place)
    else:
        softmax_row(flat(x), flat(y), flat(y), base, base, place)


@cuda_kernel(like=cpu.softmax_backward, launch=rows_launch, bounds=1024)
def softmax_backward(y, dy, dx):
    N, C = y.shape
    narrow, row, first, step, size, _ = row_place(N, C)
    base = row * C
    p, g, out = flat(y), flat(dy), flat(dx)
    total = 0.0
    j = first
    while j < size:
        total = fma(p[base + j], g[base + j], total)
        j += step
    total = row_sum(total, narrow)
    j = first
    while j < size:
        out[base + j] = p[base + j] * (g[base + j] - total)
        j += step


@helper
def log_softmax_row(x: Any, y: Any, keep: Any, at: int, base: int, place: tuple) -> None:
    """y = the logarithm of softmax of the row that begins at `base`, kept likewise."""
    _, _, first, step, size, _ = place
    shift = row_top(x, keep, base, at, True, place)
    log_sum = log(row_exp_sum(keep, at, shift, place))
    j = first
    while j < size:
        y[base + j] = keep[at + j] - shift - log_sum
        j += step


@cuda_kernel(like=cpu.log_softmax_forward, **ROWS)
def log_softmax_forward(x, y):
    N, C = x.shape
    memory = cuda.shared.array(0, x.dtype)
    place = row_place(N, C)
    base = place[1] * C
    if memory.size >= C:
        log_softmax_row(flat(x), flat(y), memory, place[5], base, place)
    else:
        log_softmax_row(flat(x), flat(y), flat(y), base, base, place)


@cuda_kernel(like=cpu.log_softmax_backward, launch=rows_launch, bounds=1024)
def log_softmax_backward(y, dy, dx):
    N, C = y.shape
    narrow, row, first, step, size, _ = row_place(N, C)
    base = row * C
    p, g, out = flat(y), flat(dy), flat(dx)
    total = 0.0
    j = first
    while j < size:
        total += g[base + j]
        j += step
    total = row_sum(total, narrow)
    j = first
    while j < size:
        out[base + j] = g[base + j] - exp(p[base + j]) * total
        j += step
