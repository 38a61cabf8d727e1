"""Full-batch descent over the flat memory of parameters.

P elements of memory, S numbers of the search's state, T running totals, N rows of C columns.
Kernels of the search are serial: one worker makes each, so their sums have one order. Sums are kept
in float64.
"""

import math

import numpy as np

from ..control_block import CURSOR, NOT_FINITE, REQUESTED, STOP, STOP_REQUEST
from ..control_block import STEP as STEPS
from ..cpu.parts import load_part, store_part
from ..declare import KERNELS, Kernel, helper, kernel
from ..recorded import execute
from ..simd import fma, lanes, splat
from .directions import COMPACT, MADE, cg_direction, compact_direction, steepest, two_loops
from .search import (
    AGAIN,
    BEST,
    COUNT,
    DONE,
    DROP,
    ENDED,
    EVALUATIONS,
    GIVE_UP,
    GOING,
    ITERATIONS,
    LARGEST,
    LOSS,
    OUTCOME,
    PHASE,
    READY,
    SEARCHING,
    SETTLING,
    SINCE,
    SMALL_CHANGE,
    SMALL_GRADIENT,
    START_LOSS,
    START_SLOPE,
    STEEPEST,
    STEP,
    STUCK,
    TAKE,
    TRIALS,
    TRY,
    UNKNOWN,
    begin_search,
    beyond,
    search_step,
)
from .vectors import clear, combine, copy, differs, dot, largest


@kernel
def add_scaled(
    x: "in rows f[N,C]",
    count: "in whole f[U]",  # absent: 1
    y: "inout rows f[N,C]",
    factor: "real",
    lo: "begin",
    hi: "end",
):
    """y += x * count * factor."""
    scale = count[0] * factor if count.size else factor
    n = hi * x.shape[1]
    for i in range(lo * x.shape[1], n, lanes(x)):
        store_part(
            y, i, fma(load_part(x, i, n - i), splat(x, scale), load_part(y, i, n - i)), n - i
        )


@helper
def depart(state, p, origin, direction):
    """p = origin + step direction: where loss and gradient are wanted next."""
    combine(1.0, origin, state[STEP], direction, p)


@helper
def take_totals(state, p, g, weight_decay, summed):
    """The loss where p is, of its sum; the gradient likewise. L2 regularisation comes with it."""
    scale = 1.0 if summed != 0 else 1.0 / state[COUNT]
    loss = state[LOSS] * scale
    state[LOSS], state[COUNT] = 0.0, 0.0
    if scale != 1.0 or weight_decay != 0.0:
        combine(scale, g, weight_decay, p, g)
    if weight_decay != 0.0:
        loss += 0.5 * weight_decay * dot(p, p)
    state[EVALUATIONS] += 1
    return loss


@helper
def leave(control, state, outcome):
    """The iteration is over."""
    state[OUTCOME] = outcome
    control[STOP] = REQUESTED


@helper
def first_length(slope, first):
    """The first step along steepest descent, which has no scale of its own."""
    return first * min(1.0, 1.0 / math.sqrt(-slope)) if slope < 0.0 else first


@helper
def move_on(state, loss, g, tolerance_gradient, tolerance_change):
    """An iteration is done: whether it was the last."""
    state[DROP] = state[START_LOSS] - loss
    state[ENDED], state[LARGEST] = loss, largest(g)
    state[ITERATIONS] += 1
    state[SINCE] += 1
    if state[LARGEST] <= tolerance_gradient:
        return SMALL_GRADIENT
    size = max(abs(loss), abs(state[START_LOSS]))
    return SMALL_CHANGE if state[DROP] <= tolerance_change * size else DONE


_DESCEND = '''
def descend(control, totals, state, p, g, origin, before, direction, {arrays}first, decrease,
            curvature, narrow, most_trials, tolerance_gradient, tolerance_change, weight_decay,
            summed, reported, {options}):
    """Loss and gradient have been summed over the data: the next place to look at, or the end of
    the iteration."""
    if control[STOP] != 0 and control[STOP] != REQUESTED:
        return
    control[STEPS] = np.int64(state[ITERATIONS])
    phase = state[PHASE]
    moved = (phase == READY or phase == AGAIN) and differs(p, origin)
    if phase == READY:
        state[PHASE], state[OUTCOME] = UNKNOWN, GOING
        if not moved:
            state[PHASE] = SEARCHING
            depart(state, p, origin, direction)
        return
    control[CURSOR] = 0
    loss = take_totals(state, p, g, weight_decay, summed)
    finite = math.isfinite(loss) and math.isfinite(dot(g, g))
    answer = TRY
    if phase == UNKNOWN or phase == AGAIN:
        if not finite:
            control[STOP] = NOT_FINITE
            return
        state[PHASE], state[OUTCOME] = SEARCHING, GOING
        copy(p, origin)
        copy(g, before)
        if phase == UNKNOWN or moved or loss != state[ENDED]:
            slope = steepest(state, g, direction)
            begin_search(state, loss, slope, first_length(slope, first))
        state[ENDED], state[LARGEST] = loss, largest(g)
        if state[LARGEST] <= tolerance_gradient:
            clear(g)
            state[PHASE] = READY
            leave(control, state, SMALL_GRADIENT)
            return
    elif not finite:
        state[TRIALS] += 1
        beyond(state)
    elif phase == SETTLING:
        answer = TAKE
    else:
        slope = dot(g, direction)
        answer = search_step(state, loss, slope, decrease, curvature, narrow)
        if answer == GIVE_UP and state[STEP] != state[BEST]:
            if loss <= state[START_LOSS] + decrease * state[STEP] * state[START_SLOPE]:
                answer = TAKE
    if answer == TRY and state[TRIALS] >= most_trials:
        answer = GIVE_UP
    if answer == TAKE:
        outcome = move_on(state, loss, g, tolerance_gradient, tolerance_change)
        previous = state[START_LOSS]
        control[STEPS] = np.int64(state[ITERATIONS])
        {direction}
        copy(p, origin)
        copy(g, before)
        clear(g)
        begin_search(state, loss, slope, length)
        state[PHASE] = READY
        leave(control, state, outcome)
        return
    if answer == GIVE_UP:
        if state[BEST] > 0.0 and phase == SEARCHING:
            state[PHASE], state[STEP] = SETTLING, state[BEST]
        elif state[STEEPEST] == 0:
            slope = steepest(state, before, direction)
            begin_search(state, state[START_LOSS], slope, first_length(slope, first))
            state[PHASE] = SEARCHING
        else:
            copy(origin, p)
            clear(g)
            state[PHASE], state[DROP] = UNKNOWN, 0.0
            leave(control, state, STUCK)
            return
    depart(state, p, origin, direction)
    clear(g)
    for k in range(reported):
        totals[k] = 0.0
    if control[STOP_REQUEST] != 0 and control[STOP] == 0:
        control[STOP] = REQUESTED
'''

