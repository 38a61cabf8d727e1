"""Linear-chain conditional random fields (Lafferty, McCallum and Pereira, ICML 2001).

B sequences of T steps, C tags, M columns for them (`columns_for`), P = C + 2, S by `room_for`. The
score of tags is the sum of their scores in each step, of those of the transitions between, of the
first tag's for the beginning and of the last one's for the end. `alpha` is the sum of e^score over
all tags up to a step, `beta` over all behind it, each by the tag of the step.
"""

import math

import numpy as np

from ..cpu.parts import fill_row, keep_part, load_part, row_max, store_part
from ..ctc.shared import NEVER, ZERO, in_place, lowered, probability
from ..declare import helper, kernel
from ..simd import fma, lanes, load, max_lanes, maximum, splat, store, sum_lanes, where
from ..vector_math import INFINITY, NAN
from .cpu_lanes import sums_in_lanes
from .cpu_near import near, prepare_plain, sums_plain, take_off
from .shared import (
    ALPHA,
    BETA,
    BETA_E,
    END,
    END_E,
    FROM,
    FROM_E,
    INTO,
    INTO_E,
    NEXT,
    SCORE,
    START,
    START_E,
    row,
    step,
    table,
    tag_count,
)


@helper
def enter(x, base, C, shift, work, m_at, e_at):
    """e^(x - shift) of a row of C scores as m and e; 0 is returned, or NaN if a score is NaN or
    infinity (not minus infinity)."""
    unknown = splat(x, 0.0)
    for j in range(0, C, lanes(x)):
        v = load_part(x, base + j, C - j)
        unknown = unknown + where(v < INFINITY, splat(x, 0.0), splat(x, NAN))
        m, e = probability(keep_part(x, v - shift, C - j, 3.0 * ZERO))
        store(work, m_at + j, m)
        store(work, e_at + j, e)
    return sum_lanes(unknown)


@helper
def prepare(transitions, start, end, work, at, C, M):
    """The tables of transitions, in both orders, and the rows of beginning and end; 0 is returned,
    or NaN if a score is no number."""
    unknown = enter(start, 0, C, 0.0, work, at + row(START, C, M), at + row(START_E, C, M))
    unknown += enter(end, 0, C, 0.0, work, at + row(END, C, M), at + row(END_E, C, M))
    for i in range(C):
        m_at, e_at = at + table(FROM, C, M, i), at + table(FROM_E, C, M, i)
        unknown += enter(transitions, i * C, C, 0.0, work, m_at, e_at)
        fill_row(work, at + table(INTO, C, M, i), M, 1.0)
        fill_row(work, at + table(INTO_E, C, M, i), M, ZERO)
    flat = work.reshape(work.size)
    for i in range(C):
        for j in range(C):
            flat[at + table(INTO, C, M, j) + i] = flat[at + table(FROM, C, M, i) + j]
            flat[at + table(INTO_E, C, M, j) + i] = flat[at + table(FROM_E, C, M, i) + j]
    return unknown


@helper
def product(work, flat, m_at, e_at, tables, tables_e, C, M, j):
    """Columns from j on of the row (m, e) times a table of transitions; m is not in place. `flat`
    is `work` (made anew for each call, it would cost as much as the sums)."""
    top = splat(work, 4.0 * ZERO)
    for i in range(C):
        top = maximum(load(work, tables_e + i * M + j) + flat[e_at + i], top)
    total = splat(work, 0.0)
    for i in range(C):
        m = load(work, tables + i * M + j) * flat[m_at + i]
        total = total + lowered(m, load(work, tables_e + i * M + j) + flat[e_at + i], top)
    return total, top


@helper
def advance(work, flat, at, t, C, M):
    """`alpha` of step t from that of the step before."""
    here, before = at + step(ALPHA, C, M, t), at + step(ALPHA, C, M, t - 1)
    scores, further = at + step(SCORE, C, M, t), M  # e lies behind m
    for j in range(0, C, lanes(work)):
        if t == 0:
            m, e = load(work, at + row(START, C, M) + j), load(work, at + row(START_E, C, M) + j)
        else:
            m, e = product(
                work, flat, before, before + further, at + table(FROM, C, M, 0),
                at + table(FROM_E, C, M, 0), C, M, j,
            )  # fmt: skip
        m = m * load(work, scores + j)
        m, e = in_place(m, e + load(work, scores + further + j))
        store(work, here + j, m)
        store(work, here + further + j, e)


