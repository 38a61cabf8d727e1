"""Reductions and running sums along the columns of each row, for operations along an axis.

A row of few columns belongs to a warp, a longer one to a block (`rows`); where the order of the
columns matters, a row to a thread.
"""

from __future__ import annotations

from typing import Any

from ..cuda.device import cast, flat, flat_index
from ..cuda.rows import row_max, row_place, row_sum, rows_launch
from ..declare import ceil_div, cuda_kernel, helper
from ..scalar import exp, log
from ..simd import maximum, where
from ..vector_math import INFINITY
from . import cpu_along as cpu

ROWS = {"launch": rows_launch, "bounds": 1024}


def _a_row_each(s: dict[str, int]) -> tuple[int, int]:
    """A thread for each row."""
    return ceil_div(s["N"], 64), 64


@helper
def row_top(x: Any, base: int, place: tuple) -> tuple:
    """The largest element of a row that is not NaN, and NaN if one of them is, else 0."""
    narrow, _, first, step, size, _ = place
    high, nan = -INFINITY, 0.0
    for j in range(first, size, step):
        v = x[base + j]
        high = maximum(v, high)
        nan += where(v != v, v, 0.0)
    return row_max(high, narrow), row_sum(nan, narrow)


@cuda_kernel(like=cpu.max_columns, **ROWS)
def max_columns(x, y):
    place = row_place(x.shape[0], x.shape[1])
    top, nan = row_top(flat(x), place[1] * x.shape[1], place)
    if place[2] == 0 and place[4] > 0:
        y[place[1]] = top + nan


@cuda_kernel(like=cpu.max_columns_backward, **ROWS)
def max_columns_backward(x, y, dy, dx):
    narrow, row, first, step, size, _ = row_place(x.shape[0], x.shape[1])
    count, one = 0.0, cast(x, 1.0)
    for j in range(first, size, step):
        count += where(x[row, j] == y[row], one, 0.0)
    count = row_sum(count, narrow)
    for j in range(first, size, step):
        dx[row, j] = where(x[row, j] == y[row], dy[row] / maximum(count, 1.0), 0.0)


@cuda_kernel(like=cpu.product_columns, launch=_a_row_each)
def product_columns(x, y):
    row = flat_index()
    if row < y.size:
        total = x[row, 0]
        for c in range(1, x.shape[1]):
            total *= x[row, c]
        y[row] = total


@cuda_kernel(like=cpu.product_columns_backward, launch=_a_row_each)
def product_columns_backward(x, dy, dx):
    row, size = flat_index(), x.shape[1]
    if row < x.shape[0]:
        dx[row, 0] = dy[row]
        for c in range(1, size):
            dx[row, c] = dx[row, c - 1] * x[row, c - 1]
        behind = x[row, size - 1]
        for k in range(1, size):
            c = size - 1 - k
            dx[row, c] *= behind
            behind *= x[row, c]


@cuda_kernel(like=cpu.logsumexp_columns, **ROWS)
def logsumexp_columns(x, y):
    place = row_place(x.shape[0], x.shape[1])
    narrow, row, first, step, size, _ = place
    base = row * x.shape[1]
    top, nan = row_top(flat(x), base, place)
    finite = top < INFINITY and top > -INFINITY
    total = 0.0
    if finite:
        for j in range(first, size, step):
            total += exp(flat(x)[base + j] - top)
    total = row_sum(total, narrow)
    if first == 0 and size > 0:
        if finite:
            y[row] = top + log(total)
        else:
            y[row] = top + nan


@cuda_kernel(like=cpu.logsumexp_columns_backward, **ROWS)
def logsumexp_columns_backward(x, y, dy, dx):
    _, row, first, step, size, _ = row_place(x.shape[0], x.shape[1])
    for j in range(first, size, step):
        if y[row] == -INFINITY:
            dx[row, j] = 0.0
        else:
            dx[row, j] = exp(x[row, j] - y[row]) * dy[row]


@cuda_kernel(like=cpu.running_sum, launch=_a_row_each)
def running_sum(x, y, reverse, exclusive):
    row, size = flat_index(), x.shape[1]
    if row < x.shape[0]:
        total = 0.0
        for k in range(size):
            c = size - 1 - k if reverse else k
            after = total + x[row, c]
            y[row, c] = total if exclusive else after
            total = after
