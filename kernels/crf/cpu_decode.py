"""The best chain of tags (Viterbi). B sequences of T steps, C tags, M columns for them."""

from ..cpu.parts import keep_part, load_part, row_max
from ..ctc.shared import frame_count
from ..declare import kernel
from ..simd import lanes, load, splat, store, where
from ..vector_math import INFINITY
from .shared import walk_back


@kernel
def crf_decode(
    x: "in rows f[B,T,C]",
    lengths: "in rows i[B]",  # absent: all T
    transitions: "in whole f[C,C]",  # from, to
    start: "in whole f[C]",
    end: "in whole f[C]",
    tags: "out rows i[B,T]",  # -1 past the end
    score: "out rows f[B]",
    best: "scratch rows f[B,M]",  # the best score of tags up to a step, by the last of them
    came: "scratch rows f[B,T,M]",  # the tag before the last, there
    lo: "begin",
    hi: "end",
):
    """The tags with the largest score, and that; of equals those with the smaller numbers, seen
    from the end."""
    T, C, M, w = x.shape[1], x.shape[2], best.shape[1], lanes(x)
    for b in range(lo, hi):
        n = max(frame_count(lengths, b, T), 0)
        for t in range(n, T):
            tags[b, t] = -1
        score[b] = 0.0
        if n == 0:
            continue
        for j in range(0, C, w):
            v = load_part(x, b * T * C + j, C - j) + load_part(start, j, C - j)
            store(best, b * M + j, keep_part(x, v, C - j, -INFINITY))
        for t in range(1, n):
            # scores are distances from the best, so that long sequences lose no digits
            top = row_max(best, b * M, C)
            if not abs(top) < INFINITY:
                top = 0.0
            for j in range(0, C, w):
                most, place = splat(x, -INFINITY), splat(x, 0.0)
                for i in range(C):
                    v = load_part(transitions, i * C + j, C - j) + (best[b, i] - top)
                    place = where(v > most, splat(x, i), place)
                    most = where(v > most, v, most)
                store(came, (b * T + t) * M + j, place)
                v = most + load_part(x, (b * T + t) * C + j, C - j)
                # all of the old scores are needed for the other columns: new ones wait in `came`
                store(came, b * T * M + j, v)
            for j in range(0, C, w):
                store(best, b * M + j, load(came, b * T * M + j))
        score[b] = walk_back(x, transitions, start, end, tags, best, came, b, n)
