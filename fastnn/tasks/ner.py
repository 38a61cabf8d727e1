"""Names in news: an LSTM tagger in both directions over words and their characters.

A word is a vector of its own (words in lower case), the final states of a small LSTM in both
directions over its characters, and a vector for its shape (capitals, digits). Lample, Ballesteros,
Subramanian, Kawakami and Dyer, "Neural architectures for named entity recognition", NAACL 2016,
without their conditional random field and without pre-trained vectors.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastnn import files, nn, ops, optim
from fastnn.data.bucketing import Buckets, predict_sequences
from fastnn.data.conll2003 import Conll2003, Sentences
from fastnn.data.metrics import EntityScores, entity_scores
from fastnn.data.text import Vocabulary
from fastnn.errors import OptionError
from fastnn.graph.value import Value
from fastnn.optim.schedules import Polynomial
from fastnn.tasks import description
from fastnn.train.history import History
from fastnn.train.hooks import Callback, LambdaCallback, Logs
from fastnn.train.trainer import Trainer

Ids: TypeAlias = list[NDArray[np.int64]]

UNKNOWN = "<unk>"
PADDING = "<pad>"
#: characters of a word that are read; of a longer one the first half and the last half of these
CHARACTERS = 16
#: target of steps past the end
IGNORED = -1
#: words that occur once are unknown with this probability in training
ONCE = 0.5
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
    """

    words: Vocabulary
    characters: Vocabulary
    tags: Vocabulary

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
        return Tagger(len(self.words), len(self.characters), len(self.tags), **options)

    def _spelling(self, word: str) -> NDArray[np.int64]:
        half = CHARACTERS // 2
        read = word if len(word) <= CHARACTERS else word[:half] + word[-half:]
        ids = np.zeros(CHARACTERS, np.int64)
        ids[: len(read)] = self.characters.encode(read)
        return ids


class Tagger(nn.Module):
    """Scores of the tags of each word of a sentence.

    Args:
        words, characters, tags: how many there are of each.
        embedding: size of a word's vector.
        character_hidden: units of each direction of the LSTM over characters.
        hidden: units of each direction of the LSTM over words.
        dropout: probability of zero before and after the LSTM over words.

    Inputs: words and shapes (batch, steps), characters (batch, steps, 16), lengths of words (batch,
    steps) and of sentences (batch,); output: logits, shape (batch, steps, tags).
    """

    def __init__(
        self,
        words: int,
        characters: int,
        tags: int,
        *,
        embedding: int = 100,
        character_hidden: int = 25,
        hidden: int = 128,
        dropout: float = 0.5,
    ):
        self.options: dict[str, Any] = {
            "embedding": embedding, "character_hidden": character_hidden, "hidden": hidden,
            "dropout": dropout,
        }  # fmt: skip
        self.word_vectors = nn.Embedding(words, embedding, padding_idx=0, weight_init="normal")
        self.shape_vectors = nn.Embedding(len(SHAPES), 8)
        self.character_vectors = nn.Embedding(characters, 25)
        self.speller = nn.LSTM(25, character_hidden, bidirectional=True)
        self.before = nn.Dropout(dropout)
        size = embedding + 8 + 2 * character_hidden
        self.lstm = nn.LSTM(size, hidden, bidirectional=True, forget_bias=1.0)
        self.after = nn.Dropout(dropout)
        self.logits = nn.Linear(2 * hidden, tags)

    def forward(
        self, words: Value, shapes: Value, characters: Value, spelt: Value, lengths: Value
    ) -> Value:
        batch, steps = words.shape
        letters = self.character_vectors(ops.reshape(characters, batch * steps, CHARACTERS))
        _, ((first, _), (last, _)) = self.speller(
            letters, lengths=ops.reshape(spelt, batch * steps)
        )
        spellings = ops.reshape(ops.concatenate(first, last), batch, steps, -1)
        x = ops.concatenate(self.word_vectors(words), self.shape_vectors(shapes), spellings)
        outputs, _ = self.lstm(self.before(x), lengths=lengths)
        result: Value = self.logits(self.after(outputs))
        return result


class HiddenWords(Buckets):
    """Mini-batches in which some words are replaced by the unknown word, different ones in each
    epoch.

    This teaches the net to tag words that it does not know.

    Args:
        rare: for each word of the vocabulary whether it may be hidden.
        unknown: the number of the unknown word.
        data, options: see `Buckets`; the first inputs are the words.
    """

    def __init__(self, rare: NDArray[np.bool_], unknown: int, *data: Any, **options: Any):
        super().__init__(*data, **options)
        self.rare, self.unknown = rare, unknown

    def __iter__(self) -> Iterator[tuple[tuple[NDArray[Any], ...], NDArray[Any]]]:
        random = np.random.default_rng([self.seed, self.epoch, 1])
        for (words, *rest), targets in super().__iter__():
            hidden = self.rare[words] & (random.random(words.shape) < ONCE)
            yield (np.where(hidden, self.unknown, words), *rest), targets


