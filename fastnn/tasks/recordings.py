"""What the tasks on recordings train and test with: words, speakers, languages."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from fastnn import files
from fastnn.data.audio_folder import Recordings, load_recordings
from fastnn.data.speech_commands import COMMANDS, LISTS, load_speech_commands
from fastnn.data.spoken_digits import RATE, SpokenDigits, load_spoken_digits
from fastnn.errors import OptionError

Splits = tuple[Recordings, Recordings]
Folder = str | os.PathLike[str] | None


def of_digits(spoken: SpokenDigits, by: str = "digit") -> Recordings:
    """Spoken digits with the digits, or the speakers, as classes."""
    if by not in ("digit", "speaker"):
        raise OptionError(f"by: expected 'digit' or 'speaker', got {by!r}")
    classes, labels = tuple(map(str, range(10))), spoken.labels
    if by == "speaker":
        names, labels = np.unique(spoken.speakers, return_inverse=True)
        classes = tuple(names.tolist())
    names = np.array([f"{d}_{s}_{k}.wav" for d, s, k in zip(
        spoken.labels, spoken.speakers, spoken.indices, strict=True)])  # fmt: skip
    return Recordings(
        spoken.waveforms, np.asarray(labels, np.int64), spoken.speakers, names, classes, RATE
    )


def words(
    folder: Folder = None, *, public: bool = False, split: str = "official", share: float = 0.2,
    seed: int = 0, **reading: Any,
) -> Splits:  # fmt: skip
    """Training and test recordings of spoken words.

    Args:
        folder: has a sub-folder for each word. Where it has the lists of Speech Commands, these
            are the split; otherwise speakers are held out.
        public: take the ten commands of Speech Commands, downloaded where this machine has no copy.
            Without it and a folder, the free spoken digits.
        split: of the spoken digits: "official", or "speaker", two speakers held out.
        share, seed: as of `Recordings.split_by_speaker`.
        reading: options of `load_recordings`.
    """
    if split not in ("official", "speaker"):
        raise OptionError(f"split: expected 'official' or 'speaker', got {split!r}")
    if public and folder is not None:
        raise OptionError("expected either a folder or the public set, got both; leave one out")
    if folder is not None:
        root = files.as_path(folder, "folder")
        if all((root / name).is_file() for name in LISTS.values()):
            present = sorted(p.name for p in root.iterdir() if p.is_dir() and p.name[0] not in "._")
            train, _, test = load_speech_commands(folder=root, words=present)
            return train, test
        return load_recordings(root, **reading).split_by_speaker(share, seed)
    if public:
        train, _, test = load_speech_commands(words=COMMANDS)
        return train, test
    spoken = load_spoken_digits()
    train_digits, test_digits = (
        spoken.official_split() if split == "official" else spoken.split_by_speaker()
    )
    return of_digits(train_digits), of_digits(test_digits)


def speakers(folder: Folder = None, *, share: float = 0.2, seed: int = 0, **reading: Any) -> Splits:
    """Training and test recordings of the same speakers, who are the classes.

    Args:
        folder: has a sub-folder for each speaker; a share of each one's recordings is for testing.
            None is the free spoken digits, of whose six speakers recordings 0 to 4 of each digit
            are for testing.
        share, seed: as of `Recordings.split`.
        reading: options of `load_recordings`.
    """
    if folder is not None:
        return load_recordings(folder, speaker="^", **reading).split(share, seed)
    train, test = load_spoken_digits().official_split()
    return of_digits(train, "speaker"), of_digits(test, "speaker")


def languages(folder: Folder, *, share: float = 0.2, seed: int = 0, **reading: Any) -> Splits:
    """Training and test recordings without a speaker in common, of a folder with a sub-folder for
    each language; `share` and `seed` as of `Recordings.split_by_speaker`."""
    if folder is None:
        raise OptionError("expected a folder with a sub-folder for each language, got none")
    return load_recordings(folder, **reading).split_by_speaker(share, seed)
