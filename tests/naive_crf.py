"""Conditional random fields in NumPy, importing nothing of fastnn.

In long double: logarithms of probabilities far below what floats hold lose digits that the
library's fractions with exponents of their own keep.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.naive import Array


def score(x: Array, tags: Sequence[int], transitions: Array, start: Array, end: Array) -> Any:
    """Of one sequence (T, C)."""
    total = start[tags[0]] + end[tags[-1]] + sum(x[t, k] for t, k in enumerate(tags))
    return total + sum(transitions[i, j] for i, j in itertools.pairwise(tags))


def every(x: Array, transitions: Array, start: Array, end: Array) -> dict[tuple[int, ...], Any]:
    """The scores of all tags that one sequence can have."""
    found = itertools.product(range(x.shape[1]), repeat=len(x))
    return {tags: score(x, tags, transitions, start, end) for tags in found}


def crf(
    x: Array, target: Array, lengths: Array, transitions: Array, start: Array, end: Array,
    dloss: Array,
) -> tuple[Array, Array, Array, Array, Array]:  # fmt: skip
    """Losses, and gradients to x, transitions, start and end, in the log domain."""
    x, transitions, start, end = (a.astype(np.longdouble) for a in (x, transitions, start, end))
    losses, dx = np.zeros(len(x), np.longdouble), np.zeros_like(x)
    weights = np.zeros_like(transitions), np.zeros_like(start), np.zeros_like(end)
    for b, n in enumerate(lengths):
        if n == 0:
            continue
        alpha, beta = np.zeros_like(x[b, :n]), np.zeros_like(x[b, :n])
        alpha[0] = start + x[b, 0]
        for t in range(1, n):
            alpha[t] = np.logaddexp.reduce(alpha[t - 1][:, None] + transitions, axis=0) + x[b, t]
        beta[n - 1] = end
        for t in range(n - 2, -1, -1):
            beta[t] = np.logaddexp.reduce(transitions + x[b, t + 1] + beta[t + 1], axis=1)
        log_z = np.logaddexp.reduce(alpha[n - 1] + end)
        tags = target[b, :n]
        losses[b] = log_z - score(x[b, :n], tags, transitions, start, end)
        p = np.exp(alpha + beta - log_z)
        p[np.arange(n), tags] -= 1
        dx[b, :n] = p * dloss[b]
        weights[1][:] += p[0] * dloss[b]
        weights[2][:] += p[n - 1] * dloss[b]
        for t in range(1, n):
            both = np.exp(alpha[t - 1][:, None] + transitions + x[b, t] + beta[t] - log_z)
            both[tags[t - 1], tags[t]] -= 1
            weights[0][:] += both * dloss[b]
    return losses, dx, *weights


def best(x: Array, transitions: Array, start: Array, end: Array) -> tuple[list[int], float]:
    """The best tags of one sequence and their score."""
    top, came = start + x[0], []
    for row in x[1:]:
        candidates = top[:, None] + transitions
        came.append(candidates.argmax(axis=0))
        top = candidates.max(axis=0) + row
    tags = [int((top + end).argmax())]
    for back in reversed(came):
        tags.append(int(back[tags[-1]]))
    return tags[::-1], float((top + end).max())
