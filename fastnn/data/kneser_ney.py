"""Interpolated Kneser-Ney smoothing (Kneser and Ney 1995; Chen and Goodman 1999): the discount of
each order is n1 / (n1 + 2 n2), and the words that are left share what remains.

An n-gram has a number, made of that of its first n - 1 words and its last word. Sorting the numbers
counts all n-grams of an order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastnn.errors import DataError

START, STOP, UNKNOWN = "<s>", "</s>", "<unk>"
Gram = tuple[str, ...]
Whole = NDArray[np.int64]
Real = NDArray[np.float64]


@dataclass(frozen=True)
class Text:
    """Sentences as one text.

    Attributes:
        words: all that there are; the first two begin and end a sentence.
        ids: of the words at each place.
        left: how many places there are to the end of the sentence, this one included.
    """

    words: list[str]
    ids: Whole
    left: Whole


@dataclass(frozen=True)
class Grams:
    """All different n-grams of a text.

    Attributes:
        first: where in the text each stands for the first time.
        counts: how often each occurs.
        at: the number of the one that begins at each place; -1 where the sentence is too short.
    """

    first: Whole
    counts: Whole
    at: Whole


def estimate(
    sentences: Iterable[Sequence[str]], order: int, vocabulary: Iterable[str]
) -> tuple[dict[Gram, float], dict[Gram, float]]:
    """Scores (log10 p) of n-grams, and weights (log10) of contexts; see `NGram.train`."""
    text = _read(sentences)
    known = {*text.words[1:], UNKNOWN, *vocabulary} - {START}
    even = np.full(len(text.words), 1.0 / len(known))
    levels = _levels(text, order)

    one, counts = next(levels)
    counts[0] = 0  # no sentence goes on with its beginning
    p, rest = _smoothed(counts, np.zeros_like(counts), even)
    names: list[Gram] = [(word,) for word in text.words]
    missing = math.log10(rest[0] * even[0])
    scores: dict[Gram, float] = {(word,): missing for word in known.difference(text.words)}
    scores |= _logs(names, np.arange(1, len(names)), p)
    scores[START,] = -99.0
    backoffs: dict[Gram, float] = {}

    spoken = [text.words[k] for k in text.ids.tolist()]
    shorter = one
    for n, (grams, counts) in enumerate(levels, 2):
        context = shorter.at[grams.first]
        p, rest = _smoothed(counts, context, p[shorter.at[grams.first + 1]])
        backoffs |= _logs(names, np.flatnonzero(rest), rest)
        names = [tuple(spoken[k : k + n]) for k in grams.first.tolist()]
        scores |= _logs(names, np.arange(len(names)), p)
        shorter = grams
    return scores, backoffs


def _read(sentences: Iterable[Sequence[str]]) -> Text:
    numbers = {START: 0, STOP: 1}
    ids: list[int] = []
    ends = [0]
    for sentence in sentences:
        if isinstance(sentence, str):
            raise DataError(
                f"NGram: expected sentences as lists of words, got {sentence!r}; "
                "use sentence.split(), or list(sentence) for characters"
            )
        ids.append(0)
        for word in sentence:
            ids.append(numbers.setdefault(word, len(numbers)))
            if ids[-1] < 2:
                raise DataError(
                    f"NGram: expected sentences without {START!r} and {STOP!r}, which begin and "
                    f"end each, got {word!r} in one; leave it out, or rename that word"
                )
        ids.append(1)
        ends.append(len(ids))
    if not ids:
        raise DataError("NGram: expected at least one sentence, got none")
    left = np.repeat(ends[1:], np.diff(ends)) - np.arange(len(ids))
    return Text(list(numbers), np.array(ids, np.int64), left)


def _levels(text: Text, order: int) -> Iterator[tuple[Grams, Whole]]:
    """The n-grams of each order from 1, with what is made of their counts: of lower orders than the
    highest, how many words come before them."""
    grams = _counted(text.ids, text.left >= 1)
    for n in range(1, order):
        long = text.left > n
        keys = np.zeros(len(text.ids), np.int64)
        keys[long] = grams.at[long] * len(text.words) + text.ids[n:][long[: len(long) - n]]
        longer = _counted(keys, long)
        before = np.bincount(grams.at[longer.first + 1], minlength=len(grams.counts))
        yield grams, np.where(text.ids[grams.first] == 0, grams.counts, before)
        grams = longer
    yield grams, grams.counts.copy()


def _counted(keys: Whole, there: NDArray[np.bool_]) -> Grams:
    """What keys stand for, at those places where there is one."""
    places = np.flatnonzero(there)
    _, first, numbers, counts = np.unique(
        keys[places], return_index=True, return_inverse=True, return_counts=True
    )
    at = np.full(len(keys), -1, np.int64)
    at[places] = numbers.reshape(-1)
    return Grams(places[first], counts.astype(np.int64), at)


def _smoothed(counts: Whole, context: Whole, below: Real) -> tuple[Real, Real]:
    """Probabilities of the n-grams of one order, mixed with those of the order below, and the
    shares of the order below, by the number of the context."""
    once, twice = (int((counts == k).sum()) for k in (1, 2))
    discount = once / (once + 2 * twice) if once else 0.5
    totals, kinds = np.bincount(context, counts), np.bincount(context, counts > 0)
    rest = discount * kinds / np.maximum(totals, 1)
    return np.maximum(counts - discount, 0.0) / totals[context] + rest[context] * below, rest


def _logs(names: list[Gram], which: Whole, values: Real) -> dict[Gram, float]:
    found = which.tolist()
    logs = map(math.log10, values[which].tolist())
    return dict(zip((names[k] for k in found), logs, strict=True))
