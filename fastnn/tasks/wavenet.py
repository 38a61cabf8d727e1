"""WaveNet on spoken digits: the digit is what the samples are conditioned on."""

from __future__ import annotations

import math
import os
import wave
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn import files, optim
from fastnn.data.bucketing import Buckets
from fastnn.data.spoken_digits import RATE, SpokenDigits
from fastnn.errors import OptionError
from fastnn.generative import WaveNet, pieces
from fastnn.optim.schedules import CosineAnnealing
from fastnn.tasks import description, training
from fastnn.train.history import History
from fastnn.train.hooks import Callback
from fastnn.train.trainer import Trainer

CLASSES = 10
#: batches are padded to a multiple of so many samples, so that there are few lengths
MULTIPLE = 256
Levels = list[NDArray[np.int64]]


def levels_of(net: WaveNet, recordings: SpokenDigits) -> Levels:
    """The recordings, each as loud as it can be, as the net's levels."""
    found = []
    for waveform in recordings.waveforms:
        loudest = float(np.abs(waveform).max())
        found.append(net.encode(waveform / loudest if loudest > 0 else waveform))
    return found


class Batches:
    """Batches for `Trainer.fit` of pieces that are about as long as each other, so that hardly any
    of what a step computes is padding: ((levels, digits), targets).

    Args:
        x, targets, digits: pieces as `pieces` cuts them, and the digit that each is a part of.
        batch_size: pieces of a batch, if there are so many.
        seed: of the order.
    """

    def __init__(
        self, x: NDArray[np.int64], targets: NDArray[np.int64], digits: NDArray[np.int64],
        batch_size: int, seed: int,
    ):  # fmt: skip
        ends = [int(np.flatnonzero(row >= 0)[-1]) + 1 for row in targets]
        levels = [row[:end] for row, end in zip(x, ends, strict=True)]
        said = [np.full(end, digit) for digit, end in zip(digits, ends, strict=True)]
        known = [row[:end] for row, end in zip(targets, ends, strict=True)]
        size = min(batch_size, len(ends))
        self.buckets = Buckets((levels, said), known, size, multiple=MULTIPLE, seed=seed)

    def set_epoch(self, epoch: int) -> None:
        """Set the order for this epoch; the trainer calls it."""
        self.buckets.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.buckets)

    def __iter__(self) -> Iterator[tuple[tuple[NDArray[Any], ...], NDArray[Any]]]:
        for (levels, said, _), targets in self.buckets:
            yield (levels, said[:, 0]), targets


