"""Which frames of a recording the characters of its text stand in, as a picture."""

from __future__ import annotations

import os
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fastnn import nn, ops, plot
from fastnn.data.transcribed import Transcribed
from fastnn.errors import DataError, OptionError
from fastnn.graph.value import Value
from fastnn.tasks.asr import Recogniser, frames_of, padded

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class _Align(nn.Module):
    """Probabilities, and for each frame the place in the text."""

    def forward(self, logits: Value, labels: Value, lengths: Value) -> tuple[Value, Value]:
        return ops.softmax(logits), ops.ctc_align(logits, labels, lengths)[0]


def align_text(
    recogniser: Recogniser, frames: NDArray[np.float32], text: str
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The likeliest way to spread a text over a recording's frames (forced alignment).

    Args:
        recogniser: one with connectionist temporal classification.
        frames: of the recording, not joined yet (`Front.of_waveform`).
        text: what is said in it.

    Returns the probabilities of the classes, shape (steps, classes), and for each step the place in
    the text of its character, -1 for a blank, shape (steps,).

    Raises OptionError for a transducer, DataError for characters that the model doesn't know and
    for a text that is too long for the frames (see `fits`).
    """
    if recogniser.is_transducer:
        raise OptionError(
            "alignment: expected a recogniser with CTC, whose classes stand for frames, got a "
            "transducer; leave the picture out"
        )
    numbers = {symbol: k for k, symbol in enumerate(recogniser.symbols) if k}
    strange = sorted(set(text) - set(numbers))
    if strange:
        raise DataError(f"alignment: expected characters of the training texts, got {strange[0]!r}")
    logits = recogniser.logits([frames])
    x, lengths = padded(logits)
    labels = [numbers[c] for c in text] or [-1]  # no text: blanks
    probabilities, places = _Align().predict(x, np.array([labels]), lengths)
    return probabilities[0, : lengths[0]], places[0, : lengths[0]]


def fits(recogniser: Recogniser, frames: NDArray[np.float32], text: str) -> bool:
    """Whether `align_text` can spread a text over these frames: the model knows its characters,
    and there is a frame for each, and one for a blank between doubled ones."""
    needed = len(text) + sum(a == b for a, b in pairwise(text))
    return (
        not recogniser.is_transducer
        and bool(text)
        and set(text) <= set(recogniser.symbols[1:])
        and needed <= len(recogniser.front.joined(frames))
    )


def first_fitting(
    recogniser: Recogniser, data: Transcribed
) -> tuple[NDArray[np.float32], str] | None:
    """Frames and text of the first of the recordings that can be aligned; None if none can."""
    for recording, text in zip(data.recordings, data.texts, strict=True):
        (frames,) = frames_of(Transcribed([recording], [text], data.rate), recogniser.front)
        if fits(recogniser, frames, text):
            return frames, text
    return None


def draw_alignment(
    recogniser: Recogniser, frames: NDArray[np.float32], text: str,
    path: str | os.PathLike[str] | None = None,
) -> Figure:  # fmt: skip
    """The probabilities over time of the characters that occur in a text, in colours, and of the
    blank, in grey; above them the text.

    Args:
        recogniser, frames, text: as of `align_text`; whose errors it raises.
        path: where the picture is saved.

    Raises ImportError if matplotlib is missing.
    """
    probabilities, places = align_text(recogniser, frames, text)
    classes = [0, *sorted({recogniser.symbols.index(c) for c in text})]
    labels = ["␣" if c == " " else c for c in text]
    return plot.forced_alignment(probabilities[:, classes], places, labels, path=path)
