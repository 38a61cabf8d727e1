"""Reductions and running sums along the columns of each row, for operations along an axis."""

from __future__ import annotations

from typing import Any

from ..cpu.parts import fill_row, keep_part, load_part, row_max, store_part
from ..declare import helper, kernel
from ..scalar import exp
from ..simd import lanes, splat, sum_lanes, where
from ..softmax.cpu import exp_sum, log_of
from ..vector_math import INFINITY


@helper
def nan_of(x: Any, base: int, size: int) -> float:
    """NaN if one of `size` elements is, else 0."""
    total = splat(x, 0.0)
    for j in range(0, size, lanes(x)):
        v = load_part(x, base + j, size - j)
        total = total + where(v != v, v, 0.0)
    return sum_lanes(total)


@kernel
def max_columns(x: "in rows f[N,C]", y: "out rows f[N]", lo: "begin", hi: "end"):
    """y[n] = max over c of x[n,c]; NaN where one of them is."""
    for row in range(lo, hi):
        base, size = row * x.shape[1], x.shape[1]
        y[row] = row_max(x, base, size) + nan_of(x, base, size)


@kernel
def max_columns_backward(
    x: "in rows f[N,C]",
    y: "in rows f[N]",
    dy: "in rows f[N]",
    dx: "out rows f[N,C]",  # may be x
    lo: "begin",
    hi: "end",
):
    """dx[n,c] = dy[n] in equal shares to all c with x[n,c] = y[n], else 0."""
    size = x.shape[1]
    for row in range(lo, hi):
        base, top = row * size, splat(x, y[row])
        total = splat(x, 0.0)
        for j in range(0, size, lanes(x)):
            v = where(load_part(x, base + j, size - j) == top, splat(x, 1.0), 0.0)
            total = total + keep_part(x, v, size - j, 0.0)
        share = splat(x, dy[row] / max(sum_lanes(total), 1.0))
        for j in range(0, size, lanes(x)):
            v = load_part(x, base + j, size - j)
            store_part(dx, base + j, where(v == top, share, 0.0), size - j)


@kernel
def product_columns(x: "in rows f[N,C]", y: "out rows f[N]", lo: "begin", hi: "end"):
    """y[n] = product over c of x[n,c], c in order."""
    for row in range(lo, hi):
        total = x[row, 0]
        for c in range(1, x.shape[1]):
            total *= x[row, c]
        y[row] = total


@kernel
def product_columns_backward(
    x: "in rows f[N,C]",
    dy: "in rows f[N]",
    dx: "out rows f[N,C]",
    lo: "begin",
    hi: "end",
):
    """dx[n,c] = dy[n] times the product of the row's other elements: of those before it, times of
    those behind it, so that zeros do no harm. No aliases."""
    size = x.shape[1]
    for row in range(lo, hi):
        dx[row, 0] = dy[row]
        for c in range(1, size):
            dx[row, c] = dx[row, c - 1] * x[row, c - 1]
        behind = x[row, size - 1]
        for c in range(size - 2, -1, -1):
            dx[row, c] *= behind
            behind *= x[row, c]


@kernel
def logsumexp_columns(x: "in rows f[N,C]", y: "out rows f[N]", lo: "begin", hi: "end"):
    """y[n] = log of the sum over c of exp(x[n,c]), less the largest inside the exponential."""
    for row in range(lo, hi):
        base, size = row * x.shape[1], x.shape[1]
        top = row_max(x, base, size)
        if top == INFINITY or top == -INFINITY:
            y[row] = top + nan_of(x, base, size)
        else:
            y[row] = top + log_of(x, exp_sum(x, base, size, top))


@kernel
def logsumexp_columns_backward(
    x: "in rows f[N,C]",
    y: "in rows f[N]",
    dy: "in rows f[N]",
    dx: "out rows f[N,C]",  # may be x
    lo: "begin",
    hi: "end",
):
    """dx[n,c] = dy[n] exp(x[n,c] - y[n]); 0 in a row of -infinity."""
    size = x.shape[1]
    for row in range(lo, hi):
        base, total = row * size, y[row]
        if total == -INFINITY:
            fill_row(dx, base, size, 0.0)
        else:
            scale = dy[row]
            for j in range(0, size, lanes(x)):
                v = exp(load_part(x, base + j, size - j) - total) * scale
                store_part(dx, base + j, v, size - j)


@kernel
def running_sum(
    x: "in rows f[N,C]",
    y: "out rows f[N,C]",  # may be x
    reverse: "int",
    exclusive: "int",
    lo: "begin",
    hi: "end",
):
    """y[n,c] = sum of x[n,j] over j <= c (j < c if `exclusive`), with `reverse` over j >= c."""
    size = x.shape[1]
    for row in range(lo, hi):
        total = sum_lanes(splat(x, 0.0))
        for k in range(size):
            c = size - 1 - k if reverse else k
            after = total + x[row, c]
            y[row, c] = total if exclusive else after
            total = after
