"""Sums over the batch, running totals, and the end of a step. Most are launches of one block.

N numbers, one a row; U = 1 (a number that other kernels read); T = 2: a running sum and its count;
L words of the clock. Sums are kept in float64.
"""

import math

import numpy as np

from ..clock import CURSOR, NOT_FINITE, REQUESTED, RUN_STEP, STEP, STOP, STOP_REQUEST
from ..cpu.simd import fma
from ..declare import ceil_div, cuda_kernel, helper
from .device import (
    ONE_THREAD,
    WARP,
    block_number,
    block_sum,
    block_threads,
    cast,
    cuda,
    flat_index,
    fours_launch,
    power_of_2,
    row_launch,
    thread_number,
)


def sum_launch(count: int) -> tuple[int, int]:
    """One block, for a sum of so many numbers."""
    return 1, power_of_2(ceil_div(count, 4), WARP, 1024)


@helper
def sum_of(x):
    """Sum of a one-dimensional array in float64, for every thread of the (only) block."""
    value = np.float64(0.0)
    for i in range(thread_number(), x.shape[0], block_threads()):
        value += np.float64(x[i])
    return block_sum(value)


@cuda_kernel(launch=lambda s: (ceil_div(s["N"], 256), 256))
def fill(memory: "out whole i[N]", word: "int"):
    """Every word of memory = word."""
    i = flat_index()
    if i < memory.shape[0]:
        memory[i] = word


@cuda_kernel(launch=lambda s: sum_launch(s["N"]))
def total(x: "in whole f[N]", y: "out whole f[U]"):
    """y = sum(x)."""
    value = sum_of(x)
    if thread_number() == 0:
        y[0] = value


@cuda_kernel(launch=lambda s: fours_launch(4 * s["N"]))
def total_backward(dy: "in whole f[U]", dx: "out rows f[N]"):
    """dx[n] = dy."""
    i = flat_index()
    if i < dx.shape[0]:
        dx[i] = dy[0]


@cuda_kernel(launch=lambda s: sum_launch(s["N"]))
def mean(x: "in whole f[N]", y: "out whole f[U]"):
    """y = sum(x) / N."""
    value = sum_of(x)
    if thread_number() == 0:
        y[0] = value / x.shape[0]


@cuda_kernel(launch=lambda s: fours_launch(4 * s["N"]))
def mean_backward(dy: "in whole f[U]", dx: "out rows f[N]"):
    """dx[n] = dy / N."""
    i = flat_index()
    if i < dx.shape[0]:
        dx[i] = dy[0] / cast(dx, dx.shape[0])


@cuda_kernel(launch=lambda s: sum_launch(s["N"]))
def weighted_mean(
    x: "in whole f[N]",  # values that have their weights in them
    weight: "in whole f[N]",
    y: "out whole f[U]",
    denominator: "out whole f[U]",
):
    """y = sum(x) / denominator, denominator = sum(weight); 0 where nothing counts (0 / 0)."""
    divisor, value = sum_of(weight), sum_of(x)
    if thread_number() == 0:
        denominator[0] = divisor
        if divisor == 0.0 and value == 0.0:
            y[0] = 0.0
        else:
            y[0] = value / divisor


@cuda_kernel(launch=lambda s: fours_launch(4 * s["N"]))
def weighted_mean_backward(denominator: "in whole f[U]", dy: "in whole f[U]", dx: "out rows f[N]"):
    """dx[n] = dy / denominator; 0 where nothing counts."""
    i = flat_index()
    if i < dx.shape[0]:
        divisor = denominator[0]
        dx[i] = dy[0] / divisor if divisor != 0.0 else cast(dx, 0.0)


@cuda_kernel(launch=lambda s: ONE_THREAD)
def accumulate(value: "in whole f[U]", total: "inout whole r[T]", count: "int"):
    """total[0] += value count; total[1] += count: the mean over an epoch of means over batches."""
    if thread_number() == 0:
        total[0] += np.float64(value[0]) * count
        total[1] += count


@cuda_kernel(launch=lambda s: ONE_THREAD)
def accumulate_by(value: "in whole f[U]", count: "in whole f[U]", total: "inout whole r[T]"):
    """Like `accumulate`, where the count (a sum of weights) is known only in the step."""
    if thread_number() == 0:
        total[0] += np.float64(value[0]) * np.float64(count[0])
        total[1] += np.float64(count[0])


@cuda_kernel(launch=lambda s: sum_launch(s["N"]))
def accumulate_rows(x: "in whole f[N]", total: "inout whole r[T]"):
    """total[0] += sum(x); total[1] += N."""
    value = sum_of(x)
    if thread_number() == 0:
        total[0] += value
        total[1] += x.shape[0]


@cuda_kernel(launch=lambda s: sum_launch(s["N"]))
def accumulate_weighted(x: "in whole f[N]", weight: "in whole f[N]", total: "inout whole r[T]"):
    """total[0] += sum(weight x); total[1] += sum(weight). What weighs 0 may be NaN in x."""
    value = np.float64(0.0)
    for i in range(thread_number(), x.shape[0], block_threads()):
        if weight[i] != 0.0:
            value += np.float64(weight[i]) * np.float64(x[i])
    value = block_sum(value)
    count = sum_of(weight)
    if thread_number() == 0:
        total[0] += value
        total[1] += count


@cuda_kernel(launch=lambda s: sum_launch(s["N"]))
def accumulate_pair(x: "in whole f[N]", y: "in whole f[N]", total: "inout whole r[T]"):
    """total[0] += sum(x); total[1] += sum(y)."""
    value, count = sum_of(x), sum_of(y)
    if thread_number() == 0:
        total[0] += value
        total[1] += count


@cuda_kernel(launch=lambda s: row_launch(s["R"], s["C"]))
def squared_norm(x: "in rows f[R,C]", y: "out rows r[R]"):
    """y[r] = sum of the squares of row r, in float64: a block for a row."""
    r = block_number()
    value = np.float64(0.0)
    for c in range(thread_number(), x.shape[1], block_threads()):
        v = np.float64(x[r, c])
        value = fma(v, v, value)
    value = block_sum(value)
    if thread_number() == 0:
        y[r] = value


@cuda_kernel(launch=lambda s: sum_launch(s["R"]))
def add_norm(partial: "in whole r[R]", total: "inout whole r[U]"):
    """total += sum(partial): the squared norm of all gradients, array after array."""
    value = sum_of(partial)
    if thread_number() == 0:
        total[0] += value


@cuda_kernel(launch=lambda s: ONE_THREAD)
def check_finite(value: "in whole f[U]", clock: "inout whole i[L]"):
    """Ask for the end of the run before parameters change, unless every value is finite."""
    wrong = 0
    for i in range(thread_number(), value.shape[0], block_threads()):
        if not math.isfinite(value[i]):
            wrong = 1
    if cuda.syncthreads_or(wrong) != 0 and thread_number() == 0:
        clock[STOP] = NOT_FINITE


@cuda_kernel(launch=lambda s: ONE_THREAD)
def advance(clock: "inout whole i[L]", batch: "int"):
    """The end of a step: next step, next batch; latch the host's request to stop.

    A step that was stopped, or comes after a stop, does not count: workers would have left it.
    """
    if thread_number() == 0 and clock[STOP] == 0:
        clock[STEP] += 1
        clock[RUN_STEP] += 1
        clock[CURSOR] += batch
        if clock[STOP_REQUEST] != 0:
            clock[STOP] = REQUESTED
