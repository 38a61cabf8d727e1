"""Levenberg-Marquardt: the Gauss-Newton matrix column by column, and its damped solutions.

N trained parameters, P elements of memory. All is made by one worker; the matrix is in float64.
Damping follows Nielsen (1999); what it multiplies, the largest diagonal so far, Moré (1978).
"""

import math

import numpy as np

from ..declare import KERNELS, Kernel, helper, kernel
from ..simd import fma, lanes, load, splat, sum_lanes
from .cpu import leave, move_on
from .gauss_newton import (
    BEGIN,
    COLUMN,
    DAMPING,
    GROWTH,
    MODEL,
    arrive,
    fail,
    is_finite,
    larger,
    stay,
    want_evaluation,
    want_product,
)
from .search import ENDED, LARGEST, LOSS, PHASE, SMALL_GRADIENT, START_LOSS, TRIALS
from .vectors import clear, copy, dot_parts, largest

#: PHASE: columns of the matrix are being made; loss and gradient are those of a step
COLUMNS, TRIAL = 1, 2
#: rows that are factored together
ROWS = 4


@helper
def symmetric(matrix):
    """The half above the diagonal becomes the mean of both."""
    for i in range(matrix.shape[0]):
        for j in range(i):
            matrix[j, i] = (matrix[i, j] + matrix[j, i]) / 2


@helper
def scale(matrix, places, scaling, diagonal):
    """What damping multiplies: the largest diagonal so far, its elements at least a tiny share of
    the largest of them."""
    n, top = matrix.shape[0], np.float64(0.0)
    for i in range(n):
        diagonal[i] = larger(matrix[i, i], np.float64(scaling[places[i]]))
        top = max(top, diagonal[i])
    for i in range(n):
        diagonal[i] = max(diagonal[i], 1e-12 * max(top, 1e-300))


@helper
def remember(matrix, places, scaling):
    """The largest diagonal so far is one with this one in it."""
    for i in range(matrix.shape[0]):
        scaling[places[i]] = larger(matrix[i, i], np.float64(scaling[places[i]]))


@helper
def four_dots(matrix, i, j, n):
    """Products of row j with rows i to i + 3, of their first n columns."""
    C, w = matrix.shape[1], lanes(matrix)
    a = b = c = d = splat(matrix, 0.0)
    whole = n - n % w
    for k in range(0, whole, w):
        other = load(matrix, j * C + k)
        a = fma(load(matrix, i * C + k), other, a)
        b = fma(load(matrix, (i + 1) * C + k), other, b)
        c = fma(load(matrix, (i + 2) * C + k), other, c)
        d = fma(load(matrix, (i + 3) * C + k), other, d)
    s, t, u, v = sum_lanes(a), sum_lanes(b), sum_lanes(c), sum_lanes(d)
    for k in range(whole, n):
        other = matrix[j, k]
        s += matrix[i, k] * other
        t += matrix[i + 1, k] * other
        u += matrix[i + 2, k] * other
        v += matrix[i + 3, k] * other
    return s, t, u, v


@helper
def factor_rows(matrix, diagonal, roots, damping, i, begin):
    """Row i of the factor from column `begin` on; whether its root exists."""
    C = matrix.shape[1]
    for j in range(begin, i):
        inner = dot_parts(matrix, i * C, matrix, j * C, j)
        matrix[i, j] = (matrix[j, i] - inner) / roots[j]
    rest = matrix[i, i] + damping * diagonal[i] - dot_parts(matrix, i * C, matrix, i * C, i)
    if not rest > 0.0:
        return False
    roots[i] = math.sqrt(rest)
    return True


@helper
def factor(matrix, diagonal, roots, damping):
    """Cholesky's factor of matrix + damping diag(diagonal): its rows below the diagonal, which
    leaves the matrix above it as it is, and `roots` for the diagonal. False where the matrix is
    not positive definite."""
    n = matrix.shape[0]
    for i in range(0, n, ROWS):
        whole = i + ROWS <= n
        if whole:
            for j in range(i):
                s, t, u, v = four_dots(matrix, i, j, j)
                matrix[i, j] = (matrix[j, i] - s) / roots[j]
                matrix[i + 1, j] = (matrix[j, i + 1] - t) / roots[j]
                matrix[i + 2, j] = (matrix[j, i + 2] - u) / roots[j]
                matrix[i + 3, j] = (matrix[j, i + 3] - v) / roots[j]
        for k in range(i, min(i + ROWS, n)):
            if not factor_rows(matrix, diagonal, roots, damping, k, i if whole else 0):
                return False
    return True


@helper
def solve(matrix, roots, x):
    """x = the solution for x, by the factor."""
    n, C = matrix.shape[0], matrix.shape[1]
    for i in range(n):
        x[i] = (x[i] - dot_parts(matrix, i * C, x, 0, i)) / roots[i]
    for i in range(n - 1, -1, -1):
        x[i] = x[i] / roots[i]
        for j in range(i):
            x[j] -= x[i] * matrix[i, j]


