"""Sums over the batch, running totals, and the end of a step. Most are serial: one call does all.

N numbers, one a row; U = 1 (a number that other kernels read); T = 2: a running sum and its count;
L words of the control block. Sums are kept in float64.
"""

import math

import numpy as np

from ..control_block import CURSOR, NOT_FINITE, REQUESTED, RUN_STEP, STEP, STOP, STOP_REQUEST
from ..cpu.parts import load_part
from ..declare import helper, kernel
from ..simd import fma, lanes, load, splat, sum_lanes

#: elements whose squares are added up before the sum goes into a float64
RUN = 1024


@helper
def sum_of(x):
    """Sum of a one-dimensional array: four interleaved sums in float64."""
    a = b = c = d = np.float64(0.0)
    size = x.shape[0]
    full = size - size % 4
    for i in range(0, full, 4):
        a += np.float64(x[i])
        b += np.float64(x[i + 1])
        c += np.float64(x[i + 2])
        d += np.float64(x[i + 3])
    for i in range(full, size):
        a += np.float64(x[i])
    return (a + b) + (c + d)


@helper
def sum_of_counted(x):
    """Like `sum_of`, of what isn't 0: rows that don't count leave the bits as they are, however
    many there are, wherever they stand."""
    a = b = c = d = np.float64(0.0)
    size = x.shape[0]
    full = size - size % 4
    for i in range(0, full, 4):
        p, q = np.float64(x[i]), np.float64(x[i + 1])
        r, s = np.float64(x[i + 2]), np.float64(x[i + 3])
        if p != 0.0 and q != 0.0 and r != 0.0 and s != 0.0:
            a, b, c, d = a + p, b + q, c + r, d + s
        else:
            for j in range(i, i + 4):
                if x[j] != 0.0:
                    a, b, c, d = b, c, d, a + np.float64(x[j])
    for i in range(full, size):
        if x[i] != 0.0:
            a, b, c, d = b, c, d, a + np.float64(x[i])
    return (a + b) + (c + d)


@kernel
def fill(memory: "out whole i[N]", word: "int"):
    """Every word of memory = word."""
    for i in range(memory.shape[0]):
        memory[i] = word


@kernel
def total(x: "in whole f[N]", y: "out whole f[U]"):
    """y = sum(x)."""
    y[0] = sum_of_counted(x)


@kernel
def total_backward(dy: "in whole f[U]", dx: "out rows f[N]", lo: "begin", hi: "end"):
    """dx[n] = dy."""
    for i in range(lo, hi):
        dx[i] = dy[0]


@kernel
def mean(x: "in whole f[N]", y: "out whole f[U]"):
    """y = sum(x) / N."""
    y[0] = sum_of(x) / x.shape[0]


@kernel(few_as="mean_backward_few")
def mean_backward(dy: "in whole f[U]", dx: "out rows f[N]", lo: "begin", hi: "end"):
    """dx[n] = dy / N."""
    for i in range(lo, hi):
        dx[i] = dy[0] / dx.shape[0]


@kernel
def weighted_mean(
    x: "in whole f[N]",  # values that have their weights in them
    weight: "in whole f[N]",
    y: "out whole f[U]",
    denominator: "out whole f[U]",
):
    """y = sum(x) / denominator, denominator = sum(weight); 0 where nothing counts (0 / 0)."""
    divisor, value = sum_of_counted(weight), sum_of_counted(x)
    denominator[0] = divisor
    y[0] = 0.0 if divisor == 0.0 and value == 0.0 else value / divisor


@kernel
def weighted_mean_backward(
    denominator: "in whole f[U]",
    dy: "in whole f[U]",
    dx: "out rows f[N]",
    lo: "begin",
    hi: "end",
):
    """dx[n] = dy / denominator; 0 where nothing counts."""
    for i in range(lo, hi):
        dx[i] = dy[0] / denominator[0] if denominator[0] != 0.0 else 0.0


