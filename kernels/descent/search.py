"""A line search for a step that satisfies the strong Wolfe conditions (Moré & Thuente 1994).

The search is told the function's value and slope at a trial step, and says which step to try next:
its state is an array of float64, so that it goes on in compiled code from run to run. Names below
are places in that array.
"""

import math

from ..declare import helper

LOSS, COUNT = 0, 1  # the loss's sum over the data so far, and what it is divided by
PHASE = 2  # see below
START_LOSS, START_SLOPE = 3, 4  # where the search began
STEP = 5  # the step to try, in units of the direction
EVALUATIONS = 6  # of loss and gradient, in all
TRIALS = 7  # in this search
ITERATIONS = 8  # steps taken
STORED = 9  # pairs in the history
OUTCOME = 10  # see below
LARGEST = 11  # the largest element of the gradient, where the last iteration ended
ENDED = 12  # the loss there
DROP = 13  # by how much the last iteration lowered the loss
STEEPEST = 14  # whether the direction is that of steepest descent
SINCE = 15  # iterations since the last restart
BRACKETED, STAGE = 16, 17
BEST, BEST_LOSS, BEST_SLOPE = 18, 19, 20  # the best step so far
OTHER, OTHER_LOSS, OTHER_SLOPE = 21, 22, 23  # the other end of the interval
LEAST, MOST = 24, 25  # where the next step has to lie
WIDTH, WIDTH_BEFORE = 26, 27
LIMIT = 28  # no step beyond it
TRAINED = 29  # a hash of the names of the parameters that are trained
HEAD = 32  # numbers of the state without those of a history

# PHASE: nothing is known yet; loss and gradient have been taken anew where the parameters stand;
# at a trial step; at the best step, to be taken; the parameters have to go to the first trial step
UNKNOWN, AGAIN, SEARCHING, SETTLING, READY = 0, 1, 2, 3, 4
# OUTCOME: an iteration goes on; it is done; the gradient is small; the loss hardly falls; no step
# lowers it
GOING, DONE, SMALL_GRADIENT, SMALL_CHANGE, STUCK = 0, 1, 2, 3, 4
# what a search says of a step: try another; take it; it can't be bettered by this search
TRY, TAKE, GIVE_UP = 0, 1, 2


@helper
def begin_search(state, loss, slope, step):
    """A search along a direction with this slope, with the first step to try."""
    state[START_LOSS], state[START_SLOPE], state[STEP] = loss, slope, step
    state[TRIALS] = 0
    state[BRACKETED], state[STAGE] = 0, 1
    state[BEST], state[BEST_LOSS], state[BEST_SLOPE] = 0.0, loss, slope
    state[OTHER], state[OTHER_LOSS], state[OTHER_SLOPE] = 0.0, loss, slope
    state[LIMIT] = 1e10
    state[LEAST], state[MOST] = 0.0, 5.0 * step
    state[WIDTH], state[WIDTH_BEFORE] = state[LIMIT], 2.0 * state[LIMIT]


@helper
def beyond(state):
    """The loss is not finite at the trial step: a shorter one."""
    state[LIMIT] = state[STEP]
    state[MOST] = min(state[MOST], state[STEP])
    state[STEP] = state[BEST] + 0.1 * (state[STEP] - state[BEST])


@helper
def cubic(a, fa, ga, b, fb, gb, clamp):
    """Of the cubic through two points: theta and gamma of Moré & Thuente."""
    theta = 3.0 * (fa - fb) / (b - a) + ga + gb
    scale = max(abs(theta), abs(ga), abs(gb))
    inner = (theta / scale) ** 2 - (ga / scale) * (gb / scale)
    if clamp:
        inner = max(0.0, inner)
    return theta, scale * math.sqrt(max(inner, 0.0))


