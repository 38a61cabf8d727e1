"""CoNLL-2003: English news with names of persons, places, organisations and others marked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from fastnn import files
from fastnn.data import sources
from fastnn.data.metrics import entities
from fastnn.errors import DataError, OptionError

Scheme: TypeAlias = Literal["IOB1", "IOB2", "IOBES"]

#: stands at the beginning of each document, as a sentence of its own
DOCUMENT = "-DOCSTART-"
#: columns that files may have, and what they are called where a line has others
COLUMNS = {2: "two columns (word and tag), as in the first line", 4: "four columns"}


@dataclass(frozen=True)
class Sentences:
    """Sentences with one entry for each in all fields.

    Attributes:
        words: the words of each sentence.
        pos: their parts of speech (Penn Treebank's).
        chunks: their phrases, as tags.
        tags: the entities, as tags in `scheme`.
        documents: the number of the document that each sentence is from, beginning with 0.
        scheme: how `tags` mark entities: "IOB1", "IOB2" or "IOBES".
    """

    words: list[list[str]]
    pos: list[list[str]]
    chunks: list[list[str]]
    tags: list[list[str]]
    documents: list[int]
    scheme: Scheme

    def __len__(self) -> int:
        return len(self.words)


@dataclass(frozen=True)
class Conll2003:
    """The three parts of the set."""

    train: Sentences
    valid: Sentences
    test: Sentences


def load_conll2003(
    *,
    scheme: Scheme = "IOB2",
    folder: str | os.PathLike[str] | None = None,
    download: bool = True,
) -> Conll2003:
    """14,041 sentences for training, 3,250 for validation and 3,453 for testing.

    Elsewhere validation is called "testa" and testing "testb". They have 203,621, 51,362
    and 46,435 words; 23,499, 5,942 and 5,648 entities of the types LOC, MISC, ORG and PER. The
    lines that begin documents are not counted as sentences; see `Sentences.documents`.

    Args:
        scheme: how the tags mark entities (see `convert_tags`); the files have IOB2.
        folder: a folder with other `train.txt`, `valid.txt` and `test.txt` (see `read_conll`),
            read unchecked; by default see `fastnn.data.sources`.
        download: whether 4.9 MB may be downloaded if this machine has no copy.

    Raises:
        DataError: the files are not those of the set.
        DownloadError: there is no copy and the download failed.

    Licence: none for the text, which is Reuters' (Reuters Corpus, volume 1): use it, **don't pass
    it on**. Tjong Kim Sang and De Meulder, "Introduction to the CoNLL-2003 shared task:
    language-independent named entity recognition", 2003.

    >>> news = load_conll2003()
    >>> news.train.words[1], news.train.tags[1]
    (['Peter', 'Blackburn'], ['B-PER', 'I-PER'])
    """
    _check(scheme)
    found = sources.find(sources.CONLL2003, folder=folder, download=download)
    return Conll2003(
        *(read_conll(found / f"{part}.txt", scheme=scheme) for part in ("train", "valid", "test"))
    )


def read_conll(path: str | os.PathLike[str], *, scheme: Scheme = "IOB2") -> Sentences:
    """Sentences in a file of CoNLL-2003's format.

    One word per line: the word, its part of speech, the tag of its phrase and the tag of its
    entity, separated by spaces; an empty line after each sentence. The tags may be in any scheme.
    Files with two columns, word and tag, are read, too; parts of speech and phrases are "-" then.

    Args:
        path: the file, UTF-8.
        scheme: the scheme of the entity tags returned.

    Raises DataError for a line without four columns (or two, as the first line has), or an invalid
    tag.
    """
    _check(scheme)
    found: list[tuple[list[str], ...]] = []
    documents: list[int] = []
    document = -1
    current: list[list[str]] = []
    wanted = 0
    path = files.as_path(path)
    for number, line in enumerate([*files.read_text(path).split("\n"), ""], 1):
        fields = line.split()
        if fields and (len(fields) not in COLUMNS or wanted not in (0, len(fields))):
            expected = COLUMNS.get(wanted, "four columns, or two (word and tag)")
            raise DataError(
                f"{path}, line {number}: expected {expected}, got {files.one_line(repr(line))}"
            )
        wanted = wanted or len(fields)
        if len(fields) == 2:
            fields = [fields[0], "-", "-", fields[1]]
        if fields and fields[0] == DOCUMENT:
            document += 1
        elif fields:
            current.append(fields)
        elif current:
            words, pos, chunks, tags = (list(column) for column in zip(*current, strict=True))
            try:
                found.append((words, pos, chunks, convert_tags(tags, scheme)))
            except DataError as error:
                raise DataError(f"{path}, sentence before line {number}: {error}") from None
            documents.append(max(document, 0))
            current = []
    words_, pos_, chunks_, tags_ = ([sentence[k] for sentence in found] for k in range(4))
    return Sentences(words_, pos_, chunks_, tags_, documents, scheme)


def convert_tags(tags: Sequence[str], scheme: Scheme) -> list[str]:
    """The tags of one sentence in another scheme.

    Args:
        tags: in any of the schemes, which is recognised. The entities are those that the CoNLL
            evaluation script recognises (`fastnn.data.metrics.entities`).
        scheme: "IOB1": `I-`, and `B-` for the first word of an entity right after another of the
            same type; "IOB2": `B-` for each first word, `I-` for the others; "IOBES": as IOB2, but
            `E-` for the last word, and `S-` for an entity of one word. Other words are `O`.

    Raises DataError for an invalid tag, OptionError for an unknown scheme.

    >>> convert_tags(["I-PER", "I-PER", "O", "I-LOC", "B-LOC"], "IOB2")
    ['B-PER', 'I-PER', 'O', 'B-LOC', 'B-LOC']
    >>> convert_tags(["B-PER", "I-PER", "O", "B-LOC", "B-LOC"], "IOBES")
    ['B-PER', 'E-PER', 'O', 'S-LOC', 'S-LOC']
    """
    _check(scheme)
    converted = ["O"] * len(tags)
    before = ("", 0, 0)
    for span in entities(tags):
        kind, start, end = span
        converted[start:end] = [f"I-{kind}" if kind else "I"] * (end - start)
        first = "B"
        if scheme == "IOB1" and not (before[0] == kind and 0 < before[2] == start):
            first = "I"
        if scheme == "IOBES":
            converted[end - 1] = "E" + converted[end - 1][1:]
            first = "S" if end - start == 1 else "B"
        converted[start] = first + converted[start][1:]
        before = span
    return converted


def _check(scheme: str) -> None:
    if scheme not in get_args(Scheme):
        raise OptionError(f"scheme: expected one of {', '.join(get_args(Scheme))}, got {scheme!r}")
