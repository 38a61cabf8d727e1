"""Precision, recall and F1 of named entities by the rules of the CoNLL evaluation script.

An entity counts as found when its first word, its last word and its type are all right. The rules
by which tags become entities are those of `conlleval` (Tjong Kim Sang and Buchholz, "Introduction
to the CoNLL-2000 shared task: chunking", 2000; used again in 2003). They accept tags in IOB1, IOB2
and IOBES, and tags that fit no scheme, which a net may predict:

- `B-` and `S-` always begin an entity;
- `I-` and `E-` go on with the entity of the word before where that has the same type and is tagged
  `B-` or `I-`; otherwise they begin one;
- an entity ends before a word that does not go on with it, and at the end of the sentence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from fastnn.errors import DataError

#: type, place of the first word, place after the last word
Span: TypeAlias = tuple[str, int, int]


@dataclass(frozen=True)
class Scores:
    """Counts of entities and what follows from them.

    Attributes:
        expected: entities in the data.
        found: entities that were predicted.
        correct: entities that are in both.
    """

    expected: int
    found: int
    correct: int

    @property
    def precision(self) -> float:
        """Share of the predicted entities that are correct; 0 if none was predicted."""
        return self.correct / self.found if self.found else 0.0

    @property
    def recall(self) -> float:
        """Share of the entities in the data that were found; 0 if there are none."""
        return self.correct / self.expected if self.expected else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 if both are 0."""
        both = self.expected + self.found
        return 2 * self.correct / both if both else 0.0


@dataclass(frozen=True)
class EntityScores(Scores):
    """Scores of all entities together (the F1 that papers report), and of each type.

    Attributes:
        accuracy: share of the words whose tag is right.
        types: type -> its scores, in alphabetical order.
    """

    accuracy: float
    types: dict[str, Scores]

    def __str__(self) -> str:
        """A table in per cent."""
        width = max([len(name) for name in self.types] + [len("overall")])
        lines = [f"{'':{width}}  precision  recall      F1  entities"]
        for name, scores in {"overall": self, **self.types}.items():
            lines.append(
                f"{name:{width}}  {100 * scores.precision:9.2f}  {100 * scores.recall:6.2f}  "
                f"{100 * scores.f1:6.2f}  {scores.expected:8}"
            )
        return "\n".join(lines)


def entities(tags: Sequence[str]) -> list[Span]:
    """The entities marked by the tags of one sentence, in order.

    Args:
        tags: `O`, or a prefix (`B`, `I`, `E`, `S`), a hyphen and a type; a prefix alone marks an
            entity of the type "".

    Raises DataError for any other tag.

    >>> entities(["I-PER", "O", "B-LOC", "I-LOC", "I-ORG"])
    [('PER', 0, 1), ('LOC', 2, 4), ('ORG', 4, 5)]
    """
    found: list[Span] = []
    before, kind_before, start = "O", "", 0
    for place, tag in enumerate(tags):
        prefix, _, kind = tag.partition("-")
        if prefix not in _PREFIXES or (prefix == "O" and tag != "O"):
            raise DataError(f"expected tags like O, B-PER, I-PER, E-PER or S-PER, got {tag!r}")
        goes_on = prefix in "IE" and before in "BI" and kind == kind_before
        if not goes_on:
            if before != "O":
                found.append((kind_before, start, place))
            start = place
        before, kind_before = prefix, kind
    if before != "O":
        found.append((kind_before, start, len(tags)))
    return found


_PREFIXES = frozenset("OBIES")


def entity_scores(
    expected: Iterable[Sequence[str]], found: Iterable[Sequence[str]]
) -> EntityScores:
    """Score predicted tags by the entities that they mark.

    Args:
        expected: the right tags of each sentence.
        found: the predicted tags of each sentence, as many as there are words.

    Raises DataError if the numbers of sentences or words differ, or a tag is invalid.

    >>> scores = entity_scores([["B-PER", "I-PER", "O", "B-LOC"]], [["B-PER", "I-PER", "O", "O"]])
    >>> scores.precision, scores.recall, round(scores.f1, 3), scores.accuracy
    (1.0, 0.5, 0.667, 0.75)
    >>> scores.types["LOC"].recall
    0.0
    """
    sentences, predictions = list(expected), list(found)
    if len(sentences) != len(predictions):
        raise DataError(
            f"expected predictions for {len(sentences)} sentences, got {len(predictions)}"
        )
    in_data: Counter[str] = Counter()
    predicted: Counter[str] = Counter()
    in_both: Counter[str] = Counter()
    words = right = 0
    for place, (tags, guesses) in enumerate(zip(sentences, predictions, strict=True)):
        if len(tags) != len(guesses):
            raise DataError(
                f"sentence {place}: expected {len(tags)} predicted tags, got {len(guesses)}"
            )
        words += len(tags)
        right += sum(a == b for a, b in zip(tags, guesses, strict=True))
        true, guessed = set(entities(tags)), set(entities(guesses))
        in_data.update(kind for kind, *_ in true)
        predicted.update(kind for kind, *_ in guessed)
        in_both.update(kind for kind, *_ in true & guessed)
    kinds = sorted(in_data.keys() | predicted.keys())
    return EntityScores(
        in_data.total(),
        predicted.total(),
        in_both.total(),
        right / words if words else 0.0,
        {kind: Scores(in_data[kind], predicted[kind], in_both[kind]) for kind in kinds},
    )
