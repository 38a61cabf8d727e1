"""Directions of the full-batch methods: steepest descent, conjugate gradients and L-BFGS.

The functions of L-BFGS have the pairs s, y in two tuples of vectors; pair m takes the place of
pair 0. All pairs give one direction, whichever form computes it. The two loops of Nocedal (1980)
read some 8 m vectors and write 2 m; the compact form (Byrd, Nocedal & Schnabel 1994) keeps the
inner products of all pairs, and reads 4 m vectors.
"""

from __future__ import annotations

import numpy as np

from ..declare import helper
from .search import HEAD, ITERATIONS, SINCE, STEEPEST, STORED
from .vectors import blend, combine, dot, pair_products

#: pairs up to which inner products are kept, so that the state stays small
COMPACT = 32
#: pairs of the kernels that were made, by name: those for CUDA are made when somebody asks for them
MADE: dict[str, int] = {}


def numbers_needed(pairs: int) -> int:
    """Of the search's state, for so many pairs."""
    return 2 * pairs * pairs + 4 * pairs if pairs <= COMPACT else 2 * pairs


@helper
def steepest(state, g, direction):
    """The direction of steepest descent; its slope."""
    combine(-1.0, g, 0.0, g, direction)
    state[STEEPEST], state[SINCE], state[STORED] = 1, 0, 0
    return -dot(g, g)


@helper
def two_loops(state, p, g, origin, before, direction, s, y, m):
    """Minus the inverse Hessian times the gradient, by the two loops of Nocedal (1980)."""
    k = (np.int64(state[ITERATIONS]) - 1) % m
    newest, change = s[k], y[k]
    combine(1.0, p, -1.0, origin, newest)
    combine(1.0, g, -1.0, before, change)
    bent, squares = dot(newest, change), dot(change, change)
    if not bent > 1e-12 * squares:
        # no pair: the history begins anew
        return steepest(state, g, direction)
    state[HEAD + k] = 1.0 / bent
    stored = min(np.int64(state[STORED]) + 1, m)
    state[STORED], state[STEEPEST] = stored, 0
    combine(-1.0, g, 0.0, g, direction)
    for j in range(stored):
        i = (k - j) % m
        a = state[HEAD + i] * dot(s[i], direction)
        state[HEAD + m + i] = a
        combine(1.0, direction, -a, y[i], direction)
    combine(bent / squares, direction, 0.0, direction, direction)
    for j in range(stored - 1, -1, -1):
        i = (k - j) % m
        b = state[HEAD + i] * dot(y[i], direction)
        combine(1.0, direction, state[HEAD + m + i] - b, s[i], direction)
    slope = dot(g, direction)
    return slope if slope < 0.0 else steepest(state, g, direction)


@helper
def compact_direction(state, p, g, origin, before, direction, s, y, m):
    """The same from inner products: with R the upper triangle of S'Y, D its diagonal, c the scale
    of the newest pair and q = R^-1 S'g, H g = c g + S R'^-1 ((D + c Y'Y) q - c Y'g) - c Y q
    (their equation 3.1). Pair i is row and column i of both matrices, whatever its age."""
    k = (np.int64(state[ITERATIONS]) - 1) % m
    pairs = min(np.int64(state[STORED]) + 1, m)
    sy, yy = HEAD, HEAD + m * m
    sg, yg = yy + m * m, yy + m * m + m
    q, top = yg + m, yg + 2 * m
    pair_products(p, g, origin, before, s, y, k, pairs, m, state, HEAD)
    bent, squares = state[sy + k * m + k], state[yy + k * m + k]
    if not bent > 1e-12 * squares:
        # no pair: the history begins anew
        return steepest(state, g, direction)
    state[STORED], state[STEEPEST] = pairs, 0
    scale = bent / squares
    for age in range(pairs):
        i = (k - age) % m
        state[yy + k * m + i] = state[yy + i * m + k]
        value = state[sg + i]
        for newer in range(age):
            j = (k - newer) % m
            value -= state[sy + i * m + j] * state[q + j]
        state[q + i] = value / state[sy + i * m + i]
    for age in range(pairs - 1, -1, -1):
        i = (k - age) % m
        value = -state[yg + i]
        for other in range(pairs):
            j = (k - other) % m
            value += state[yy + i * m + j] * state[q + j]
        value = state[sy + i * m + i] * state[q + i] + scale * value
        for older in range(pairs - 1, age, -1):
            j = (k - older) % m
            value += state[sy + j * m + i] * state[top + j]  # which has the other sign
        state[top + i] = -value / state[sy + i * m + i]
    for age in range(pairs):
        i = (k - age) % m
        state[q + i] *= scale
    slope = blend(-scale, g, s, y, k, pairs, m, state, top, q, direction)
    return slope if slope < 0.0 else steepest(state, g, direction)


@helper
def cg_direction(state, g, before, direction, fletcher_reeves, restart):
    """-g + beta d, with beta of Polak & Ribiere, at least 0, or of Fletcher & Reeves."""
    now, then, across = dot(g, g), dot(before, before), dot(g, before)
    beta = now / then if fletcher_reeves != 0 else max(0.0, (now - across) / then)
    if fletcher_reeves != 0 and abs(across) >= 0.2 * now:  # Powell 1977
        beta = 0.0
    if restart != 0 and state[SINCE] >= restart:
        beta = 0.0
    if beta == 0.0:
        return steepest(state, g, direction)
    combine(beta, direction, -1.0, g, direction)
    state[STEEPEST] = 0
    slope = dot(g, direction)
    return slope if slope < -0.01 * now else steepest(state, g, direction)
