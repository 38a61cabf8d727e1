"""Scores of an n-gram language model while a decoder searches, on both devices.

The model is a set of states, one for each history. A state has arcs, in the order of their tokens;
a token without an arc is looked for in the state with a word less (its backoff).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..declare import helper

#: the score of a symbol that a language model does not know
UNKNOWN = -50.0


@helper
def arc_of(first: Any, arcs: Any, state: int, token: int) -> int:
    """The arc of a state with this token, or -1: arcs are in the order of their tokens."""
    low, high = first[state], first[state + 1]
    while low < high:
        middle = (low + high) // 2
        if arcs[middle] < token:
            low = middle + 1
        else:
            high = middle
    if low < first[state + 1] and arcs[low] == token:
        return low
    return -1


@helper
def model_score(
    first: Any, arcs: Any, arc_scores: Any, backoff: Any, backoff_scores: Any, state: int,
    token: int,
) -> Any:  # fmt: skip
    """The score of a token after a state."""
    total = np.float64(0.0)
    while True:
        arc = arc_of(first, arcs, state, token)
        if arc >= 0:
            return total + arc_scores[arc]
        if backoff[state] < 0:
            return total + UNKNOWN
        total += backoff_scores[state]
        state = backoff[state]


@helper
def model_next(first: Any, arcs: Any, arc_next: Any, backoff: Any, state: int, token: int) -> int:
    """The state after a token."""
    while True:
        arc = arc_of(first, arcs, state, token)
        if arc >= 0:
            return arc_next[arc]
        if backoff[state] < 0:
            return state
        state = backoff[state]