@kernel(bookkeeping=True)
def accumulate(value: "in whole f[U]", total: "inout whole r[T]", count: "int"):
    """total[0] += value count; total[1] += count: the mean over an epoch of means over batches."""
    total[0] += np.float64(value[0]) * count
    total[1] += count


@kernel(bookkeeping=True)
def accumulate_by(value: "in whole f[U]", count: "in whole f[U]", total: "inout whole r[T]"):
    """Like `accumulate`, where the count (a sum of weights) is known only in the step."""
    total[0] += np.float64(value[0]) * np.float64(count[0])
    total[1] += np.float64(count[0])


@kernel(bookkeeping=True, totals_rows=True)
def accumulate_rows(x: "in whole f[N]", total: "inout whole r[T]"):
    """total[0] += sum(x); total[1] += N."""
    total[0] += sum_of(x)
    total[1] += x.shape[0]


@kernel(bookkeeping=True, totals_rows=True)
def accumulate_weighted(x: "in whole f[N]", weight: "in whole f[N]", total: "inout whole r[T]"):
    """total[0] += sum(weight x); total[1] += sum(weight). What weighs 0 may be NaN in x."""
    value = np.float64(0.0)
    for i in range(x.shape[0]):
        if weight[i] != 0.0:
            value += np.float64(weight[i]) * np.float64(x[i])
    total[0] += value
    total[1] += sum_of_counted(weight)


@kernel(bookkeeping=True, totals_rows=True)
def accumulate_pair(x: "in whole f[N]", y: "in whole f[N]", total: "inout whole r[T]"):
    """total[0] += sum(x); total[1] += sum(y)."""
    total[0] += sum_of_counted(x)
    total[1] += sum_of_counted(y)


@helper
def squares(x, base, size):
    """Sum of the squares of a run of elements, in `x`'s element type."""
    step = lanes(x)
    a = b = c = d = splat(x, 0.0)
    full = size - size % (4 * step)
    for j in range(base, base + full, 4 * step):
        p, q, r, s = load(x, j), load(x, j + step), load(x, j + 2 * step), load(x, j + 3 * step)
        a, b, c, d = fma(p, p, a), fma(q, q, b), fma(r, r, c), fma(s, s, d)
    for j in range(full, size, step):
        v = load_part(x, base + j, size - j)
        a = fma(v, v, a)
    return sum_lanes((a + b) + (c + d))


@kernel
def squared_norm(x: "in rows f[R,C]", y: "out rows r[R]", lo: "begin", hi: "end"):
    """y[r] = sum of the squares of row r: runs of RUN elements, added up in float64.

    A run whose squares overflow `x`'s element type is summed in float64.
    """
    C = x.shape[1]
    for i in range(lo, hi):
        total = np.float64(0.0)
        for j in range(0, C, RUN):
            part = np.float64(squares(x, i * C + j, min(RUN, C - j)))
            if not math.isfinite(part):
                part = np.float64(0.0)
                for k in range(j, min(j + RUN, C)):
                    part += np.float64(x[i, k]) ** 2
            total += part
        y[i] = total


@kernel(checks=True)
def check_finite(value: "in whole f[U]", control: "inout whole i[L]"):
    """Ask all workers to leave before parameters change, unless every value is finite."""
    for i in range(value.shape[0]):
        if not math.isfinite(value[i]):
            control[STOP] = NOT_FINITE


@kernel(bookkeeping=True, advances=True)
def advance(control: "inout whole i[L]", batch: "int"):
    """The end of a step: next step, next batch; latch the host's request to stop.

    A step that is undone does not count.
    """
    if control[STOP] == NOT_FINITE:
        return
    control[STEP] += 1
    control[RUN_STEP] += 1
    control[CURSOR] += batch
    if control[STOP_REQUEST] != 0 and control[STOP] == 0:
        control[STOP] = REQUESTED
