"""What both devices share: how many steps count, and where things lie in working memory.

Probabilities are pairs (m, e) for m 2^e, as in `ctc/shared.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..ctc.shared import COLUMNS
from ..declare import helper

#: arrays of M columns in `work` for each tag: transitions from it and to it, each as m and as e,
#: and as plain numbers
FROM, FROM_E, INTO, INTO_E, PLAIN, PLAIN_INTO = range(6)
TABLES = 6
#: rows of M columns behind them: the scores of beginning and end, and what a step hands on
START, START_E, END, END_E, NEXT, NEXT_E, BETA, BETA_E, PLAIN_START, PLAIN_END = range(10)
ROWS = 10
#: arrays of M columns for each step: scores and `alpha`
SCORE, SCORE_E, ALPHA, ALPHA_E = range(4)
STEPS = 4


def columns_for(tags: int) -> int:
    """Columns for so many tags: a multiple of what vectors hold, whatever their width is."""
    return -(-tags // COLUMNS) * COLUMNS


def room_for(tags: int, steps: int) -> int:
    """Words that the loss of a sequence is computed in."""
    return (TABLES * tags + ROWS + STEPS * steps) * columns_for(tags)


@helper
def table(number: int, C: int, M: int, i: int) -> int:
    """Where row i of a table begins in `work`."""
    return (number * C + i) * M


@helper
def row(number: int, C: int, M: int) -> int:
    """Where one of `ROWS` begins in `work`."""
    return (TABLES * C + number) * M


@helper
def step(number: int, C: int, M: int, t: int) -> int:
    """Where an array of a step begins in `work`."""
    return (TABLES * C + ROWS + STEPS * t + number) * M


@helper
def tag_count(target: Any, lengths: Any, b: int, C: int) -> int:
    """Steps of a sequence: `lengths[b]`, or where that is absent those before the first negative
    tag; -1 where there are not so many, or one of the tags is none."""
    T = target.shape[1]
    n = T
    if lengths.shape[0] > 0:
        n = lengths[b]
        if n < 0 or n > T:
            return -1
    for t in range(n):
        tag = target[b, t]
        if tag < 0 and lengths.shape[0] == 0:
            return t
        if tag < 0 or tag >= C:
            return -1
    return n


@helper
def walk_back(
    x: Any, transitions: Any, start: Any, end: Any, tags: Any, best: Any, came: Any, b: int, n: int
) -> Any:
    """The best tags of the n steps of a sequence, from the last to the first, and their score;
    `best` has the scores of the tags of the last step, `came` the tag before each."""
    most, tag = best[b, 0] + end[0], 0
    for j in range(1, x.shape[2]):
        if best[b, j] + end[j] > most:
            most, tag = best[b, j] + end[j], j
    total = np.float64(end[tag])
    for i in range(n):
        t = n - 1 - i
        tags[b, t] = tag
        total += np.float64(x[b, t, tag])
        before = int(came[b, t, tag]) if t > 0 else 0
        total += np.float64(transitions[before, tag] if t > 0 else start[tag])
        tag = before
    return total
