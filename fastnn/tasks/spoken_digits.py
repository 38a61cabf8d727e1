"""Spoken digits: an LSTM in both directions on cepstra of the Free Spoken Digit Dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnn import nn, ops
from fastnn.data.audio import Normaliser, mfcc, with_deltas
from fastnn.data.bucketing import Buckets, predict_sequences
from fastnn.data.spoken_digits import RATE, SpokenDigits, load_spoken_digits
from fastnn.errors import OptionError
from fastnn.graph.value import Value
from fastnn.optim.schedules import CosineAnnealing
from fastnn.tasks import training
from fastnn.train.history import History
from fastnn.train.hooks import Callback
from fastnn.train.trainer import Trainer

CLASSES = 10
#: cepstra, their deltas, and deltas of deltas
FEATURES = 39


class SpokenDigitModel(nn.Module):
    """LSTM layers in both directions; the logits come from the last layer's final states.

    Args:
        features: features of a frame.
        hidden: units of each layer and direction.
        layers: LSTM layers.
        dropout: probability of zero between layers and before the logits.

    Inputs: frames, shape (batch, steps, features), and their numbers, shape (batch,); output:
    logits, shape (batch, 10).
    """

    def __init__(
        self, features: int = FEATURES, hidden: int = 64, layers: int = 2, dropout: float = 0.3
    ):
        self.before = nn.Dropout(dropout / 2)
        between = dropout if layers > 1 else 0.0
        self.lstm = nn.LSTM(features, hidden, layers, bidirectional=True, dropout=between)
        self.after = nn.Dropout(dropout)
        self.logits = nn.Linear(2 * hidden, CLASSES)

    def forward(self, frames: Value, lengths: Value) -> Value:
        _, finals = self.lstm(self.before(frames), lengths=lengths)
        (forwards, _), (backwards, _) = finals[-2:]
        result: Value = self.logits(self.after(ops.concatenate(forwards, backwards)))
        return result


def features(waveforms: Sequence[ArrayLike], rate: float = RATE) -> list[NDArray[np.float32]]:
    """Cepstra with their deltas, frames of 25 ms every 10 ms: shape (frames, 39) each."""
    return [with_deltas(mfcc(waveform, rate)) for waveform in waveforms]


def splits(split: str = "official", **source: Any) -> tuple[SpokenDigits, SpokenDigits]:
    """Training and test recordings.

    Args:
        split: "official" (recordings 0 to 4 of each speaker and digit are for testing) or
            "speaker" (two speakers, whom the net has never heard, are).
        source: options of `load_spoken_digits`.
    """
    if split not in ("official", "speaker"):
        raise OptionError(f"split: expected 'official' or 'speaker', got {split!r}")
    recordings = load_spoken_digits(**source)
    return recordings.official_split() if split == "official" else recordings.split_by_speaker()


def train_spoken_digits(
    train: SpokenDigits,
    test: SpokenDigits,
    *,
    hidden: int = 64,
    layers: int = 2,
    dropout: float = 0.3,
    batch_size: int = 32,
    epochs: int = 20,
    lr: float = 4e-3,
    callbacks: Sequence[Callback] = (),
    seed: int = 0,
    device: str = "auto",
    workers: int | str = "auto",
    resume: str | Path | None = None,
    verbose: bool = True,
) -> tuple[Trainer, History, float]:
    """Train and test; the learning rate falls to 0 along a cosine.

    Features are scaled to mean 0 and deviation 1 over the training recordings.

    Returns the trainer, the history (with the accuracy on the test recordings after each epoch),
    and the accuracy at the end. For the other arguments see `Trainer`.
    """
    frames, test_frames = features(train.waveforms), features(test.waveforms)
    normaliser = Normaliser.fit(frames)
    frames, test_frames = ([normaliser(f) for f in part] for part in (frames, test_frames))
    model = SpokenDigitModel(frames[0].shape[1], hidden, layers, dropout)
    batches = Buckets(frames, train.labels, min(batch_size, len(train)), multiple=16, seed=seed)

    def accuracy() -> float:
        logits = np.stack(predict_sequences(model, test_frames, multiple=16))
        return float((logits.argmax(axis=1) == test.labels).mean())

    trainer, history = training.train(
        model, nn.CrossEntropyLoss(label_smoothing=0.05), batches,
        schedule=CosineAnnealing(len(batches) * epochs), lr=lr, metrics=["accuracy"],
        measure=lambda logs: {"val_accuracy": accuracy()},
        epochs=epochs, callbacks=callbacks, seed=seed, device=device, workers=workers,
        resume=resume, verbose=verbose,
    )  # fmt: skip
    return trainer, history, accuracy()
