"""Sums of a matrix over its rows or columns, in an order that depends on the sizes alone."""

from __future__ import annotations

from typing import Any

from ..cuda.device import block_number, block_sum, block_threads, cuda, power_of_2, row_launch
from ..cuda.device import thread_number as thread
from ..declare import ceil_div, cuda_kernel, helper
from ..simd import fma
from . import cpu

MOST = 1024  # threads of a block, at most


def columns_launch(rows: int, columns: int) -> tuple[int, tuple[int, int]]:
    """Blocks for columns that are reduced over all rows: x threads for neighbouring columns (32, or
    8, a sector of memory, where that gives few blocks), y threads that share the rows."""
    x = 32 if columns >= 32 * 128 else 8
    y = power_of_2(ceil_div(rows, 8), 32 // x, MOST // x)
    return ceil_div(columns, x), (x, y)


@helper
def column_total(x: Any, value: Any) -> Any:
    """The sum of the values of the block's threads with the same x, for those with y = 0: the upper
    half is added to the lower, again and again. All threads of the block have to call it."""
    shared = cuda.shared.array(1024, x.dtype)
    number = thread()
    shared[number] = value
    cuda.syncthreads()
    half = block_threads() >> 1
    while half >= cuda.blockDim.x:
        if number < half:
            shared[number] = shared[number] + shared[number + half]
        cuda.syncthreads()
        half = half >> 1
    return shared[number]


@cuda_kernel(like=cpu.sum_rows, launch=lambda s: columns_launch(s["N"], s["C"]))
def sum_rows(x, y):
    """y[c] = sum over n of x[n,c]: four interleaved sums a thread, then the threads of a column."""
    N, C = x.shape
    step = cuda.blockDim.y
    c = block_number() * cuda.blockDim.x + cuda.threadIdx.x
    p, q, r, s = 0.0, 0.0, 0.0, 0.0
    if c < C:
        n = int(cuda.threadIdx.y)
        while n + 3 * step < N:
            p += x[n, c]
            q += x[n + step, c]
            r += x[n + 2 * step, c]
            s += x[n + 3 * step, c]
            n += 4 * step
        while n < N:
            p += x[n, c]
            n += step
    value = column_total(x, (p + q) + (r + s))
    if cuda.threadIdx.y == 0 and c < C:
        y[c] = value


@cuda_kernel(like=cpu.sum_columns, launch=lambda s: row_launch(s["N"], s["C"]))
def sum_columns(x, y):
    """y[n] = sum over c of x[n,c]: a block for a row."""
    n = block_number()
    value = 0.0
    for c in range(thread(), x.shape[1], block_threads()):
        value += x[n, c]
    value = block_sum(value)
    if thread() == 0:
        y[n] = value


@cuda_kernel(like=cpu.dot_columns, launch=lambda s: row_launch(s["N"], s["C"]))
def dot_columns(a, b, y):
    """y[n] = sum over c of a[n,c]*b[n,c]: a block for a row."""
    n = block_number()
    value = 0.0
    for c in range(thread(), a.shape[1], block_threads()):
        value = fma(a[n, c], b[n, c], value)
    value = block_sum(value)
    if thread() == 0:
        y[n] = value
