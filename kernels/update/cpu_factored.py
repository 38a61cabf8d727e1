"""Means of squares by rows and by columns, which stand for those of a whole matrix (Adafactor)."""

import numpy as np

from ..declare import kernel
from ..simd import lanes, load, load_first, splat, store, store_first
from .formulas import over_root, square
from .shared import SHARED


@kernel
def square_columns(
    g: "in cols f[R,C]",
    hyper: "in whole f[H]",
    own: "in whole f[O]",  # what squares are multiplied by, so that sums stay in range
    scale: "in whole f[U]",
    y: "out rows f[C]",
    lo: "begin",
    hi: "end",
):
    """The sum of g**2 of each column, rows in order. Four vectors of columns at a time."""
    none, limit, sign, share = hyper[0] * 0.0, hyper[2], hyper[3], own[0]
    if limit < 0:  # gradients are accumulated, and there are more to come
        return
    factor = scale[0] * sign if scale.size else sign
    n, width, size = lanes(g), g.shape[1], g.size
    j = lo
    # most runs leave gradients as they are: three operations of six fewer
    plain = scale.size == 0 and limit == np.inf and sign == 1
    while plain and j + 4 * n <= hi:
        a, b, c, d = splat(g, 0.0), splat(g, 0.0), splat(g, 0.0), splat(g, 0.0)
        for i in range(j, size, width):
            u, v = load(g, i), load(g, i + n)
            a, b = a + u * share * u, b + v * share * v
            u, v = load(g, i + 2 * n), load(g, i + 3 * n)
            c, d = c + u * share * u, d + v * share * v
        store(y, j, a)
        store(y, j + n, b)
        store(y, j + 2 * n, c)
        store(y, j + 3 * n, d)
        j += 4 * n
    while j + 4 * n <= hi:
        a, b, c, d = splat(g, 0.0), splat(g, 0.0), splat(g, 0.0), splat(g, 0.0)
        for i in range(j, size, width):
            a = a + square(load(g, i), share, factor, none, limit)
            b = b + square(load(g, i + n), share, factor, none, limit)
            c = c + square(load(g, i + 2 * n), share, factor, none, limit)
            d = d + square(load(g, i + 3 * n), share, factor, none, limit)
        store(y, j, a)
        store(y, j + n, b)
        store(y, j + 2 * n, c)
        store(y, j + 3 * n, d)
        j += 4 * n
    while j + n <= hi:
        a = splat(g, 0.0)
        for i in range(j, size, width):
            a = a + square(load(g, i), share, factor, none, limit)
        store(y, j, a)
        j += n
    if j < hi:
        a = splat(g, 0.0)
        for i in range(j, size, width):
            a = a + square(load_first(g, i, hi - j), share, factor, none, limit)
        store_first(y, j, a, hi - j)


@kernel
def update_factors(
    sums: "in whole r[R]",  # of squares of each row, divided by R * C
    cols: "in whole f[C]",  # of each column, likewise
    hyper: "in whole f[H]",  # beta, rest and epsilon come first of the rule's
    row: "inout whole f[R]",
    col: "inout whole f[C]",
    scaled: "out whole f[R]",
    roots: "out whole f[C]",
):
    """row = beta * row + rest * mean of squares of the row; col likewise; scaled = 1 / roots of row
    divided by the mean of row, or by epsilon where that is larger; roots = 1 / those of col."""
    if hyper[2] < 0:  # gradients are accumulated, and there are more to come
        return
    beta, rest = np.float64(hyper[SHARED]), np.float64(hyper[SHARED + 1])
    R, C = row.shape[0], col.shape[0]
    total = np.float64(0.0)
    for i in range(R):
        row[i] = beta * row[i] + rest * (sums[i] * R)
        total += np.float64(row[i])
    mean = max(total / R, np.float64(hyper[SHARED + 2]))
    for i in range(R):
        scaled[i] = over_root(row[i] / mean)
    for j in range(C):
        col[j] = beta * col[j] + rest * (np.float64(cols[j]) * C)
        roots[j] = over_root(np.float64(col[j]))
