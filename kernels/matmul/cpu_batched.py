"""Products of many matrices with as many: P pairs, each one a product by the register tile.

Every element is one chain of multiply-adds in the order of the summed index, as in `matmul`; but
those of a column, and with transposed matrices, are dot products of rows, which are summed in
lanes (`_dots`). Products of a column and a row, and of a transposed matrix and a column, pass over
the large one in sequence.
"""

from __future__ import annotations

from ..cpu.tile import tile_width
from ..declare import helper, kernel
from ..places import Matrix, Place, Rows
from ..simd import fill_like, fma, lanes, load, load_first, store, store_first, sum_lanes
from .cpu_panels import product
from .cpu_row import outer


@helper
def _dots(a, a_at, b, b_at, y, y_at, rows, c):
    """y[r] = sum of a[r, t] b[t] over t < c, for rows of c elements; flat indices.

    Lane l of four vectors in turn sums the products t = l, l + lanes, ... in order; then the four
    and their lanes are added. Zeros at the end of a row change no bit.
    """
    step = lanes(a)
    zero, out = fill_like(load_first(a, a_at, 0), 0.0), y.reshape(-1)
    for r in range(rows):
        at, t = a_at + r * c, 0
        s0, s1, s2, s3 = zero, zero, zero, zero
        while t + 4 * step <= c:
            s0 = fma(load(a, at + t), load(b, b_at + t), s0)
            s1 = fma(load(a, at + t + step), load(b, b_at + t + step), s1)
            s2 = fma(load(a, at + t + 2 * step), load(b, b_at + t + 2 * step), s2)
            s3 = fma(load(a, at + t + 3 * step), load(b, b_at + t + 3 * step), s3)
            t += 4 * step
        s0 = _some(a, at + t, b, b_at + t, c - t, s0)
        s1 = _some(a, at + t + step, b, b_at + t + step, c - t - step, s1)
        s2 = _some(a, at + t + 2 * step, b, b_at + t + 2 * step, c - t - 2 * step, s2)
        s3 = _some(a, at + t + 3 * step, b, b_at + t + 3 * step, c - t - 3 * step, s3)
        out[y_at + r] = sum_lanes((s0 + s1) + (s2 + s3))


@helper
def _some(a, a_at, b, b_at, n, sums):
    """sums + the products of what is left of two rows: n elements, a vector's at most."""
    if n <= 0:
        return sums
    n = min(n, lanes(a))
    return fma(load_first(a, a_at, n), load_first(b, b_at, n), sums)


@helper
def _combined(a, a_at, b, b_at, y, y_at, rows, columns):
    """y[j] = sum of a[r, j] b[r] over the rows, in order; flat indices."""
    step = lanes(a)
    zero = fill_like(load_first(a, a_at, 0), 0.0)
    factors = b.reshape(-1)
    for j in range(0, columns, 4 * step):
        at, n = a_at + j, min(4 * step, columns - j)
        if n == 4 * step:
            s0, s1, s2, s3 = zero, zero, zero, zero
            for r in range(rows):
                f, i = fill_like(zero, factors[b_at + r]), at + r * columns
                s0 = fma(f, load(a, i), s0)
                s1 = fma(f, load(a, i + step), s1)
                s2 = fma(f, load(a, i + 2 * step), s2)
                s3 = fma(f, load(a, i + 3 * step), s3)
            store(y, y_at + j, s0)
            store(y, y_at + j + step, s1)
            store(y, y_at + j + 2 * step, s2)
            store(y, y_at + j + 3 * step, s3)
        else:
            for k in range(0, n, step):
                some, s0 = min(step, n - k), zero
                for r in range(rows):
                    f, i = fill_like(zero, factors[b_at + r]), at + r * columns + k
                    s0 = fma(f, load_first(a, i, some), s0)
                store_first(y, y_at + j + k, s0, some)


@kernel(product=("P", "M", "C", "K"), rounds=("a", "b"))
def matmul_forward(
    a: "in rows f[P,M,C]", b: "in rows f[P,C,K]", y: "out rows f[P,M,K]", lo: "begin", hi: "end"
):
    """y[p] = a[p] @ b[p]"""
    m, c, k = a.shape[1], a.shape[2], b.shape[2]
    for p in range(lo, hi):
        if k == 1:
            _dots(a, p * m * c, b, p * c, y, p * m, m, c)
        elif c == 1:
            outer(a.reshape(-1), p * m, b, p * k, y, p * m * k, m, k)
        else:
            product(Matrix(a, p * m * c, c, 1), Rows(b, p * c * k, k), tile_width(b),
                    Rows(y, p * m * k, k), Place(a[p, 0], -1), c, m, k)  # fmt: skip


@kernel(product=("P", "M", "C", "K"), rounds=("a", "b"))
def matmul_transposed_forward(
    a: "in rows f[P,M,C]", b: "in rows f[P,K,C]", y: "out rows f[P,M,K]", lo: "begin", hi: "end"
):
    """y[p] = a[p] @ b[p].T, for few rows of a"""
    m, c, k = a.shape[1], a.shape[2], b.shape[1]
    for p in range(lo, hi):
        for i in range(m):
            _dots(b, p * k * c, a, (p * m + i) * c, y, (p * m + i) * k, k, c)


@kernel(product=("P", "M", "C", "K"), rounds=("a", "dy"))
def matmul_backward_b(
    a: "in rows f[P,M,C]", dy: "in rows f[P,M,K]", db: "out rows f[P,C,K]", lo: "begin", hi: "end"
):
    """db[p] = a[p].T @ dy[p]"""
    m, c, k = a.shape[1], a.shape[2], dy.shape[2]
    for p in range(lo, hi):
        if m == 1:
            outer(a.reshape(-1), p * c, dy, p * k, db, p * c * k, c, k)
        elif k == 1:
            _combined(a, p * m * c, dy, p * m, db, p * c, m, c)
        else:
            product(Matrix(a, p * m * c, 1, c), Rows(dy, p * m * k, k), tile_width(dy),
                    Rows(db, p * c * k, k), Place(dy[p, 0], -1), m, c, k)  # fmt: skip
