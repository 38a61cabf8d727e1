"""Connectionist temporal classification (Graves, Fernandez, Gomez and Schmidhuber 2006).

B sequences of T frames, C classes; L labels of a sequence, M columns for them (`columns_for`), W
and S by `room_for`. The labels may stand anywhere in the frames in their order, each over one or
more frames, with blanks between them or (if they differ) without. A *state* is a place in that
row: label k, or the blank after k labels. `alpha` of a frame and a state is the probability of all
paths through the frames up to this one that end in the state, `beta` that of all paths through the
frames after it that begin there. For nearly all sequences both are plain numbers (`cpu_plain.py`);
for the others probabilities are pairs m, e for m 2^e (see `shared.py`).
"""

from ..cpu.parts import fill_row, keep_part, load_part, row_max, row_sum, store_part
from ..declare import helper, kernel
from ..simd import (
    after_last,
    floor,
    iota,
    lanes,
    load,
    max_lanes,
    splat,
    store,
    sum_lanes,
    until_first,
    where,
)
from ..softmax.cpu import exp_sum
from ..vector_math import INFINITY, NAN, exp, log
from .cpu_frames import frames_at_once
from .cpu_plain import ROWS as PLAIN_ROWS
from .cpu_plain import P as PLAIN
from .cpu_plain import probabilities, sums_plain
from .shared import (
    CLASSES,
    COLUMNS,
    NEVER,
    NO_GRADIENT,
    ZERO,
    any_of,
    either,
    frame_count,
    in_place,
    label_count,
    lowered,
    probability,
)

# arrays in `room` for each frame, of M columns: `alpha` as blanks' m and e and labels' m and e, and
# the probabilities of the labels (that of the blank in column 0)
BLANK, BLANK_E, LABEL, LABEL_E, P, P_E = range(6)
# arrays in `work`: the states of the frame that the pass is at (numbered as in `room`), and SKIP: 0
# where a label may follow the one before it without a blank, else ZERO
SKIP = 4


@helper
def norms(x, norm, b, frames):
    """Each frame's greatest logit, and log sum exp of what the logits are above it (both in one
    number would lose digits of large logits); 0 is returned, or NaN if a frame has none."""
    T, C, unknown = x.shape[1], x.shape[2], 0.0
    for t in range(frames):
        base = (b * T + t) * C
        top = row_max(x, base, C)
        norm[b, t, 0] = top
        norm[b, t, 1] = exp_sum(x, base, C, top)
    half = iota(norm) * 0.5  # the sums are in every other lane
    for j in range(0, 2 * frames, lanes(norm)):
        at, n = b * T * 2 + j, 2 * frames - j
        v = load_part(norm, at, n)
        store_part(norm, at, where(half > floor(half), log(v), v), n)
    for t in range(frames):
        unknown += (norm[b, t, 0] + norm[b, t, 1]) * 0.0
    return unknown


@helper
def four_logits(x, flat, at, further, b, t, c):
    """The logits of a class in four frames."""
    flat[at] = x[b, t, c]
    flat[at + further] = x[b, t + 1, c]
    flat[at + 2 * further] = x[b, t + 2, c]
    flat[at + 3 * further] = x[b, t + 3, c]


@helper
def look_up(x, target, flat, to, further, b, frames, L, blank):
    """The logits of the blank and the labels in each frame, `further` numbers after each other; of
    four frames at a time, which share where a label stands."""
    fours = frames - frames % 4
    for t in range(0, fours, 4):
        at = to + t * further
        four_logits(x, flat, at, further, b, t, blank)
        for k in range(1, L + 1):
            four_logits(x, flat, at + k, further, b, t, target[b, k - 1])
    for t in range(fours, frames):
        flat[to + t * further] = x[b, t, blank]
        for k in range(1, L + 1):
            flat[to + t * further + k] = x[b, t, target[b, k - 1]]


@helper
def scores(norm, room, lo, b, frames, M, L):
    """The softmax of the blank and the labels, whose logits are in `room`."""
    for t in range(frames):
        for j in range(0, M, lanes(room)):
            row = (lo * room.shape[1] + t) * room.shape[2] + j
            v = keep_part(room, load(room, row + P * M), L + 1 - j, 3.0 * ZERO)
            m, e = probability(v - norm[b, t, 0] - norm[b, t, 1])
            store(room, row + P * M, m)
            store(room, row + P_E * M, e)


@helper
def begin(work, lo, M):
    """No state has a probability."""
    row = lo * work.shape[1]
    for number in range(4):
        value = ZERO if number in (BLANK_E, LABEL_E) else 1.0
        fill_row(work, row + number * M, M, value)


@helper
def mark_skips(work, target, lo, b, M, L):
    """Enter in `work` where a label may follow the one before it directly: where the two differ."""
    fill_row(work, lo * work.shape[1] + SKIP * M, M + COLUMNS, ZERO)
    for k in range(2, L + 1):
        if target[b, k - 1] != target[b, k - 2]:
            work[lo, SKIP * M + k] = 0.0


