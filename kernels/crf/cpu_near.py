"""Sums over all tags in plain numbers, where no score is far from the others.

If the scores of transitions, beginning and end are within 10 of 0, and those of the tags of a step
within 30 of each other, no `alpha` or `beta` is below e^-50 / C of the largest one of its step, and
no product of theirs is too small for float32. A power of two is taken out in each step: that which
would have made the largest `alpha` of the step before about 1.

Names are as in `cpu.py`; `alpha`, `beta` and what they are made of have no exponents here. This is
one sequence at a time, with its tags in the lanes of vectors; `cpu_lanes.py` has many sequences,
and the same bits.
"""

import math

import numpy as np

from ..cpu.parts import keep_part, load_part, row_max
from ..ctc.cpu_plain import exponent_of, inverse
from ..declare import helper
from ..simd import fill_like, fma, lanes, load, max_lanes, maximum, splat, store, where
from ..vector_math import INFINITY, NAN, exp
from .shared import (
    ALPHA,
    BETA,
    NEXT,
    PLAIN,
    PLAIN_END,
    PLAIN_INTO,
    PLAIN_START,
    SCORE,
    SCORE_E,
    STEPS,
    row,
    step,
    table,
)

#: how far from 0 scores of transitions may be, and how far below the largest those of a step
FAR, APART = 10.0, 30.0
#: no largest `alpha` is smaller
LEAST = 1e-6


@helper
def near(transitions, start, end):
    """Whether the scores of transitions, beginning and end are near 0; NaN is not."""
    found = True
    for i in range(start.shape[0]):
        found = found and abs(start[i]) <= FAR and abs(end[i]) <= FAR
        for j in range(start.shape[0]):
            found = found and abs(transitions[i, j]) <= FAR
    return found


@helper
def enter_plain(x, base, C, work, to):
    """e^x of a row of C scores, 0 behind."""
    for j in range(0, C, lanes(x)):
        v = exp(keep_part(x, load_part(x, base + j, C - j), C - j, 0.0))
        store(work, to + j, keep_part(x, v, C - j, 0.0))


@helper
def prepare_plain(transitions, start, end, work, at, C, M):
    """The tables of transitions, in both orders, and the rows of beginning and end."""
    enter_plain(start, 0, C, work, at + row(PLAIN_START, C, M))
    enter_plain(end, 0, C, work, at + row(PLAIN_END, C, M))
    flat = work.reshape(work.size)
    for i in range(C):
        enter_plain(transitions, i * C, C, work, at + table(PLAIN, C, M, i))
        for j in range(C, M):
            flat[at + table(PLAIN_INTO, C, M, i) + j] = 0.0
    for i in range(C):
        for j in range(C):
            flat[at + table(PLAIN_INTO, C, M, j) + i] = flat[at + table(PLAIN, C, M, i) + j]


@helper
def likely(v, top):
    """e^(v - top), or NaN where that is too small for plain numbers."""
    v = v - top
    return exp(where(v >= -APART, v, fill_like(v, NAN)))


@helper
def plain_product(work, flat, m_at, tables, to, C, M):
    """The row at `m_at` times a table of transitions, written to `to`; `flat` is `work`. Three
    vectors at a time have sums that don't wait for each other."""
    w = lanes(work)
    whole = (C + w - 1) // (3 * w) * (3 * w)
    for j in range(0, whole, 3 * w):
        a = b = c = splat(work, 0.0)
        for i in range(C):
            at, m = tables + i * M + j, splat(work, flat[m_at + i])
            a = fma(load(work, at), m, a)
            b = fma(load(work, at + w), m, b)
            c = fma(load(work, at + 2 * w), m, c)
        store(work, to + j, a)
        store(work, to + j + w, b)
        store(work, to + j + 2 * w, c)
    for j in range(whole, C, w):
        a = splat(work, 0.0)
        for i in range(C):
            a = fma(load(work, tables + i * M + j), splat(work, flat[m_at + i]), a)
        store(work, to + j, a)


@helper
def advance_plain(x, work, flat, at, b, t, factor, C, M):
    """`alpha` of step t from that of the step before, times a factor, which the scores keep; its
    largest number. The largest score is noted behind the others. Where scores are too far apart,
    NaN spreads from there."""
    base, before = (b * x.shape[1] + t) * C, at + step(ALPHA, C, M, max(t - 1, 0))
    here, scores = at + step(ALPHA, C, M, t), at + step(SCORE, C, M, t)
    come, top, most = at + row(PLAIN_START, C, M), row_max(x, base, C), splat(work, LEAST)
    if t > 0:
        come = here
        plain_product(work, flat, before, at + table(PLAIN, C, M, 0), here, C, M)
    for j in range(0, C, lanes(work)):
        v = likely(keep_part(x, load_part(x, base + j, C - j), C - j, top), top) * factor
        store(work, scores + j, v)
        m = load(work, come + j) * v
        store(work, here + j, m)
        most = maximum(m, most)
    flat[scores + M] = top
    return splat(work, max_lanes(most))


