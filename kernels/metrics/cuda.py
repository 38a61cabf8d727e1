"""Counts of what a model got right: a block for a row. N rows, C classes or columns.

A target outside 0..C-1 (an ignored one, say) is no hit.
"""

from ..cuda.device import (
    INFINITY,
    block_max,
    block_number,
    block_sum,
    block_threads,
    cast,
    cuda,
    flat_index,
    row_launch,
    thread_number,
)  # fmt: skip
from ..declare import ceil_div, cuda_kernel
from ..simd import maximum
from . import cpu


@cuda_kernel(like=cpu.accuracy, launch=lambda s: row_launch(s["N"], s["C"]))
def accuracy(x, target, hit):
    i, C = block_number(), x.shape[1]
    t = target[i]
    top = cast(x, -INFINITY)
    for j in range(thread_number(), C, block_threads()):
        top = maximum(x[i, j], top)
    top = block_max(top)
    wrong = 0
    if t < 0 or t >= C or x[i, t] != top:
        wrong = 1
    else:
        for j in range(thread_number(), t, block_threads()):
            if x[i, j] == top:
                wrong = 1
    wrong = cuda.syncthreads_or(wrong)
    if thread_number() == 0:
        hit[i] = 0.0 if wrong != 0 else 1.0


@cuda_kernel(like=cpu.largest, launch=lambda s: (ceil_div(s["N"], 256), 256))
def largest(x, y):
    i = flat_index()
    if i >= y.shape[0]:
        return
    best = 0
    for j in range(x.shape[1]):
        if x[i, j] > x[i, best]:
            best = j
    for j in range(x.shape[1]):
        if x[i, j] != x[i, j]:
            best = -1
    y[i] = best


@cuda_kernel(like=cpu.top_k, launch=lambda s: row_launch(s["N"], s["C"]))
def top_k(x, target, hit, k):
    i, C = block_number(), x.shape[1]
    t = target[i]
    known = t >= 0 and t < C
    value = x[i, t] if known else cast(x, 0.0)
    before = 0
    for j in range(thread_number(), C, block_threads()):
        if x[i, j] > value or (x[i, j] == value and j < t):
            before += 1
    before = block_sum(before)
    if thread_number() == 0:
        hit[i] = 1.0 if known and before < k and value == value else 0.0


@cuda_kernel(like=cpu.binary_accuracy, launch=lambda s: row_launch(s["N"], s["C"]))
def binary_accuracy(x, target, hit, threshold):
    i, C = block_number(), x.shape[1]
    count = 0
    for j in range(thread_number(), C, block_threads()):
        if (x[i, j] > threshold) == (target[i, j] > 0.5):
            count += 1
    count = block_sum(count)
    if thread_number() == 0:
        hit[i] = cast(x, count) / cast(x, C)
