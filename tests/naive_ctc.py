"""Connectionist temporal classification in float64 NumPy, importing nothing of fastnn."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from tests.naive import Array, log_softmax, softmax


def ctc(
    x: Array, target: Array, lengths: Array, counts: Array, blank: int = 0
) -> tuple[Array, Array]:
    """Losses and their gradients to the logits, in the log domain."""
    losses, gradients = np.zeros(len(x)), np.zeros(x.shape)
    for n, (T, L) in enumerate(zip(lengths, counts, strict=True)):
        with np.errstate(all="ignore"):
            losses[n], gradients[n, :T] = _sequence(x[n, :T], target[n, :L], blank)
    return losses, gradients


def _sequence(x: Array, labels: Array, blank: int) -> tuple[float, Array]:
    T, states = len(x), [blank]
    for label in labels:
        states += [int(label), blank]
    S = len(states)
    if T == 0:
        return (0.0 if S == 1 else np.inf), x
    y = log_softmax(x.astype(np.float64))
    alpha, beta = np.full((T, S), -np.inf), np.full((T, S), -np.inf)
    before = [[r for r in (s, s - 1) if r >= 0] for s in range(S)]
    for s in range(3, S, 2):
        if states[s] != states[s - 2]:
            before[s].append(s - 2)
    alpha[0, :2] = y[0, states[:2]]
    for t in range(1, T):
        for s in range(S):
            alpha[t, s] = np.logaddexp.reduce(alpha[t - 1, before[s]]) + y[t, states[s]]
    beta[T - 1, -2:] = 0.0
    for t in range(T - 2, -1, -1):
        for s in range(S):
            for r in before[s]:
                beta[t, r] = np.logaddexp(beta[t, r], beta[t + 1, s] + y[t + 1, states[s]])
    log_p = np.logaddexp.reduce(alpha[T - 1, -2:])
    gradient = np.exp(y)
    for t in range(T):
        for s in range(S):
            gradient[t, states[s]] -= np.exp(alpha[t, s] + beta[t, s] - log_p)
    return -log_p, gradient


def collapsed(path: Sequence[int], blank: int = 0) -> list[int]:
    """The labels of a path: repeated classes once, then no blanks."""
    kept = [int(c) for k, c in enumerate(path) if k == 0 or c != path[k - 1]]
    return [c for c in kept if c != blank]


def labellings(x: Array, blank: int = 0) -> dict[tuple[int, ...], float]:
    """The probability of each labelling of one sequence: the sum over all of its paths."""
    p, found = softmax(x), {}
    for path in itertools.product(range(x.shape[1]), repeat=len(x)):
        labels = tuple(collapsed(path, blank))
        share = float(np.prod([p[t, c] for t, c in enumerate(path)]))
        found[labels] = found.get(labels, 0.0) + share
    return found
