"""Penn Treebank in Mikolov's form: a million words of newspaper text."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastnn import files
from fastnn.data import sources
from fastnn.data.text import Vocabulary

#: stands at the end of each sentence
END = "<eos>"
UNKNOWN = "<unk>"


@dataclass(frozen=True)
class Words:
    """A text as words, in three parts.

    Attributes:
        vocabulary: the words of the training part, the most frequent first.
        train, valid, test: ids of the words in the order of the text, int64, shape ``(words,)``.
    """

    vocabulary: Vocabulary
    train: NDArray[np.int64]
    valid: NDArray[np.int64]
    test: NDArray[np.int64]


def load_ptb(*, folder: str | os.PathLike[str] | None = None, download: bool = True) -> Words:
    """929,589 words for training, 73,760 for validation, 82,430 for testing; 10,000 different ones.

    The text is lower-case, without punctuation; numbers are `N`, words outside the vocabulary
    `<unk>`, and `<eos>` ends each sentence and counts as a word. All published perplexities "on
    PTB" refer to this form.

    Args:
        folder: a folder with other `ptb.train.txt`, `ptb.valid.txt` and `ptb.test.txt` (a sentence
            a line, words between spaces), read unchecked; by default see `fastnn.data.sources`.
        download: whether 6 MB may be downloaded if this machine has no copy.

    Raises:
        DataError: the files are not those of the set.
        DownloadError: there is no copy and the download failed.

    Licence: none stated. The text is the Wall Street Journal's, distributed by the Linguistic Data
    Consortium: use it, **don't pass it on**. Marcus, Santorini and Marcinkiewicz, "Building a large
    annotated corpus of English: the Penn Treebank", Computational Linguistics 19 (2), 1993;
    Mikolov, Karafiát, Burget, Černocký and Khudanpur, "Recurrent neural network based language
    model", Interspeech 2010.

    >>> words = load_ptb()
    >>> len(words.vocabulary), words.vocabulary.decode(words.train[25:32])
    (10000, ['pierre', '<unk>', 'N', 'years', 'old', 'will', 'join'])
    """
    found = sources.find(sources.PTB, folder=folder, download=download)
    parts = []
    for part in ("train", "valid", "test"):
        text = files.read_text(found / f"ptb.{part}.txt")
        parts.append(text.replace("\n", f" {END} ").split())
    vocabulary = Vocabulary.build(parts[0], unknown=UNKNOWN)
    return Words(vocabulary, *(vocabulary.encode(words) for words in parts))
