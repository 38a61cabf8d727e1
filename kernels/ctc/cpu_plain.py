"""Both passes over the frames of a sequence in plain numbers.

Each frame's `alpha` is made smaller or larger by a power of two, which its probabilities keep: that
which would have made the largest `alpha` two frames before about 1. `beta` has the same powers, so
the sum of the products of both is the same in each frame, and nothing is divided on the way back.

At the same frame, states far from the likely ones may have far larger `alpha` (or `beta`) than the
likely ones have: with T frames of equal probabilities and few labels most paths have gone through
all labels by the middle. So each label that a path reaches multiplies it by `tilt`, a power of two,
too: that for which a random path through T frames comes to L labels. As every path has all labels
in the end, this cancels.

What is too small for a float is 0. How much that can be of the whole is known in the end from the
largest `beta`; where it might be seen, nothing counts, and `cpu.py` computes with exponents.

Names are as in `cpu.py`. Rows of `room` lie closer together: `alpha` of blanks and of labels and
the frame's probabilities, that of the blank in column 0.
"""

import math

import numpy as np

from ..cpu.parts import fill_row, keep_part
from ..declare import helper
from ..simd import (
    after_last,
    bits,
    fma,
    from_bits,
    is32,
    lanes,
    ldexp,
    load,
    max_lanes,
    maximum,
    pick,
    shift_right,
    splat,
    store,
    sum_lanes,
    to_float,
    until_first,
)
from ..vector_math import INFINITY, NAN, exp, log
from .shared import COLUMNS

# arrays of M columns in `room` for each frame
BLANK, LABEL, P, ROWS = range(4)
# arrays in `work`: `beta` of the frame that the pass is at, 1 where a label may follow the one
# before it without a blank, and the same times the tilt
SKIP, TILTED = 2, 3
#: the greatest power of two of a tilt
STEEP = 20


@helper
def inverse(v):
    """2^-k for numbers from 2^k to 2^(k+1)."""
    exponent = bits(v) & pick(bits(v), 0x7F800000, 0x7FF0000000000000)
    return from_bits(pick(exponent, 0x7F000000, 0x7FE0000000000000) - exponent)


@helper
def exponent_of(v):
    """k of 2^k."""
    whole = to_float(shift_right(bits(v), pick(bits(v), 23, 52)))
    return whole - pick(whole, 127.0, 1023.0)


@helper
def tilt_of(labels, blanks, frames, L):
    """The exponent of the tilt: that which makes L labels in so many frames the usual number, where
    each frame has the probability `labels` for all labels together and `blanks` for the blank.

    Labels that may last (a), and blanks between them that may last or be none (b), follow each
    other; one label with what is before it takes 1 + a / (1 - a) + b / (1 - b) frames.
    """
    if L == 0 or frames <= L or not (labels > 0.0 and labels < INFINITY):
        return 0.0
    p, q = np.float64(labels) / L, np.float64(blanks)
    p, q = p / max(p, q), q / max(p, q)
    low, high = 0.0, 1.0
    for _ in range(24):
        z = 0.5 * (low + high)
        if z * p / (1.0 - z * p) + z * q / (1.0 - z * q) < np.float64(frames) / L - 1.0:
            low = z
        else:
            high = z
    ratio = (1.0 - low * p) * (1.0 - low * q) / (high * p)
    k = math.floor(math.log(ratio) * 1.4426950408889634 + 0.5)
    return max(min(k, 1.0 * STEEP), -1.0 * STEEP)


@helper
def probabilities(norm, room, flat, at, b, frames, M, L):
    """The softmax of the blank and the labels in all frames, whose logits are there, 0 behind; the
    exponent of the tilt that fits them."""
    w, total, blanks = lanes(room), splat(room, 0.0), np.float64(0.0)
    for t in range(frames):
        row = at + (t * ROWS + P) * M
        for j in range(0, M, w):
            p = exp(load(room, row + j) - norm[b, t, 0] - norm[b, t, 1])
            p = keep_part(room, p, L + 1 - j, 0.0)
            store(room, row + j, p)
            total = total + p
        blanks += flat[row]
    return tilt_of(sum_lanes(total) - blanks, blanks, frames, L)


