"""The softmax of frames, and the probabilities of labels, of as many frames as vectors have lanes.

A frame is in one lane, so that nothing goes across lanes, and a label's numbers in all frames are
one vector, wherever it stands. Logits come into this order, and probabilities out of it, by blocks
that are turned. What a frame gets doesn't depend on those beside it, nor on the width of vectors.
"""

import numpy as np

from ..cpu.tile import tile_lanes, transpose_block
from ..declare import helper
from ..simd import fill_like, iota, lanes, load, maximum, splat, store, sum_lanes, where
from ..vector_math import INFINITY, exp, log
from .cpu_plain import ROWS, P, tilt_of
from .shared import CLASSES, COLUMNS


@helper
def enter_frames(x, flat_x, work, flat, e, b, t):
    """The logits of a vector's frames from t on, class by class, from `e` on."""
    T, C, W, n = x.shape[1], x.shape[2], lanes(work), tile_lanes(work)
    base = (b * T + t) * C
    if n <= C and T >= W:
        for c in range(0, C, n):
            at = min(c, C - n)
            for k in range(0, W, n):
                transpose_block(x, base + k * C + at, C, work, e + at * W + k, W)
        return
    for c in range(C):
        for k in range(W):
            flat[e + c * W + k] = flat_x[base + k * C + c] if t + k < T else 0.0


@helper
def softmax(work, e, C):
    """e^(logit - the largest) of all classes; the largest logits, and the sums."""
    W, top, total = lanes(work), splat(work, -INFINITY), splat(work, 0.0)
    for c in range(C):
        top = maximum(load(work, e + c * W), top)
    for c in range(C):
        v = exp(load(work, e + c * W) - top)
        store(work, e + c * W, v)
        total = total + v
    return top, total


@helper
def leave_frames(room, work, flat, flat_room, y, row, frames, M):
    """Write the probabilities of labels to the rows of so many frames."""
    W, n = lanes(work), tile_lanes(work)
    if frames == W:
        for j in range(0, M, n):
            for k in range(0, W, n):
                to = row + k * ROWS * M + j
                transpose_block(work, y + j * W + k, W, room, to, ROWS * M)
        return
    for k in range(frames):
        for j in range(M):
            flat_room[row + k * ROWS * M + j] = flat[y + j * W + k]


@helper
def frames_at_once(x, target, norm, room, work, lo, b, frames, M, L, blank):
    """`norm` of all frames; the probabilities of labels and blank in the rows of `room`; the
    exponent of the tilt that fits them; and 0, or NaN if a frame has no number.

    `work` has behind what the passes over frames need a vector for each of `CLASSES`, for each
    label, and three more.
    """
    T, C, W = x.shape[1], x.shape[2], lanes(work)
    flat, flat_room, flat_x = work.reshape(work.size), room.reshape(room.size), x.reshape(x.size)
    e = lo * work.shape[1] + 5 * M + COLUMNS
    y = e + CLASSES * W
    tops, logs, sums = y + M * W, y + (M + 1) * W, y + (M + 2) * W
    at = lo * room.shape[1] * room.shape[2] + P * M
    nothing = splat(work, 0.0)
    for k in range(L + 1, M):
        store(work, y + k * W, nothing)
    unknown, labels, blanks = nothing, np.float64(0.0), np.float64(0.0)
    for first in range(0, frames, W):
        t = max(min(first, T - W), 0)
        enter_frames(x, flat_x, work, flat, e, b, t)
        top, total = softmax(work, e, C)
        log_total, factor = log(total), 1.0 / total
        store(work, tops, top)
        store(work, logs, log_total)
        bad = (top + log_total) * 0.0
        unknown = unknown + where(iota(work) < 1.0 * (frames - t), bad, fill_like(bad, 0.0))
        store(work, y, load(work, e + blank * W) * factor)
        whole = nothing
        for k in range(1, L + 1):
            p = load(work, e + target[b, k - 1] * W) * factor
            store(work, y + k * W, p)
            whole = whole + p
        store(work, sums, whole)
        leave_frames(room, work, flat, flat_room, y, at + t * ROWS * M, min(W, T - t), M)
        for k in range(first - t, min(W, frames - t)):
            norm[b, t + k, 0] = flat[tops + k]
            norm[b, t + k, 1] = flat[logs + k]
            labels += np.float64(flat[sums + k])
            blanks += np.float64(flat[y + k])
    return tilt_of(labels, blanks, frames, L), sum_lanes(unknown)