@helper
def dot(work, a, a_e, b, b_e, C):
    """The sum of the products of two rows, as a number and its exponent."""
    top = splat(work, 4.0 * ZERO)
    for j in range(0, C, lanes(work)):
        e = load(work, a_e + j) + load(work, b_e + j)
        top = maximum(keep_part(work, e, C - j, 4.0 * ZERO), top)
    most = max_lanes(top)
    total = splat(work, 0.0)
    for j in range(0, C, lanes(work)):
        e = load(work, a_e + j) + load(work, b_e + j)
        v = lowered(load(work, a + j) * load(work, b + j), e, splat(work, most))
        total = total + keep_part(work, v, C - j, 0.0)
    return sum_lanes(total), most


@helper
def retreat(work, flat, share, pair, at, b, t, C, M, top):
    """The shares of the tags of step t and of the transitions to them; `beta` of the step
    before."""
    w, P = lanes(work), C + 2
    alpha, beta = at + step(ALPHA, C, M, t), at + row(BETA, C, M)
    scores, following = at + step(SCORE, C, M, t), at + row(NEXT, C, M)
    here = (b * share.shape[1] + t) * M
    whole = splat(work, 0.0)
    for j in range(0, C, w):
        m = load(work, alpha + j) * load(work, beta + j)
        e = load(work, alpha + M + j) + load(work, beta + M + j)
        v = keep_part(work, lowered(m, e, top), C - j, 0.0)
        store(share, here + j, v)
        whole = whole + v
    factor = 1.0 / sum_lanes(whole)
    for j in range(0, C, w):
        store(share, here + j, load(share, here + j) * factor)
        store(work, following + j, load(work, beta + j) * load(work, scores + j))
        store(work, following + M + j, load(work, beta + M + j) + load(work, scores + M + j))
    if t == 0:
        return
    before = at + step(ALPHA, C, M, t - 1)
    for i in range(C):
        m0, e0 = flat[before + i] * factor, flat[before + M + i] - top
        base = (b * P + i) * M
        for j in range(0, C, w):
            m = load(work, at + table(FROM, C, M, i) + j) * load(work, following + j)
            e = load(work, at + table(FROM_E, C, M, i) + j) + load(work, following + M + j)
            store(pair, base + j, load(pair, base + j) + lowered(m * m0, e + e0, 0.0))
    for j in range(0, C, w):
        m, e = product(
            work, flat, following, following + M, at + table(INTO, C, M, 0),
            at + table(INTO_E, C, M, 0), C, M, j,
        )  # fmt: skip
        m, e = in_place(m, e)
        store(work, beta + j, m)
        store(work, beta + M + j, e)


