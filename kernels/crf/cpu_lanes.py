"""`cpu_near.py` for many sequences side by side, one in each lane of vectors.

Nothing here goes across lanes, so vectors are full however few tags there are, and a step waits for
no sum or maximum of lanes. Scores come into this order, and shares out of it, by blocks that are
turned. Each number is computed as of a single sequence, so the bits are the same; a lane whose
sequence has ended, or that has none, goes on with zeros.
"""

from typing import NamedTuple

import numpy as np

from ..cpu.parts import copy_run, fill_row
from ..cpu.tile import NARROW, tile, tile_height, tile_lanes, transpose_block
from ..ctc.cpu_plain import exponent_of, inverse
from ..declare import helper
from ..simd import fma, lanes, load, maximum, splat, store, where
from ..vector_math import INFINITY, NAN
from .cpu_near import LEAST, likely, plain_loss, take_off, whole_of
from .shared import PLAIN, PLAIN_END, PLAIN_INTO, PLAIN_START, row, step, table, tag_count

#: up to so many tags each number of the table of transitions is copied into a vector; tiles of
#: products, which copy them as they go, come in whole rows of eight
FEW = 16
#: whole numbers up to here are exact as float32
EXACT = 1 << 24


class Spots(NamedTuple):
    """Where things lie in `work`; each number stands for a vector."""

    count: int  # steps of each sequence
    factor: int  # what is taken out of the next step
    powers: int  # the exponents of all factors
    scale: int  # 1 / the sum over all tags
    table: int  # transitions, C x C, if C is at most `FEW`
    alpha: int  # C of each step
    score: int  # likewise
    top: int  # of each step, the largest score
    beta: int  # C
    here: int  # M, shares of a step
    pair: int  # 3 M, shares of transitions from three tags
    turned: int  # one for each lane, a part of what goes out
    end: int  # behind all of these


@helper
def spots_of(work, at, steps, C, M):
    """Where things lie for so many steps, behind the tables that all sequences share."""
    W = lanes(work)
    count = at + step(0, C, M, 0)
    alpha = count + 4 * W + (C * C * W if C <= FEW else 0)
    score = alpha + steps * C * W
    top = score + steps * C * W
    beta = top + steps * W
    here = beta + C * W
    turned = here + 4 * M * W
    return Spots(
        count, count + W, count + 2 * W, count + 3 * W, count + 4 * W, alpha, score, top, beta,
        here, here + M * W, turned, turned + W * W,
    )  # fmt: skip


@helper
def enter(x, flat_x, work, flat, s, first, count, steps, C):
    """The scores of so many sequences, from the `first` one on, each in its lane."""
    W, n, size, apart = lanes(work), tile_lanes(work), steps * C, x.shape[1] * C
    if count == W and size >= n:
        for q in range(0, size, n):
            at = min(q, size - n)
            for k in range(0, W, n):
                source, to = (first + k) * apart + at, s.score + at * W + k
                transpose_block(x, source, apart, work, to, W)
        return
    fill_row(work, s.score, size * W, 0.0)
    for k in range(count):
        for q in range(size):
            flat[s.score + q * W + k] = flat_x[(first + k) * apart + q]


@helper
def few_products(work, s, m, apart, along, to, C):
    """Rows of transitions times a step's numbers: five rows at a time, which don't wait for each
    other. Rows are `apart` vectors after each other, their numbers `along`."""
    W = lanes(work)
    for k in range(0, C, 5):
        i = max(min(k, C - 5), 0)
        i1, i2 = min(i + 1, C - 1), min(i + 2, C - 1)
        i3, i4 = min(i + 3, C - 1), min(i + 4, C - 1)
        at, a, b = s.table, i * apart * W, i1 * apart * W
        c, d, e = i2 * apart * W, i3 * apart * W, i4 * apart * W
        p = q = r = u = v = splat(work, 0.0)
        for j in range(C):
            y = load(work, m + j * W)
            p = fma(load(work, at + a), y, p)
            q = fma(load(work, at + b), y, q)
            r = fma(load(work, at + c), y, r)
            u = fma(load(work, at + d), y, u)
            v = fma(load(work, at + e), y, v)
            at += along * W
        store(work, to + i * W, p)
        store(work, to + i1 * W, q)
        store(work, to + i2 * W, r)
        store(work, to + i3 * W, u)
        store(work, to + i4 * W, v)


