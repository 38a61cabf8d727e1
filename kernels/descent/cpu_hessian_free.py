"""Hessian-free optimisation: conjugate gradients on products, back along them and along the line.

P elements of memory. All is made by one worker.
"""

import math

import numpy as np

from ..declare import KERNELS, Kernel, helper, kernel
from .cpu import leave, move_on
from .gauss_newton import (
    BEGIN,
    DAMPING,
    KEPT,
    LOWEST,
    MODEL,
    NEXT_KEPT,
    RATE,
    ROUND,
    SQUARES,
    arrive,
    fail,
    is_finite,
    stay,
    want_evaluation,
    want_product,
)
from .search import ENDED, LARGEST, LOSS, PHASE, SMALL_GRADIENT, START_LOSS, TRIALS
from .vectors import clear, combine, copy, copy_row, dot, largest, take_row

#: PHASE: the product with the beginning of conjugate gradients; with their direction; the loss at
#: the last iterate, at an earlier one; loss and gradient along the line
START, DIRECTION, LAST, EARLIER, LINE = 1, 2, 3, 4, 5
#: lengths of the step that are tried
MOST_LENGTHS = 60
#: beyond this damping nothing is tried anew
MOST_DAMPING = 1e15


def kept_iterates(rounds: int) -> int:
    """How many iterates are kept of so many rounds: ever further apart, and the last."""
    found, after = 1, 1
    while after <= rounds:
        found, after = found + 1, next_kept(after)
    return found


@helper
def next_kept(after):
    """The number of the next iterate to keep: 1.3 times this one, rounded up."""
    return math.ceil(after * 1.3 + 1e-9)


@helper
def model_at(iterate, residual, before):
    """1/2 x.A x + g.x, of the residual A x + g."""
    return 0.5 * (dot(iterate, residual) + dot(iterate, before))


@helper
def keep(state, values, iterate, iterates, rounds, value):
    """Keep an iterate and the model's value there."""
    k = np.int64(state[KEPT])
    copy_row(iterate, iterates, k)
    values[rounds + 1 + k] = value
    state[KEPT] = k + 1


@helper
def set_out(state, values, before, vector, iterate, residual):
    """The first direction, of the residual."""
    combine(-1.0, residual, 0.0, residual, vector)
    state[SQUARES] = dot(residual, residual)
    state[ROUND], state[KEPT], state[NEXT_KEPT] = 0, 0, 1
    values[0] = model_at(iterate, residual, before)
    state[PHASE] = DIRECTION


@helper
def begin_rounds(state, values, before, direction, vector, iterate, residual, decay):
    """Conjugate gradients begin at a part of the last direction; its product is needed first,
    where it is not 0."""
    combine(decay, direction, 0.0, direction, iterate)
    if largest(iterate) > 0.0:
        copy(iterate, vector)
        state[PHASE] = START
        return
    copy(before, residual)
    set_out(state, values, before, vector, iterate, residual)


