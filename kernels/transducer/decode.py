"""A step of the transducer's beam search, as both devices do it: a sequence by one worker or
thread.

All hypotheses of a step have been made by as many blanks and labels (Saon, Tuske and Audhkhasi
2020, "Alignment-length synchronous decoding for RNN transducer"), so those with the same labels are
at the same frame, and their probabilities are added. A hypothesis is complete with the blank of the
last frame; complete ones stand apart, the best first.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..beam.shared import NEVER, is_there
from ..ctc.decode import either
from ..declare import helper


class Hypotheses(NamedTuple):
    """W hypotheses of each sequence, their labels [W,S]."""

    score: Any
    frame: Any
    count: Any
    history: Any


class Complete(NamedTuple):
    """The R best complete ones of each sequence, their labels [R,S]."""

    score: Any
    count: Any
    history: Any


class Found(NamedTuple):
    """The W best continuations so far.

    Attributes:
        score: in order.
        which: hypothesis * V + symbol.
        mate: for each hypothesis the one whose labels, with one more, are its own; -1 if none.
    """

    score: Any
    which: Any
    mate: Any


@helper
def mate_of(now: Hypotheses, b: int, a: int) -> int:
    """The hypothesis whose labels, with one more, are those of hypothesis a, or -1."""
    W, size = now.score.shape[1], int(now.count[b, a])
    S = now.history.shape[1] // W
    for k in range(W):
        if k == a or not is_there(now.score[b, k]) or int(now.count[b, k]) != size - 1:
            continue
        same = True
        for s in range(size - 1):
            if now.history[b, k * S + s] != now.history[b, a * S + s]:
                same = False
        if same:
            return k
    return -1


@helper
def put(best: Found, b: int, value: Any, number: int) -> None:
    """Put a continuation among the best, which are in order; the earlier of equals comes first."""
    j = best.score.shape[1] - 1
    if not (value > best.score[b, j]):
        return
    while j > 0 and best.score[b, j - 1] < value:
        best.score[b, j] = best.score[b, j - 1]
        best.which[b, j] = best.which[b, j - 1]
        j -= 1
    best.score[b, j] = value
    best.which[b, j] = number


@helper
def complete(now: Hypotheses, done: Complete, b: int, a: int, S: int, value: Any) -> None:
    """Put the labels of hypothesis a among the complete ones."""
    j = done.score.shape[1] - 1
    if not (value > done.score[b, j]):
        return
    while j > 0 and done.score[b, j - 1] < value:
        done.score[b, j] = done.score[b, j - 1]
        done.count[b, j] = done.count[b, j - 1]
        for s in range(S):
            done.history[b, j * S + s] = done.history[b, (j - 1) * S + s]
        j -= 1
    done.score[b, j] = value
    done.count[b, j] = int(now.count[b, a])
    for s in range(S):
        done.history[b, j * S + s] = now.history[b, a * S + s]


@helper
def select(
    logits: Any, lengths: Any, now: Hypotheses, old: Complete, parent: Any, symbol: Any,
    then: Hypotheses, done: Complete, best: Found, b: int, blank: int,
) -> None:  # fmt: skip
    """The best continuations of all hypotheses."""
    W, R = now.score.shape[1], done.score.shape[1]
    V, S = logits.shape[1] // W, now.history.shape[1] // W
    for r in range(R):
        done.score[b, r] = old.score[b, r]
        done.count[b, r] = old.count[b, r]
        for s in range(S):
            done.history[b, r * S + s] = old.history[b, r * S + s]
    for w in range(W):
        best.score[b, w] = NEVER
        best.which[b, w] = w * V + blank
        best.mate[b, w] = -1
    for w in range(W):
        if not is_there(now.score[b, w]):
            continue
        value = np.float64(now.score[b, w]) + np.float64(logits[b, w * V + blank])
        if int(now.frame[b, w]) + 1 >= lengths[b]:
            complete(now, done, b, w, S, value)
            continue
        mate = mate_of(now, b, w)
        best.mate[b, w] = mate
        if mate >= 0:
            last = int(now.history[b, w * S + int(now.count[b, w]) - 1])
            value = either(
                value, np.float64(now.score[b, mate]) + np.float64(logits[b, mate * V + last])
            )
        put(best, b, value, w * V + blank)
    for w in range(W):
        if not is_there(now.score[b, w]) or int(now.count[b, w]) >= S:
            continue
        for v in range(V):
            value = np.float64(now.score[b, w]) + np.float64(logits[b, w * V + v])
            if v == blank or not (value > best.score[b, W - 1]):
                continue
            known = False
            for a in range(W):
                last = a * S + int(now.count[b, a]) - 1
                if best.mate[b, a] == w and int(now.history[b, last]) == v:
                    known = True
            if not known:
                put(best, b, value, w * V + v)
    for w in range(W):
        p, v = best.which[b, w] // V, best.which[b, w] % V
        size = int(now.count[b, p])
        parent[b, w] = p
        symbol[b, w] = v
        then.score[b, w] = best.score[b, w]
        for s in range(S):
            then.history[b, w * S + s] = now.history[b, p * S + s]
        then.frame[b, w] = now.frame[b, p]
        then.count[b, w] = now.count[b, p]
        if v == blank or not (best.score[b, w] > NEVER):
            then.frame[b, w] = min(int(now.frame[b, p]) + 1, max(int(lengths[b]) - 1, 0))
        else:
            then.count[b, w] = size + 1
            then.history[b, w * S + size] = v


@helper
def frames_of(x: Any, frame: Any, y: Any, b: int) -> None:
    """y[b, w] = x[b, frame[b, w]]."""
    for w in range(frame.shape[1]):
        t = min(max(int(frame[b, w]), 0), x.shape[1] - 1)
        for j in range(x.shape[2]):
            y[b, w, j] = x[b, t, j]
