"""Beam search: a step's best continuations, and what follows from them.

B samples, each with W hypotheses; V symbols, C = W*V continuations. A hypothesis has a score, the
sum of its symbols' log-probabilities, and `count` symbols. Hypotheses are ordered by score /
norms[count], equal ones by their place. One that has ended stays in the list unchanged, and
competes with the others. NaN is never chosen.
"""

from ..declare import helper, kernel
from ..sequence.shared import goes_on
from ..simd import lanes, load, max_lanes, maximum
from ..traits import InPlace
from .shared import NEVER, is_there, worse


@helper
def insert(best, which, at, width, value, number):
    """Put a value into the list of the best ones, behind those that are as good."""
    j = width - 1
    while j > 0 and worse(best[at + j - 1], value):
        best[at + j] = best[at + j - 1]
        which[at + j] = which[at + j - 1]
        j -= 1
    best[at + j] = value
    which[at + j] = number


@kernel
def beam_select(
    logits: "in rows f[B,C]",  # of the next symbols, [W,V]
    score: "in rows f[B,W]",  # with it they are log-probabilities of the whole
    count: "in rows f[B,W]",
    ended: "in rows f[B,W]",  # 1 where the hypothesis has ended, else 0
    norms: "in whole f[T]",
    live: "in rows f[B,U]",  # 1 where the stop symbol may be chosen, else 0; the same for all W
    parent: "out rows i[B,W]",  # which hypothesis goes on
    symbol: "out rows i[B,W]",
    new_score: "out rows f[B,W]",
    new_count: "out rows f[B,W]",
    new_ended: "out rows f[B,W]",
    best: "scratch rows f[B,W]",
    which: "scratch rows i[B,W]",
    stop: "int",
    lo: "begin",
    hi: "end",
):
    """The W best of all continuations."""
    W, V = score.shape[1], logits.shape[1] // score.shape[1]
    step = lanes(logits)
    tops, numbers, x = best.reshape(-1), which.reshape(-1), logits.reshape(-1)
    for b in range(lo, hi):
        at = b * W
        for w in range(W):
            tops[at + w] = NEVER
            numbers[at + w] = w * V + stop
        for w in range(W):
            base = b * logits.shape[1] + w * V
            if not is_there(score[b, w]):
                continue
            if ended[b, w] != 0.0:
                value = score[b, w] / norms[int(count[b, w])]
                if worse(tops[at + W - 1], value):
                    insert(tops, numbers, at, W, value, w * V + stop)
                continue
            norm = norms[int(count[b, w]) + 1]
            for j in range(0, V, 4 * step):
                n = min(4 * step, V - j)
                if n == 4 * step:  # most have nothing as good as the worst of the list
                    near = maximum(load(logits, base + j), load(logits, base + j + step))
                    far = maximum(
                        load(logits, base + j + 2 * step), load(logits, base + j + 3 * step)
                    )
                    if (score[b, w] + max_lanes(maximum(near, far))) / norm < tops[at + W - 1]:
                        continue
                for v in range(j, j + n):
                    value = (score[b, w] + x[base + v]) / norm
                    if worse(tops[at + W - 1], value) and (v != stop or live[b, 0] != 0.0):
                        insert(tops, numbers, at, W, value, w * V + v)
        for w in range(W):
            p, v = numbers[at + w] // V, numbers[at + w] % V
            parent[b, w] = p
            symbol[b, w] = v
            if ended[b, p] != 0.0:
                new_score[b, w] = score[b, p]
                new_count[b, w] = count[b, p]
                new_ended[b, w] = 1.0
            else:
                new_score[b, w] = score[b, p] + x[b * logits.shape[1] + numbers[at + w]]
                new_count[b, w] = count[b, p] + 1.0
                new_ended[b, w] = 1.0 if v == stop else 0.0
            if not is_there(tops[at + w]):  # there are fewer continuations
                new_score[b, w] = NEVER


@kernel(in_place=InPlace("x", "y", "beam_reorder_in_place", "room"))
def beam_reorder(
    x: "in rows f[B,C]",
    parent: "in rows i[B,W]",
    running: "in rows f[B]",  # absent: all 1
    y: "out rows f[B,C]",
    lo: "begin",
    hi: "end",
):
    """y[b, w] = x[b, parent[b, w]]: what belongs to the hypotheses that go on; x[b, w] where
    running is 0."""
    size = x.shape[1] // parent.shape[1]
    for b in range(lo, hi):
        for w in range(parent.shape[1]):
            p = parent[b, w] if goes_on(running, b) else w
            for j in range(size):
                y[b, w * size + j] = x[b, p * size + j]


@kernel
def beam_reorder_in_place(
    x: "inout rows f[B,C]",
    parent: "in rows i[B,W]",
    running: "in rows f[B]",
    room: "scratch rows f[B,C]",  # of a range only the first row is used
    lo: "begin",
    hi: "end",
):
    """`beam_reorder` with x itself as the result: hypotheses that stay are not touched."""
    size = x.shape[1] // parent.shape[1]
    for b in range(lo, hi):
        if not goes_on(running, b):
            continue
        for w in range(parent.shape[1]):
            p = parent[b, w]
            if p != w:
                for j in range(size):
                    room[lo, w * size + j] = x[b, p * size + j]
        for w in range(parent.shape[1]):
            if parent[b, w] != w:
                for j in range(size):
                    x[b, w * size + j] = room[lo, w * size + j]


@kernel
def to_ids(x: "in rows f[N,C]", y: "out rows i[N,C]", lo: "begin", hi: "end"):
    """Whole numbers as integers."""
    for i in range(lo, hi):
        for j in range(x.shape[1]):
            y[i, j] = int(x[i, j])
