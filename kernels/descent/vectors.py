"""Sums of vectors and inner products over flat memory, on one worker.

Inner products are runs of RUN elements in the vectors' own type, added up in float64: one order,
whatever the number of workers.
"""

import numpy as np

from ..cpu.parts import load_part, store_part
from ..declare import helper
from ..simd import fma, lanes, splat, sum_lanes, where

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