@helper
def advance(room, work, lo, t, M):
    """`alpha` after frame t, in place of that after frame t - 1.

    A state's sum takes the old values of itself and of the two states before it. The states are
    gone through upwards, so the old values of the vector before are kept in m2, e2, m3, e3.
    """
    row, states = (lo * room.shape[1] + t) * room.shape[2], lo * work.shape[1]
    own, own_e = room[lo, t, P * M], room[lo, t, P_E * M]
    nothing, nowhere = splat(work, 1.0), splat(work, ZERO)
    m2, e2, m3, e3 = nothing, nowhere, nothing, nowhere
    for j in range(0, M, lanes(work)):
        here, at = states + j, row + j
        m0, e0 = load(work, here + BLANK * M), load(work, here + BLANK_E * M)
        m1, e1 = load(work, here + LABEL * M), load(work, here + LABEL_E * M)
        skip = after_last(e3, e1) + load(work, here + SKIP * M)
        m, e = any_of(
            m1, e1, after_last(m2, m0), after_last(e2, e0), after_last(m3, m1), skip
        )  # fmt: skip
        m, e = in_place(m * load(room, at + P * M), e + load(room, at + P_E * M))
        store(work, here + LABEL * M, m)
        store(work, here + LABEL_E * M, e)
        store(room, at + LABEL * M, m)
        store(room, at + LABEL_E * M, e)
        m, e = either(m0, e0, m1, e1)
        m, e = in_place(m * own, e + own_e)
        store(work, here + BLANK * M, m)
        store(work, here + BLANK_E * M, e)
        store(room, at + BLANK * M, m)
        store(room, at + BLANK_E * M, e)
        m2, e2, m3, e3 = m0, e0, m1, e1