@helper
def next_step(state, x, fx, gx, y, fy, gy, t, f, g, low, high):
    """A safeguarded step for an interval (x best, y other end) and a trial step t (their section
    4); and whether a minimum is bracketed."""
    bracketed = state[BRACKETED] != 0
    opposite = g * gx < 0.0
    if f > fx:
        theta, gamma = cubic(x, fx, gx, t, f, g, False)
        if t < x:
            gamma = -gamma
        r = ((gamma - gx) + theta) / (((gamma - gx) + gamma) + g)
        c = x + r * (t - x)
        q = x + ((gx / ((fx - f) / (t - x) + gx)) / 2.0) * (t - x)
        new = c if abs(c - x) < abs(q - x) else c + (q - c) / 2.0
        bracketed = True
    elif opposite:
        theta, gamma = cubic(x, fx, gx, t, f, g, False)
        if t > x:
            gamma = -gamma
        r = ((gamma - g) + theta) / (((gamma - g) + gamma) + gx)
        c = t + r * (x - t)
        q = t + (g / (g - gx)) * (x - t)
        new = c if abs(c - t) > abs(q - t) else q
        bracketed = True
    elif abs(g) < abs(gx):
        theta, gamma = cubic(x, fx, gx, t, f, g, True)
        if t > x:
            gamma = -gamma
        r = ((gamma - g) + theta) / ((gamma + (gx - g)) + gamma)
        if r < 0.0 and gamma != 0.0:
            c = t + r * (x - t)
        else:
            c = high if t > x else low
        q = t + (g / (g - gx)) * (x - t)
        if bracketed:
            new = c if abs(c - t) < abs(q - t) else q
            edge = t + 0.66 * (y - t)
            new = min(edge, new) if t > x else max(edge, new)
        else:
            new = c if abs(c - t) > abs(q - t) else q
            new = max(low, min(high, new))
    elif bracketed:
        theta, gamma = cubic(t, f, g, y, fy, gy, False)
        if t > y:
            gamma = -gamma
        r = ((gamma - g) + theta) / (((gamma - g) + gamma) + gy)
        new = t + r * (y - t)
    else:
        new = high if t > x else low
    return new, bracketed, opposite


@helper
def search_step(state, f, g, decrease, curvature, narrow):
    """Take note of the loss f and the slope g at the trial step; TRY, TAKE or GIVE_UP.

    decrease, curvature: the constants of the Wolfe conditions. narrow: how small the interval may
    become, relative to its upper end.
    """
    t, start, slope = state[STEP], state[START_LOSS], state[START_SLOPE]
    test = decrease * slope
    wanted = start + t * test
    if state[STAGE] == 1 and f <= wanted and g >= 0.0:
        state[STAGE] = 2
    state[TRIALS] += 1
    if f <= wanted and abs(g) <= -curvature * slope:
        return TAKE
    bracketed = state[BRACKETED] != 0
    if bracketed and (t <= state[LEAST] or t >= state[MOST]):
        return GIVE_UP
    if bracketed and state[MOST] - state[LEAST] <= narrow * state[MOST]:
        return GIVE_UP
    if t == state[LIMIT] and f <= wanted and g <= test:
        return GIVE_UP
    x, fx, gx = state[BEST], state[BEST_LOSS], state[BEST_SLOPE]
    y, fy, gy = state[OTHER], state[OTHER_LOSS], state[OTHER_SLOPE]
    # while no step is low enough: the function less a part of its decrease
    shift = test if state[STAGE] == 1 and f <= fx and f > wanted else 0.0
    new, bracketed, opposite = next_step(
        state, x, fx - x * shift, gx - shift, y, fy - y * shift, gy - shift,
        t, f - t * shift, g - shift, state[LEAST], state[MOST],
    )  # fmt: skip
    if f - t * shift > fx - x * shift:
        y, fy, gy = t, f, g
    else:
        if opposite:
            y, fy, gy = x, fx, gx
        x, fx, gx = t, f, g
    state[BEST], state[BEST_LOSS], state[BEST_SLOPE] = x, fx, gx
    state[OTHER], state[OTHER_LOSS], state[OTHER_SLOPE] = y, fy, gy
    if bracketed:
        if abs(y - x) >= 0.66 * state[WIDTH_BEFORE]:
            new = x + 0.5 * (y - x)
        state[WIDTH_BEFORE] = state[WIDTH]
        state[WIDTH] = abs(y - x)
        state[LEAST], state[MOST] = min(x, y), max(x, y)
    else:
        state[LEAST], state[MOST] = new + 1.1 * (new - x), new + 4.0 * (new - x)
    state[BRACKETED] = 1 if bracketed else 0
    new = max(0.0, min(state[LIMIT], new))
    low, high = state[LEAST], state[MOST]
    if bracketed and (new <= low or new >= high or high - low <= narrow * high):
        new = x
    state[STEP] = new
    return TRY
