"""Text character by character: an LSTM on tiny Shakespeare, measured in bits per character."""

from __future__ import annotations

import math
from typing import Any

from fastnn.data.shakespeare import Characters
from fastnn.tasks import training
from fastnn.tasks.language import EXACT, make_model, mean_loss, train_language_model
from fastnn.train.history import History
from fastnn.train.trainer import Trainer


def bits(nats: float) -> float:
    """Nats as bits: a mean loss as bits per character."""
    return nats / math.log(2)


def train_char_lm(
    text: Characters,
    *,
    embedding: int = 64,
    hidden: int = 256,
    layers: int = 2,
    dropout: float = 0.1,
    tied: bool = False,
    variational: bool = False,
    weight_drop: float = 0.0,
    word_dropout: float = 0.0,
    transformer: bool = False,
    heads: int = 4,
    batch_size: int = 32,
    steps: int = 32,
    epochs: int = 7,
    lr: float = 4e-3,
    **options: Any,
) -> tuple[Trainer, History, float]:
    """Train on the first part of a text and measure on the second.

    Args:
        text: see `load_shakespeare`.
        embedding, hidden, layers, dropout, tied, variational, weight_drop, word_dropout: see
            `LanguageModel`.
        transformer: whether the model is a `TransformerModel` with so many `heads`, which looks
            back at `steps` symbols. It has no use for `embedding`, and none of the last three.
        batch_size: streams that are read side by side.
        steps, epochs, lr, options: see `train_language_model`.

    Returns the trainer, the history (with "bits" and "val_bits" per character), and the bits per
    character of the whole validation text, read from end to end; after Ctrl-C they are NaN.
    """
    model = make_model(
        text.vocabulary, "character", transformer=transformer, heads=heads, context=steps,
        embedding=embedding, hidden=hidden, layers=layers, dropout=dropout, tied=tied,
        variational=variational, weight_drop=weight_drop, word_dropout=word_dropout,
        streams=batch_size,
    )  # fmt: skip
    trainer, history = train_language_model(
        model, text.train, text.valid, steps=steps, epochs=epochs, lr=lr, measure=("bits", bits),
        **options,
    )  # fmt: skip
    if training.interrupted(history):
        return trainer, history, math.nan
    workers = options.get("workers", "auto")
    return trainer, history, bits(mean_loss(model.with_streams(1), text.valid, EXACT, workers))
