"""Tiny Shakespeare: a million characters of plays."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastnn import files
from fastnn.data import sources
from fastnn.data.text import Vocabulary
from fastnn.errors import DataError, OptionError


@dataclass(frozen=True)
class Characters:
    """A text as characters, split in two.

    Attributes:
        text: the whole text.
        vocabulary: its distinct characters, sorted.
        train: ids of the characters of the first part, int64, shape ``(characters,)``.
        valid: ids of the characters of the second part, int64, shape ``(characters,)``.
    """

    text: str
    vocabulary: Vocabulary
    train: NDArray[np.int64]
    valid: NDArray[np.int64]


def load_shakespeare(
    *,
    valid_fraction: float = 0.1,
    folder: str | os.PathLike[str] | None = None,
    download: bool = True,
) -> Characters:
    """1,115,394 characters of Shakespeare's plays, 65 different ones, for a language model.

    The first nine tenths (1,003,854 characters) are for training, the rest (111,540) for
    validation: the split that most published results use.

    Args:
        valid_fraction: the share of the text, at its end, that is for validation; in (0, 1).
        folder: a folder with another `input.txt` (UTF-8), read unchecked; by default see
            `fastnn.data.sources`.
        download: whether 1.1 MB may be downloaded if this machine has no copy.

    Raises:
        DataError: the file is not that of the set.
        DownloadError: there is no copy and the download failed.
        OptionError: `valid_fraction` is out of its range.

    Licence: the text is in the public domain; char-rnn, which carries it, has the MIT licence.
    Karpathy, "The unreasonable effectiveness of recurrent neural networks", 2015.

    >>> plays = load_shakespeare()
    >>> "".join(plays.vocabulary.decode(plays.train[:14]))
    'First Citizen:'
    """
    if not 0 < valid_fraction < 1:
        raise OptionError(f"valid_fraction: expected a number in (0, 1), got {valid_fraction}")
    found = sources.find(sources.TINY_SHAKESPEARE, folder=folder, download=download)
    text = files.read_text(found / "input.txt")
    if len(text) < 2:
        raise DataError(f"{found / 'input.txt'}: expected a text of two characters or more")
    vocabulary = Vocabulary(sorted(set(text)))
    ids = vocabulary.encode(text)
    split = int(len(ids) * (1 - valid_fraction))
    return Characters(text, vocabulary, ids[:split], ids[split:])
