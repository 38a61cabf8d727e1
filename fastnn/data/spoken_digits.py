"""Free Spoken Digit Dataset: 3,000 recordings of the digits zero to nine by six speakers."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn.data import sources
from fastnn.data.audio import read_audio
from fastnn.errors import DataError, OptionError

#: samples a second
RATE = 8000
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
#: recordings with these numbers are the official test set
TEST_INDICES = range(5)
_NAME = re.compile(r"(\d)_([^_]+)_(\d+)\.wav")


@dataclass(frozen=True)
class SpokenDigits:
    """Recordings of spoken digits, one entry each in all four fields.

    Attributes:
        waveforms: samples, float32 in [-1, 1), shape ``(samples,)`` each, `RATE` a second.
        labels: the digit, int64, shape ``(N,)``.
        speakers: the speaker's name, shape ``(N,)``.
        indices: the recording's number for its speaker and digit, int64 in 0..49, shape ``(N,)``.
    """

    waveforms: list[NDArray[np.float32]]
    labels: NDArray[np.int64]
    speakers: NDArray[np.str_]
    indices: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.waveforms)

    def take(self, rows: Any) -> SpokenDigits:
        """Some of the recordings: `rows` are their indices, or a boolean for each."""
        places = np.arange(len(self))[rows]
        return SpokenDigits(
            [self.waveforms[k] for k in places],
            self.labels[places],
            self.speakers[places],
            self.indices[places],
        )

    def official_split(self) -> tuple[SpokenDigits, SpokenDigits]:
        """Training and test recordings as the set's authors split them.

        The recordings 0 to 4 of each speaker and digit are for testing: 300, and 2,700 for
        training.
        """
        test = np.isin(self.indices, TEST_INDICES)
        return self.take(~test), self.take(test)

    def split_by_speaker(
        self, held_out: Iterable[str] = ("lucas", "theo")
    ) -> tuple[SpokenDigits, SpokenDigits]:
        """Training and test recordings without a speaker in common: 2,000 and 1,000.

        Args:
            held_out: names of the speakers to test with.

        Raises OptionError for a speaker without recordings.
        """
        names = [held_out] if isinstance(held_out, str) else list(held_out)
        present = np.unique(self.speakers).tolist()
        unknown = [name for name in names if name not in present]
        if unknown:
            raise OptionError(f"held_out: expected some of {present}, got {unknown}")
        test = np.isin(self.speakers, names)
        return self.take(~test), self.take(test)


def load_spoken_digits(
    *, folder: str | os.PathLike[str] | None = None, download: bool = True
) -> SpokenDigits:
    """3,000 recordings of spoken digits: 50 of each digit by each of six speakers.

    Mono, 8,000 samples a second, 0.14 to 2.28 s long, in the order of speaker, digit, index.
    `SpokenDigits.official_split` and `SpokenDigits.split_by_speaker` make training and test sets.

    Args:
        folder: a folder whose sub-folder `recordings` has files `<digit>_<speaker>_<index>.wav`,
            read unchecked; by default see `fastnn.data.sources`.
        download: whether 16 MB may be downloaded if this machine has no copy.

    Raises:
        DataError: the files are not those of the set.
        DownloadError: there is no copy and the download failed.

    Licence: CC BY-SA 4.0. Jackson, Souza, Flaks, Pan, Nicolas and Thite,
    "Jakobovski/free-spoken-digit-dataset: v1.0.8", Zenodo, 2018; read here is v1.0.10.

    >>> train, test = load_spoken_digits().official_split()
    >>> len(train), len(test), train.waveforms[0].dtype
    (2700, 300, dtype('float32'))
    """
    recordings = sources.find(sources.FSDD, folder=folder, download=download) / "recordings"
    found = []
    for path in recordings.glob("*.wav"):
        match = _NAME.fullmatch(path.name)
        if match is None:
            raise DataError(f"{path}: expected a name like 7_theo_12.wav")
        found.append((match[2], int(match[1]), int(match[3]), path))
    if not found:
        raise DataError(f"{recordings}: expected recordings, got no .wav file")
    found.sort()
    waveforms = []
    for *_, path in found:
        waveform, rate = read_audio(path)
        if rate != RATE or waveform.ndim != 1:
            raise DataError(
                f"{path}: expected mono at {RATE} samples a second, got shape {waveform.shape} "
                f"at {rate}"
            )
        waveforms.append(waveform)
    return SpokenDigits(
        waveforms,
        np.array([digit for _, digit, _, _ in found], np.int64),
        np.array([speaker for speaker, _, _, _ in found]),
        np.array([index for _, _, index, _ in found], np.int64),
    )
