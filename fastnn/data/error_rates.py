"""Word and character error rates, with alignments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastnn.data.edits import edits
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
    reference: Sequence[Any], hypothesis: Sequence[Any], *, library: str = "auto"
) -> list[tuple[Any | None, Any | None]]:
    """Pairs of what was said (`reference`) and what was recognised (`hypothesis`), with the fewest
    differences (Levenshtein 1966); None where there is nothing on one side.

    Where several alignments have as few, it is that of rapidfuzz and jiwer.

    Args:
        reference, hypothesis: sequences of symbols that can be compared and hashed.
        library: "rapidfuzz", "own", or "auto": the first where it is installed. Both find the same.

    Raises OptionError for another library, ImportError for one that is not installed.

    >>> align_symbols("six two".split(), "six to two".split())
    [('six', 'six'), (None, 'to'), ('two', 'two')]
    """
    pairs: list[tuple[Any | None, Any | None]] = []
    i = j = 0
    for kind, a, b in edits(reference, hypothesis, library):
        pairs += zip(reference[i:a], hypothesis[j:b], strict=True)
        i, j = a + (kind != "insert"), b + (kind != "delete")
        pairs.append((
            None if kind == "insert" else reference[a], None if kind == "delete" else hypothesis[b]
        ))  # fmt: skip
    return [*pairs, *zip(reference[i:], hypothesis[j:], strict=True)]


def word_error_rate(
    references: Sequence[str], hypotheses: Sequence[str], *, library: str = "auto"
) -> ErrorRate:
    """Errors in words, over all sentences, as jiwer counts them. White space of any kind stands
    between words (in jiwer, spaces only).

    Args:
        references, hypotheses: what was said, and what was recognised, in the same order.
        library: as of `align_symbols`.

    Raises DataError for a single string, for sentences that are no strings, for more or fewer
    hypotheses than references, and for references without a word.

    >>> word_error_rate(["six two four"], ["six to"]).rate  # doctest: +ELLIPSIS
    0.666...
    """
    pairs = _matched("word_error_rate", references, hypotheses)
    return _total([(r.split(), h.split()) for r, h in pairs], library)


def character_error_rate(
    references: Sequence[str], hypotheses: Sequence[str], *, library: str = "auto"
) -> ErrorRate:
    """Errors in characters, over all sentences, as jiwer counts them: with spaces, but not those
    around a sentence.

    Args:
        references, hypotheses, library: as of `word_error_rate`.

    Raises DataError as `word_error_rate`, and for references without a symbol.

    >>> fnn.data.character_error_rate(["kitten"], ["sitting"])
    ErrorRate(substitutions=2, deletions=0, insertions=1, expected=6)
    """
    pairs = _matched("character_error_rate", references, hypotheses)
    return _total([(r.strip(), h.strip()) for r, h in pairs], library)


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
    for one in (*references, *hypotheses):
        if not isinstance(one, str):
            raise DataError(
                f"{what}: expected sentences as strings, got {type(one).__name__}; join words by "
                "spaces, and decode bytes"
            )
    return list(zip(references, hypotheses, strict=True))


def _total(pairs: Sequence[tuple[Sequence[Any], Sequence[Any]]], library: str) -> ErrorRate:
    expected = sum(len(reference) for reference, _ in pairs)
    if not expected:
        raise DataError("error rate: expected references with at least one symbol, got none")
    found = Counter(kind for given in pairs for kind, _, _ in edits(*given, library))
    return ErrorRate(found["replace"], found["delete"], found["insert"], expected)