_LBFGS = """
        slope = {function}(state, p, g, origin, before, direction, ({s},), ({y},), {m})
        length = first
        if state[STEEPEST] != 0:
            length = first_length(slope, first)
"""

_CG = """
        slope = cg_direction(state, g, before, direction, fletcher_reeves, restart)
        length = min(first, -2.02 * (previous - loss) / slope)
        if state[STEEPEST] != 0 and state[ITERATIONS] == 0 or not length > 0.0:
            length = first_length(slope, first)
"""


_SHARED = {
    "control": "inout whole i[L]",
    "totals": "inout whole r[T]",
    "state": "inout whole r[S]",
    "p": "inout whole f[P]",
    "g": "inout whole f[P]",
    "origin": "inout whole f[P]",
    "before": "inout whole f[P]",
    "direction": "inout whole f[P]",
}
_NUMBERS = (
    "first", "decrease", "curvature", "narrow", "most_trials", "tolerance_gradient",
    "tolerance_change", "weight_decay",
)  # fmt: skip
_SCOPE = {
    f.__name__: f
    for f in (
        begin_search, beyond, cg_direction, clear, combine, compact_direction, copy, depart,
        differs, dot, first_length, largest, leave, move_on, search_step, steepest, take_totals,
        two_loops,
    )
}  # fmt: skip
_SCOPE |= {
    "AGAIN": AGAIN, "BEST": BEST, "CURSOR": CURSOR, "ENDED": ENDED, "GIVE_UP": GIVE_UP,
    "GOING": GOING, "ITERATIONS": ITERATIONS, "LARGEST": LARGEST, "NOT_FINITE": NOT_FINITE,
    "OUTCOME": OUTCOME, "PHASE": PHASE, "READY": READY, "REQUESTED": REQUESTED,
    "SEARCHING": SEARCHING, "SETTLING": SETTLING, "SMALL_GRADIENT": SMALL_GRADIENT,
    "START_LOSS": START_LOSS, "START_SLOPE": START_SLOPE, "STEEPEST": STEEPEST, "STEP": STEP,
    "STEPS": STEPS, "STOP": STOP, "STOP_REQUEST": STOP_REQUEST, "STUCK": STUCK, "TAKE": TAKE,
    "TRIALS": TRIALS, "TRY": TRY, "UNKNOWN": UNKNOWN, "DROP": DROP, "math": math, "np": np,
}  # fmt: skip


def make_descend(name: str, history: int) -> Kernel:
    """The kernel of L-BFGS with so many pairs, or of conjugate gradients with none."""
    if name in KERNELS:
        return KERNELS[name]
    MADE[name] = history
    s, y = [f"s{k}" for k in range(history)], [f"y{k}" for k in range(history)]
    options = [] if history else ["fletcher_reeves", "restart"]
    function = "compact_direction" if history <= COMPACT else "two_loops"
    given = {"function": function, "s": ", ".join(s), "y": ", ".join(y), "m": history}
    direction = _LBFGS.format(**given) if history else _CG
    source = _DESCEND.format(
        arrays="".join(f"{n}, " for n in (*s, *y)), options=", ".join(options),
        direction=direction.strip(),
    )  # fmt: skip
    scope = {"__name__": __name__, **_SCOPE}
    execute(source, f"<kernel {name}>", scope)
    function = scope["descend"]
    function.__annotations__ = {
        **_SHARED,
        **dict.fromkeys((*s, *y), "inout whole f[P]"),
        **dict.fromkeys(_NUMBERS, "double"),
        "summed": "int",
        "reported": "int",  # the totals before the state, which lies behind them
        **dict.fromkeys(options, "int"),
    }
    return kernel(function, name=name, bookkeeping=True)
