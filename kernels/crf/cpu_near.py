"""Sums over all tags in plain numbers, where no score is far from the others.

If the scores of transitions, beginning and end are within 10 of 0, and those of the tags of a step
within 30 of each other, no `alpha` or `beta` is below e^-50 / C of the largest one of its step, and
no product of theirs is too small for float32. A common factor is taken out in each step: that
which would have made the largest `alpha` of the step before 1.

Names are as in `cpu.py`; `alpha`, `beta` and what they are made of have no exponents here.
"""

import math

import numpy as np

from ..cpu.parts import keep_part, load_part, row_max
from ..declare import helper
from ..simd import fma, lanes, load, max_lanes, maximum, splat, store, sum_lanes, where
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
    row,
    step,
    table,
)

#: how far from 0 scores of transitions may be, and how far below the largest those of a step
FAR, APART = 10.0, 30.0
#: steps whose factors are multiplied before a logarithm is taken
TOGETHER = 16


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
def plain_product(work, flat, m_at, tables, C, M, j):
    """Columns from j on of the row at `m_at` times a table of transitions; `flat` is `work`."""
    even, odd = splat(work, 0.0), splat(work, 0.0)
    for i in range(0, C - 1, 2):
        even = fma(load(work, tables + i * M + j), splat(work, flat[m_at + i]), even)
        odd = fma(load(work, tables + (i + 1) * M + j), splat(work, flat[m_at + i + 1]), odd)
    if C % 2 == 1:
        even = fma(load(work, tables + (C - 1) * M + j), splat(work, flat[m_at + C - 1]), even)
    return even + odd


@helper
def advance_plain(x, work, flat, at, b, t, factor, C, M):
    """`alpha` of step t from that of the step before, times a factor, which the scores keep; the
    factor that would make its largest number 1, and the largest score. Where scores are too far
    apart, NaN spreads from there."""
    base, before = (b * x.shape[1] + t) * C, at + step(ALPHA, C, M, max(t - 1, 0))
    here, scores = at + step(ALPHA, C, M, t), at + step(SCORE, C, M, t)
    top = row_max(x, base, C)
    most = splat(work, 1e-6)  # below any that is a number
    for j in range(0, C, lanes(work)):
        v = keep_part(x, load_part(x, base + j, C - j) - top, C - j, 0.0)
        v = exp(where(v >= splat(work, -APART), v, splat(work, NAN))) * factor
        store(work, scores + j, v)
        if t == 0:
            m = load(work, at + row(PLAIN_START, C, M) + j)
        else:
            m = plain_product(work, flat, before, at + table(PLAIN, C, M, 0), C, M, j)
        m = m * v
        store(work, here + j, m)
        most = maximum(m, most)
    return 1.0 / max_lanes(most), top


@helper
def retreat_plain(work, flat, share, pair, at, b, t, C, M):
    """The shares of the tags of step t - 1 and of the transitions from them; `beta` of that step.
    It has the factors of `alpha`, so that the sum of their products is the same in each step."""
    w, P = lanes(work), C + 2
    alpha, beta = at + step(ALPHA, C, M, t - 1), at + row(BETA, C, M)
    scores, following = at + step(SCORE, C, M, t), at + row(NEXT, C, M)
    for j in range(0, C, w):
        store(work, following + j, load(work, beta + j) * load(work, scores + j))
    for j in range(0, C, w):
        m = plain_product(work, flat, following, at + table(PLAIN_INTO, C, M, 0), C, M, j)
        store(work, beta + j, m)
        store(share, (b * share.shape[1] + t - 1) * M + j, m * load(work, alpha + j))
    for j in range(0, C, w):
        v = load(work, following + j)
        for i in range(C):
            to = (b * P + i) * M + j
            m = load(work, at + table(PLAIN, C, M, i) + j) * flat[alpha + i]
            store(pair, to, fma(m, v, load(pair, to)))


@helper
def sums_plain(x, share, pair, work, flat, at, b, n, C, M):
    """The shares of tags and transitions of the n steps of a sequence, and the logarithm of the sum
    of e^score over all tags, where each step's largest score is taken off; and the sum of those.
    Where scores are too far apart the logarithm is NaN, and nothing is written that counts."""
    w, logs, factors, tops = lanes(work), 0.0, 1.0, 0.0
    factor, following = 1.0, 1.0
    for t in range(n):
        following, top = advance_plain(x, work, flat, at, b, t, factor, C, M)
        factors *= np.float64(factor)
        tops += np.float64(top)
        factor = following
        if t % TOGETHER == TOGETHER - 1 and factors > 0.0 and factors < INFINITY:
            logs += math.log(factors)
            factors = 1.0
    whole, last = splat(work, 0.0), at + step(ALPHA, C, M, n - 1)
    for j in range(0, C, w):
        whole = fma(load(work, last + j), load(work, at + row(PLAIN_END, C, M) + j), whole)
    total = sum_lanes(whole)
    if not (factors > 0.0 and factors < INFINITY and total > 0.0 and total < INFINITY):
        return NAN, tops
    for j in range(0, C, w):
        m = load(work, at + row(PLAIN_END, C, M) + j) * (1.0 / total)
        store(work, at + row(BETA, C, M) + j, m)
        store(share, (b * share.shape[1] + n - 1) * M + j, load(work, last + j) * m)
    for i in range(n - 1):
        retreat_plain(work, flat, share, pair, at, b, n - 1 - i, C, M)
    return math.log(np.float64(total)) - logs - math.log(factors), tops
