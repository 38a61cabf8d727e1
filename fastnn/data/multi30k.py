"""Multi30k: descriptions of pictures in English, German and French."""

from __future__ import annotations

import gzip
import os
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

from fastnn import files
from fastnn.data import sources
from fastnn.errors import DataError, OptionError

LANGUAGES = ("en", "de", "fr")
#: what stands for a language in a file's name
_CODE = re.compile(r"[\w-]+")
FILES = {"train": "train", "valid": "val", "test": "test_2016_flickr"}
#: what files of a folder of one's own may be called as well
OTHERS = {"valid": "valid", "test": "test"}


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
        folder: a folder with other files, a sentence a line, of any two languages, say "en" and
            "cy": `train.en`, `train.cy`, `valid.en` (or `val.en`) and so on, `test.en` (or
            `test_2016_flickr.en`); with ".gz" at the end where they are packed. By default see
            `fastnn.data.sources`.
        download: whether 2 MB may be downloaded if this machine has no copy.

    Raises:
        OptionError: another language.
        DataError: the files are not those of the set, not all are there, or they have different
            numbers of lines.
        DownloadError: there is no copy and the download failed.

    Licence: none stated for the texts; the pictures' terms are for research and education only.
    Elliott, Frank, Sima'an and Specia, "Multi30K: multilingual English-German image descriptions",
    Workshop on vision and language 2016.

    >>> sentences = load_multi30k()
    >>> sentences.train[0][0], sentences.train[1][0][:31]
    ('Two young, White males are outside near many bushes.', 'Zwei junge weiße Männer sind im')
    """
    languages = (source, target)
    known = all(
        code in LANGUAGES if folder is None else isinstance(code, str) and _CODE.fullmatch(code)
        for code in languages
    )
    if not known or source == target:
        which = f" of {', '.join(LANGUAGES)}" if folder is None else ", as files' names end"
        raise OptionError(
            f"load_multi30k: expected two different languages{which}, got {source!r} and {target!r}"
        )
    if folder is None:
        found = sources.find(sources.MULTI30K, download=download)
    else:
        found = files.as_path(folder, "folder")
    parts = []
    for part, name in FILES.items():
        names = [name] if folder is None else [name, OTHERS.get(part, name)]
        paths = [_place(found, names, language) for language in languages]
        pair = tuple(_lines(path) for path in paths)
        if len(pair[0]) != len(pair[1]):
            raise DataError(
                f"{found}: expected as many lines in {paths[0].name} as in {paths[1].name}, "
                f"got {len(pair[0])} and {len(pair[1])}"
            )
        parts.append(pair)
    return Sentences(source, target, *parts)  # type: ignore[arg-type]


def _place(folder: Path, names: list[str], language: str) -> Path:
    """The file of one of these names in a language."""
    for name in names:
        for path in (folder / f"{name}.{language}.gz", folder / f"{name}.{language}"):
            if path.exists():
                return path
    there = "none of them is there" if folder.is_dir() else "there is no such folder"
    raise DataError(
        f"{folder}: expected {names[-1]}.{language} or {names[-1]}.{language}.gz, a sentence a "
        f"line; {there}"
    )


def _lines(path: Path) -> list[str]:
    if path.suffix != ".gz":
        return files.lines_of(files.read_text(path, "text"))
    try:
        text = gzip.decompress(files.read_bytes(path)).decode("utf-8").removeprefix("\ufeff")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: not a gzip file of UTF-8 text ({files.one_line(error)})"
        ) from None
    return files.lines_of(text)