@helper
def advance_plain(room, work, states, at, M, own, factor, tilt):
    """`alpha` of the frame whose row is at `at`, times `factor`; its greatest number."""
    w, before = lanes(room), at - ROWS * M
    nothing = splat(room, 0.0)
    m2, m3, most = nothing, nothing, nothing
    for j in range(0, M, w):
        m0, m1 = load(room, before + BLANK * M + j), load(room, before + LABEL * M + j)
        p = load(room, at + P * M + j) * factor
        come = fma(after_last(m3, m1), load(work, states + SKIP * M + j), after_last(m2, m0))
        label, blank = fma(come, tilt, m1) * p, (m0 + m1) * own
        store(room, at + LABEL * M + j, label)
        store(room, at + BLANK * M + j, blank)
        store(room, at + P * M + j, p)
        most = maximum(maximum(label, blank), most)
        m2, m3 = m0, m1
    return max_lanes(most)


@helper
def retreat_plain(room, work, share, states, at, to, own, M, tilt, most):
    """The shares of labels in a frame, from `to` on, and that of the blank, which is returned; then
    `beta` of the frame before, and the greatest number of all so far."""
    w = lanes(work)
    blanks, m3 = splat(work, 0.0), splat(work, 0.0)
    for i in range(M // w):
        j = M - w * (i + 1)
        m0, m1 = load(work, states + BLANK * M + j), load(work, states + LABEL * M + j)
        blanks = fma(load(room, at + BLANK * M + j), m0, blanks)
        store(share, to + j, load(room, at + LABEL * M + j) * m1)
        m0, m1 = m0 * own, m1 * load(room, at + P * M + j)
        m2 = until_first(m1, m3)
        label = fma(load(work, states + TILTED * M + j + 1), m2, m0 + m1)
        blank = fma(m2, tilt, m0)
        store(work, states + LABEL * M + j, label)
        store(work, states + BLANK * M + j, blank)
        most = maximum(maximum(label, blank), most)
        m3 = m1
    return sum_lanes(blanks), most


@helper
def begin_plain(work, marks, target, states, b, M, L, ends, tilt):
    """`beta` of the last frame, where the last label and the blank after it have `ends`, and where
    a label may follow the one before it."""
    fill_row(work, states, 4 * M + COLUMNS, 0.0)
    marks[states + BLANK * M + L] = ends
    if L > 0:
        marks[states + LABEL * M + L] = ends
    for k in range(2, L + 1):
        if target[b, k - 1] != target[b, k - 2]:
            marks[states + SKIP * M + k] = 1.0
            marks[states + TILTED * M + k] = tilt


@helper
def sums_plain(target, k, share, room, work, lo, b, frames, M, L):
    """The shares of labels and blanks in the frames of a sequence (`room` has their probabilities,
    k is the exponent of the tilt), and the logarithm of the whole probability; NaN where they can't
    be had in plain numbers."""
    flat, marks = room.reshape(room.size), work.reshape(work.size)
    at, states = lo * room.shape[1] * room.shape[2], lo * work.shape[1]
    one = splat(room, 1.0)
    tilt = ldexp(one, splat(room, k))
    steps = max_lanes(tilt)
    begin_plain(work, marks, target, states, b, M, L, 0.0, steps)
    fill_row(room, at, 2 * M, 0.0)
    flat[at + BLANK * M] = flat[at + P * M]
    flat[at + LABEL * M + 1] = flat[at + P * M + 1] * steps
    factor, steep, powers = one, maximum(one, tilt), splat(room, k * L)
    before, level = one, splat(room, flat[at + BLANK * M] + flat[at + LABEL * M + 1])
    greatest = maximum(one, level)
    for t in range(1, frames):
        row = at + t * ROWS * M
        factor = inverse(before * factor)
        powers, steep = powers + exponent_of(factor), maximum(factor * tilt, steep)
        own = splat(room, flat[row + P * M]) * factor
        before = level
        level = splat(room, advance_plain(room, work, states, row, M, own, factor, tilt))
        greatest = maximum(level, greatest)
    last = at + (frames - 1) * ROWS * M
    whole = flat[last + BLANK * M + L]
    if L > 0:
        whole += flat[last + LABEL * M + L]
    if not (whole > 0.0 and whole < INFINITY):
        return NAN
    begin_plain(work, marks, target, states, b, M, L, 1.0 / whole, steps)
    beta = maximum(one, splat(room, 1.0 / whole))
    for i in range(frames):
        t = frames - 1 - i
        row = at + t * ROWS * M
        own, to = splat(room, flat[row + P * M]), (b * share.shape[1] + t) * M
        blanks, beta = retreat_plain(room, work, share, states, row, to, own, M, tilt, beta)
        share[b, t, 0] = blanks
    most = np.float64(max_lanes(beta)) * max_lanes(greatest) * max_lanes(steep)
    if not (most < (7.7e25 if is32(room) else 1e295)):
        return NAN
    return max_lanes(log(splat(room, whole)) - powers * 0.6931471805599453)