@helper
def retreat(room, work, share, lo, b, t, M, top):
    """The shares of labels in frame t (in column 0 that of the blank), times 2^top, and then `beta`
    of the frame before. A state's sum takes the old values of itself and of those after it, so the
    states are gone through downwards."""
    w = lanes(work)
    row, states = (lo * room.shape[1] + t) * room.shape[2], lo * work.shape[1]
    own, own_e = room[lo, t, P * M], room[lo, t, P_E * M]
    blanks = splat(work, 0.0)
    m3, e3 = splat(work, 1.0), splat(work, ZERO)
    for i in range(M // w):
        j = M - w * (i + 1)
        here, at = states + j, row + j
        m0, e0 = load(work, here + BLANK * M), load(work, here + BLANK_E * M)
        m1, e1 = load(work, here + LABEL * M), load(work, here + LABEL_E * M)
        m, e = load(room, at + BLANK * M), load(room, at + BLANK_E * M)
        blanks = blanks + lowered(m * m0, e + e0, top)
        m, e = load(room, at + LABEL * M), load(room, at + LABEL_E * M)
        store(share, (b * share.shape[1] + t) * M + j, lowered(m * m1, e + e1, top))
        m0, e0 = m0 * own, e0 + own_e
        m1, e1 = m1 * load(room, at + P * M), e1 + load(room, at + P_E * M)
        m2, e2 = until_first(m1, m3), until_first(e1, e3)
        m, e = either(m0, e0, m2, e2)
        m, e = in_place(m, e)
        store(work, here + BLANK * M, m)
        store(work, here + BLANK_E * M, e)
        m, e = any_of(m1, e1, m0, e0, m2, e2 + load(work, here + SKIP * M + 1))
        m, e = in_place(m, e)
        store(work, here + LABEL * M, m)
        store(work, here + LABEL_E * M, e)
        m3, e3 = m1, e1
    share[b, t, 0] = sum_lanes(blanks)


@kernel(slow_to_compile=True, expects="logits, of which each frame has a finite one")
def ctc_forward(
    x: "in rows f[B,T,C]",  # logits
    target: "in rows i[B,L]",
    lengths: "in rows i[B]",  # absent: all T
    target_lengths: "in rows i[B]",  # absent: up to the first negative label
    loss: "out rows f[B]",
    norm: "out* rows f[B,T,D]",  # D = 2: their maximum, and log sum exp of what they are above it
    share: "out* rows f[B,T,M]",
    room: "scratch rows f[B,T,W]",  # on the CPU only the range's first row is used
    work: "scratch rows f[B,S]",  # likewise; absent on CUDA
    blank: "int",
    mean: "int",
    zero_infinity: "int",
    lo: "begin",
    hi: "end",
):
    """loss = -log p(target | softmax x), divided by the number of labels if `mean`, and what share
    of the paths' probability is in those that give a frame to a label.

    Infinite where no path gives the labels (0 with `zero_infinity`); NaN for labels that are no
    class, and for lengths beyond the data.
    """
    T, C, M, W = x.shape[1], x.shape[2], share.shape[2], room.shape[2]
    flat = room.reshape(room.size)
    for b in range(lo, hi):
        frames = frame_count(lengths, b, T)
        L = label_count(target, target_lengths, b, C, blank)
        if frames < 0 or L < 0:
            loss[b] = NAN
            continue
        at, unknown, tilt = lo * T * W, 0.0, 0.0
        if C <= CLASSES:
            tilt, unknown = frames_at_once(
                x, target, norm, room, work, lo, b, frames, M, L, blank
            )  # fmt: skip
        else:
            unknown = norms(x, norm, b, frames)
            look_up(x, target, flat, at + PLAIN * M, PLAIN_ROWS * M, b, frames, L, blank)
            tilt = probabilities(norm, room, flat, at, b, frames, M, L)
        if frames > 0 and unknown == unknown:
            log_p = sums_plain(target, tilt, share, room, work, lo, b, frames, M, L)
            if log_p == log_p:
                loss[b] = 0.0 - log_p / max(L if mean != 0 else 1, 1)
                continue
        look_up(x, target, flat, at + P * M, W, b, frames, L, blank)
        scores(norm, room, lo, b, frames, M, L)
        mark_skips(work, target, lo, b, M, L)
        begin(work, lo, M)
        work[lo, BLANK_E * M] = 0.0
        for t in range(frames):
            advance(room, work, lo, t, M)
        top = max(work[lo, BLANK_E * M + L], work[lo, LABEL_E * M + L])
        if unknown != unknown or top < NEVER:
            loss[b] = 0.0 if zero_infinity != 0 else INFINITY
            if frames > 0:
                share[b, 0, 0] = NO_GRADIENT if zero_infinity != 0 else NAN
            if unknown != unknown:
                loss[b] = NAN
                share[b, 0, 0] = NAN
            continue
        whole = lowered(
            splat(work, work[lo, BLANK * M + L]), splat(work, work[lo, BLANK_E * M + L]), top
        ) + lowered(
            splat(work, work[lo, LABEL * M + L]), splat(work, work[lo, LABEL_E * M + L]), top
        )
        log_p = max_lanes(log(whole) + splat(work, top) * 0.6931471805599453)
        loss[b] = 0.0 - log_p / max(L if mean != 0 else 1, 1)
        begin(work, lo, M)
        work[lo, BLANK_E * M + L] = 0.0
        work[lo, LABEL_E * M + L] = 0.0
        for i in range(frames):
            retreat(room, work, share, lo, b, frames - 1 - i, M, top)


@helper
def take_four(dx, share, parts, b, t, c, k):
    """The share of label k, or in column 0 of the blank, taken off class c in four frames: one
    after the other, a frame's would wait for each other where a label comes again."""
    dx[b, t, c] -= parts[0] * share[b, t, k]
    dx[b, t + 1, c] -= parts[1] * share[b, t + 1, k]
    dx[b, t + 2, c] -= parts[2] * share[b, t + 2, k]
    dx[b, t + 3, c] -= parts[3] * share[b, t + 3, k]


@kernel(slow_to_compile=True)
def ctc_backward(
    x: "in rows f[B,T,C]",
    target: "in rows i[B,L]",
    lengths: "in rows i[B]",
    target_lengths: "in rows i[B]",
    norm: "in* rows f[B,T,D]",
    share: "in* rows f[B,T,M]",
    dloss: "in rows f[B]",
    dx: "out rows f[B,T,C]",
    blank: "int",
    mean: "int",
    lo: "begin",
    hi: "end",
):
    """dx = dloss (softmax x - the share that each class has in the paths), 0 past the end.

    NaN where the loss is infinite (0 with `zero_infinity`) or NaN.
    """
    T, C, M = x.shape[1], x.shape[2], share.shape[2]
    for b in range(lo, hi):
        frames = frame_count(lengths, b, T)
        L = label_count(target, target_lengths, b, C, blank)
        if frames < 0 or L < 0:
            fill_row(dx, b * T * C, T * C, NAN)
            continue
        fill_row(dx, (b * T + frames) * C, (T - frames) * C, 0.0)
        if frames == 0:
            continue
        first = share[b, 0, 0]
        if first != first or first == NO_GRADIENT:
            fill_row(dx, b * T * C, frames * C, NAN if first != first else 0.0)
            continue
        factor = dloss[b] / max(L if mean != 0 else 1, 1)
        for t in range(frames):
            base = (b * T + t) * C
            for j in range(0, C, lanes(x)):
                p = exp(load_part(x, base + j, C - j) - norm[b, t, 0] - norm[b, t, 1])
                store_part(dx, base + j, p * factor, C - j)
        fours = frames - frames % 4
        for t in range(0, fours, 4):
            at = (b * T + t) * M
            parts = (
                factor / row_sum(share, at, M),
                factor / row_sum(share, at + M, M),
                factor / row_sum(share, at + 2 * M, M),
                factor / row_sum(share, at + 3 * M, M),
            )
            take_four(dx, share, parts, b, t, blank, 0)
            for k in range(1, L + 1):
                take_four(dx, share, parts, b, t, target[b, k - 1], k)
        for t in range(fours, frames):
            part = factor / row_sum(share, (b * T + t) * M, M)
            dx[b, t, blank] -= part * share[b, t, 0]
            for k in range(1, L + 1):
                dx[b, t, target[b, k - 1]] -= part * share[b, t, k]
