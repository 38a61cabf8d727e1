"""Classes of recordings by a convolutional net on the samples themselves, without spectra.

What it learned of the signal is in its first layer: `nn.SincConv`, whose filters are bands, or
`nn.Conv1d`, which may learn any filters.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnn import files, nn, ops
from fastnn.data.audio_folder import Recordings, read_one
from fastnn.data.augment import AddNoise, Augment, Room, Speed
from fastnn.data.bucketing import Buckets, predict_sequences
from fastnn.data.signals import as_signal, power
from fastnn.errors import OptionError, check_numbers, check_whole
from fastnn.graph.value import Value
from fastnn.optim.schedules import CosineAnnealing
from fastnn.tasks import description, training
from fastnn.train.history import History
from fastnn.train.hooks import Callback
from fastnn.train.trainer import Trainer

Signal = NDArray[np.float32]
#: the filters' length and step in seconds, and the shortest signal; what is shorter gets zeros
WINDOW, STEP, SHORTEST = 0.0125, 0.0005, 0.15
#: numbers of samples in a batch are multiples of this, so that few programs are planned
MULTIPLE = 512


class RawAudioNet(nn.Module):
    """Four convolutions over samples, each with batch normalisation and ReLU, the maxima of four
    steps between them; averages and maxima over time; a linear layer.

    Args:
        classes: number of classes.
        rate: samples a second of the signals.
        channels: of the first three convolutions; the fourth has twice as many.
        front: the first layer: "sinc", `nn.SincConv` and the absolute values, or "conv",
            `nn.Conv1d`.
        dropout: probability of zero before the last layer.

    Inputs: samples, shape (batch, samples), and their numbers, shape (batch,); output: logits,
    shape (batch, classes).
    """

    def __init__(
        self, classes: int, rate: float, channels: int = 64, front: str = "sinc",
        dropout: float = 0.2,
    ):  # fmt: skip
        check_whole("RawAudioNet", 1, classes=classes, channels=channels)
        check_numbers("RawAudioNet", rate=rate)
        if front not in ("sinc", "conv"):
            raise OptionError(f"RawAudioNet: expected front 'sinc' or 'conv', got {front!r}")
        self.options = dict(
            classes=classes, rate=rate, channels=channels, front=front, dropout=dropout
        )
        taps, stride = 2 * round(WINDOW * rate / 2) + 1, max(round(STEP * rate), 1)
        self.front: nn.Module
        if front == "sinc":
            self.front = nn.SincConv(channels, taps, rate, stride)
        else:
            self.front = nn.Conv1d(1, channels, taps, stride, bias=False)
        sizes = [channels, channels, channels, 2 * channels]
        self.convolutions = nn.ModuleList(
            [nn.Conv1d(a, b, 3, padding=1, bias=False) for a, b in itertools.pairwise(sizes)]
        )
        self.norms = nn.ModuleList([nn.BatchNorm1d(size) for size in sizes])
        self.pool = nn.MaxPool1d(4)
        self.average, self.largest = nn.GlobalAvgPool1d(), nn.GlobalMaxPool1d()
        self.dropout = nn.Dropout(dropout)
        self.logits = nn.Linear(4 * channels, classes)

    def forward(self, samples: Value, lengths: Value) -> Value:
        x = ops.reshape(samples, samples.shape[0], 1, -1)
        x, lengths = self.front(x, lengths)
        if self.options["front"] == "sinc":
            x = ops.absolute(x)
        x = ops.relu(self.norms[0](x))
        for convolution, norm in zip(self.convolutions, list(self.norms)[1:], strict=True):
            x, lengths = self.pool(x, lengths)
            x, lengths = convolution(x, lengths)
            x = ops.relu(norm(x))
        pooled = ops.concatenate(self.average(x, lengths), self.largest(x, lengths))
        result: Value = self.logits(self.dropout(pooled))
        return result


# -------------------------------------------------------------------- signals


def prepared(signal: ArrayLike, rate: float) -> Signal:
    """A signal with mean 0 and power 1, with zeros at its end if it is very short."""
    x = np.asarray(as_signal(signal), np.float64)
    x = x - x.mean()
    level = power(x) ** 0.5
    if level > 0:
        x /= level
    missing = round(SHORTEST * rate) - len(x)
    return np.pad(x, (0, max(missing, 0))).astype(np.float32)


def pieces(signal: Signal, rate: float, seconds: float) -> list[Signal]:
    """A signal cut into as many pieces of equal length as make each at most so long."""
    count = max(-(-len(signal) // max(round(seconds * rate), 1)), 1)
    return np.array_split(signal, count)


class _Changed:
    """A random piece of a signal, changed at random, and prepared: a transform for `Buckets`."""

    def __init__(self, rate: float, seconds: float, change: Callable[..., Any] | None):
        self.rate, self.length, self.change = rate, max(round(seconds * rate), 1), change

    def __call__(self, signal: Signal, rng: np.random.Generator) -> Signal:
        if len(signal) > self.length:
            begin = rng.integers(len(signal) - self.length + 1)
            signal = signal[begin : begin + self.length]
        return prepared(signal if self.change is None else self.change(signal, rng), self.rate)


def usual_changes(rate: float, speed: bool = True) -> Augment:
    """Speed within 15 %, a room for three in ten recordings, noise of 5 to 30 dB for every other.

    Args:
        rate: samples a second.
        speed: whether the speed changes, and with it the voice; not where speakers are the classes.
    """
    changes = [Room(rate, chance=0.3), AddNoise((5.0, 30.0), chance=0.5)]
    return Augment(*([Speed((0.85, 1.15))] if speed else []), *changes)


# -------------------------------------------------------------------- training


def train_raw_audio(
    train: Recordings,
    test: Recordings,
    *,
    channels: int = 64,
    front: str = "sinc",
    dropout: float = 0.2,
    augment: Callable[..., Any] | None = None,
    seconds: float = 3.0,
    batch_size: int = 32,
    epochs: int = 15,
    lr: float = 3e-3,
    callbacks: Sequence[Callback] = (),
    seed: int = 0,
    device: str = "auto",
    workers: int | str = "auto",
    resume: str | Path | None = None,
    verbose: bool = True,
) -> tuple[Trainer, History, float]:
    """Train and test; Adam's learning rate falls to 0 along a cosine.

    Args:
        train, test: recordings of the same classes and rate.
        channels, front, dropout: as of `RawAudioNet`.
        augment: a change of each recording, new in every epoch, such as `usual_changes`; None is
            none.
        seconds: longer recordings are trained on in random pieces of this length, and tested in
            pieces whose probabilities are averaged.
        batch_size, epochs, lr, callbacks, seed, device, workers, resume, verbose: as of `Trainer`
            and its `fit`.

    Returns:
        The trainer, the history (with the accuracy on the test recordings after each epoch), and
        the accuracy at the end.
    """
    check_numbers("train_raw_audio", seconds=seconds)
    if seconds < SHORTEST:
        raise OptionError(f"seconds: expected {SHORTEST} or more, got {seconds}")
    rate = train.rate
    model = RawAudioNet(len(train.classes), rate, channels, front, dropout)
    description.mark(model, described(model, train.classes, seconds))
    batches = Buckets(
        train.waveforms, train.labels, min(batch_size, len(train)), multiple=MULTIPLE, seed=seed,
        transform=_Changed(rate, seconds, augment),
    )  # fmt: skip

    def accuracy() -> float:
        chances = class_chances(model, test.waveforms, seconds)
        return float((chances.argmax(axis=1) == test.labels).mean())

    trainer, history = training.train(
        model, nn.CrossEntropyLoss(label_smoothing=0.05), batches,
        schedule=CosineAnnealing(len(batches) * epochs), lr=lr, metrics=["accuracy"],
        measure=lambda logs: {"val_accuracy": accuracy()},
        epochs=epochs, callbacks=callbacks, seed=seed, device=device, workers=workers,
        resume=resume, verbose=verbose,
    )  # fmt: skip
    return trainer, history, accuracy()


def class_chances(
    model: RawAudioNet, signals: Sequence[ArrayLike], seconds: float = 3.0
) -> NDArray[np.float64]:
    """The probabilities of the classes of each recording, shape (recordings, classes).

    Args:
        model: the net; recordings have to be at its rate.
        signals: samples, shape (samples,) each.
        seconds: as of `train_raw_audio`.
    """
    rate = float(model.options["rate"])  # type: ignore[arg-type]
    cut = [pieces(np.asarray(as_signal(s), np.float32), rate, seconds) for s in signals]
    owners = np.repeat(np.arange(len(cut)), [len(parts) for parts in cut])
    logits = np.stack(
        predict_sequences(
            model, [prepared(piece, rate) for parts in cut for piece in parts], multiple=MULTIPLE
        )
    ).astype(np.float64)
    chances = np.exp(logits - logits.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    total = np.zeros((len(cut), chances.shape[1]))
    np.add.at(total, owners, chances)
    return total / np.bincount(owners)[:, None]


# -------------------------------------------------------------------- beside a checkpoint


def save_description(
    checkpoint: Path, model: RawAudioNet, classes: Sequence[str], seconds: float
) -> Path:
    """Write what is needed to make the model again, as JSON beside a checkpoint."""
    return description.write(checkpoint, described(model, classes, seconds), model)


def described(model: RawAudioNet, classes: Sequence[str], seconds: float) -> dict[str, Any]:
    """What `save_description` writes."""
    return dict(kind="recordings", classes=list(classes), seconds=seconds, options=model.options)


class Recogniser:
    """A trained model that says what is to be heard in files.

    Args:
        model: the net.
        classes: the names of its classes.
        seconds: as of `train_raw_audio`.
    """

    def __init__(self, model: RawAudioNet, classes: Sequence[str], seconds: float = 3.0):
        self.model, self.classes, self.seconds = model, tuple(classes), seconds
        self.rate = int(model.options["rate"])  # type: ignore[call-overload]

    def recognise(
        self, path: str | os.PathLike[str], *, convert: bool = True
    ) -> list[tuple[str, float]]:
        """The classes of a recording with their probabilities, the likeliest first.

        Args:
            path: the file, of one channel.
            convert: whether another sample rate is converted; otherwise it is refused.
        """
        waveform, _ = read_one(files.as_path(path), self.rate, convert)
        (chances,) = class_chances(self.model, [waveform], self.seconds)
        order = np.argsort(-chances, kind="stable")
        return [(self.classes[k], float(chances[k])) for k in order]


def load_recogniser(path: str | os.PathLike[str]) -> Recogniser:
    """What a task trained: a checkpoint with its description beside it, or the folder of both.

    Raises DataError where there is no description, CheckpointError for a bad checkpoint.
    """
    with description.read(path, "recordings") as (checkpoint, state):
        options = state["options"]
        files.check_options({**options, "seconds": state["seconds"]})
        classes = state["classes"]
        if state["kind"] != "recordings" or not files.strings(classes):
            raise ValueError("no names of classes")
        if len(classes) != options["classes"]:
            raise ValueError(f"{len(classes)} names of {options['classes']} classes")
        model = RawAudioNet(**options)
    model.load(checkpoint)
    return Recogniser(model, classes, float(state["seconds"]))
