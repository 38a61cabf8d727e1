"""N-gram language models: Kneser-Ney training, ARPA files, and the form that decoders read."""

from __future__ import annotations

import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn import files
from fastnn.data.kneser_ney import START, STOP, UNKNOWN, estimate
from fastnn.errors import DataError, OptionError, is_whole

#: what parts the words of an ARPA file's line
BLANKS = " \t\r"


@dataclass(frozen=True)
class Arcs:
    """A model as states with arcs: what compiled decoders read.

    A state is a context; arcs of state s are numbers first[s] to first[s + 1], in the order of
    their tokens. A token without an arc has that of the state backoff[s], with the score
    backoff_scores[s] added. State 0 is the beginning of a sentence. Scores are natural logarithms.
    """

    first: NDArray[np.int64]
    tokens: NDArray[np.int64]
    scores: NDArray[np.float64]
    following: NDArray[np.int64]
    backoff: NDArray[np.int64]
    backoff_scores: NDArray[np.float64]


@dataclass(frozen=True)
class NGram:
    """A back-off language model.

    Attributes:
        order: words of the longest n-grams.
        scores: log10 p of the last word of each n-gram after those before it.
        backoffs: log10 weights of contexts.

    >>> model = NGram.train([["a", "b"], ["a", "c"], ["a", "b"]], order=2)
    >>> model.score("b", ["a"]) > model.score("c", ["a"])
    True
    """

    order: int
    scores: dict[tuple[str, ...], float]
    backoffs: dict[tuple[str, ...], float] = field(default_factory=dict)

    @classmethod
    def train(
        cls, sentences: Iterable[Sequence[str]], order: int = 3, vocabulary: Iterable[str] = ()
    ) -> NGram:
        """Interpolated Kneser-Ney smoothing (Kneser and Ney 1995; Chen and Goodman 1999): the
        discount of each order is n1/(n1 + 2 n2), and the words that are left share what remains.

        Args:
            sentences: lists of words.
            order: words of the longest n-grams.
            vocabulary: words that there are beside those of the sentences.

        Raises OptionError for an order below 1; DataError for no sentences, for sentences that are
        not lists of words, and for those with the words that stand for their ends.
        """
        if not is_whole(order, 1):
            raise OptionError(f"NGram: expected an order of 1 or more, got {order!r}")
        return cls(order, *estimate(sentences, order, vocabulary))

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> NGram:
        """Read an ARPA file. DataError where it is none."""
        path = files.as_path(path)
        scores: dict[tuple[str, ...], float] = {}
        backoffs: dict[tuple[str, ...], float] = {}
        n, ended = 0, False
        told: dict[int, int] = {}
        for number, line in enumerate(files.read_text(path, "language model").split("\n"), 1):
            line = line.strip(BLANKS)
            if line.startswith("\\") and line.endswith("-grams:"):
                n = int(line[1:-7]) if line[1:-7].isdecimal() else 0
            elif line == "\\end\\":
                ended = True
            elif not n and (tells := re.fullmatch("ngram +([0-9]+) *= *([0-9]+)", line)):
                told[int(tells[1])] = int(tells[2])
            elif n and line and not line.startswith("\\"):
                parts = re.split(f"[{BLANKS}]+", line)
                try:
                    gram, rest = tuple(parts[1 : n + 1]), parts[n + 1 :]
                    scores[gram] = float(parts[0])
                    if len(gram) != n or len(rest) > 1:
                        raise ValueError
                    if rest:
                        backoffs[gram] = float(rest[0])
                    if not math.isfinite(scores[gram] + backoffs.get(gram, 0.0)):
                        raise ValueError
                except (ValueError, IndexError):
                    raise DataError(
                        f"{path}, line {number}: expected a score, {n} words and perhaps a "
                        f"back-off weight, finite numbers, got {line[:60]!r}"
                    ) from None
        if not scores or not ended:
            raise DataError(
                f"{path}: expected an ARPA language model (\\data\\, \\1-grams:, ..., \\end\\); "
                "is it another kind of file, or truncated?"
            )
        found = Counter(map(len, scores))
        for n, count in ({1: found[1] or 1} | told).items():
            if found[n] != count:
                raise DataError(
                    f"{path}: expected {count} different {n}-grams, got {found[n]}; is a part of "
                    "the file missing?"
                )
        return cls(max(map(len, scores)), scores, backoffs)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write an ARPA file. DataError for words with blanks in them, which such files can't hold:
        take another sign in their place."""
        files.write_text(files.as_path(path), self.arpa(), "language model")

    def arpa(self) -> str:
        """The model as an ARPA file's text.

        Raises DataError for a word with a blank in it.
        """
        by_order: dict[int, list[tuple[str, ...]]] = defaultdict(list)
        for gram in sorted(self.scores):
            if not all(re.fullmatch(f"[^{BLANKS}\n]+", word) for word in gram):
                raise DataError(
                    "ARPA files separate words by blanks, so expected words without blanks, got "
                    f"{gram}; replace them, by '_' for instance, before the model is trained"
                )
            by_order[len(gram)].append(gram)
        lines = ["\\data\\", *(f"ngram {n}={len(by_order[n])}" for n in sorted(by_order)), ""]
        for n in sorted(by_order):
            lines.append(f"\\{n}-grams:")
            for gram in by_order[n]:
                weight = f"\t{self.backoffs[gram]:.7f}" if gram in self.backoffs else ""
                lines.append(f"{self.scores[gram]:.7f}\t{' '.join(gram)}{weight}")
            lines.append("")
        return "\n".join([*lines, "\\end\\", ""])

    def score(self, word: str, context: Sequence[str] = ()) -> float:
        """log10 p of a word after others, its `context`; of the unknown word for one that there is
        not, and -99 (beside back-off weights) where there is no unknown word either."""
        near = (word, *tuple(context)[max(len(context) - self.order + 1, 0) :])
        word, *rest = (w if (w,) in self.scores else UNKNOWN for w in near)
        before = tuple(rest)
        total = 0.0
        while True:
            if (*before, word) in self.scores:
                return total + self.scores[(*before, word)]
            if not before:
                return total - 99.0
            total += self.backoffs.get(before, 0.0)
            before = before[1:]

    def perplexity(self, sentences: Iterable[Sequence[str]]) -> float:
        """10^-(mean log10 p) over words and ends of sentences.

        Raises DataError for no sentences.
        """
        total, count = 0.0, 0
        for sentence in sentences:
            words = [START, *sentence, STOP]
            for k in range(1, len(words)):
                total, count = total + self.score(words[k], words[:k]), count + 1
        if not count:
            raise DataError("perplexity: expected at least one sentence, got none")
        return float(10.0 ** (-total / count))

    def arcs(self, tokens: Sequence[str]) -> Arcs:
        """The model as arcs over these tokens, by number; others are left out. Tokens that the
        model does not know are its unknown word."""
        numbers: dict[str, list[int]] = defaultdict(list)
        for k, token in enumerate(tokens):
            numbers[token if (token,) in self.scores else UNKNOWN].append(k)
        contexts = {gram[:-1] for gram in self.scores} | {
            gram for gram in self.scores if len(gram) < self.order
        }
        begin = (START,) if (START,) in contexts and self.order > 1 else ()
        states = {begin: 0} | {
            c: k for k, c in enumerate(sorted(contexts - {begin}), 1)
        }  # fmt: skip

        def state(words: tuple[str, ...]) -> int:
            words = words[max(len(words) - self.order + 1, 0) :]
            while words not in states:
                words = words[1:]
            return states[words]

        rows: list[list[tuple[int, float, int]]] = [[] for _ in states]
        for gram, value in self.scores.items():
            rows[states[gram[:-1]]] += [
                (k, value * math.log(10.0), state(gram)) for k in numbers.get(gram[-1], ())
            ]
        flat: list[Any] = [arc for row in rows for arc in sorted(row)]
        back = [state(c[1:]) if c else -1 for c in states]
        weights = [self.backoffs.get(c, 0.0) * math.log(10.0) for c in states]
        return Arcs(
            np.cumsum([0, *map(len, rows)]).astype(np.int64),
            np.array([a[0] for a in flat], np.int64),
            np.array([a[1] for a in flat], np.float64),
            np.array([a[2] for a in flat], np.int64),
            np.array(back, np.int64),
            np.array(weights, np.float64),
        )
