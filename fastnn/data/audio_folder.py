"""Recordings in folders, one for each class, and splits of them that keep speakers apart."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn import files
from fastnn.data.recordings import read_audio
from fastnn.data.signals import as_signal, resample
from fastnn.errors import DataError, OptionError, check_numbers

#: endings of the files that are read
ENDINGS = (".wav", ".flac", ".ogg")


@dataclass(frozen=True)
class Recordings:
    """Recordings with their classes and speakers, one entry each in the first four fields.

    Attributes:
        waveforms: samples, float32 in [-1, 1), shape ``(samples,)`` each.
        labels: the number of the class, int64, shape ``(N,)``.
        speakers: who speaks, shape ``(N,)``.
        names: the files, shape ``(N,)``.
        classes: the names of the classes.
        rate: samples a second.
    """

    waveforms: list[NDArray[np.float32]]
    labels: NDArray[np.int64]
    speakers: NDArray[np.str_]
    names: NDArray[np.str_]
    classes: tuple[str, ...]
    rate: int

    def __len__(self) -> int:
        return len(self.waveforms)

    def take(self, rows: Any) -> Recordings:
        """Some of the recordings: `rows` are their indices, or a boolean for each."""
        places = np.arange(len(self))[rows]
        return replace(
            self, waveforms=[self.waveforms[k] for k in places], labels=self.labels[places],
            speakers=self.speakers[places], names=self.names[places],
        )  # fmt: skip

    def split(self, share: float = 0.2, seed: int = 0) -> tuple[Recordings, Recordings]:
        """Training and test recordings, drawn from each class: at least one of each for both.

        Args:
            share: of the recordings that are for testing.
            seed: of the drawing.

        Raises OptionError for a share outside (0, 1), DataError for a class with one recording.
        """
        _check_share(share)
        rng, test = np.random.default_rng(seed), np.zeros(len(self), bool)
        for label, name in enumerate(self.classes):
            rows = rng.permutation(np.flatnonzero(self.labels == label))
            if len(rows) < 2:
                raise DataError(
                    f"class {name!r}: expected at least 2 recordings, one to train and one to test "
                    f"with, got {len(rows)}; add some, or leave the class out"
                )
            test[rows[: min(max(round(share * len(rows)), 1), len(rows) - 1)]] = True
        return self.take(~test), self.take(test)

    def split_by_speaker(
        self, share: float = 0.2, seed: int = 0, held_out: Iterable[str] | None = None
    ) -> tuple[Recordings, Recordings]:
        """Training and test recordings without a speaker in common.

        Args:
            share: of each class's recordings that are for testing, at least about.
            seed: of the drawing of speakers.
            held_out: the speakers to test with; None draws them.

        Raises DataError for a class with one speaker, OptionError for an unknown speaker.
        """
        _check_share(share)
        if held_out is not None:
            return self._without(held_out)
        total = Counter(self.labels.tolist())
        of_speaker = {
            str(name): Counter(self.labels[self.speakers == name].tolist())
            for name in np.unique(self.speakers)
        }
        for label, name in enumerate(self.classes):
            heard = [s for s, classes in of_speaker.items() if label in classes]
            if len(heard) < 2:
                raise DataError(
                    f"class {name!r}: expected recordings of at least 2 speakers, one to train and "
                    f"one to test with, got {len(heard)} ({', '.join(heard)}); add some, or split "
                    "by recordings"
                )
        names = np.random.default_rng(seed).permutation(list(of_speaker)).tolist()
        kept, chosen, wanted = Counter(total), [], {k: share * n for k, n in total.items()}
        for name in names:
            classes = of_speaker[name]
            needed = any(total[k] - kept[k] < wanted[k] for k in classes)
            if needed and all(kept[k] > n for k, n in classes.items()):
                chosen.append(name)
                kept -= classes
        train, test = self._without(chosen)
        missing = [c for k, c in enumerate(self.classes) if k not in set(test.labels.tolist())]
        if missing:
            raise DataError(
                "split_by_speaker: no choice of speakers was found that leaves some of every class "
                f"on both sides; {missing[0]!r} has none to test with: give held_out, or add "
                "speakers"
            )
        return train, test

    def _without(self, held_out: Iterable[str]) -> tuple[Recordings, Recordings]:
        names = [held_out] if isinstance(held_out, str) else list(held_out)
        present = np.unique(self.speakers).tolist()
        unknown = [name for name in names if name not in present]
        if unknown:
            raise OptionError(
                f"held_out: expected some of {present[:20]}, got {unknown[:5]}; these have no "
                "recordings"
            )
        test = np.isin(self.speakers, names)
        return self.take(~test), self.take(test)


def _check_share(share: float) -> None:
    check_numbers("split", share=share)
    if not 0 < share < 1:
        raise OptionError(f"split: expected a share above 0 and below 1, got {share}")


def load_recordings(
    folder: str | os.PathLike[str],
    *,
    rate: int | None = None,
    convert: bool = False,
    speaker: str | None = None,
    classes: Sequence[str] | None = None,
) -> Recordings:
    """Recordings of a folder that has a sub-folder for each class.

    A speaker's recordings are in a folder of their own within that of the class
    (``class/speaker/file.wav``), or their names begin with the speaker's, up to the first "_"
    (``class/speaker_3.wav``). A speaker of the same name in several classes is the same person.

    Args:
        folder: the folder. Hidden sub-folders, and those whose names begin with "_", are left out.
        rate: samples a second that are expected; None is that of the first file.
        convert: whether recordings at other rates are converted; otherwise they are refused.
        speaker: a regular expression that finds the speaker's name in a file's path below that of
            its class, as its first group (or the whole of what it finds).
        classes: the sub-folders to read; None is all.

    Files are WAV, FLAC and Ogg (the latter two by soundfile), of one channel.

    Raises DataError where there are no classes or recordings, where it can't be told who speaks,
    and for files that cannot be read, have other rates, several channels, or samples that are not
    finite; OptionError if `speaker` is no regular expression.
    """
    root = files.as_path(folder, "folder")
    if not root.is_dir():
        raise DataError(f"{root}: expected a folder with a sub-folder for each class")
    present = sorted(p.name for p in root.iterdir() if p.is_dir() and p.name[0] not in "._")
    names = present if classes is None else list(classes)
    missing = [name for name in names if name not in present]
    if not names:
        raise DataError(f"{root}: expected a sub-folder for each class, got none; make some")
    if missing:
        raise DataError(
            f"{root}: expected a sub-folder for each class, got none called {missing[0]!r}; there "
            f"is {', '.join(present)[:200]}"
        )
    pattern = _compiled(speaker)
    waveforms, labels, speakers, paths = [], [], [], []
    for label, name in enumerate(names):
        found = sorted(p for p in (root / name).rglob("*") if p.suffix.lower() in ENDINGS)
        if not found:
            raise DataError(
                f"{root / name}: expected recordings ({', '.join(ENDINGS)}), got none; add some, "
                "or remove the folder"
            )
        for path in found:
            waveform, rate = read_one(path, rate, convert)
            waveforms.append(waveform)
            labels.append(label)
            speakers.append(_speaker_of(path, path.relative_to(root / name), pattern))
            paths.append(str(path.relative_to(root)))
    assert rate is not None
    return Recordings(
        waveforms, np.array(labels, np.int64), np.array(speakers), np.array(paths), tuple(names),
        rate,
    )  # fmt: skip


def read_one(
    path: Path, rate: int | None, convert: bool = False
) -> tuple[NDArray[np.float32], int]:
    """A recording of one channel at a rate, that of the file if None; and the rate.

    Raises DataError for several channels, no samples, samples that are not finite, and, unless
    `convert`, for another rate.
    """
    waveform, found = read_audio(path)
    if waveform.ndim > 1:
        raise DataError(
            f"{path}: expected a recording of one channel, got {waveform.shape[1]}; mix them into "
            "one, with ffmpeg for example: ffmpeg -i FILE -ac 1 NEW"
        )
    waveform = as_signal(waveform, str(path)).astype(np.float32, copy=False)
    if rate is not None and found != rate:
        if not convert:
            raise DataError(
                f"{path}: expected {rate} samples a second, got {found}; convert the file, with "
                f"ffmpeg for example: ffmpeg -i FILE -ar {rate} NEW (in Python, the samples by "
                f"fastnn.data.resample(samples, {found}, {rate}))"
            )
        waveform, found = resample(waveform, found, rate).astype(np.float32), rate
    return waveform, found


def _compiled(speaker: str | None) -> re.Pattern[str] | None:
    try:
        return None if speaker is None else re.compile(speaker)
    except re.error as error:
        raise OptionError(
            f"speaker: expected a regular expression, got {speaker!r} ({error}); such as "
            "'([a-z]+)_'"
        ) from None


def _speaker_of(path: Path, below: Path, pattern: re.Pattern[str] | None) -> str:
    """Who speaks in a file, by its path below that of its class."""
    if pattern is not None:
        match = pattern.search(below.as_posix())
        if match is None:
            raise DataError(
                f"{path}: {pattern.pattern!r} finds no speaker's name in {below.as_posix()!r}; "
                "give another expression"
            )
        return str(match[1] if pattern.groups else match[0])
    if len(below.parts) > 1:
        return below.parts[0]
    name, mark, _ = below.name.partition("_")
    if not mark:
        raise DataError(
            f"{path}: it can't be told who speaks; put it into a folder of the speaker's name, "
            "call it speaker_1.wav, or give a regular expression for the name"
        )
    return name
