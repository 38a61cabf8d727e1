"""Names in news: an LSTM tagger with a conditional random field (`tagger.py`) on CoNLL-2003."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn import files, nn
from fastnn.data.bucketing import Buckets
from fastnn.data.conll2003 import Conll2003, Sentences
from fastnn.data.metrics import EntityScores, entity_scores
from fastnn.data.text import Vocabulary
from fastnn.errors import DataError, FastnnError, OptionError
from fastnn.optim.schedules import Polynomial
from fastnn.tasks import description, training
from fastnn.tasks.tagger import PADDING, UNKNOWN, Encoder, Tagger, predict_tags
from fastnn.train.history import History
from fastnn.train.hooks import Callback
from fastnn.train.trainer import Trainer

#: target of steps past the end
IGNORED = -1
#: a word that occurs n times is hidden with the probability HIDDEN / (HIDDEN + n) in training
HIDDEN = 1.0


class HiddenWords(Buckets):
    """Mini-batches in which some words are replaced by the unknown word, different ones in each
    epoch: this teaches the net to tag words that it does not know.

    Args:
        hide: for each word of the vocabulary the probability that it is hidden.
        unknown: the number of the unknown word.
        data, options: see `Buckets`; the first inputs are the words.
    """

    def __init__(self, hide: NDArray[np.floating], unknown: int, *data: Any, **options: Any):
        super().__init__(*data, **options)
        self.hide, self.unknown = hide, unknown

    def __iter__(self) -> Iterator[tuple[tuple[NDArray[Any], ...], NDArray[Any]]]:
        random = np.random.default_rng([self.seed, self.epoch, 1])
        for (words, *rest), targets in super().__iter__():
            hidden = (words != 0) & (random.random(words.shape) < self.hide[words])
            yield (np.where(hidden, self.unknown, words), *rest), targets


def score(model: Tagger, encoder: Encoder, sentences: Sentences) -> EntityScores:
    """Precision, recall and F1 of the entities."""
    return entity_scores(sentences.tags, predict_tags(model, encoder, sentences.words))


def train_ner(
    data: Conll2003,
    *,
    embedding: int = 100,
    hidden: int = 160,
    dropout: float = 0.5,
    batch_size: int = 16,
    epochs: int = 8,
    lr: float = 3e-3,
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
    "test" (none after Ctrl-C), and what makes numbers of sentences.

    Raises DataError for a part without sentences.
    """
    for part, sentences in (("train", data.train), ("valid", data.valid), ("test", data.test)):
        if not len(sentences):
            raise DataError(f"train_ner: expected sentences in the part {part!r}, got none")
    encoder = Encoder.fit(data.train)
    model = encoder.model(embedding=embedding, hidden=hidden, dropout=dropout)
    description.mark(model, described(model, encoder))
    inputs = encoder.inputs(data.train.words)
    times = np.bincount(np.concatenate(inputs[0]), minlength=len(encoder.words))
    batches = HiddenWords(
        HIDDEN / (HIDDEN + times), encoder.words[UNKNOWN], inputs, encoder.targets(data.train),
        min(batch_size, len(data.train)), ignore=IGNORED, seed=seed,
    )  # fmt: skip
    trainer, history = training.train(
        model, nn.CRFLoss(model.crf, "token_mean"), batches,
        schedule=Polynomial(duration=len(batches) * epochs), lr=lr,
        measure=lambda logs: {"val_f1": score(model, encoder, data.valid).f1},
        epochs=epochs, callbacks=callbacks, seed=seed, device=device, workers=workers,
        resume=resume, verbose=verbose,
    )  # fmt: skip
    parts = {} if training.interrupted(history) else {"valid": data.valid, "test": data.test}
    scores = {name: score(model, encoder, part) for name, part in parts.items()}
    return trainer, history, scores, encoder


# -------------------------------------------------------------------- beside a checkpoint


def save_description(model: nn.Module, encoder: Encoder, checkpoint: Path) -> Path:
    """Write what is needed to make the tagger again as JSON beside a checkpoint; its path."""
    if not isinstance(model, Tagger):
        raise OptionError(f"expected a Tagger, got {type(model).__name__}")
    return description.write(checkpoint, described(model, encoder), model)


def described(model: Tagger, encoder: Encoder) -> dict[str, Any]:
    """What `save_description` writes."""
    parts = {"words": encoder.words, "characters": encoder.characters, "tags": encoder.tags}
    symbols = {name: list(vocabulary) for name, vocabulary in parts.items()}
    return {"task": "ner", "options": model.options, "scheme": encoder.scheme, **symbols}


def load_tagger(path: str | os.PathLike[str]) -> tuple[Tagger, Encoder]:
    """A trained tagger, for `predict_tags`.

    Args:
        path: a checkpoint with its description beside it, or the folder that `fastnn train ner`
            wrote.

    Raises DataError where the description is missing or bad, CheckpointError for a bad checkpoint.
    """
    with description.read(path, "ner") as (checkpoint, state):
        if state["task"] != "ner":
            raise ValueError(f"it is of the task {state['task']!r}")
        for name in ("words", "characters", "tags"):
            if not files.strings(state[name]):
                raise ValueError(f"{name} are not strings")
        files.check_options(state["options"])
        roles = {"unknown": UNKNOWN, "padding": PADDING}
        encoder = Encoder(
            Vocabulary(state["words"], **roles), Vocabulary(state["characters"], **roles),
            Vocabulary(state["tags"]), state["scheme"],
        )  # fmt: skip
        try:
            model = encoder.model(**state["options"])
        except FastnnError as error:
            raise ValueError(str(error)) from None
    model.load(checkpoint)
    return model, encoder
