"""The likeliest path through class scores for frames, as both devices find it: of all, or of those
that give certain labels. A sequence is one worker's or thread's."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..declare import helper
from .decode import NEVER


@helper
def greedy(x: Any, lengths: Any, labels: Any, counts: Any, b: int, blank: int) -> None:
    """The labels of the likeliest path."""
    T, C = x.shape[1], x.shape[2]
    frames = T
    if lengths.shape[0] > 0:
        frames = min(max(lengths[b], 0), T)
    size, last = 0, -1
    for t in range(frames):
        best = 0
        for c in range(C):
            if x[b, t, c] > x[b, t, best]:
                best = c
        if best != last and best != blank:
            labels[b, size] = best
            size += 1
        last = best
    for t in range(size, T):
        labels[b, t] = -1
    counts[b] = size


@helper
def align(
    y: Any, target: Any, places: Any, score: Any, best: Any, back: Any, b: int, frames: int,
    L: int, blank: int,
) -> None:  # fmt: skip
    """The likeliest path among those that give the labels; -1 where it has a blank."""
    T, S = y.shape[1], 2 * L + 1
    for t in range(T):
        places[b, t] = -1
    for s in range(S):
        best[b, s] = 0.0 if s == 0 else NEVER
    for t in range(frames):
        for i in range(S):
            s = S - 1 - i
            high, came = best[b, s], 0
            if s > 0 and best[b, s - 1] > high:
                high, came = best[b, s - 1], 1
            label = blank
            if s % 2 == 1:
                label = target[b, s // 2]
                skips = s > 1 and target[b, s // 2 - 1] != label
                if skips and best[b, s - 2] > high:
                    high, came = best[b, s - 2], 2
            best[b, s] = max(high + y[b, t, label], np.float64(NEVER))
            back[b, t, s] = came
    s = S - 1
    if S > 1 and best[b, s - 1] > best[b, s]:
        s -= 1
    found = best[b, s]
    score[b] = found if found > NEVER else -np.inf
    for i in range(frames):
        t = frames - 1 - i
        places[b, t] = s // 2 if s % 2 == 1 and found > NEVER else -1
        s -= back[b, t, s]