@helper
def tiled_products(work, tables, m, to, C, M):
    """The same by tiles, from a table that has each row's numbers after each other."""
    W, n, rows = lanes(work), tile_lanes(work), tile_height(work)
    for i in range(0, C, rows):
        for k in range(0, W, n):
            tile(
                NARROW, work, tables + i * M, M, 1, work, m + k, W, work, to + i * W + k, W,
                work, -1, C, min(rows, C - i), n, True,
            )  # fmt: skip


@helper
def products(work, s, tables, m, apart, along, to, C, M):
    """Rows of transitions times the numbers of a step that are at `m`."""
    if C <= FEW:
        few_products(work, s, m, apart, along, to, C)
    else:
        tiled_products(work, tables, m, to, C, M)


@helper
def advance(work, flat, s, at, t, C, M):
    """`alpha` of step t from that of the step before, and the factor of the next one."""
    W = lanes(work)
    scores, here = s.score + t * C * W, s.alpha + t * C * W
    top, most, factor = splat(work, -INFINITY), splat(work, LEAST), load(work, s.factor)
    for j in range(C):
        top = maximum(load(work, scores + j * W), top)
    store(work, s.top + t * W, top)
    if t > 0:
        before = here - C * W
        products(work, s, at + table(PLAIN_INTO, C, M, 0), before, 1, C, here, C, M)
    else:
        for j in range(C):
            store(work, here + j * W, splat(work, flat[at + row(PLAIN_START, C, M) + j]))
    count = load(work, s.count)
    for j in range(C):
        v = likely(load(work, scores + j * W), top) * factor
        store(work, scores + j * W, v)
        m = where(count > 1.0 * t, load(work, here + j * W) * v, 0.0)
        store(work, here + j * W, m)
        most = maximum(m, most)
    factor = inverse(most)
    more = where(count > 1.0 * (t + 1), exponent_of(factor), 0.0)
    store(work, s.factor, factor)
    store(work, s.powers, load(work, s.powers) + more)


@helper
def turn_out(work, flat, source, s, t, every, out, to, apart, count, columns):
    """Write vectors of a row to so many sequences, whose rows in `out` are `apart` numbers after
    each other, of which the first begins at `to`: to those that have a step t, or to `every` one,
    which are as many as there are lanes."""
    W, n = lanes(work), tile_lanes(work)
    for j in range(0, columns, n):
        for k in range(0, W, n):
            if every:
                transpose_block(work, source + j * W + k, W, out, to + k * apart + j, apart)
            else:
                transpose_block(work, source + j * W + k, W, work, s.turned + k * n, n)
        if not every:
            for k in range(count):
                if flat[s.count + k] > 1.0 * t:
                    copy_run(work, s.turned + k * n, out, to + k * apart + j, n)


@helper
def retreat(work, flat, s, share, at, first, count, shortest, t, C, M):
    """The shares of the tags of step t; `beta` of the step before. The scores become those times
    `beta`."""
    W, T = lanes(work), share.shape[1]
    scores, alpha = s.score + t * C * W, s.alpha + t * C * W
    left, scale = load(work, s.count) - 1.0 * (t + 1), load(work, s.scale)
    for j in range(C):
        ends = scale * flat[at + row(PLAIN_END, C, M) + j]
        m = where(left == 0.0, ends, load(work, s.beta + j * W))
        store(work, s.here + j * W, m * load(work, alpha + j * W))
        store(work, scores + j * W, where(left >= 0.0, m * load(work, scores + j * W), 0.0))
    every = count == W and t < shortest
    turn_out(work, flat, s.here, s, t, every, share, (first * T + t) * M, T * M, count, C)
    if t > 0:
        products(work, s, at + table(PLAIN, C, M, 0), scores, C, 1, s.beta, C, M)


