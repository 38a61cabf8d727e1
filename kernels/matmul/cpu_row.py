"""Products of one row: see `cpu`, whose bits they have.

Compiled code reads w as quickly as L2 gives it, where tiles wait for L2: a tile of one row has just
as many sums as hide the multiply-adds' own latency.
"""

from ..declare import helper
from ..simd import fill_like, fma, lanes, load, load_first, store, store_first

#: depth of a block where a few rows pass over a large B: B is read nearly in sequence
FEW_DEPTH = 32


@helper
def outer(a, a_at, b, b_at, y, y_at, rows, columns):
    """y[r, j] = a[r] b[j]; flat indices, a has one axis. Rows are written one after the other: a
    tile writes six at a time, which takes twice as long."""
    step = lanes(b)
    whole = columns // step * step
    zero = fill_like(load_first(b, b_at, 0), 0.0)
    for r in range(rows):
        factor = fill_like(zero, a[a_at + r])
        at = y_at + r * columns
        for j in range(0, whole, step):
            store(y, at + j, fma(factor, load(b, b_at + j), zero))
        if whole < columns:
            n = columns - whole
            store_first(y, at + whole, fma(factor, load_first(b, b_at + whole, n), zero), n)


@helper
def one_row(x, x_at, w, w_at, stride, y, y_at, bias, bias_at, depth, columns):
    """A row's products with the first columns of w, whole panels of eight vectors; how many.

    Flat indices, x has one axis. A panel's rows lie apart, so a pass from top to bottom would read
    w in pieces; in blocks of the depth it is read nearly in sequence, and sums wait in y.
    """
    step = lanes(w)
    whole = columns // (8 * step) * (8 * step)
    zero = fill_like(load_first(w, w_at, 0), 0.0)
    for j in range(0, whole, step):
        store(y, y_at + j, zero)
    for t in range(0, depth, FEW_DEPTH):
        for j in range(y_at, y_at + whole, 8 * step):
            s0, s1 = load(y, j), load(y, j + step)
            s2, s3 = load(y, j + 2 * step), load(y, j + 3 * step)
            s4, s5 = load(y, j + 4 * step), load(y, j + 5 * step)
            s6, s7 = load(y, j + 6 * step), load(y, j + 7 * step)
            at = w_at + t * stride + j - y_at
            for i in range(x_at + t, x_at + min(depth, t + FEW_DEPTH)):
                v = fill_like(zero, x[i])
                s0 = fma(v, load(w, at), s0)
                s1 = fma(v, load(w, at + step), s1)
                s2 = fma(v, load(w, at + 2 * step), s2)
                s3 = fma(v, load(w, at + 3 * step), s3)
                s4 = fma(v, load(w, at + 4 * step), s4)
                s5 = fma(v, load(w, at + 5 * step), s5)
                s6 = fma(v, load(w, at + 6 * step), s6)
                s7 = fma(v, load(w, at + 7 * step), s7)
                at += stride
            store(y, j, s0)
            store(y, j + step, s1)
            store(y, j + 2 * step, s2)
            store(y, j + 3 * step, s3)
            store(y, j + 4 * step, s4)
            store(y, j + 5 * step, s5)
            store(y, j + 6 * step, s6)
            store(y, j + 7 * step, s7)
    if bias_at >= 0:
        for j in range(0, whole, step):
            store(y, y_at + j, load(y, y_at + j) + load(bias, bias_at + j))
    return whole
