"""Recordings with transcripts: AN4's features, and folders of a user's own."""

from __future__ import annotations

import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastnn import files
from fastnn.data.audio_folder import ENDINGS, read_one
from fastnn.data.sources import data_root
from fastnn.errors import DataError

_LINE = re.compile(r"(.*)\(([^()]+)\)\s*")
#: coefficients of a frame of AN4
CEPSTRA = 13


@dataclass(frozen=True)
class Transcribed:
    """Recordings and what is said in them.

    Attributes:
        recordings: features, shape (frames, features), or waveforms, shape (samples,).
        texts: one for each.
        rate: samples a second; None for features.
    """

    recordings: list[NDArray[np.float32]]
    texts: list[str]
    rate: int | None = None

    def __len__(self) -> int:
        return len(self.texts)


def load_an4(*, folder: str | os.PathLike[str] | None = None) -> tuple[Transcribed, Transcribed]:
    """AN4, training and test part: 948 and 130 utterances of 84 speakers, who spell names and say
    numbers and commands (Acero 1993). Here are 13 mel cepstra for each of 100 frames a second, of
    recordings at 16 kHz by a close microphone.

    Args:
        folder: has `etc` and `feat` of the sphinx tutorials' archive of AN4; by default `an4` in
            the folder that FASTNN_DATA names.

    Raises DataError where there is none, or a file is damaged.
    """
    if folder is not None:
        place = files.as_path(folder)
    elif (root := data_root()) is not None:
        place = root / "an4"
    else:
        raise DataError(
            "an4: expected a folder with AN4's cepstra, got none; set FASTNN_DATA to the folder "
            "that has it as an4, or give folder="
        )
    return _an4_part(place, "train"), _an4_part(place, "test")


def _an4_part(folder: Path, part: str) -> Transcribed:
    texts = {}
    path = folder / "etc" / f"an4_{part}.transcription"
    for line in files.lines_of(files.read_text(path, "AN4 transcript")):
        match = _LINE.fullmatch(line)
        if match is None:
            raise DataError(f"{path}: expected lines like 'SIX TWO (name)', got {line[:60]!r}")
        words = [word for word in match[1].split() if not word.startswith("<")]
        texts[match[2].strip()] = " ".join(words)
    names = files.read_text(folder / "etc" / f"an4_{part}.fileids", "AN4 list").split()
    missing = [n for n in names if n.rsplit("/", 1)[-1] not in texts]
    if missing or not names:
        raise DataError(f"{path}: expected a transcript of {missing[:1] or 'something'}, got none")
    found = [_read_cepstra(folder / "feat" / f"{name}.mfc") for name in names]
    return Transcribed(found, [texts[n.rsplit("/", 1)[-1]] for n in names])


def _read_cepstra(path: Path) -> NDArray[np.float32]:
    """A file of Sphinx: the count of numbers, and the numbers, of either byte order."""
    content = files.read_bytes(path, "file of cepstra")
    for order in "><":
        head = np.frombuffer(content[:4], f"{order}i4")
        if len(head) and int(head[0]) * 4 + 4 == len(content) and int(head[0]) % CEPSTRA == 0:
            numbers = np.frombuffer(content, f"{order}f4", offset=4)
            return numbers.astype(np.float32).reshape(-1, CEPSTRA)
    raise DataError(
        f"{path}: expected a count of numbers and {CEPSTRA} for each frame, got {len(content)} "
        "bytes; is it truncated?"
    )


def load_transcribed(folder: str | os.PathLike[str]) -> Transcribed:
    """A folder of recordings, each with its transcript beside it: `a.wav` (or FLAC or Ogg) and
    `a.txt`. Files whose names begin with "." are left out.

    Raises DataError where there are none, a transcript is missing, empty or no text, a recording
    has several channels, or rates differ.
    """
    place = files.as_path(folder)
    if not place.is_dir():
        raise DataError(
            f"{place}: expected a folder of recordings, *.wav, with their texts, *.txt, got "
            f"{'a file' if place.exists() else 'none: there is no such folder'}; check the path"
        )
    paths = sorted(
        p for p in place.iterdir() if p.suffix.lower() in ENDINGS and not p.name.startswith(".")
    )
    if not paths:
        raise DataError(f"{place}: expected recordings, *.wav, with their texts, *.txt; got none")
    waveforms, texts = [], []
    rates: dict[int, Path] = {}
    for path in paths:
        text = _transcript(path.with_suffix(".txt"))
        waveform, rate = read_one(path, None)
        rates.setdefault(rate, path)
        waveforms.append(waveform)
        texts.append(text)
    if len(rates) > 1:
        (rate, first), (other, second) = list(rates.items())[:2]
        raise DataError(
            f"{second}: expected {rate} samples a second, as {first.name} has, got {other}; "
            f"convert one of them, with ffmpeg for example: ffmpeg -i FILE -ar {rate} NEW"
        )
    return Transcribed(waveforms, texts, next(iter(rates)))


def _transcript(path: Path) -> str:
    """A recording's text, on one line. What a character of control would be said like, nobody
    knows: it comes from a file that is no text, or is of another encoding."""
    text = " ".join(files.read_text(path, "transcript").split())
    if not text:
        raise DataError(f"{path}: expected a transcript, got nothing")
    for place, sign in enumerate(text):
        if unicodedata.category(sign) == "Cc":
            raise DataError(
                f"{path}: expected a transcript, got the control character {sign!r} after "
                f"{text[:place][-20:]!r}; is it a text in UTF-8? Remove it, or convert the file"
            )
    return text