@helper
def retreat_plain(work, flat, share, pair, at, b, t, C, M):
    """The shares of the tags of step t - 1, and those of the transitions from them, less the
    factors that the transitions have; `beta` of that step. It has the factors of `alpha`, so that
    the sum of their products is the same in each step."""
    w, P = lanes(work), C + 2
    alpha, beta = at + step(ALPHA, C, M, t - 1), at + row(BETA, C, M)
    scores, following = at + step(SCORE, C, M, t), at + row(NEXT, C, M)
    for j in range(0, C, w):
        v = load(work, beta + j) * load(work, scores + j)
        store(work, following + j, v)
        for i in range(C):
            to = (b * P + i) * M + j
            store(pair, to, fma(splat(work, flat[alpha + i]), v, load(pair, to)))
    plain_product(work, flat, following, at + table(PLAIN_INTO, C, M, 0), beta, C, M)
    for j in range(0, C, w):
        m = load(work, beta + j) * load(work, alpha + j)
        store(share, (b * share.shape[1] + t - 1) * M + j, m)


@helper
def whole_of(flat, last, apart, end, C):
    """The sum of e^score over all tags: of the last `alpha`, `apart` numbers after each other,
    times the row of the end; 0 where plain numbers won't do."""
    total = np.float64(0.0)
    for j in range(C):
        total += np.float64(flat[last + j * apart]) * np.float64(flat[end + j])
    return total if total > 1e-30 and total < INFINITY else np.float64(0.0)


@helper
def plain_loss(x, target, transitions, start, end, flat, tops, apart, total, powers, b, n):
    """The loss of a sequence by the sum over all tags, of which powers of two have been taken out,
    and the largest scores of its n steps, which are `apart` numbers after each other."""
    above, score, before = np.float64(0.0), np.float64(start[target[b, 0]]), target[b, 0]
    for t in range(n):
        tag = target[b, t]
        above += np.float64(flat[tops + t * apart]) - np.float64(x[b, t, tag])
        if t > 0:
            score += np.float64(transitions[before, tag])
        before = tag
    score += np.float64(end[before])
    return (math.log(total) - np.float64(powers) * 0.6931471805599453) + (above - score)


@helper
def take_off(target, share, pair, b, n, C):
    """The shares of the first and of the last tag; and all shares less those of the target."""
    for j in range(C):
        pair[b, C, j] = share[b, 0, j]
        pair[b, C + 1, j] = share[b, n - 1, j]
    pair[b, C, target[b, 0]] -= 1.0
    pair[b, C + 1, target[b, n - 1]] -= 1.0
    for t in range(n):
        share[b, t, target[b, t]] -= 1.0
        if t > 0:
            pair[b, target[b, t - 1], target[b, t]] -= 1.0


@helper
def sums_plain(x, target, transitions, start, end, share, pair, work, flat, at, b, n):
    """The shares of tags and transitions of the n steps of a sequence, and its loss: NaN where
    scores are too far apart, and nothing is written that counts."""
    w, C, M, P = lanes(work), x.shape[2], share.shape[2], x.shape[2] + 2
    factor, powers = splat(work, 1.0), splat(work, 0.0)
    most = advance_plain(x, work, flat, at, b, 0, factor, C, M)
    for t in range(1, n):
        factor = inverse(most)
        powers = powers + exponent_of(factor)
        most = advance_plain(x, work, flat, at, b, t, factor, C, M)
    last, ends = at + step(ALPHA, C, M, n - 1), at + row(PLAIN_END, C, M)
    total = whole_of(flat, last, 1, ends, C)
    if total == 0.0:
        return NAN
    for j in range(0, C, w):
        m = load(work, ends + j) * (1.0 / total)
        store(work, at + row(BETA, C, M) + j, m)
        store(share, (b * share.shape[1] + n - 1) * M + j, load(work, last + j) * m)
    for i in range(n - 1):
        retreat_plain(work, flat, share, pair, at, b, n - 1 - i, C, M)
    for i in range(C):
        for j in range(0, C, w):
            to = (b * P + i) * M + j
            store(pair, to, load(pair, to) * load(work, at + table(PLAIN, C, M, i) + j))
    return plain_loss(
        x, target, transitions, start, end, flat, at + step(SCORE_E, C, M, 0), STEPS * M, total,
        max_lanes(powers), b, n,
    )  # fmt: skip
