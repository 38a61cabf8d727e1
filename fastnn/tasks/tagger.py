"""A tagger of words: what makes numbers of sentences, and the net.

A word is a vector of its own (words in lower case), features of its characters by convolution, and
a vector for its shape (capitals, digits). An LSTM reads them in both directions, and a conditional
random field finds the tags. Ma and Hovy, "End-to-end sequence labeling via bi-directional
LSTM-CNNs-CRF", ACL 2016, without their pre-trained vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastnn import nn, ops
from fastnn.data import scripts
from fastnn.data.bucketing import predict_sequences
from fastnn.data.conll2003 import Scheme, Sentences
from fastnn.data.metrics import entities
from fastnn.data.sequences import pad
from fastnn.data.text import Vocabulary
from fastnn.graph.value import Value

Ids: TypeAlias = list[NDArray[np.int64]]

UNKNOWN = "<unk>"
PADDING = "<pad>"
#: characters of a word that are read; of a longer one the first half and the last half of these
CHARACTERS = 16
SHAPES = ("lower", "First", "UPPER", "miXed", "1", "a1", ".")


def shape_of(word: str) -> int:
    """How a word is written: the place among `SHAPES`.

    >>> [SHAPES[shape_of(w)] for w in ("the", "Paris", "EU", "McLaren", "1996", "G7", "--")]
    ['lower', 'First', 'UPPER', 'miXed', '1', 'a1', '.']
    """
    letters = [c for c in word if c.isalpha()]
    if any(c.isdigit() for c in word):
        return 5 if letters else 4
    if not letters:
        return 6
    if word.islower():
        return 0
    if word.isupper() and len(letters) > 1:
        return 2
    return 1 if word[0].isupper() and not any(c.isupper() for c in word[1:]) else 3


@dataclass(frozen=True)
class Encoder:
    """Sentences as numbers.

    Attributes:
        words, characters, tags: symbols of the training sentences.
        scheme: how the tags mark entities.
    """

    words: Vocabulary
    characters: Vocabulary
    tags: Vocabulary
    scheme: Scheme

    @classmethod
    def fit(cls, sentences: Sentences) -> Encoder:
        """The symbols of training sentences."""
        words = (word.lower() for sentence in sentences.words for word in sentence)
        characters = (c for sentence in sentences.words for word in sentence for c in word)
        tags = sorted({tag for sentence in sentences.tags for tag in sentence})
        return cls(
            Vocabulary.build(words, unknown=UNKNOWN, padding=PADDING),
            Vocabulary.build(characters, unknown=UNKNOWN, padding=PADDING),
            Vocabulary(tags),
            sentences.scheme,
        )

    def inputs(self, sentences: Sequence[Sequence[str]]) -> tuple[Ids, Ids, Ids, Ids]:
        """Words, shapes, characters and lengths of words of each sentence.

        Shapes of the arrays: (steps,), (steps,), (steps, 16), (steps,).
        """
        words = [self.words.encode(w.lower() for w in sentence) for sentence in sentences]
        shapes = [np.array([shape_of(w) for w in sentence], np.int64) for sentence in sentences]
        known = {w: self._spelling(w) for sentence in sentences for w in sentence}
        characters = [np.array([known[w] for w in sentence], np.int64) for sentence in sentences]
        lengths = [
            np.array([min(len(w), CHARACTERS) for w in sentence], np.int64)
            for sentence in sentences
        ]
        return words, shapes, characters, lengths

    def targets(self, sentences: Sentences) -> Ids:
        """Numbers of the tags of each sentence."""
        return [self.tags.encode(tags) for tags in sentences.tags]

    def model(self, **options: Any) -> Tagger:
        """A new tagger for these symbols; options as for `Tagger`."""
        tags = list(self.tags)
        return Tagger(len(self.words), len(self.characters), tags, self.scheme, **options)

    def _spelling(self, word: str) -> NDArray[np.int64]:
        half = CHARACTERS // 2
        read = word if len(word) <= CHARACTERS else word[:half] + word[-half:]
        ids = np.zeros(CHARACTERS, np.int64)
        ids[: len(read)] = self.characters.encode(read)
        return ids


class Tagger(nn.Module):
    """Scores of the tags of each word of a sentence, and what finds the tags by them.

    Args:
        words, characters: how many there are of each.
        tags: their names.
        scheme: how they mark entities.
        embedding: size of a word's vector.
        filters: features of a word's characters, for each of the widths 2, 3 and 4.
        hidden: units of each direction of the LSTM over words.
        dropout: probability of zero before and after the LSTM over words.

    Inputs: words and shapes (batch, steps), characters (batch, steps, 16), lengths of words (batch,
    steps) and of sentences (batch,); output: scores, shape (batch, steps, tags), for
    `nn.CRFLoss` and for `crf`, which finds the tags.
    """

    def __init__(
        self, words: int, characters: int, tags: Sequence[str], scheme: str, *,
        embedding: int = 100, filters: int = 32, hidden: int = 160, dropout: float = 0.5,
    ):  # fmt: skip
        self.options: dict[str, Any] = {
            "embedding": embedding, "filters": filters, "hidden": hidden, "dropout": dropout,
        }  # fmt: skip
        self.word_vectors = nn.Embedding(words, embedding, padding_idx=0, weight_init="normal")
        self.shape_vectors = nn.Embedding(len(SHAPES), 8)
        self.spelling = nn.CharCNN(characters, filters=filters, widths=(2, 3, 4), dropout=0.2)
        self.before = nn.Dropout(dropout)
        size = embedding + 8 + self.spelling.output_size
        self.lstm = nn.LSTM(size, hidden, bidirectional=True, forget_bias=1.0)
        self.after = nn.Dropout(dropout)
        self.scores = nn.Linear(2 * hidden, len(tags))
        self.crf = nn.CRF(tags, scheme)

    def forward(
        self, words: Value, shapes: Value, characters: Value, spelt: Value, lengths: Value
    ) -> Value:
        spelling = self.spelling(characters, spelt)
        x = ops.concatenate(self.word_vectors(words), self.shape_vectors(shapes), spelling)
        outputs, _ = self.lstm(self.before(x), lengths=lengths)
        result: Value = self.scores(self.after(outputs))
        return result


def predict_tags(
    model: Tagger, encoder: Encoder, sentences: Sequence[Sequence[str]]
) -> list[list[str]]:
    """The best tags of each sentence."""
    scores = predict_sequences(model, encoder.inputs(sentences), per_step=True)
    padded, lengths = pad(scores)
    return [encoder.tags.decode(tags) for tags in model.crf.decode(padded, lengths)]


#: abbreviations of letters; and what may join words and numbers
_ABBREVIATIONS, _JOINED_BY = r"(?:[A-Za-z]\.){2,}", "-'’&.,/"


def words_of(text: str) -> list[str]:
    """Words and punctuation of a line of text.

    >>> words_of("Peter's U.S. trip cost $1,000.50.")
    ["Peter's", 'U.S.', 'trip', 'cost', '$', '1,000.50', '.']
    """
    return scripts.words(_JOINED_BY, _ABBREVIATIONS).findall(text)


def marked(words: Sequence[str], tags: Sequence[str]) -> str:
    """A sentence with its entities in brackets.

    >>> marked(["Peter", "Smith", "sang", "."], ["B-PER", "E-PER", "O", "O"])
    '[PER Peter Smith] sang .'
    """
    parts, done = [], 0
    for kind, begin, end in entities(tags):
        parts += [*words[done:begin], f"[{kind} {' '.join(words[begin:end])}]"]
        done = end
    return " ".join([*parts, *words[done:]])
