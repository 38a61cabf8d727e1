"""A step of the transducer's beam search, as both devices do it: a sequence by one worker or
thread.

All hypotheses of a step have been made by as many blanks and labels (Saon, Tuske and Audhkhasi
2020, "Alignment-length synchronous decoding for RNN transducer"), so those with the same labels are
at the same frame, and their probabilities are added. A hypothesis is complete with the blank of the
last frame; complete ones stand apart, the best first.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..beam.shared import NEVER, is_there
from ..ctc.decode import either
from ..declare import helper


@helper
def mate_of(score: Any, count: Any, history: Any, b: int, a: int) -> int:
    """The hypothesis that becomes the labels of hypothesis a by one more label, or -1."""
    W, size = score.shape[1], int(count[b, a])
    S = history.shape[1] // W
    for k in range(W):
        if k == a or not is_there(score[b, k]) or int(count[b, k]) != size - 1:
            continue
        same = True
        for s in range(size - 1):
            if history[b, k * S + s] != history[b, a * S + s]:
                same = False
        if same:
            return k
    return -1


@helper
def put(best: Any, which: Any, b: int, value: Any, number: int) -> None:
    """Put a continuation among the best, which are in order; the earlier of equals comes first."""
    j = best.shape[1] - 1
    if not (value > best[b, j]):
        return
    while j > 0 and best[b, j - 1] < value:
        best[b, j] = best[b, j - 1]
        which[b, j] = which[b, j - 1]
        j -= 1
    best[b, j] = value
    which[b, j] = number


@helper
def complete(
    history: Any, done_score: Any, done_count: Any, done_history: Any, b: int, a: int, S: int,
    size: int, value: Any,
) -> None:  # fmt: skip
    """Put the labels of hypothesis a among the complete ones."""
    j = done_score.shape[1] - 1
    if not (value > done_score[b, j]):
        return
    while j > 0 and done_score[b, j - 1] < value:
        done_score[b, j] = done_score[b, j - 1]
        done_count[b, j] = done_count[b, j - 1]
        for s in range(S):
            done_history[b, j * S + s] = done_history[b, (j - 1) * S + s]
        j -= 1
    done_score[b, j] = value
    done_count[b, j] = size
    for s in range(S):
        done_history[b, j * S + s] = history[b, a * S + s]


@helper
def select(
    logits: Any, lengths: Any, score: Any, frame: Any, count: Any, history: Any, old_score: Any,
    old_count: Any, old_history: Any, parent: Any, symbol: Any, new_score: Any, new_frame: Any,
    new_count: Any, new_history: Any, done_score: Any, done_count: Any, done_history: Any,
    best: Any, which: Any, mates: Any, b: int, blank: int,
) -> None:  # fmt: skip
    """The best continuations of all hypotheses."""
    W, R = score.shape[1], done_score.shape[1]
    V, S = logits.shape[1] // W, history.shape[1] // W
    for r in range(R):
        done_score[b, r] = old_score[b, r]
        done_count[b, r] = old_count[b, r]
        for s in range(S):
            done_history[b, r * S + s] = old_history[b, r * S + s]
    for w in range(W):
        best[b, w] = NEVER
        which[b, w] = w * V + blank
        mates[b, w] = -1
    for w in range(W):
        if not is_there(score[b, w]):
            continue
        value = np.float64(score[b, w]) + np.float64(logits[b, w * V + blank])
        if int(frame[b, w]) + 1 >= lengths[b]:
            size = int(count[b, w])
            complete(history, done_score, done_count, done_history, b, w, S, size, value)
            continue
        mate = mate_of(score, count, history, b, w)
        mates[b, w] = mate
        if mate >= 0:
            last = int(history[b, w * S + int(count[b, w]) - 1])
            value = either(
                value, np.float64(score[b, mate]) + np.float64(logits[b, mate * V + last])
            )
        put(best, which, b, value, w * V + blank)
    for w in range(W):
        if not is_there(score[b, w]) or int(count[b, w]) >= S:
            continue
        for v in range(V):
            value = np.float64(score[b, w]) + np.float64(logits[b, w * V + v])
            if v == blank or not (value > best[b, W - 1]):
                continue
            known = False
            for a in range(W):
                if mates[b, a] == w and int(history[b, a * S + int(count[b, a]) - 1]) == v:
                    known = True
            if not known:
                put(best, which, b, value, w * V + v)
    for w in range(W):
        p, v = which[b, w] // V, which[b, w] % V
        size = int(count[b, p])
        parent[b, w] = p
        symbol[b, w] = v
        new_score[b, w] = best[b, w]
        for s in range(S):
            new_history[b, w * S + s] = history[b, p * S + s]
        new_frame[b, w] = frame[b, p]
        new_count[b, w] = count[b, p]
        if v == blank or not (best[b, w] > NEVER):
            new_frame[b, w] = min(int(frame[b, p]) + 1, max(int(lengths[b]) - 1, 0))
        else:
            new_count[b, w] = size + 1
            new_history[b, w * S + size] = v


@helper
def frames_of(x: Any, frame: Any, y: Any, b: int) -> None:
    """y[b, w] = x[b, frame[b, w]]."""
    for w in range(frame.shape[1]):
        t = min(max(int(frame[b, w]), 0), x.shape[1] - 1)
        for j in range(x.shape[2]):
            y[b, w, j] = x[b, t, j]
