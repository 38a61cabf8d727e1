"""Means of squares by rows and by columns."""

import numpy as np

from ..cuda.device import block_number, block_sum, block_threads, cuda, thread_number
from ..declare import cuda_kernel
from ..reduce.cuda import column_total, columns_launch
from ..step.cuda import sum_launch
from . import cpu_factored as cpu
from .formulas import over_root, square
from .shared import SHARED


@cuda_kernel(like=cpu.square_columns, launch=lambda s: columns_launch(s["R"], s["C"]))
def square_columns(g, hyper, own, scale, y):
    none, limit, sign, share = hyper[0] * 0.0, hyper[2], hyper[3], own[0]
    if limit < 0:  # a stop is latched
        return
    factor = scale[0] * sign if scale.size > 0 else sign
    c = block_number() * cuda.blockDim.x + cuda.threadIdx.x
    value = 0.0
    if c < g.shape[1]:
        for r in range(cuda.threadIdx.y, g.shape[0], cuda.blockDim.y):
            value += square(g[r, c], share, factor, none, limit)
    value = column_total(g, value)
    if cuda.threadIdx.y == 0 and c < g.shape[1]:
        y[c] = value


@cuda_kernel(like=cpu.update_factors, launch=lambda s: sum_launch(max(s["R"], s["C"])))
def update_factors(sums, cols, hyper, row, col, scaled, roots):
    if hyper[2] < 0:  # a stop is latched
        return
    beta, rest = np.float64(hyper[SHARED]), np.float64(hyper[SHARED + 1])
    R, C = row.shape[0], col.shape[0]
    first, step = thread_number(), block_threads()
    total = np.float64(0.0)
    for i in range(first, R, step):
        row[i] = beta * np.float64(row[i]) + rest * (sums[i] * np.float64(R))
        total += np.float64(row[i])
    total = block_sum(total)
    mean = total / np.float64(R)
    least = np.float64(hyper[SHARED + 2])
    if mean < least:
        mean = least
    for i in range(first, R, step):
        scaled[i] = over_root(np.float64(row[i]) / mean)
    for j in range(first, C, step):
        col[j] = beta * np.float64(col[j]) + rest * (np.float64(cols[j]) * np.float64(C))
        roots[j] = over_root(np.float64(col[j]))
