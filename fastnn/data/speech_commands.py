"""Speech Commands: 105,829 recordings of 35 words by 2,618 speakers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastnn import files
from fastnn.data import sources
from fastnn.data.audio_folder import Recordings, load_recordings
from fastnn.data.download import unpack_all
from fastnn.errors import OptionError

#: samples a second
RATE = 16000
#: the ten commands among the words
COMMANDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
LISTS = {"validation": "validation_list.txt", "test": "testing_list.txt"}


def load_speech_commands(
    *,
    folder: str | os.PathLike[str] | None = None,
    download: bool = True,
    words: Sequence[str] = COMMANDS,
) -> tuple[Recordings, Recordings, Recordings]:
    """Training, validation and test recordings of spoken words, as the set's author splits them: no
    speaker is in two of the parts.

    Mono, 16,000 samples a second, at most 1 s long. In memory a recording takes 64 kB; the ten
    commands, 38,546 recordings, take 2.5 GB.

    Args:
        folder: a folder that has a sub-folder for each word and the files `validation_list.txt` and
            `testing_list.txt`; by default see `fastnn.data.sources`.
        download: whether 2.4 GB may be downloaded if this machine has no copy.
        words: the classes.

    Raises:
        DataError: the files are not those of the set, or a word is none of it.
        DownloadError: there is no copy and the download failed.
        OptionError: fewer than two words, or one that comes twice.

    Licence: CC BY 4.0. Warden, "Speech Commands: a dataset for limited-vocabulary speech
    recognition", arXiv:1804.03209, 2018; version 0.02.
    """
    if isinstance(words, str) or len(set(words)) != len(words) or not words:
        raise OptionError(f"words: expected several words, each once, got {words!r}")
    root = _unpacked(download) if folder is None else files.as_path(folder, "folder")
    found = load_recordings(root, rate=RATE, speaker="^([^_]+)_", classes=words)
    held_out = {part: _listed(root / name) for part, name in LISTS.items()}
    places = np.array([name.replace(os.sep, "/") for name in found.names])
    validation, test = (np.isin(places, sorted(held_out[part])) for part in LISTS)
    return found.take(~(validation | test)), found.take(validation), found.take(test)


def _unpacked(download: bool) -> Path:
    """The folder with the set's files, unpacked in the cache once."""
    source = sources.SPEECH_COMMANDS
    target = sources.data_cache() / source.name / "unpacked"
    if not target.is_dir():
        archive = sources.find(source, download=download) / source.parts[0].name
        unpack_all(archive, target)
    return target


def _listed(path: Path) -> set[str]:
    return set(files.read_text(path, "list of recordings").split())
