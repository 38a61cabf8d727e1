"""Speech recognition: LSTM in both directions and connectionist temporal classification.

Characters are recognised; at the end a list of the training texts' words and an n-gram model of
them help to decide (Graves and Jaitly, "Towards end-to-end speech recognition with recurrent neural
networks", ICML 2014).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn import files, nn
from fastnn.data.audio import mfcc, normalise, with_deltas
from fastnn.data.audio_folder import read_one
from fastnn.data.error_rates import ErrorRate, character_error_rate, word_error_rate
from fastnn.data.ngram import NGram
from fastnn.data.sequences import pad
from fastnn.data.transcribed import CEPSTRA, Transcribed
from fastnn.errors import DataError, OptionError
from fastnn.optim.schedules import CosineAnnealing
from fastnn.tasks import description, training
from fastnn.tasks.speech_models import SpeechModel, SpeechTransducer
from fastnn.train.history import History
from fastnn.train.hooks import Callback, Logs
from fastnn.train.trainer import Trainer

log = logging.getLogger("fastnn")

#: frames are rounded up to a multiple, so that few programs are planned
MULTIPLE = 16
#: and numbers of labels likewise, where they are an input
LABELS = 8
#: prefixes that decoding keeps, weight of the language model, and words that it looks at
BEAM, WEIGHT, ORDER = 32, 1.0, 3
#: hypotheses that a transducer's decoding keeps
SEARCH = 4
#: the symbol of the blank, class 0
BLANK = ""


@dataclass(frozen=True)
class Front:
    """How features are made: cepstra scaled for each recording, their changes over time, and
    `stack` neighbouring frames as one.

    Attributes:
        rate: samples a second of the recordings.
        filters, low, high, frame: of `mfcc`; the defaults are those of AN4's cepstra.
        stack: frames that are joined.
    """

    rate: int = 16000
    filters: int = 40
    low: float = 130.0
    high: float = 6800.0
    frame: float = 0.025625
    stack: int = 3

    @property
    def features(self) -> int:
        """Features of a joined frame."""
        return 3 * CEPSTRA * self.stack

    def of_waveform(self, waveform: NDArray[np.float32]) -> NDArray[np.float32]:
        """Frames of a recording, not joined yet."""
        cepstra = mfcc(
            waveform, self.rate, coefficients=CEPSTRA, filters=self.filters, lift=0,
            frame=self.frame, low=self.low, high=self.high,
        )  # fmt: skip
        return self.of_cepstra(cepstra)

    def of_cepstra(self, cepstra: NDArray[np.float32]) -> NDArray[np.float32]:
        """Cepstra of mean 0 and deviation 1, with their deltas, and deltas of deltas, made as
        large."""
        found = with_deltas(normalise(cepstra))
        return found * np.repeat(np.arange(1, 4, dtype=np.float32), CEPSTRA)

    def joined(self, frames: NDArray[np.float32], begin: int = 0) -> NDArray[np.float32]:
        """Frames from `begin` on, `stack` of them side by side; zeros fill the last."""
        frames = frames[min(begin, len(frames) - 1) :]
        count = -(-len(frames) // self.stack)
        full = np.zeros((count * self.stack, frames.shape[1]), np.float32)
        full[: len(frames)] = frames
        return full.reshape(count, -1)


class SpeechBatches:
    """Mini-batches of recordings of similar length, a little different in each epoch: frames are
    joined from another one on, noise is added, and stretches of frames are silenced (Park et al.
    2019).

    Args:
        frames: of each recording, not joined. labels: of each. front: joins frames.
        batch_size, seed: see `Buckets`.
        with_labels: whether the labels, padded with the blank, are an input as well.
    """

    def __init__(
        self, frames: list[NDArray[np.float32]], labels: list[NDArray[np.int64]], front: Front,
        batch_size: int, seed: int = 0, with_labels: bool = False,
    ):  # fmt: skip
        self.with_labels = with_labels
        self.frames, self.labels, self.front = frames, labels, front
        self.batch_size, self.seed, self.epoch = batch_size, seed, 0
        self.most = max(map(len, labels))

    def set_epoch(self, epoch: int) -> None:
        """Set the order for this epoch; the trainer calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.frames) // self.batch_size

    def __iter__(self) -> Iterator[Any]:
        random = np.random.default_rng([self.seed, self.epoch])
        ready = []
        for frames in self.frames:
            found = self.front.joined(frames, int(random.integers(self.front.stack)))
            found += 0.15 * random.standard_normal(found.shape, np.float32)
            for _ in range(2):
                size = int(random.integers(6))
                begin = int(random.integers(max(1, len(found) - size)))
                found[begin : begin + size] = 0
            ready.append(found)
        order = np.argsort([len(f) + 6 * random.random() for f in ready])
        left = len(order) % self.batch_size
        first = int(random.integers(left + 1))
        groups = order[first : len(order) - left + first].reshape(-1, self.batch_size)
        for rows in random.permutation(groups):
            x, lengths = padded([ready[k] for k in rows])
            given = [self.labels[k] for k in rows]
            if self.with_labels:
                labels, counts = pad(given, 0, -(-max(map(len, given)) // LABELS) * LABELS)
                yield (x, labels, lengths), (labels, counts)
            else:
                yield (x, lengths), pad(given, -1, self.most)[0]


def padded(frames: Sequence[NDArray[np.float32]]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """A batch, and the numbers of frames."""
    return pad(frames, 0, -(-max(map(len, frames)) // MULTIPLE) * MULTIPLE)


@dataclass(frozen=True)
class Recogniser:
    """A trained model with all that it needs to transcribe recordings.

    Attributes:
        model, front: the net, and what makes its inputs.
        symbols: of the classes; the first is the blank.
        texts: the training texts, of which word list and language model are made.
        weight: of the language model.
    """

    model: SpeechModel | SpeechTransducer
    front: Front
    symbols: list[str]
    texts: list[str]
    weight: float = WEIGHT

    @property
    def is_transducer(self) -> bool:
        """Whether the model is one, and reads by itself."""
        return isinstance(self.model, SpeechTransducer)

    def texts_of(self, frames: Sequence[NDArray[np.float32]], with_words: bool = True) -> list[str]:
        """The texts of recordings' frames, not joined yet. A transducer looks at `SEARCH`
        hypotheses at a time, or where words don't help at one; it has no list of words."""
        if not isinstance(self.model, SpeechTransducer):
            return self.read(self.logits(frames), with_words)
        decoder = nn.TransducerDecoder(self.model, self.symbols, SEARCH if with_words else 1)
        joined = [self.front.joined(f) for f in frames]
        found: dict[int, str] = {}
        for x, lengths, rows in _by_length(joined):
            found |= dict(zip(rows, decoder.text(x, lengths), strict=True))
        return [" ".join(found[k].split()) for k in range(len(joined))]

    def decoder(self, with_words: bool = True) -> nn.CTCDecoder:
        """What reads the logits: with the words of the training texts, or greedily."""
        if not with_words or " " not in self.symbols:
            return nn.CTCDecoder(self.symbols, beam=0)
        sentences = [text.split() for text in self.texts]
        words = sorted({word for sentence in sentences for word in sentence})
        model = NGram.train(sentences, ORDER)
        return nn.CTCDecoder(self.symbols, BEAM, words=words, model=model, weight=self.weight)

    def logits(self, frames: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """Logits for recordings' frames, not joined yet, in their order."""
        joined, found = [self.front.joined(f) for f in frames], {}
        for x, lengths, rows in _by_length(joined):
            outputs, _ = self.model.predict(x, lengths)
            for k, output, n in zip(rows, outputs, lengths, strict=True):
                found[k] = output[:n]
        return [found[k] for k in range(len(joined))]

    def read(self, logits: Sequence[NDArray[np.float32]], with_words: bool = True) -> list[str]:
        """The texts of logits."""
        return [" ".join(t.split()) for t in self.decoder(with_words).text(*padded(logits))]

    def transcribe(
        self, path: str | os.PathLike[str], *, convert: bool = True, with_words: bool = True
    ) -> str:
        """The text of an audio file of one channel.

        Args:
            path: the file.
            convert: whether a recording at another rate is converted; otherwise it is refused.
            with_words: whether word list and language model help.

        Raises DataError for a file that is no audio, has several channels or (unless `convert`)
        another rate.
        """
        return self.texts_of([self.frames(path, convert=convert)], with_words)[0]

    def frames(self, path: str | os.PathLike[str], *, convert: bool = True) -> NDArray[np.float32]:
        """Frames of an audio file, not joined yet; arguments and errors as of `transcribe`."""
        waveform, _ = read_one(files.as_path(path), self.front.rate, convert)
        return self.front.of_waveform(waveform)


def _by_length(
    joined: list[NDArray[np.float32]],
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64], list[int]]]:
    """Batches of recordings of similar length: frames, their numbers, and which they are."""
    order = np.argsort([len(f) for f in joined], kind="stable")
    for begin in range(0, len(order), MULTIPLE):
        rows = [int(k) for k in order[begin : begin + MULTIPLE]]
        yield *padded([joined[k] for k in rows]), rows


def frames_of(data: Transcribed, front: Front) -> list[NDArray[np.float32]]:
    """Frames of recordings, not joined yet."""
    if data.rate is None:
        return [front.of_cepstra(cepstra) for cepstra in data.recordings]
    if data.rate != front.rate:
        raise DataError(
            f"expected recordings of {front.rate} samples a second, got {data.rate}; resample them"
        )
    return [front.of_waveform(waveform) for waveform in data.recordings]


def train_asr(
    train: Transcribed,
    test: Transcribed,
    *,
    hidden: int = 128,
    layers: int = 2,
    dropout: float = 0.35,
    batch_size: int = 16,
    epochs: int = 40,
    lr: float = 4e-3,
    transducer: bool = False,
    callbacks: Sequence[Callback] = (),
    seed: int = 0,
    device: str = "auto",
    workers: int | str = "auto",
    resume: str | Path | None = None,
    verbose: bool = True,
) -> tuple[Trainer, History, dict[str, ErrorRate], Recogniser]:
    """Train and test; the learning rate falls to 0 along a cosine.

    Args:
        train, test: see `load_an4` and `load_transcribed`.
        hidden, layers, dropout: see `SpeechModel`. For the others see `Trainer`.
        transducer: whether to train a `SpeechTransducer` (Graves 2012) instead of the net for
            connectionist temporal classification.

    Raises DataError for no recordings, for those of two rates, for texts that are all too long (see
    `check_room`), and for texts with the words that stand for their ends in language models.

    Returns the trainer, the history (with "val_cer", the greedy error rate of characters, after
    each epoch), the error rates on the test part ("CER" and "WER" greedy, "CER with words" and "WER
    with words" with word list and language model, or of a transducer "CER with beam" and "WER with
    beam"; none after Ctrl-C), and the recogniser.
    """
    if not len(train) or not len(test):
        raise DataError(f"expected recordings, got {len(train)} to train and {len(test)} to test")
    front = Front() if train.rate is None else _front_for(train.rate)
    frames, test_frames = frames_of(train, front), frames_of(test, front)
    symbols = [BLANK, *sorted({c for text in train.texts for c in text})]
    numbers = {c: k for k, c in enumerate(symbols)}
    labels = [np.array([numbers[c] for c in text], np.int64) for text in train.texts]
    kind = SpeechTransducer if transducer else SpeechModel
    model = kind(front.features, len(symbols), hidden=hidden, layers=layers, dropout=dropout)
    loss = nn.TransducerLoss() if transducer else nn.CTCLoss(zero_infinity=True)
    batches = SpeechBatches(frames, labels, front, min(batch_size, len(train)), seed, transducer)
    recogniser = Recogniser(model, front, symbols, list(train.texts))
    description.mark(model, described(recogniser))
    if not transducer:
        check_room(frames, train.texts, front)
        recogniser.decoder()  # texts that it can't be made of are refused before the training

    def measure(logs: Logs) -> dict[str, float]:
        found = recogniser.texts_of(test_frames, with_words=False)
        return {"val_cer": character_error_rate(test.texts, found).rate}

    trainer, history = training.train(
        model, loss, batches, schedule=CosineAnnealing(len(batches) * epochs), lr=lr,
        measure=measure,
        epochs=epochs, callbacks=callbacks, seed=seed, device=device, workers=workers,
        resume=resume, verbose=verbose,
    )  # fmt: skip
    scores: dict[str, ErrorRate] = {}
    if training.interrupted(history):
        return trainer, history, scores, recogniser
    for name, with_words in (("", False), (" with beam" if transducer else " with words", True)):
        found = recogniser.texts_of(test_frames, with_words)
        scores[f"CER{name}"] = character_error_rate(test.texts, found)
        scores[f"WER{name}"] = word_error_rate(test.texts, found)
    return trainer, history, scores, recogniser


def check_room(frames: Sequence[NDArray[np.float32]], texts: Sequence[str], front: Front) -> None:
    """Say which recordings have fewer joined frames than connectionist temporal classification
    needs: one for each character, and one between doubled ones. Their losses do not count.

    Raises DataError where that are all recordings.
    """
    needed = [len(text) + sum(a == b for a, b in pairwise(text)) for text in texts]
    there = [-(-len(f) // front.stack) for f in frames]
    short = [k for k in range(len(texts)) if needed[k] > there[k]]
    if not short:
        return
    k = short[0]
    such = f"{there[k]} joined frames for {texts[k][:40]!r}, which needs {needed[k]}"
    if len(short) == len(texts):
        raise DataError(
            f"asr: expected recordings that are long enough for their texts, got {such}, and all "
            "others likewise; do the texts belong to other recordings?"
        )
    log.warning(
        "%d of %d recordings are too short for their texts and teach nothing: %s; is it the text "
        "of another recording?", len(short), len(texts), such,
    )  # fmt: skip


def _front_for(rate: int) -> Front:
    """Filters for recordings of a rate: up to 6,800 Hz, or as far as they go."""
    if rate < 4000:
        raise OptionError(f"expected recordings of 4,000 samples a second or more, got {rate}")
    return Front(rate=rate, high=min(6800.0, 0.475 * rate))


def save_description(recogniser: Recogniser, checkpoint: Path) -> Path:
    """Write what is needed to make the recogniser again as JSON beside a checkpoint; its path."""
    return description.write(checkpoint, described(recogniser), recogniser.model)


def described(recogniser: Recogniser) -> dict[str, Any]:
    """What `save_description` writes."""
    return {
        "task": "asr", "transducer": recogniser.is_transducer,
        "options": recogniser.model.options, "front": asdict(recogniser.front),
        "symbols": recogniser.symbols, "texts": recogniser.texts, "weight": recogniser.weight,
    }  # fmt: skip


def load_speech_recogniser(path: str | os.PathLike[str]) -> Recogniser:
    """What `fastnn train asr` trained: a checkpoint with its description beside it, or the folder
    of both.

    Raises DataError where the description is missing or bad, CheckpointError for a bad checkpoint
    or one that does not belong to the description.
    """
    with description.read(path, "asr") as (checkpoint, state):
        if state["task"] != "asr":
            raise ValueError(f"it is of the task {state['task']!r}")
        for name in ("symbols", "texts"):
            if not files.strings(state[name]):
                raise ValueError(f"{name} are not strings")
        files.check_options(state["options"])
        front = Front(**state["front"])
        kind = SpeechTransducer if state.get("transducer") else SpeechModel
        model = kind(front.features, len(state["symbols"]), **state["options"])
        found = Recogniser(model, front, state["symbols"], state["texts"], float(state["weight"]))
    model.load(checkpoint)
    return found