@helper
def pairs(work, flat, s, pair, at, first, count, steps, C, M):
    """The shares of transitions, summed over steps: three tags by three at a time, whose sums stay
    in registers."""
    W, P = lanes(work), C + 2
    for k in range(0, C, 3):
        i = max(min(k, C - 3), 0)
        i1, i2 = min(i + 1, C - 1), min(i + 2, C - 1)
        for h in range(0, C, 3):
            j = max(min(h, C - 3), 0)
            j1, j2 = min(j + 1, C - 1), min(j + 2, C - 1)
            a = b = c = d = e = f = p = q = r = splat(work, 0.0)
            for back in range(steps - 1):
                m = s.alpha + (steps - 2 - back) * C * W
                v = s.score + (steps - 1 - back) * C * W
                x, y, z = load(work, m + i * W), load(work, m + i1 * W), load(work, m + i2 * W)
                v0 = load(work, v + j * W)
                v1, v2 = load(work, v + j1 * W), load(work, v + j2 * W)
                a, b, c = fma(x, v0, a), fma(x, v1, b), fma(x, v2, c)
                d, e, f = fma(y, v0, d), fma(y, v1, e), fma(y, v2, f)
                p, q, r = fma(z, v0, p), fma(z, v1, q), fma(z, v2, r)
            to = s.pair
            store(work, to + j * W, a)
            store(work, to + j1 * W, b)
            store(work, to + j2 * W, c)
            to += M * W
            store(work, to + j * W, d)
            store(work, to + j1 * W, e)
            store(work, to + j2 * W, f)
            to += M * W
            store(work, to + j * W, p)
            store(work, to + j1 * W, q)
            store(work, to + j2 * W, r)
        for h in range(3):
            tag = min(i + h, C - 1)
            weights = at + table(PLAIN, C, M, tag)
            for j in range(C):
                to = s.pair + (h * M + j) * W
                store(work, to, load(work, to) * flat[weights + j])
            to = (first * P + tag) * M
            rows = s.pair + h * M * W
            turn_out(work, flat, rows, s, -1, count == W, pair, to, P * M, count, M)


@helper
def sums_in_lanes(
    x, target, lengths, transitions, start, end, loss, share, pair, work, at, first, last
):  # fmt: skip
    """Losses and shares of as many sequences as a vector has lanes, from the `first` one on and
    before the `last`; how many they were, 0 where it is better to take one after the other. A loss
    is NaN where plain numbers won't do, or the sequence can't be computed."""
    C, M, W, flat = x.shape[2], share.shape[2], lanes(work), work.reshape(work.size)
    count, longest, shortest, total = min(W, last - first), 0, x.shape[1], 0
    counts = at + step(0, C, M, 0)
    fill_row(work, counts, 4 * W, 0.0)
    for k in range(count):
        n = max(tag_count(target, lengths, first + k, C), 0)
        flat[counts + k] = n
        longest, shortest, total = max(longest, n), min(shortest, n), total + n
    s = spots_of(work, at, longest, C, M)
    if 2 * total < W * longest or longest == 0 or longest > EXACT or s.end > last * work.shape[1]:
        return 0
    fill_row(work, s.beta, (C + 4 * M) * W, 0.0)
    store(work, s.factor, splat(work, 1.0))
    if C <= FEW:
        for i in range(C):
            for j in range(C):
                v = splat(work, flat[at + table(PLAIN, C, M, i) + j])
                store(work, s.table + (i * C + j) * W, v)
    enter(x, x.reshape(x.size), work, flat, s, first, count, longest, C)
    for t in range(longest):
        advance(work, flat, s, at, t, C, M)
    for k in range(count):
        b, n = first + k, int(flat[s.count + k])
        loss[b] = NAN
        if n > 0:
            ends = at + row(PLAIN_END, C, M)
            whole = whole_of(flat, s.alpha + (n - 1) * C * W + k, W, ends, C)
            if whole > 0.0:
                flat[s.scale + k] = 1.0 / whole
                powers = np.float64(flat[s.powers + k])
                loss[b] = plain_loss(
                    x, target, transitions, start, end, flat, s.top + k, W, whole, powers, b, n
                )  # fmt: skip
    for back in range(longest):
        t = longest - 1 - back
        retreat(work, flat, s, share, at, first, count, shortest, t, C, M)
    pairs(work, flat, s, pair, at, first, count, longest, C, M)
    for k in range(count):
        b = first + k
        fill_row(pair, (b * (C + 2) + C) * M, 2 * M, 0.0)
        if loss[b] == loss[b]:
            take_off(target, share, pair, b, int(flat[s.count + k]), C)
    return count
