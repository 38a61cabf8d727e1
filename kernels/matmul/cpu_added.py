"""Products of many pairs of matrices that are terms of sums, for few terms in an element.

Such a product takes little more time than it takes to write the result; a sum of it and another
array, as the gradient of a loop's memory is one, would be three passes. The bits are those of the
product (`cpu_batched`) and the sum.
"""

from __future__ import annotations

from ..cpu.parts import load_part, store_part
from ..declare import helper, kernel
from ..simd import fill_like, fma, lanes, load, load_first, store
from ..traits import term_of
from .cpu_batched import _dots

#: terms of an element up to which the product is one of these
FEW = 4


@helper
def combined(a, a_at, a_row, a_step, b, b_at, given, y, y_at, rows, depth, columns):
    """y[r, j] = (sum of a[r, t] b[t, j] over t, in order) + given[r, j]; flat indices, a has one
    axis."""
    step = lanes(b)
    zero = fill_like(load_first(b, b_at, 0), 0.0)
    whole = columns // (4 * step) * (4 * step)
    for r in range(rows):
        left, at = a_at + r * a_row, y_at + r * columns
        for j in range(0, whole, 4 * step):
            s0, s1, s2, s3 = zero, zero, zero, zero
            for t in range(depth):
                f, i = fill_like(zero, a[left + t * a_step]), b_at + t * columns + j
                s0 = fma(f, load(b, i), s0)
                s1 = fma(f, load(b, i + step), s1)
                s2 = fma(f, load(b, i + 2 * step), s2)
                s3 = fma(f, load(b, i + 3 * step), s3)
            i = at + j
            store(y, i, s0 + load(given, i))
            store(y, i + step, s1 + load(given, i + step))
            store(y, i + 2 * step, s2 + load(given, i + 2 * step))
            store(y, i + 3 * step, s3 + load(given, i + 3 * step))
        for j in range(whole, columns, step):
            n, total = columns - j, zero
            for t in range(depth):
                f = fill_like(zero, a[left + t * a_step])
                total = fma(f, load_part(b, b_at + t * columns + j, n), total)
            store_part(y, at + j, total + load_part(given, at + j, n), n)


@kernel(product=("P", "M", "C", "K"), endings=term_of("matmul_forward", "y", (("C", FEW),)))
def matmul_forward_add(
    a: "in rows f[P,M,C]",
    b: "in rows f[P,C,K]",
    given: "in rows f[P,M,K]",
    y: "out rows f[P,M,K]",
    lo: "begin",
    hi: "end",
):
    """y[p] = a[p] @ b[p] + given[p]"""
    m, c, k = a.shape[1], a.shape[2], b.shape[2]
    for p in range(lo, hi):
        if k == 1:
            _dots(a, p * m * c, b, p * c, y, p * m, m, c)
            for i in range(p * m, (p + 1) * m, lanes(y)):
                n = (p + 1) * m - i
                store_part(y, i, load_part(y, i, n) + load_part(given, i, n), n)
        else:
            combined(a.reshape(-1), p * m * c, c, 1, b, p * c * k, given, y, p * m * k, m, c, k)


@kernel(product=("P", "M", "C", "K"), endings=term_of("matmul_backward_b", "db", (("M", FEW),)))
def matmul_backward_b_add(
    a: "in rows f[P,M,C]",
    dy: "in rows f[P,M,K]",
    given: "in rows f[P,C,K]",
    db: "out rows f[P,C,K]",
    lo: "begin",
    hi: "end",
):
    """db[p] = a[p].T @ dy[p] + given[p]"""
    m, c, k = a.shape[1], a.shape[2], dy.shape[2]
    for p in range(lo, hi):
        combined(a.reshape(-1), p * m * c, 1, c, dy, p * m * k, given, db, p * c * k, c, m, k)