@helper
def next_round(state, values, before, vector, product, iterate, residual, iterates, rounds):
    """One iteration of conjugate gradients; whether it was the last."""
    combine(1.0, product, state[DAMPING], vector, product)
    bent, squares = dot(vector, product), state[SQUARES]
    if not bent > 0.0 or squares == 0.0:
        return True
    combine(1.0, iterate, squares / bent, vector, iterate)
    combine(1.0, residual, squares / bent, product, residual)
    i = np.int64(state[ROUND]) + 1
    state[ROUND] = i
    values[i] = model_at(iterate, residual, before)
    if i >= state[NEXT_KEPT]:
        keep(state, values, iterate, iterates, rounds, values[i])
        state[NEXT_KEPT] = next_kept(state[NEXT_KEPT])
    k = max(10, i // 10)
    if i > k and values[i] < 0.0 and values[i] - values[i - k] > values[i] * k * 0.0005:
        return True
    state[SQUARES] = dot(residual, residual)
    combine(state[SQUARES] / squares, vector, -1.0, residual, vector)
    return i >= rounds


@helper
def end_rounds(state, values, p, origin, direction, iterate, iterates, rounds):
    """p = the end of the last iterate, whose loss is wanted next."""
    i, k = np.int64(state[ROUND]), np.int64(state[KEPT])
    # the last one is among those kept already where the next to keep has moved on with it
    if k == 0 or values[rounds + k] != values[i]:
        keep(state, values, iterate, iterates, rounds, values[i])
    copy(iterate, direction)
    combine(1.0, origin, 1.0, iterate, p)
    state[KEPT] -= 1
    state[MODEL] = values[i]
    state[PHASE] = LAST


@helper
def go_back(state, values, p, origin, iterate, iterates, rounds):
    """The loss at an iterate is known: whether that of an earlier one is wanted, where p is then.
    `iterate` is the best of them."""
    k = np.int64(state[KEPT])
    if state[PHASE] == LAST:
        state[LOWEST], state[PHASE] = state[LOSS], EARLIER
    elif not state[LOSS] < state[LOWEST] and math.isfinite(state[LOWEST]):
        return False
    else:
        state[LOWEST], state[MODEL] = state[LOSS], values[rounds + 1 + k]
        take_row(iterates, k, iterate)
    if k == 0:
        return False
    take_row(iterates, k - 1, p)
    combine(1.0, p, 1.0, origin, p)
    state[KEPT] = k - 1
    return True


@helper
def damp(state):
    """Levenberg's rule: by how the loss falls of what the model says."""
    ratio = np.float64(-1.0)
    if state[MODEL] < 0.0 and math.isfinite(state[LOWEST]):
        ratio = (state[LOWEST] - state[START_LOSS]) / state[MODEL]
    if ratio < 0.25:
        state[DAMPING] *= 1.5
    elif ratio > 0.75:
        state[DAMPING] /= 1.5


def hessian_free_step(
    control: "inout whole i[L]",
    totals: "inout whole r[T]",
    state: "inout whole r[S]",
    values: "inout whole r[V]",  # of the model, by iteration, then of the iterates that are kept
    p: "inout whole f[P]",
    g: "inout whole f[P]",
    before: "inout whole f[P]",
    origin: "inout whole f[P]",
    direction: "inout whole f[P]",
    vector: "inout whole f[P]",
    product: "inout whole f[P]",
    iterate: "inout whole f[P]",
    residual: "inout whole f[P]",
    iterates: "inout whole f[K,P]",
    decay: "double",
    rounds: "int",
    tolerance_gradient: "double",
    tolerance_change: "double",
    summed: "int",
    reported: "int",
):
    """Loss and gradient, or a product with a direction, have been summed over the data: the next
    round, the next place to look at, or the end of the iteration."""
    if not arrive(control, state, g, product, summed):
        return
    again = False
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
        begin_rounds(state, values, before, direction, vector, iterate, residual, decay)
    elif state[PHASE] == START:
        combine(1.0, product, state[DAMPING], iterate, residual)
        combine(1.0, residual, 1.0, before, residual)
        set_out(state, values, before, vector, iterate, residual)
    elif state[PHASE] == DIRECTION:
        if next_round(state, values, before, vector, product, iterate, residual, iterates, rounds):
            end_rounds(state, values, p, origin, direction, iterate, iterates, rounds)
    elif state[PHASE] == LINE:
        length = state[RATE]
        enough = state[START_LOSS] + 1e-2 * length * min(dot(before, iterate), 0.0)
        if is_finite(state, g) and state[LOSS] <= enough and state[LOSS] < state[START_LOSS]:
            leave(
                control, state,
                move_on(state, state[LOSS], g, tolerance_gradient, tolerance_change),
            )  # fmt: skip
            clear(g)
            return
        state[RATE] = 0.8 * length
        state[TRIALS] += 1
        again = state[TRIALS] >= MOST_LENGTHS
        if not again:
            combine(1.0, origin, state[RATE], iterate, p)
    elif not go_back(state, values, p, origin, iterate, iterates, rounds):
        damp(state)
        combine(1.0, origin, 1.0, iterate, p)
        state[PHASE], state[RATE], state[TRIALS] = LINE, 1.0, 0
    if again:
        # what it began with may be wrong: without it once more
        if largest(direction) == 0.0 or state[DAMPING] >= MOST_DAMPING:
            stay(control, state, p, g, origin)
            return
        copy(origin, p)
        clear(direction)
        begin_rounds(state, values, before, direction, vector, iterate, residual, decay)
    if state[PHASE] == START or state[PHASE] == DIRECTION:
        want_product(control, state, product)
    else:
        want_evaluation(control, state, totals, g, reported)


def make_step() -> Kernel:
    """The kernel between the programs over the data."""
    name = hessian_free_step.__name__
    if name not in KERNELS:
        kernel(hessian_free_step, name=name, bookkeeping=True)
    return KERNELS[name]
