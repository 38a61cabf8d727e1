"""Parts of rows and of columns: what row kernels and column kernels share.

A *part* is one vector of a row, of which only the first `n` lanes may exist. A *strip* is four
neighbouring vectors (a tuple), the columns that a column kernel carries down the rows at a time:
wide enough to use whole cache lines of a row-major array, narrow enough to stay in registers.
Which lane or strip a column falls into never changes what is computed for it.
"""

from ..declare import helper
from ..simd import (
    fma,
    iota,
    lanes,
    load,
    load_first,
    max_lanes,
    maximum,
    splat,
    store,
    store_first,
    sum_lanes,
    where,
)

#: rows that a strip adds up before it adds them to its total, so that rounding errors stay small
ROWS = 64


@helper
def load_part(x, i, n):
    """The vector of `x` from flat index `i`; lanes from `n` on are 0."""
    if n >= lanes(x):
        return load(x, i)
    return load_first(x, i, n)


@helper
def store_part(x, i, v, n):
    """Write the first `n` lanes of `v` to `x` from flat index `i` on."""
    if n >= lanes(x):
        store(x, i, v)
    else:
        store_first(x, i, v, n)


@helper
def keep_part(x, v, n, other):
    """`v` with `other` in the lanes from `n` on."""
    if n >= lanes(x):
        return v
    return where(iota(x) < n, v, other)


@helper
def fill_row(x, base, size, value):
    """Set `size` elements from flat index `base` on."""
    v, n = splat(x, value), lanes(x)
    full = size - size % n
    for j in range(0, full, n):
        store(x, base + j, v)
    if full < size:
        store_first(x, base + full, v, size - full)


@helper
def row_sum(x, base, size):
    """The sum of x[base:base+size] (flat): lane by lane first, then over the lanes."""
    total = splat(x, 0.0)
    for j in range(0, size, lanes(x)):
        total = total + load_part(x, base + j, size - j)
    return sum_lanes(total)


@helper
def row_max(x, base, size):
    """The largest element that is not NaN (-inf where there is none)."""
    step = lanes(x)
    low = splat(x, -float("inf"))
    a, b, c, d = low, low, low, low
    full = size - size % (4 * step)
    for j in range(0, full, 4 * step):
        a = maximum(load(x, base + j), a)
        b = maximum(load(x, base + j + step), b)
        c = maximum(load(x, base + j + 2 * step), c)
        d = maximum(load(x, base + j + 3 * step), d)
    for j in range(full, size, step):
        a = maximum(keep_part(x, load_part(x, base + j, size - j), size - j, -float("inf")), a)
    return max_lanes(maximum(maximum(a, b), maximum(c, d)))


@helper
def copy_run(source, i, target, k, size):
    """target[k:k+size] = source[i:i+size] (flat)."""
    n, j = lanes(source), 0
    while j + n <= size:
        store(target, k + j, load(source, i + j))
        j += n
    if j < size:
        store_first(target, k + j, load_first(source, i + j, size - j), size - j)


@helper
def copy_or_zero(x, i, y, k, size):
    """y[k:k+size] = x[i:i+size] (flat), or zeros where x is absent."""
    if x.size > 0:
        copy_run(x, i, y, k, size)
    else:
        fill_row(y, k, size, 0.0)


@helper
def add_row(x, i, y, k, size):
    """y[k:k+size] += x[i:i+size] (flat); nothing where x is absent."""
    if x.size > 0:
        for j in range(0, size, lanes(x)):
            n = size - j
            store_part(y, k + j, load_part(y, k + j, n) + load_part(x, i + j, n), n)


# ---------------------------------------------------------------- strips
#
# A strip is four neighbouring vectors of a row, as a tuple: four independent chains of sums, so a
# core need not wait for one addition to end before it begins the next.


@helper
def strip_lanes(x):
    """How many numbers a strip has."""
    return 4 * lanes(x)


@helper
def lanes_left(n, k, step):
    """How many lanes of a strip's vector `k` exist, where the strip has `n` columns."""
    return min(max(n - k * step, 0), step)


@helper
def strip_load(x, i, n):
    """Four vectors of `x` from flat index `i`; elements from `n` on are 0."""
    w = lanes(x)
    if n >= 4 * w:
        return (load(x, i), load(x, i + w), load(x, i + 2 * w), load(x, i + 3 * w))
    return (
        load_first(x, i, lanes_left(n, 0, w)),
        load_first(x, i + w, lanes_left(n, 1, w)),
        load_first(x, i + 2 * w, lanes_left(n, 2, w)),
        load_first(x, i + 3 * w, lanes_left(n, 3, w)),
    )


@helper
def strip_store(x, i, v, n):
    """Write the first `n` elements of the strip `v` to `x` from flat index `i` on."""
    w = lanes(x)
    if n >= 4 * w:
        store(x, i, v[0])
        store(x, i + w, v[1])
        store(x, i + 2 * w, v[2])
        store(x, i + 3 * w, v[3])
        return
    if n > 0:
        store_part(x, i, v[0], n)
    if n > w:
        store_part(x, i + w, v[1], n - w)
    if n > 2 * w:
        store_part(x, i + 2 * w, v[2], n - 2 * w)
    if n > 3 * w:
        store_part(x, i + 3 * w, v[3], n - 3 * w)


@helper
def strip_splat(x, value):
    """A strip of this number."""
    v = splat(x, value)
    return (v, v, v, v)


@helper
def strip_add(a, b):
    """a + b, number by number."""
    return (a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3])


@helper
def strip_subtract(a, b):
    """a - b, number by number."""
    return (a[0] - b[0], a[1] - b[1], a[2] - b[2], a[3] - b[3])


@helper
def strip_multiply(a, b):
    """a * b, number by number."""
    return (a[0] * b[0], a[1] * b[1], a[2] * b[2], a[3] * b[3])


@helper
def strip_fma(a, b, c):
    """a * b + c, number by number, rounded once."""
    return (
        fma(a[0], b[0], c[0]), fma(a[1], b[1], c[1]), fma(a[2], b[2], c[2]), fma(a[3], b[3], c[3])
    )  # fmt: skip


@helper
def strip_scale(a, s):
    """a * s, by one number for all."""
    return (a[0] * s, a[1] * s, a[2] * s, a[3] * s)
