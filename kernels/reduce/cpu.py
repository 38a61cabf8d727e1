"""Sums of a matrix over its rows or columns, in an order that depends on the sizes alone."""

from __future__ import annotations

from typing import Any

from ..declare import helper, kernel
from ..simd import Vector, fma, lanes, load, load_first, splat, store, store_first, sum_lanes


@kernel(grain=16, sums_rows=True, factors=("x",))
def sum_rows(x: "in cols f[N,C]", y: "out rows f[C]", lo: "begin", hi: "end"):
    """y[c] = sum over n of x[n,c], n in order. Four vectors of columns at a time."""
    n, width, size = lanes(x), x.shape[1], x.size
    j = lo
    while j + 4 * n <= hi:
        a, b, c, d = splat(x, 0.0), splat(x, 0.0), splat(x, 0.0), splat(x, 0.0)
        for i in range(j, size, width):
            a = a + load(x, i)
            b = b + load(x, i + n)
            c = c + load(x, i + 2 * n)
            d = d + load(x, i + 3 * n)
        store(y, j, a)
        store(y, j + n, b)
        store(y, j + 2 * n, c)
        store(y, j + 3 * n, d)
        j += 4 * n
    while j + n <= hi:
        a = splat(x, 0.0)
        for i in range(j, size, width):
            a = a + load(x, i)
        store(y, j, a)
        j += n
    if j < hi:
        a = splat(x, 0.0)
        for i in range(j, size, width):
            a = a + load_first(x, i, hi - j)
        store_first(y, j, a, hi - j)


@helper
def _sum_run(x: Any, start: int, size: int) -> float:
    """Sum of x[start:start+size] (flat): four partial vectors, then their lanes."""
    n, i, end = lanes(x), start, start + size
    a, b, c, d = splat(x, 0.0), splat(x, 0.0), splat(x, 0.0), splat(x, 0.0)
    while i + 4 * n <= end:
        a = a + load(x, i)
        b = b + load(x, i + n)
        c = c + load(x, i + 2 * n)
        d = d + load(x, i + 3 * n)
        i += 4 * n
    while i + n <= end:
        a = a + load(x, i)
        i += n
    if i < end:
        b = b + load_first(x, i, end - i)
    return sum_lanes((a + b) + (c + d))


@kernel
def sum_columns(x: "in rows f[N,C]", y: "out rows f[N]", lo: "begin", hi: "end"):
    """y[n] = sum over c of x[n,c]."""
    for row in range(lo, hi):
        y[row] = _sum_run(x, row * x.shape[1], x.shape[1])


@helper
def _step(total: Vector, a: Any, b: Any, i: int) -> Vector:
    """total + a*b for the vectors at i."""
    return fma(load(a, i), load(b, i), total)


@kernel
def dot_columns(
    a: "in rows f[N,C]", b: "in rows f[N,C]", y: "out rows f[N]", lo: "begin", hi: "end"
):
    """y[n] = sum over c of a[n,c]*b[n,c]."""
    n, width = lanes(a), a.shape[1]
    for row in range(lo, hi):
        i, end = row * width, (row + 1) * width
        p, q, r, s = splat(a, 0.0), splat(a, 0.0), splat(a, 0.0), splat(a, 0.0)
        while i + 4 * n <= end:
            p = _step(p, a, b, i)
            q = _step(q, a, b, i + n)
            r = _step(r, a, b, i + 2 * n)
            s = _step(s, a, b, i + 3 * n)
            i += 4 * n
        while i + n <= end:
            p = _step(p, a, b, i)
            i += n
        if i < end:
            q = fma(load_first(a, i, end - i), load_first(b, i, end - i), q)
        y[row] = sum_lanes((p + q) + (r + s))
