"""Sums over the batch, running totals, and the end of a step. Most are launches of one block.

N numbers, one a row; U = 1 (a number that other kernels read); T = 2: a running sum and its count;
L words of the control block. Sums are kept in float64. W words that launches read, of which M
differ from step to step of a loop; V = 3 numbers say which one it is, what it is in the first step,
and what it grows by.
"""

import math

import numpy as np

from ..control_block import CURSOR, NOT_FINITE, REQUESTED, RUN_STEP, STEP, STOP, STOP_REQUEST
from ..cuda.device import (
    MOST,
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
from ..declare import ceil_div, cuda_kernel, helper
from ..simd import fma
from . import cpu


def sum_launch(count: int) -> tuple[int, int]:
    """One block, for a sum of so many numbers."""
    return 1, power_of_2(ceil_div(count, 4), WARP, MOST)


@helper
def sum_threads(count):
    """The threads of `sum_launch`: those that add, of a block that has more."""
    threads = WARP
    while 4 * threads < count and threads < MOST:
        threads *= 2
    return threads


@helper
def sum_of(x):
    """Sum of a one-dimensional array in float64, for every thread of the (only) block."""
    value, threads = np.float64(0.0), sum_threads(x.shape[0])
    first = thread_number()
    if first < threads:
        for i in range(first, x.shape[0], threads):
            value += np.float64(x[i])
    return block_sum(value)


@cuda_kernel(like=cpu.fill, launch=lambda s: (ceil_div(s["N"], 256), 256))
def fill(memory, word):
    i = flat_index()
    if i < memory.shape[0]:
        memory[i] = word


@cuda_kernel(like=cpu.total, launch=lambda s: sum_launch(s["N"]), one_block=True)
def total(x, y):
    value = sum_of(x)
    if thread_number() == 0:
        y[0] = value


@cuda_kernel(like=cpu.total_backward, launch=lambda s: fours_launch(4 * s["N"]))
def total_backward(dy, dx):
    i = flat_index()
    if i < dx.shape[0]:
        dx[i] = dy[0]


@cuda_kernel(like=cpu.mean, launch=lambda s: sum_launch(s["N"]), one_block=True)
def mean(x, y):
    value = sum_of(x)
    if thread_number() == 0:
        y[0] = value / x.shape[0]


@cuda_kernel(like=cpu.mean_backward, launch=lambda s: fours_launch(4 * s["N"]))
def mean_backward(dy, dx):
    i = flat_index()
    if i < dx.shape[0]:
        dx[i] = dy[0] / cast(dx, dx.shape[0])


@cuda_kernel(launch=lambda s: sum_launch(s["N"]), one_block=True)
def mean_backward_few(dy: "in whole f[U]", dx: "out whole f[N]"):
    """`mean_backward` by one block."""
    for i in range(thread_number(), dx.shape[0], block_threads()):
        dx[i] = dy[0] / cast(dx, dx.shape[0])


@cuda_kernel(like=cpu.weighted_mean, launch=lambda s: sum_launch(s["N"]), one_block=True)
def weighted_mean(x, weight, y, denominator):
    divisor, value = sum_of(weight), sum_of(x)
    if thread_number() == 0:
        denominator[0] = divisor
        if divisor == 0.0 and value == 0.0:
            y[0] = 0.0
        else:
            y[0] = value / divisor


@cuda_kernel(like=cpu.weighted_mean_backward, launch=lambda s: fours_launch(4 * s["N"]))
def weighted_mean_backward(denominator, dy, dx):
    i = flat_index()
    if i < dx.shape[0]:
        divisor = denominator[0]
        dx[i] = dy[0] / divisor if divisor != 0.0 else cast(dx, 0.0)


@cuda_kernel(like=cpu.accumulate, launch=lambda s: ONE_THREAD, one_block=True)
def accumulate(value, total, count):
    if thread_number() == 0:
        total[0] += np.float64(value[0]) * count
        total[1] += count


@cuda_kernel(like=cpu.accumulate_by, launch=lambda s: ONE_THREAD, one_block=True)
def accumulate_by(value, count, total):
    if thread_number() == 0:
        total[0] += np.float64(value[0]) * np.float64(count[0])
        total[1] += np.float64(count[0])


@cuda_kernel(like=cpu.accumulate_rows, launch=lambda s: sum_launch(s["N"]), one_block=True)
def accumulate_rows(x, total):
    value = sum_of(x)
    if thread_number() == 0:
        total[0] += value
        total[1] += x.shape[0]


@cuda_kernel(like=cpu.accumulate_weighted, launch=lambda s: sum_launch(s["N"]), one_block=True)
def accumulate_weighted(x, weight, total):
    value, threads = np.float64(0.0), sum_threads(x.shape[0])
    first = thread_number()
    if first < threads:
        for i in range(first, x.shape[0], threads):
            if weight[i] != 0.0:
                value += np.float64(weight[i]) * np.float64(x[i])
    value = block_sum(value)
    count = sum_of(weight)
    if thread_number() == 0:
        total[0] += value
        total[1] += count


@cuda_kernel(like=cpu.accumulate_pair, launch=lambda s: sum_launch(s["N"]), one_block=True)
def accumulate_pair(x, y, total):
    value, count = sum_of(x), sum_of(y)
    if thread_number() == 0:
        total[0] += value
        total[1] += count


@cuda_kernel(like=cpu.squared_norm, launch=lambda s: row_launch(s["R"], s["C"]))
def squared_norm(x, y):
    """y[r] = sum of the squares of row r, in float64: a block for a row."""
    r = block_number()
    value = np.float64(0.0)
    for c in range(thread_number(), x.shape[1], block_threads()):
        v = np.float64(x[r, c])
        value = fma(v, v, value)
    value = block_sum(value)
    if thread_number() == 0:
        y[r] = value


@cuda_kernel(like=cpu.check_finite, launch=lambda s: ONE_THREAD, one_block=True)
def check_finite(value, control):
    """Ask for the end of the run before parameters change, unless every value is finite."""
    wrong = 0
    for i in range(thread_number(), value.shape[0], block_threads()):
        if not math.isfinite(value[i]):
            wrong = 1
    if cuda.syncthreads_or(wrong) != 0 and thread_number() == 0:
        control[STOP] = NOT_FINITE


@cuda_kernel(like=cpu.advance, launch=lambda s: ONE_THREAD, one_block=True)
def advance(control, batch):
    """The end of a step: next step, next batch; latch the host's request to stop.

    A step that was stopped, or comes after a stop, does not count: workers would have left it.
    """
    if thread_number() == 0 and control[STOP] == 0:
        control[STEP] += 1
        control[RUN_STEP] += 1
        control[CURSOR] += batch
        if control[STOP_REQUEST] != 0:
            control[STOP] = REQUESTED


@cuda_kernel(
    launch=lambda s: (1, power_of_2(s["M"], WARP, MOST)), one_block=True, only_float32=True
)
def next_step(
    moves: "in whole i[M,V]", by: "int", counter: "inout whole i[U]", words: "inout whole i[W]"
):
    """The words of the step of a loop that `counter` tells, which goes on to the one after `by`
    steps (`runtime/cuda/again.py`)."""
    step = counter[0]
    for i in range(thread_number(), moves.shape[0], block_threads()):
        words[moves[i, 0]] = moves[i, 1] + moves[i, 2] * step
    cuda.syncthreads()
    if thread_number() == 0:
        counter[0] = step + by
