"""Multi30k: descriptions of pictures in English, German and French."""

from __future__ import annotations

import gzip
import os
from dataclasses import dataclass
from pathlib import Path

from fastnn import files
from fastnn.data import sources
from fastnn.errors import DataError, OptionError

LANGUAGES = ("en", "de", "fr")
FILES = {"train": "train", "valid": "val", "test": "test_2016_flickr"}


@dataclass(frozen=True)
class Sentences:
    """Sentences in two languages, in three parts.

    Attributes:
        source, target: codes of the languages.
        train, valid, test: pairs of lists: the source's sentences, and their translations.
    """

    source: str
    target: str
    train: tuple[list[str], list[str]]
    valid: tuple[list[str], list[str]]
    test: tuple[list[str], list[str]]


def load_multi30k(
    source: str = "en", target: str = "de", *, folder: str | os.PathLike[str] | None = None,
    download: bool = True,
) -> Sentences:  # fmt: skip
    """29,000 pairs of sentences for training, 1,014 for validation, 1,000 for testing (the test
    part of 2016).

    Args:
        source, target: two different ones of "en", "de" and "fr".
        folder: a folder with other files of these names (`train.en.gz`, a sentence a line, ...),
            read unchecked; by default see `fastnn.data.sources`.
        download: whether 2 MB may be downloaded if this machine has no copy.

    Raises:
        OptionError: another language.
        DataError: the files are not those of the set, or have different numbers of lines.
        DownloadError: there is no copy and the download failed.

    Licence: none stated for the texts; the pictures' terms are for research and education only.
    Elliott, Frank, Sima'an and Specia, "Multi30K: multilingual English-German image descriptions",
    Workshop on vision and language 2016.

    >>> sentences = load_multi30k()
    >>> sentences.train[0][0], sentences.train[1][0][:31]
    ('Two young, White males are outside near many bushes.', 'Zwei junge weiße Männer sind im')
    """
    if source not in LANGUAGES or target not in LANGUAGES or source == target:
        raise OptionError(
            f"load_multi30k: expected two different languages of {', '.join(LANGUAGES)}, got "
            f"{source!r} and {target!r}"
        )
    found = sources.find(sources.MULTI30K, folder=folder, download=download)
    parts = []
    for name in FILES.values():
        pair = tuple(_lines(found / f"{name}.{language}.gz") for language in (source, target))
        if len(pair[0]) != len(pair[1]):
            raise DataError(
                f"{found}: expected as many lines in {name}.{source}.gz as in {name}.{target}.gz, "
                f"got {len(pair[0])} and {len(pair[1])}"
            )
        parts.append(pair)
    return Sentences(source, target, *parts)  # type: ignore[arg-type]


def _lines(path: Path) -> list[str]:
    try:
        text = gzip.decompress(files.read_bytes(path)).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: not a gzip file of UTF-8 text ({files.one_line(error)})"
        ) from None
    return files.lines_of(text)
