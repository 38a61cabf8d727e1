"""Words cut into pieces that are learnt from a text: byte-pair encoding."""

from __future__ import annotations

import heapq
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from fastnn import files
from fastnn.data import libraries, scripts
from fastnn.errors import DataError, check_whole

#: ends a piece that the next one belongs to
GOES_ON = "@@"
#: half of a pair that stands for one character in UTF-16, and alone for nothing
_SURROGATE = re.compile("[\ud800-\udfff]")
_BEFORE = re.compile(r"\s+([.,!?;:)\]}%])")
_AFTER = re.compile(r"([(\[{])\s+")


def split_words(text: str, lower: bool = True) -> list[str]:
    """The words and signs of a text, in small letters if `lower`. Hyphens and apostrophes join
    the parts of a word.

    >>> split_words("A man's T-shirt, blue.")
    ['a', "man's", 't-shirt', ',', 'blue', '.']
    """
    return scripts.words("'’-").findall(text.lower() if lower else text)


def join_words(words: Iterable[str]) -> str:
    """`words` and signs as a text.

    >>> join_words(["a", "man", ",", "blue", "."])
    'a man, blue.'
    """
    return _AFTER.sub(r"\1", _BEFORE.sub(r"\1", " ".join(words)))


class Subwords:
    """Cuts words into pieces, the frequent ones whole (byte-pair encoding: Sennrich, Haddow & Birch
    2016, "Neural machine translation of rare words with subword units").

    A word begins as its characters; pairs of neighbours are joined in the order in which they were
    learnt. A piece that the next one belongs to ends with ``@@``. A word's last piece never does,
    so `join` gives back what was split, empty words apart.

    Args:
        merges: the pairs, in their order.

    Raises DataError for a pair that comes twice.

    >>> pieces = Subwords.learn(["low", "low", "lower", "slow"], 2)
    >>> pieces.split(["slower"])
    ['s@@', 'low@@', 'e@@', 'r']
    >>> pieces.join(["s@@", "low"])
    ['slow']
    """

    def __init__(self, merges: Iterable[tuple[str, str]]):
        self.merges = [(str(a), str(b)) for a, b in merges]
        self._ranks = {pair: k for k, pair in enumerate(self.merges)}
        if len(self._ranks) != len(self.merges):
            raise DataError("Subwords: expected each pair of pieces once")
        self._known: dict[str, list[str]] = {}

    @classmethod
    def learn(cls, words: Iterable[str], merges: int, *, library: str = "own") -> Subwords:
        """Learn pairs from a text: again and again the most frequent one (the first in alphabetical
        order where several are), as long as it occurs twice.

        Args:
            words: all words of the text.
            merges: how many pairs, at most.
            library: "own", "tokenizers", or "auto": the latter where it is installed. It takes less
                time; of pairs that are equally frequent it takes others first, so that its pairs
                are not all the same.

        Raises OptionError for a negative number of merges and for another library, ImportError for
        a library that is not installed, DataError for half a surrogate pair in a word, which
        tokenizers can't take.
        """
        check_whole("Subwords.learn", 0, merges=merges)
        theirs = libraries.choose(library, "tokenizers", "tokenizers")
        if theirs is not None:
            return cls(_learn_with(theirs, words, merges))
        counts = Counter(words)
        parts = {word: list(word) for word in counts}
        pairs: Counter[tuple[str, str]] = Counter()
        places: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        for word, pieces in parts.items():
            for pair in pairwise(pieces):
                pairs[pair] += counts[word]
                places[pair].add(word)
        # the most frequent first; a pair whose count has changed since is there once more
        heap = [(-n, pair) for pair, n in pairs.items()]
        heapq.heapify(heap)
        found: list[tuple[str, str]] = []
        while heap and len(found) < merges:
            count, best = heapq.heappop(heap)
            if pairs[best] != -count:
                continue
            if count > -2:
                break
            found.append(best)
            changed = set()
            for word in list(places[best]):
                for pair in pairwise(parts[word]):
                    pairs[pair] -= counts[word]
                    places[pair].discard(word)
                    changed.add(pair)
                parts[word] = _joined(parts[word], best)
                for pair in pairwise(parts[word]):
                    pairs[pair] += counts[word]
                    places[pair].add(word)
                    changed.add(pair)
            for pair in changed:
                heapq.heappush(heap, (-pairs[pair], pair))
        return cls(found)

    def split(self, words: Iterable[str]) -> list[str]:
        """The pieces of all words."""
        return [piece for word in words for piece in self._pieces(word)]

    def join(self, pieces: Iterable[str]) -> list[str]:
        """The words of pieces."""
        words, begun = [], ""
        for piece in pieces:
            if piece.endswith(GOES_ON):
                begun += piece[: -len(GOES_ON)]
            else:
                words.append(begun + piece)
                begun = ""
        return [*words, begun] if begun else words

    def _pieces(self, word: str) -> list[str]:
        if word not in self._known:
            parts = list(word)
            while len(parts) > 1:
                ranks = [self._ranks.get(pair, len(self.merges)) for pair in pairwise(parts)]
                first = min(ranks)
                if first == len(self.merges):
                    break
                parts = _joined(parts, self.merges[first])
            if parts and parts[-1].endswith(GOES_ON):  # it would look like one that goes on
                parts[-1:] = [parts[-1][:-1], parts[-1][-1]]
            self._known[word] = [*(part + GOES_ON for part in parts[:-1]), *parts[-1:]]
        return self._known[word]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the pairs as JSON."""
        text = json.dumps(self.merges, ensure_ascii=False, indent=0)
        files.write_text(files.as_path(path), text + "\n", "subwords")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Subwords:
        """Read what `save` wrote. Raises DataError if the file is something else."""
        path = files.as_path(path)
        try:
            pairs = json.loads(files.read_text(path, "subwords"))
            if not all(files.strings(pair) and len(pair) == 2 for pair in pairs):
                raise ValueError("pairs are not two strings each")
        except (ValueError, TypeError, RecursionError) as error:
            raise DataError(
                f"{path}: not a file of subwords ({files.one_line(repr(error))})"
            ) from None
        return cls((a, b) for a, b in pairs)

    def __len__(self) -> int:
        return len(self.merges)

    def __repr__(self) -> str:
        return f"Subwords({len(self)} pairs)"


def _learn_with(tokenizers: Any, words: Iterable[str], merges: int) -> list[tuple[str, str]]:
    """Pairs learnt by the library tokenizers."""
    parts = [word for word in words if word]
    broken = next((word for word in parts if _SURROGATE.search(word)), None)
    if broken is not None:
        raise DataError(
            "Subwords.learn: expected words of Unicode characters, as the library tokenizers takes "
            f"them, got {broken[:60]!r} with half a surrogate pair; remove it, say with "
            'word.encode("utf-8", "ignore").decode(), or take library="own"'
        )
    room = len({sign for word in parts for sign in word}) + merges
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=room, min_frequency=2, special_tokens=[], show_progress=False
    )
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.train_from_iterator(parts, trainer)
    found = json.loads(tokenizer.to_str())["model"]["merges"]
    return [(a, b) for a, b in found][:merges]


def _joined(parts: list[str], pair: tuple[str, str]) -> list[str]:
    """Pieces with this pair of neighbours joined wherever it occurs, from the left."""
    found, k = [], 0
    while k < len(parts):
        if k + 1 < len(parts) and (parts[k], parts[k + 1]) == pair:
            found.append(parts[k] + parts[k + 1])
            k += 2
        else:
            found.append(parts[k])
            k += 1
    return found
