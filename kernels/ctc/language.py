"""Scores of an n-gram language model while a decoder searches, on both devices.

The model is a set of states, one for each history. A state has arcs, in the order of their tokens;
a token without an arc is looked for in the state with a word less (its backoff).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ..declare import helper

#: the score of a symbol that a language model does not know: 10^-99, ARPA files' zero, as a natural
#: logarithm
UNKNOWN = -99.0 * math.log(10.0)


class Model(NamedTuple):
    """A language model.

    Attributes:
        first: the first arc of each state, and the number of arcs; nothing where there is no model.
        arcs, scores, next: tokens of the arcs, their scores, and the states after them.
        backoff, backoff_scores: of each state, the one with a word less, or -1, and what that
            costs.
    """

    first: Any
    arcs: Any
    scores: Any
    next: Any
    backoff: Any
    backoff_scores: Any


@helper
def arc_of(model: Model, state: int, token: int) -> int:
    """The arc of a state with this token, or -1: arcs are in the order of their tokens."""
    first, arcs = model.first, model.arcs
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
def model_score(model: Model, state: int, token: int) -> Any:
    """The score of a token after a state."""
    total = np.float64(0.0)
    while True:
        arc = arc_of(model, state, token)
        if arc >= 0:
            return total + model.scores[arc]
        if model.backoff[state] < 0:
            return total + UNKNOWN
        total += model.backoff_scores[state]
        state = model.backoff[state]


@helper
def model_next(model: Model, state: int, token: int) -> int:
    """The state after a token."""
    while True:
        arc = arc_of(model, state, token)
        if arc >= 0:
            return model.next[arc]
        if model.backoff[state] < 0:
            return state
        state = model.backoff[state]