def train_wavenet(
    train: SpokenDigits,
    test: SpokenDigits,
    *,
    channels: int = 32,
    skip: int = 64,
    layers: int = 12,
    cycle: int = 12,
    levels: int = 256,
    output: str = "softmax",
    length: int = 8192,
    batch_size: int = 2,
    epochs: int = 10,
    lr: float = 5e-3,
    callbacks: Sequence[Callback] = (),
    seed: int = 0,
    device: str = "auto",
    workers: int | str = "auto",
    resume: str | Path | None = None,
    verbose: bool = True,
) -> tuple[WaveNet, Trainer, History, float]:
    """Train and test; the learning rate falls to 0 along a cosine.

    Args:
        train, test: recordings.
        channels, skip, layers, cycle, levels, output: as of `WaveNet`.
        length: longer recordings are cut into pieces of so many samples.
        batch_size: pieces of a step.
        epochs, callbacks, seed, device, workers, resume, verbose: as of `Trainer`.
        lr: the learning rate at the beginning.

    Returns the net, its trainer, the history, and the bits of a sample of the test recordings;
    after Ctrl-C they are NaN.
    """
    net = WaveNet(levels, channels, skip, layers, cycle, output=output, classes=CLASSES)
    context = min(net.receptive_field, length // 2)
    x, targets, of = pieces(levels_of(net, train), length, context)
    batches = Batches(x, targets, train.labels[of], batch_size, seed)
    steps = len(batches) * epochs
    trainer = net.trainer(
        optimizer=optim.Adam(lr=lr, clip_global_norm=1.0, schedule=CosineAnnealing(steps)),
        seed=seed, device=device, workers=workers,
    )  # fmt: skip
    description.mark(trainer.model, described(net))
    history = trainer.fit(
        batches, epochs=epochs, callbacks=list(callbacks), resume=resume, verbose=verbose
    )
    if training.interrupted(history):
        return net, trainer, history, math.nan
    x, targets, of = pieces(levels_of(net, test), length, context)
    return net, trainer, history, net.bits(x, test.labels[of], targets=targets)


#: recordings that a linear predictor is fitted to, at most
FITTED = 300


def linear_predictor_bits(
    net: WaveNet, train: SpokenDigits, test: SpokenDigits, order: int = 32
) -> float:
    """The bits of a sample of the test recordings under a linear predictor, with the net's levels.

    The next sample is a weighted sum of those before it, by least squares over some of the training
    recordings; what is left of it follows a logistic distribution, with the scale that suits them
    best. Samples are what the levels stand for, or, of mu-law, the levels themselves, which vary
    less with loudness: the better one counts.

    Args:
        net: whose levels they are.
        train, test: recordings.
        order: samples that the next one is predicted from.
    """
    step = -(-len(train) // FITTED)
    known, own = levels_of(net, train.take(slice(None, None, step))), levels_of(net, test)
    fine = np.arange(-1, 2 * net.levels) / (net.levels - 1) - 1.0  # levels, and between them
    curves = [fine]
    if not net.mixtures:
        mu = net.levels - 1
        curves.append(np.sign(fine) * np.expm1(np.abs(fine) * np.log1p(mu)) / mu)
    return min(_predicted_bits(curve, known, own, order) for curve in curves)


def _predicted_bits(curve: NDArray[np.float64], known: Levels, own: Levels, order: int) -> float:
    """The bits where level k stands for curve[2 k + 1], and has the range beside it."""
    values, edges = curve[1::2], curve[::2].copy()
    edges[0], edges[-1] = -np.inf, np.inf
    square, cross = np.zeros((order, order)), np.zeros(order)
    for level in known:
        past = _before(values[level], order)
        square += past.T @ past
        cross += past.T @ values[level]
    weights = np.linalg.solve(square + 1e-9 * np.trace(square) * np.eye(order), cross)

    def bits(recordings: Levels, scale: float) -> float:
        total = 0.0
        for level in recordings:
            mean = _before(values[level], order) @ weights
            share = _between((edges[level] - mean) / scale, (edges[level + 1] - mean) / scale)
            total -= float(np.log2(np.maximum(share, 1e-300)).sum())
        return total / sum(map(len, recordings))

    some = known[:: -(-len(known) // 50)]
    best = min(np.geomspace(1e-3, 0.3, 24), key=lambda scale: bits(some, float(scale)))
    return bits(own, float(best))


def _before(x: NDArray[np.float64], order: int) -> NDArray[np.float64]:
    """The samples before each sample, zeros before the first."""
    padded = np.concatenate([np.zeros(order), x[:-1]])
    return np.lib.stride_tricks.sliding_window_view(padded, order)


def _between(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """sigmoid(b) - sigmoid(a) for a < b, without cancellation."""
    flipped = a > 0
    low, high = np.where(flipped, -b, a), np.where(flipped, -a, b)
    with np.errstate(over="ignore"):
        found: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-high)) - 1.0 / (1.0 + np.exp(-low))
    return found


def spoken(net: WaveNet, digits: Any, seconds: float = 0.6, **options: Any) -> NDArray[np.float32]:
    """Waveforms that a net makes of digits, shape (digits, samples), `RATE` samples a second.

    `options` are those of `WaveNet.sample`.
    """
    wanted = np.asarray(digits, np.int64)
    samples = round(seconds * RATE)
    if samples < 1:
        raise OptionError(f"seconds: expected a sample at least, 1/{RATE}, got {seconds}")
    drawn = net.sample(samples, len(wanted), wanted, **options)
    return net.decode(drawn)


def listener(judge: str | os.PathLike[str]) -> Any:
    """What names the digits in waveforms of `RATE` samples a second: a function of a list of them,
    which says -1 of a class that is no digit.

    `judge` is what `fastnn train speech-commands` wrote.
    """
    from fastnn.tasks.raw_audio import class_chances, load_recogniser

    recogniser = load_recogniser(judge)

    def heard(waveforms: Sequence[NDArray[np.float32]]) -> NDArray[np.int64]:
        chances = class_chances(recogniser.model, waveforms, recogniser.seconds)
        names = [recogniser.classes[k] for k in chances.argmax(axis=1)]
        return np.array([int(n) if n.isdigit() else -1 for n in names], np.int64)

    return heard


def recognised(
    net: WaveNet, judge: Any, count: int = 200, seconds: float = 0.6, **options: Any
) -> float:
    """The share of digits that a net says and a judge recognises.

    Args:
        net: the net.
        judge: of waveforms: their digits.
        count: how many, of all digits in turn.
        seconds: how long each is.
        options: of `WaveNet.sample`.
    """
    digits = np.arange(count) % CLASSES
    heard = judge(list(spoken(net, digits, seconds, **options)))
    return float((np.asarray(heard) == digits).mean())


# -------------------------------------------------------------------- files


def write_sound(waveform: NDArray[np.float32], path: Path, rate: int = RATE) -> None:
    """Write samples within -1..1 as a WAV file of 16 bits."""
    samples = np.rint(np.clip(waveform, -1.0, 1.0) * 32767).astype("<i2")
    with files.told(f"{str(path)!r} cannot be written", "choose another file", OptionError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as raw, wave.open(raw, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(rate)
            file.writeframes(samples.tobytes())


def save_description(checkpoint: Path, net: WaveNet) -> Path:
    """Write what is needed to make the net again, as JSON beside a checkpoint."""
    return description.write(checkpoint, described(net))


def described(net: WaveNet) -> dict[str, Any]:
    """What `save_description` writes."""
    options = {
        "levels": net.levels, "channels": net.channels, "skip": net.skip.weight.shape[0],
        "layers": net.layers, "cycle": net.cycle, "kernel_size": net.kernel_size,
        "output": net.output, "classes": net.classes,
    }  # fmt: skip
    return {"sound": options, "rate": RATE}


def load_wavenet(path: str | os.PathLike[str]) -> WaveNet:
    """A trained net.

    Args:
        path: a checkpoint with its description beside it, or the folder that `fastnn train wavenet`
            wrote.

    Raises DataError where there is no description, CheckpointError for a bad checkpoint.
    """
    with description.read(path, "wavenet") as (checkpoint, state):
        files.check_options(state["sound"])
        net = WaveNet(**state["sound"])
    net.load(checkpoint)
    return net
