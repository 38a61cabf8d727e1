"""Levenberg-Marquardt on CUDA: the CPU's kernel by one block (`cuda.py`); the matrix is factored
by columns, a warp a row.

Within a warp lane l of 32 has the products l, l + 32, ... of a row.
"""

import math

import numpy as np

from ..cuda.device import (
    WARP,
    block_max,
    block_sum,
    block_threads,
    cast,
    cuda,
    thread_number,
    warp_sum,
)
from ..declare import helper
from . import cpu_marquardt as cpu
from . import gauss_newton
from .cuda import of_one_block
from .cuda_vectors import VECTORS, Replaced
from .gauss_newton import larger


@helper
def unit_vector(vector, places, k):
    """vector = 0 but for a 1 at the k-th place."""
    for i in range(thread_number(), vector.shape[0], block_threads()):
        vector[i] = cast(vector, 0.0)
    cuda.syncthreads()
    if thread_number() == 0:
        vector[places[k]] = cast(vector, 1.0)


@helper
def take_column(product, places, matrix, k):
    """Row k of the matrix = the product at the places of the parameters."""
    cuda.syncthreads()
    for j in range(thread_number(), matrix.shape[0], block_threads()):
        matrix[k, j] = product[places[j]]
    cuda.syncthreads()


@helper
def symmetric(matrix):
    """The upper half of the matrix becomes the mean of both halves."""
    for i in range(thread_number(), matrix.shape[0], block_threads()):
        for j in range(i):
            matrix[j, i] = (matrix[i, j] + matrix[j, i]) / 2
    cuda.syncthreads()


@helper
def scale(matrix, places, scaling, diagonal):
    """What damping multiplies: the largest diagonal so far, above 0."""
    n, top = matrix.shape[0], np.float64(0.0)
    for i in range(thread_number(), n, block_threads()):
        diagonal[i] = larger(matrix[i, i], np.float64(scaling[places[i]]))
        top = max(top, diagonal[i])
    top = block_max(top)
    for i in range(thread_number(), n, block_threads()):
        diagonal[i] = max(diagonal[i], 1e-12 * max(top, 1e-300))
    cuda.syncthreads()


@helper
def remember(matrix, places, scaling):
    """The largest diagonal so far is one with this one in it."""
    for i in range(thread_number(), matrix.shape[0], block_threads()):
        k = places[i]
        scaling[k] = cast(scaling, larger(matrix[i, i], np.float64(scaling[k])))


@helper
def foretold(x, before, places, diagonal, damping):
    """By how much the quadratic model says that step x lowers the loss."""
    total = np.float64(0.0)
    for i in range(thread_number(), x.shape[0], block_threads()):
        total += x[i] * (damping * diagonal[i] * x[i] - np.float64(before[places[i]]))
    return block_sum(total) / 2


@helper
def inner(matrix, i, j, n):
    """The sum of products of rows i and j in the first n columns, for each thread of a warp."""
    total = np.float64(0.0)
    for k in range(thread_number() % WARP, n, WARP):
        total += matrix[i, k] * matrix[j, k]
    return warp_sum(total)


@helper
def factor(matrix, diagonal, roots, damping):
    """Cholesky's factor of matrix + damping * diagonal, in the lower half of the matrix and in
    `roots`; False where the matrix is not positive definite. A warp computes a row's element."""
    n, warp, warps = matrix.shape[0], thread_number() // WARP, block_threads() // WARP
    for j in range(n):
        rest = matrix[j, j] + damping * diagonal[j] - inner(matrix, j, j, j)
        if not rest > 0.0:
            return False
        root = math.sqrt(rest)
        for begin in range(j + 1, n, warps):
            i = begin + warp
            found = inner(matrix, min(i, n - 1), j, j)
            if i < n and thread_number() % WARP == 0:
                matrix[i, j] = (matrix[j, i] - found) / root
        if thread_number() == 0:
            roots[j] = root
        cuda.syncthreads()
    return True


@helper
def take_right_side(before, places, x):
    """x = minus the gradient at the places of the parameters, in float64."""
    cuda.syncthreads()
    for i in range(thread_number(), x.shape[0], block_threads()):
        x[i] = -np.float64(before[places[i]])
    cuda.syncthreads()


@helper
def solve(matrix, roots, x):
    """As by hand: one element after the other, and what it takes from those that follow."""
    n = matrix.shape[0]
    for i in range(n):
        if thread_number() == 0:
            x[i] = x[i] / roots[i]
        cuda.syncthreads()
        for j in range(i + 1 + thread_number(), n, block_threads()):
            x[j] -= x[i] * matrix[j, i]
        cuda.syncthreads()
    for i in range(n - 1, -1, -1):
        if thread_number() == 0:
            x[i] = x[i] / roots[i]
        cuda.syncthreads()
        for j in range(thread_number(), i, block_threads()):
            x[j] -= x[i] * matrix[i, j]
        cuda.syncthreads()


@helper
def add_at(x, places, p):
    """p += x at the places of the parameters."""
    cuda.syncthreads()
    for i in range(thread_number(), x.shape[0], block_threads()):
        p[places[i]] += cast(p, x[i])
    cuda.syncthreads()


_OWN = (
    unit_vector, take_column, symmetric, scale, remember, factor, take_right_side, solve, add_at,
    foretold,
)  # fmt: skip
_replaced = Replaced({**VECTORS, **{f.__name__: f for f in _OWN}})

levenberg_marquardt_step = of_one_block(cpu.make_step(), _replaced, gauss_newton.SIZE, __name__)