def predict_tags(
    model: nn.Module, encoder: Encoder, sentences: Sequence[Sequence[str]]
) -> list[list[str]]:
    """The likeliest tag of each word of each sentence."""
    logits = predict_sequences(model, encoder.inputs(sentences), per_step=True)
    return [encoder.tags.decode(rows.argmax(axis=1)) for rows in logits]


def score(model: nn.Module, encoder: Encoder, sentences: Sentences) -> EntityScores:
    """Precision, recall and F1 of the entities."""
    return entity_scores(sentences.tags, predict_tags(model, encoder, sentences.words))


def train_ner(
    data: Conll2003,
    *,
    embedding: int = 100,
    hidden: int = 128,
    dropout: float = 0.5,
    batch_size: int = 16,
    epochs: int = 10,
    lr: float = 4e-3,
    callbacks: Sequence[Callback] = (),
    seed: int = 0,
    device: str = "auto",
    workers: int | str = "auto",
    resume: str | Path | None = None,
    verbose: bool = True,
) -> tuple[Trainer, History, dict[str, EntityScores], Encoder]:
    """Train on the training sentences; the learning rate falls to 0 in a straight line.

    Args:
        data: see `load_conll2003`.
        embedding, hidden, dropout: see `Tagger`.
        batch_size, epochs, lr, callbacks, seed, device, workers, resume, verbose: see `Trainer`.

    Returns the trainer, the history (with "val_f1" after each epoch), the scores of "valid" and
    "test", and what makes numbers of sentences.
    """
    encoder = Encoder.fit(data.train)
    model = encoder.model(embedding=embedding, hidden=hidden, dropout=dropout)
    inputs = encoder.inputs(data.train.words)
    times = np.bincount(np.concatenate(inputs[0]), minlength=len(encoder.words))
    batches = HiddenWords(
        times == 1, encoder.words[UNKNOWN], inputs, encoder.targets(data.train),
        min(batch_size, len(data.train)), ignore=IGNORED, seed=seed,
    )  # fmt: skip
    schedule = Polynomial(duration=len(batches) * epochs)
    trainer = Trainer(
        model, nn.CrossEntropyLoss(ignore_index=IGNORED),
        optim.Adam(lr=lr, clip_global_norm=5.0, schedule=schedule),
        device=device, workers=workers, seed=seed,
    )  # fmt: skip

    def add(epoch: int, logs: Logs) -> None:
        logs["val_f1"] = score(model, encoder, data.valid).f1

    history = trainer.fit(
        batches, epochs=epochs, callbacks=[LambdaCallback(on_epoch_end=add), *callbacks],
        resume=resume, verbose=verbose,
    )  # fmt: skip
    scores = {
        "valid": score(model, encoder, data.valid), "test": score(model, encoder, data.test)
    }  # fmt: skip
    return trainer, history, scores, encoder


# -------------------------------------------------------------------- beside a checkpoint


def save_description(model: nn.Module, encoder: Encoder, checkpoint: Path) -> Path:
    """Write what is needed to make the tagger again as JSON beside a checkpoint; its path."""
    if not isinstance(model, Tagger):
        raise OptionError(f"expected a Tagger, got {type(model).__name__}")
    parts = {"words": encoder.words, "characters": encoder.characters, "tags": encoder.tags}
    symbols = {name: list(vocabulary) for name, vocabulary in parts.items()}
    return description.write(checkpoint, {"options": model.options, **symbols})


def load_tagger(path: str | os.PathLike[str]) -> tuple[Tagger, Encoder]:
    """A trained tagger, for `predict_tags`.

    Args:
        path: a checkpoint with its description beside it, or the folder that `fastnn train ner`
            wrote.

    Raises DataError where the description is missing or bad, CheckpointError for a bad checkpoint.
    """
    with description.read(path, "a tagger", "fastnn train ner") as (checkpoint, state):
        for name in ("words", "characters", "tags"):
            if not files.strings(state[name]):
                raise ValueError(f"{name} are not strings")
        files.check_options(state["options"])
        roles = {"unknown": UNKNOWN, "padding": PADDING}
        encoder = Encoder(
            Vocabulary(state["words"], **roles), Vocabulary(state["characters"], **roles),
            Vocabulary(state["tags"]),
        )  # fmt: skip
        model = encoder.model(**state["options"])
    model.load(checkpoint)
    return model, encoder
