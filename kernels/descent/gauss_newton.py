"""What the methods on Gauss-Newton products share: their state, and how an iteration goes on.

An iteration takes turns between two programs over the data: one sums loss and gradient where the
parameters are, the other the product of the Gauss-Newton matrix with a vector. After either a
kernel does what lies between, and says by `WANTED` which of them it needs next. The state begins as
that of a line search (`search.py`) does; its PHASE is one of the kernel's own.
"""

import math

from ..control_block import CURSOR, NOT_FINITE, REQUESTED, STOP, STOP_REQUEST
from ..control_block import STEP as STEPS
from ..declare import helper
from .search import COUNT, EVALUATIONS, ITERATIONS, LOSS, OUTCOME, STUCK
from .vectors import clear, combine, copy, dot

DAMPING = 30
# places of these methods' own
WANTED = 31  # which program comes next, see below
SCALE = 32  # from sums over the data to the loss, the gradient and the product
COLUMN = 33  # of the matrix
SQUARES = 34  # of the residual
ROUND, KEPT, NEXT_KEPT = 35, 36, 37  # of conjugate gradients: iterations, iterates that are kept
LOWEST, MODEL, RATE = 38, 39, 40  # the lowest loss among iterates; the model's value; of the step
GROWTH = 41  # of the damping, where the next step is refused
SIZE = 48

#: WANTED: loss and gradient; a product
EVALUATION, PRODUCT = 0, 1
#: PHASE: loss and gradient are those where the iteration began
BEGIN = 0


@helper
def arrive(control, state, g, product, summed):
    """Whether there is anything to do; loss, gradient or product are then those of their sums."""
    if control[STOP] != 0 and control[STOP] != REQUESTED:
        return False
    control[CURSOR] = 0
    control[STEPS] = state[ITERATIONS]
    if state[WANTED] == PRODUCT:
        combine(state[SCALE], product, 0.0, product, product)
        return True
    state[SCALE] = 1.0 if summed != 0 else 1.0 / state[COUNT]
    state[LOSS] = state[LOSS] * state[SCALE]
    combine(state[SCALE], g, 0.0, g, g)
    state[EVALUATIONS] += 1
    return True


@helper
def is_finite(state, g):
    """Whether loss and gradient are finite."""
    return math.isfinite(state[LOSS]) and math.isfinite(dot(g, g))


@helper
def larger(a, kept):
    """The larger of both; what is not a finite number is never kept."""
    return a if a > kept and a < math.inf else kept


@helper
def fail(control):
    """There is nothing to begin with."""
    control[STOP] = NOT_FINITE


@helper
def want_evaluation(control, state, totals, g, reported):
    """Loss and gradient where the parameters are come next."""
    clear(g)
    state[LOSS], state[COUNT] = 0.0, 0.0
    for k in range(reported):
        totals[k] = 0.0
    if state[WANTED] != EVALUATION or control[STOP_REQUEST] != 0:
        control[STOP] = REQUESTED
    state[WANTED] = EVALUATION


@helper
def want_product(control, state, product):
    """The product with the vector comes next."""
    clear(product)
    if state[WANTED] != PRODUCT or control[STOP_REQUEST] != 0:
        control[STOP] = REQUESTED
    state[WANTED] = PRODUCT


@helper
def stay(control, state, p, g, origin):
    """No step lowers the loss: the parameters are where the iteration began."""
    copy(origin, p)
    clear(g)
    state[OUTCOME] = STUCK
    control[STOP] = REQUESTED
