"""Word and character error rates, with alignments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastnn.errors import DataError


@dataclass(frozen=True)
class ErrorRate:
    """Errors in what was recognised.

    Attributes:
        substitutions, deletions, insertions: how many of each.
        expected: words or characters of the references.
    """

    substitutions: int
    deletions: int
    insertions: int
    expected: int

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors by the words or characters of the references; may be above 1."""
        return self.errors / self.expected

    def __str__(self) -> str:
        return (
            f"{100 * self.rate:.2f} % of {self.expected:,} ({self.substitutions} wrong, "
            f"{self.deletions} missing, {self.insertions} too many)"
        )


def align_symbols(
    reference: Sequence[Any], hypothesis: Sequence[Any]
) -> list[tuple[Any | None, Any | None]]:
    """Pairs of what was said (`reference`) and what was recognised (`hypothesis`), with the fewest
    differences (Levenshtein 1966); None where there is nothing on one side.

    >>> align_symbols("six two".split(), "six to two".split())
    [('six', 'six'), (None, 'to'), ('two', 'two')]
    """
    n, m = len(reference), len(hypothesis)
    cost = np.zeros((n + 1, m + 1), np.int64)
    cost[:, 0], cost[0] = np.arange(n + 1), np.arange(m + 1)
    for i in range(1, n + 1):
        for j in range(1, m + 1):
            other = int(reference[i - 1] != hypothesis[j - 1])
            cost[i, j] = min(
                cost[i - 1, j - 1] + other, cost[i - 1, j] + 1, cost[i, j - 1] + 1
            )  # fmt: skip
    pairs: list[tuple[Any | None, Any | None]] = []
    i, j = n, m
    while i or j:
        same = i and j and reference[i - 1] == hypothesis[j - 1]
        if i and j and cost[i, j] == cost[i - 1, j - 1] + (0 if same else 1):
            i, j = i - 1, j - 1
            pairs.append((reference[i], hypothesis[j]))
        elif i and cost[i, j] == cost[i - 1, j] + 1:
            i -= 1
            pairs.append((reference[i], None))
        else:
            j -= 1
            pairs.append((None, hypothesis[j]))
    return pairs[::-1]


def word_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> ErrorRate:
    """Errors in words, over all sentences.

    Raises DataError for a single string, for as many hypotheses as there are not references, and
    for references without a word.

    >>> word_error_rate(["six two four"], ["six to"]).rate  # doctest: +ELLIPSIS
    0.666...
    """
    pairs = _matched("word_error_rate", references, hypotheses)
    return _total([(r.split(), h.split()) for r, h in pairs])


def character_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> ErrorRate:
    """Errors in characters, spaces included, over all sentences.

    Raises DataError for a single string, for as many hypotheses as there are not references, and
    for references without a symbol.

    >>> fnn.data.character_error_rate(["kitten"], ["sitting"])
    ErrorRate(substitutions=2, deletions=0, insertions=1, expected=6)
    """
    return _total(_matched("character_error_rate", references, hypotheses))


def _matched(
    what: str, references: Sequence[str], hypotheses: Sequence[str]
) -> list[tuple[str, str]]:
    if isinstance(references, str) or isinstance(hypotheses, str):
        raise DataError(f"{what}: expected lists of sentences, got a string; put it into a list")
    if len(references) != len(hypotheses):
        raise DataError(
            f"{what}: expected as many hypotheses as references, got {len(hypotheses)} and "
            f"{len(references)}"
        )
    return list(zip(references, hypotheses, strict=True))


def _total(pairs: Sequence[tuple[Sequence[Any], Sequence[Any]]]) -> ErrorRate:
    expected = sum(len(reference) for reference, _ in pairs)
    if not expected:
        raise DataError("error rate: expected references with at least one symbol, got none")
    found = [pair for given in pairs for pair in align_symbols(*given)]
    return ErrorRate(
        sum(a is not None and b is not None and a != b for a, b in found),
        sum(b is None for _, b in found), sum(a is None for a, _ in found), expected,
    )  # fmt: skip
