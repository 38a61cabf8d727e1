"""Means of squares by rows and by columns, on one block."""

import math

import numpy as np

from ..cuda.device import block_sum, block_threads, thread_number
from ..declare import cuda_kernel
from ..step.cuda import sum_launch
from . import cpu_factored as cpu
from .shared import SHARED


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
        scaled[i] = math.sqrt(np.float64(row[i]) / mean)
    for j in range(first, C, step):
        col[j] = beta * np.float64(col[j]) + rest * (np.float64(cols[j]) * np.float64(C))
        roots[j] = math.sqrt(np.float64(col[j]))