@helper
def unit_vector(vector, places, k):
    """1 at the place of parameter k, 0 elsewhere."""
    clear(vector)
    vector[places[k]] = 1.0


@helper
def take_column(product, places, matrix, k):
    """Row k of the matrix = the product's elements at the parameters' places."""
    for j in range(matrix.shape[0]):
        matrix[k, j] = product[places[j]]


@helper
def take_right_side(before, places, x):
    """x = minus the gradient."""
    for i in range(x.shape[0]):
        x[i] = -np.float64(before[places[i]])


@helper
def add_at(x, places, p):
    """p += x, at the parameters' places."""
    for i in range(x.shape[0]):
        p[places[i]] += x[i]


@helper
def foretold(x, before, places, diagonal, damping):
    """By how much the quadratic model says that step x lowers the loss: -g x - x G x / 2, where
    (G + damping D) x = -g."""
    total = np.float64(0.0)
    for i in range(x.shape[0]):
        total += x[i] * (damping * diagonal[i] * x[i] - np.float64(before[places[i]]))
    return total / 2


@helper
def grow(state):
    """A step is refused: damping times 2, and then 4, 8, ... in the same iteration."""
    state[DAMPING] = min(state[DAMPING] * state[GROWTH], 1e15)
    state[GROWTH] *= 2


@helper
def relax(state, most):
    """A step is taken: damping by the share of the foretold fall that came, smoothly from twice as
    much where little did to 1 / most of it where all did."""
    share = min((state[START_LOSS] - state[LOSS]) / max(state[MODEL], 1e-300), 1.0)
    state[DAMPING] *= max(1 - (2 * share - 1) ** 3, 1 / most)
    state[DAMPING] = max(state[DAMPING], 1e-15)


@helper
def damped_step(state, p, before, origin, matrix, places, diagonal, roots, x, trials):
    """p = the end of the next step for which the matrix has a factor; False: there is none among
    those that are left."""
    while state[TRIALS] < trials:
        state[TRIALS] += 1
        if factor(matrix, diagonal, roots, state[DAMPING]):
            take_right_side(before, places, x)
            solve(matrix, roots, x)
            copy(origin, p)
            add_at(x, places, p)
            state[MODEL] = foretold(x, before, places, diagonal, state[DAMPING])
            return True
        grow(state)
    return False


def levenberg_marquardt_step(
    control: "inout whole i[L]",
    totals: "inout whole r[T]",
    state: "inout whole r[S]",
    p: "inout whole f[P]",
    g: "inout whole f[P]",
    before: "inout whole f[P]",
    origin: "inout whole f[P]",
    vector: "inout whole f[P]",
    product: "inout whole f[P]",
    scaling: "inout whole f[P]",
    matrix: "inout whole r[N,N]",
    numbers: "inout whole r[K,N]",
    places: "in whole i[N]",
    fall: "double",
    most_trials: "int",
    tolerance_gradient: "double",
    tolerance_change: "double",
    summed: "int",
    reported: "int",
):
    """Loss and gradient, or a product with a unit vector, have been summed over the data: the next
    column, the next step to try, or the end of the iteration."""
    if not arrive(control, state, g, product, summed):
        return
    n = matrix.shape[0]
    diagonal, roots, x = numbers[0], numbers[1], numbers[2]
    if state[PHASE] == BEGIN:
        if not is_finite(state, g):
            fail(control)
            return
        state[START_LOSS] = state[ENDED] = state[LOSS]
        state[LARGEST] = largest(g)
        if state[LARGEST] <= tolerance_gradient:
            clear(g)
            leave(control, state, SMALL_GRADIENT)
            return
        copy(p, origin)
        copy(g, before)
        unit_vector(vector, places, 0)
        state[PHASE], state[COLUMN] = COLUMNS, 0
        want_product(control, state, product)
        return
    if state[PHASE] == COLUMNS:
        k = np.int64(state[COLUMN])
        take_column(product, places, matrix, k)
        if k + 1 < n:
            unit_vector(vector, places, k + 1)
            state[COLUMN] = k + 1
            want_product(control, state, product)
            return
        symmetric(matrix)
        scale(matrix, places, scaling, diagonal)
        state[PHASE], state[TRIALS], state[GROWTH] = TRIAL, 0, 2.0
    elif is_finite(state, g) and state[LOSS] < state[START_LOSS]:
        relax(state, fall)
        remember(matrix, places, scaling)
        leave(control, state, move_on(state, state[LOSS], g, tolerance_gradient, tolerance_change))
        clear(g)
        return
    else:
        grow(state)
    if damped_step(
        state, p, before, origin, matrix, places, diagonal, roots, x, most_trials
    ):  # fmt: skip
        want_evaluation(control, state, totals, g, reported)
    else:
        stay(control, state, p, g, origin)


def make_step() -> Kernel:
    """The kernel between the programs over the data."""
    name = levenberg_marquardt_step.__name__
    if name not in KERNELS:
        kernel(levenberg_marquardt_step, name=name, bookkeeping=True)
    return KERNELS[name]
