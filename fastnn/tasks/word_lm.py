"""Text word by word: an LSTM on Penn Treebank, measured in perplexity."""

from __future__ import annotations

import math
from typing import Any, cast

from fastnn.data.ptb import Words
from fastnn.errors import DataError, OptionError
from fastnn.tasks import training
from fastnn.tasks.language import EXACT, LanguageModel, make_model, mean_loss, train_language_model
from fastnn.train.history import History
from fastnn.train.hooks import Callback, Logs
from fastnn.train.trainer import Trainer


class FullSoftmax(Callback):
    """Has training take the softmax of all words, rather than of a sample, from an epoch on."""

    passive = True

    def __init__(self, model: LanguageModel, first: int):
        self.softmax, self.first = model.softmax, first

    def on_epoch_begin(self, epoch: int, logs: Logs) -> None:
        self.softmax.full = epoch >= self.first


def train_word_lm(
    words: Words,
    *,
    embedding: int = 200,
    hidden: int = 200,
    layers: int = 1,
    dropout: float = 0.3,
    tied: bool = False,
    variational: bool = False,
    weight_drop: float = 0.0,
    word_dropout: float = 0.0,
    sampled: int = 0,
    full_softmax: int = 0,
    augmented: float = 0.0,
    transformer: bool = False,
    heads: int = 4,
    batch_size: int = 20,
    steps: int = 20,
    epochs: int = 4,
    lr: float = 3e-3,
    **options: Any,
) -> tuple[Trainer, History, tuple[float, float]]:
    """Train on a text's first part and measure on its second and third.

    Args:
        words: see `load_ptb`.
        embedding, hidden, layers, dropout, tied, variational, weight_drop, word_dropout, sampled,
            augmented: see `LanguageModel`.
        full_softmax: of the last so many epochs, where `sampled` is not all words anyway.
        transformer: whether the model is a `TransformerModel` with so many `heads`, which looks
            back at `steps` symbols. It has no use for `embedding`, and none of the last five.
        batch_size: streams that are read side by side.
        steps, epochs, lr, options: see `train_language_model`.

    Returns the trainer, the history (with "perplexity" and "val_perplexity"), and the perplexities
    of the whole validation and test texts, each read from end to end; after Ctrl-C they are NaN.

    Raises DataError for a test text of fewer than two words, and where the others have too few for
    a mini-batch; OptionError for a `full_softmax` that does not fit.
    """
    if len(words.test) < 2:
        raise DataError(
            f"train_word_lm: expected a test text of two words or more, got {len(words.test)}"
        )
    if full_softmax and not (sampled and full_softmax <= epochs):
        raise OptionError(
            f"full_softmax: expected at most the {epochs} epochs, and sampled with it, got "
            f"{full_softmax} and sampled={sampled}"
        )
    model = make_model(
        words.vocabulary, "word", transformer=transformer, heads=heads, context=steps,
        embedding=embedding, hidden=hidden, layers=layers, dropout=dropout, spread=0.1, tied=tied,
        variational=variational, weight_drop=weight_drop, word_dropout=word_dropout,
        sampled=sampled, augmented=augmented, streams=batch_size,
    )  # fmt: skip
    if full_softmax:
        turn = FullSoftmax(cast(LanguageModel, model), epochs - full_softmax)
        options["callbacks"] = [turn, *options.get("callbacks", ())]
    trainer, history = train_language_model(
        model, words.train, words.valid, steps=steps, epochs=epochs, lr=lr, **options
    )
    if training.interrupted(history):
        return trainer, history, (math.nan, math.nan)
    workers = options.get("workers", "auto")
    alone = model.with_streams(1)
    valid, test = (
        math.exp(mean_loss(alone, part, EXACT, workers)) for part in (words.valid, words.test)
    )
    return trainer, history, (valid, test)
