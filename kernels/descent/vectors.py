"""Sums of vectors and inner products over flat memory, on one worker.

Inner products are runs of RUN elements in the vectors' own type, added up in float64: one order,
whatever the number of workers.
"""

import numpy as np

from ..cpu.parts import load_part, store_part
from ..declare import helper
from ..simd import fma, lanes, load, splat, store, sum_lanes, where

#: elements whose products are added up before the sum goes into a float64
RUN = 1024


@helper
def dot(x, y):
    """The sum of x y: runs of RUN elements, added up in float64."""
    total, n, w = np.float64(0.0), x.shape[0], lanes(x)
    for j in range(0, n, RUN):
        end = min(j + RUN, n)
        a = b = splat(x, 0.0)
        for i in range(j, end, 2 * w):
            a = fma(load_part(x, i, end - i), load_part(y, i, end - i), a)
            if i + w < end:
                k = i + w
                b = fma(load_part(x, k, end - k), load_part(y, k, end - k), b)
        total += np.float64(sum_lanes(a + b))
    return total


@helper
def largest(x):
    """max |x|; NaN where there is one."""
    found = np.float64(0.0)
    for i in range(x.shape[0]):
        size = abs(np.float64(x[i]))
        if size > found or size != size:
            found = size
    return found


@helper
def differs(x, y):
    """Whether any element of x is another than that of y."""
    n, found = x.shape[0], splat(x, 0.0)
    for i in range(0, n, lanes(x)):
        same = load_part(x, i, n - i) == load_part(y, i, n - i)
        found = where(same, found, splat(x, 1.0))
    return sum_lanes(found) > 0.0


@helper
def combine(a, x, b, y, z):
    """z = a x + b y."""
    n = x.shape[0]
    for i in range(0, n, lanes(x)):
        v = splat(x, a) * load_part(x, i, n - i)
        store_part(z, i, fma(splat(x, b), load_part(y, i, n - i), v), n - i)


@helper
def copy(x, y):
    """y = x."""
    n = x.shape[0]
    for i in range(0, n, lanes(x)):
        store_part(y, i, load_part(x, i, n - i), n - i)


@helper
def clear(x):
    """x = 0."""
    n = x.shape[0]
    for i in range(0, n, lanes(x)):
        store_part(x, i, splat(x, 0.0), n - i)


@helper
def copy_row(x, matrix, k):
    """Row k of the matrix = x."""
    n = x.shape[0]
    for i in range(0, n, lanes(x)):
        store_part(matrix, k * n + i, load_part(x, i, n - i), n - i)


@helper
def take_row(matrix, k, x):
    """x = row k of the matrix."""
    n = x.shape[0]
    for i in range(0, n, lanes(x)):
        store_part(x, i, load_part(matrix, k * n + i, n - i), n - i)


@helper
def dot_parts(x, i, y, j, n):
    """The sum of products of n elements of x from i on with those of y from j on; float64."""
    a = b = splat(x, 0.0)
    w = lanes(x)
    for k in range(0, n, 2 * w):
        a = fma(load_part(x, i + k, n - k), load_part(y, j + k, n - k), a)
        if k + w < n:
            m = k + w
            b = fma(load_part(x, i + m, n - m), load_part(y, j + m, n - m), b)
    return sum_lanes(a + b)


@helper
def pair_products(p, g, origin, before, s, y, k, pairs, m, state, at):
    """The newest pair s[k] = p - origin, y[k] = g - before; and, of all pairs i, the products
    s[i] y[k], y[i] y[k] (column k of two matrices), s[i] g and y[i] g (two columns), in the
    state from `at` on. One pass over all vectors, with sums as those of `dot`."""
    n, w = p.shape[0], lanes(p)
    newest, change = s[k], y[k]
    squares, products = at + m * m, at + 2 * m * m
    for age in range(pairs):
        i = (k - age) % m
        state[at + i * m + k], state[squares + i * m + k] = 0.0, 0.0
        state[products + i], state[products + m + i] = 0.0, 0.0
    for begin in range(0, n, RUN):
        end = min(begin + RUN, n)
        for e in range(begin, end, w):
            left = end - e
            store_part(newest, e, load_part(p, e, left) - load_part(origin, e, left), left)
            store_part(change, e, load_part(g, e, left) - load_part(before, e, left), left)
        for age in range(pairs):
            i = (k - age) % m
            step, bend = s[i], y[i]
            a = b = c = d = a2 = b2 = c2 = d2 = splat(p, 0.0)
            e = begin
            while e + 2 * w <= end:
                u, v, h, r = load(step, e), load(bend, e), load(change, e), load(g, e)
                a, b, c, d = fma(u, h, a), fma(v, h, b), fma(u, r, c), fma(v, r, d)
                f = e + w
                u, v, h, r = load(step, f), load(bend, f), load(change, f), load(g, f)
                a2, b2, c2, d2 = fma(u, h, a2), fma(v, h, b2), fma(u, r, c2), fma(v, r, d2)
                e += 2 * w
            while e < end:
                left = end - e
                u, v = load_part(step, e, left), load_part(bend, e, left)
                h, r = load_part(change, e, left), load_part(g, e, left)
                a, b, c, d = fma(u, h, a), fma(v, h, b), fma(u, r, c), fma(v, r, d)
                e += w
            state[at + i * m + k] += np.float64(sum_lanes(a + a2))
            state[squares + i * m + k] += np.float64(sum_lanes(b + b2))
            state[products + i] += np.float64(sum_lanes(c + c2))
            state[products + m + i] += np.float64(sum_lanes(d + d2))


@helper
def blend(scale, x, s, y, k, pairs, m, state, of_s, of_y, z):
    """z = scale x + the pairs' vectors times numbers of the state, and x z. One pass over all."""
    total, n, w = np.float64(0.0), x.shape[0], lanes(x)
    for begin in range(0, n, RUN):
        end = min(begin + RUN, n)
        for e in range(begin, end, w):
            store_part(z, e, splat(x, scale) * load_part(x, e, end - e), end - e)
        for age in range(pairs):
            i = (k - age) % m
            step, bend = s[i], y[i]
            a, b = splat(x, state[of_s + i]), splat(x, state[of_y + i])
            e = begin
            while e + w <= end:
                store(z, e, fma(b, load(bend, e), fma(a, load(step, e), load(z, e))))
                e += w
            if e < end:
                left = end - e
                v = fma(a, load_part(step, e, left), load_part(z, e, left))
                store_part(z, e, fma(b, load_part(bend, e, left), v), left)
        a = splat(x, 0.0)
        for e in range(begin, end, w):
            a = fma(load_part(x, e, end - e), load_part(z, e, end - e), a)
        total += np.float64(sum_lanes(a))
    return total