@kernel(slow_to_compile=True, expects="scores, of which each step has a finite one")
def crf_forward(
    x: "in rows f[B,T,C]",  # the tags' scores
    target: "in rows i[B,T]",
    lengths: "in rows i[B]",  # absent: up to the first negative tag
    transitions: "in whole f[C,C]",  # from, to
    start: "in whole f[C]",
    end: "in whole f[C]",
    loss: "out rows f[B]",
    share: "out* rows f[B,T,M]",  # p(tag) less 1 for the target, of the steps that count
    pair: "out rows f[B,P,M]",  # the same of transitions, summed over steps; of first and last tag
    work: "scratch rows f[B,S]",  # on the CPU only the range's first row is used
    lo: "begin",
    hi: "end",
):
    """loss = -log p(target | x), and what it depends on: how much likelier than in the target tags
    and transitions are.

    0 for no steps; infinite where the target has a score of minus infinity; NaN for tags that are
    none, and for lengths beyond the data.
    """
    T, C, M, P, S = x.shape[1], x.shape[2], share.shape[2], pair.shape[1], work.shape[1]
    at, flat = lo * S, work.reshape(work.size)
    plain, fixed = near(transitions, start, end), np.float64(0.0)
    ready, group, done = False, lo, lo
    if plain and hi > lo:
        prepare_plain(transitions, start, end, work, at, C, M)
    for b in range(lo, hi):
        if plain and b == group:
            done = b + sums_in_lanes(
                x, target, lengths, transitions, start, end, loss, share, pair, work, at, b, hi
            )  # fmt: skip
            group = b + lanes(x)
        if b < done and loss[b] == loss[b]:
            continue
        fill_row(pair, b * P * M, P * M, 0.0)
        n = tag_count(target, lengths, b, C)
        if n <= 0:
            loss[b] = 0.0 if n == 0 else NAN
            if n < 0:
                fill_row(pair, b * P * M, P * M, NAN)
            continue
        if plain and b >= done:
            loss[b] = sums_plain(
                x, target, transitions, start, end, share, pair, work, flat, at, b, n
            )  # fmt: skip
            if loss[b] == loss[b]:
                take_off(target, share, pair, b, n, C)
                continue
            fill_row(pair, b * P * M, P * M, 0.0)
        if not ready:
            fixed, ready = np.float64(prepare(transitions, start, end, work, at, C, M)), True
        unknown, wanted = np.float64(fixed), np.float64(0.0)
        for t in range(n):
            base, tag = (b * T + t) * C, target[b, t]
            top = row_max(x, base, C)
            if not (top > NEVER and top < INFINITY):  # no tag is possible, or no number
                top = 0.0
            scores = at + step(SCORE, C, M, t)
            unknown += enter(x, base, C, top, work, scores, scores + M)
            wanted += np.float64(x[b, t, tag]) - np.float64(top)
            before = start[tag] if t == 0 else transitions[target[b, max(t - 1, 0)], tag]
            wanted += np.float64(before)
            advance(work, flat, at, t, C, M)
        wanted += np.float64(end[target[b, n - 1]])
        last = at + step(ALPHA, C, M, n - 1)
        whole, top = dot(
            work, last, last + M, at + row(END, C, M), at + row(END_E, C, M), C
        )  # fmt: skip
        log_whole = math.log(np.float64(whole)) + np.float64(top) * 0.6931471805599453
        loss[b] = unknown + log_whole - wanted
        if unknown != unknown or not (wanted > NEVER):
            loss[b] = unknown + INFINITY
            share[b, 0, 0] = NAN
            fill_row(pair, b * P * M, P * M, NAN)
            continue
        for j in range(0, C, lanes(x)):
            store(work, at + row(BETA, C, M) + j, load(work, at + row(END, C, M) + j))
            store(work, at + row(BETA_E, C, M) + j, load(work, at + row(END_E, C, M) + j))
        for i in range(n):
            retreat(work, flat, share, pair, at, b, n - 1 - i, C, M, top)
        take_off(target, share, pair, b, n, C)


@kernel
def crf_backward(
    target: "in rows i[B,T]",
    lengths: "in rows i[B]",
    share: "in* rows f[B,T,M]",
    dloss: "in rows f[B]",
    dx: "out rows f[B,T,C]",
    lo: "begin",
    hi: "end",
):
    """dx = dloss (p(tag) - 1 for the target), 0 past the end; NaN where the loss is infinite or
    NaN."""
    T, C, M = dx.shape[1], dx.shape[2], share.shape[2]
    for b in range(lo, hi):
        n = tag_count(target, lengths, b, C)
        if n < 0 or (n > 0 and share[b, 0, 0] != share[b, 0, 0]):
            fill_row(dx, b * T * C, T * C, NAN)
            continue
        for t in range(n):
            for j in range(0, C, lanes(dx)):
                v = load(share, (b * T + t) * M + j) * dloss[b]
                store_part(dx, (b * T + t) * C + j, v, C - j)
        fill_row(dx, (b * T + n) * C, (T - n) * C, 0.0)


@kernel
def crf_backward_transitions(
    pair: "in whole f[B,P,M]",
    dloss: "in whole f[B]",
    dtransitions: "out rows f[C,C]",
    dstart: "out rows f[C]",
    dend: "out rows f[C]",
    lo: "begin",
    hi: "end",
):
    """The sums over sequences of dloss times what the loss depends on, in their order."""
    B, C = pair.shape[0], dend.shape[0]
    P, M = C + 2, pair.shape[2]
    for i in range(lo, hi):
        for j in range(0, C, lanes(pair)):
            total = splat(pair, 0.0)
            for b in range(B):
                total = fma(load(pair, (b * P + i) * M + j), splat(pair, dloss[b]), total)
            store_part(dtransitions, i * C + j, total, C - j)
        first, last = 0.0, 0.0
        for b in range(B):
            first += pair[b, C, i] * dloss[b]
            last += pair[b, C + 1, i] * dloss[b]
        dstart[i] = first
        dend[i] = last
