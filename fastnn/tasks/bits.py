"""Sequences of bits as lines of text, for nets with a memory, and what the nets write of them.

A word is a vector. In `copy` a line is vectors, such as `01101001 11100010`; in `sort` each has its
priority, from -1 to 1, as in `01101001:0.35 11100010:-0.2`; in `recall` a line is items of three
vectors with `|` between them, and last the item that is asked for: the net writes the next one.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import numpy as np

from fastnn import files
from fastnn.data.bucketing import predict_sequences
from fastnn.errors import DataError
from fastnn.tasks.memory import ITEM, TASKS, MemoryNet, seen

_NUMBER = r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?"
#: what helps too where a line is as another task has it
_OTHER = "or give a checkpoint of another task"


def read_sequences(
    task: str, lines: Sequence[str], name: str
) -> list[tuple[np.ndarray, np.ndarray]]:
    """What the net sees of each line's sequence, and the right answer, bits (vectors, bits).

    Args:
        task: "copy", "recall" or "sort".
        lines: a sequence each, of any length.
        name: of the file, for errors.

    Raises DataError for no lines, and for one that is empty or not as the task's are.

    >>> [(sight, answer)] = read_sequences("sort", ["00000000:-0.5 11110000:0.5"], "a file")
    >>> sight.shape, answer[0].tolist()
    ((5, 10), [1, 1, 1, 1, 0, 0, 0, 0])
    """
    if not lines:
        raise DataError(f"{name}: expected a sequence of bits a line, got nothing; write some")
    found = []
    for number, line in enumerate(lines, 1):
        where = f"{name}, line {number}: {task}: expected"
        if not line.strip():
            raise DataError(f"{where} a sequence of bits, got an empty line; remove it")
        read = {"copy": _copy, "recall": _recall, "sort": _sort}[task]
        found.append(read(line, TASKS[task].bits, where))
    return found


def remember(
    model: MemoryNet, sequences: Sequence[tuple[np.ndarray, np.ndarray]]
) -> list[np.ndarray]:
    """The bits that a net writes after each sequence, as `read_sequences` returns them: those with
    a probability above 1/2 are 1."""
    logits = predict_sequences(model, [sight for sight, _ in sequences], per_step=True)
    pairs = zip(logits, sequences, strict=True)
    return [(found[-len(answer) :] > 0).astype(np.int64) for found, (_, answer) in pairs]


def line_of(vectors: np.ndarray) -> str:
    """Vectors of bits as words.

    >>> line_of(np.array([[0, 1, 1], [1, 0, 0]]))
    '011 100'
    """
    return " ".join("".join(map(str, vector)) for vector in vectors.tolist())


def _vector(word: str, bits: int, where: str) -> list[int]:
    if set(word) <= {"0", "1"} and len(word) == bits:
        return [int(sign) for sign in word]
    got = files.one_line(repr(word), 60)
    if set(word) <= {"0", "1"}:
        raise DataError(
            f"{where} vectors of {bits} bits, got {got}, of {len(word)}; write {bits} bits a word, "
            f"{_OTHER}"
        )
    raise DataError(
        f"{where} vectors of {bits} bits, 0 or 1, got {got}; write nothing else in a vector, and "
        f"spaces between vectors, {_OTHER}"
    )


def _copy(line: str, bits: int, where: str) -> tuple[np.ndarray, np.ndarray]:
    vectors = np.array([_vector(word, bits, where) for word in line.split()])
    return seen("copy", vectors), vectors


def _recall(line: str, bits: int, where: str) -> tuple[np.ndarray, np.ndarray]:
    parts = [part.split() for part in line.split("|")]
    for k, part in enumerate(parts, 1):
        for word in part:
            _vector(word, bits, where)
        if len(part) != ITEM:
            raise DataError(
                f"{where} items of {ITEM} vectors with | between them, got {len(part)} as item "
                f"{k}; write {ITEM}, {_OTHER}"
            )
    least = TASKS["recall"].shortest
    if len(parts) <= least:
        raise DataError(
            f"{where} at least {least} items and the one that is asked for, got {len(parts)} in "
            "all; write more, with | between them"
        )
    *items, asked = parts
    following = [after for item, after in itertools.pairwise(items) if item == asked]
    if not following or following != following[:1] * len(following):
        got = f"got {' '.join(asked)!r}, which "
        got += ("is followed by different ones" if following else
                "is the last one" if asked in items else "is none of them")  # fmt: skip
        raise DataError(
            f"{where} last one of the items, to ask for the one that follows it, {got}; repeat an "
            "item that another one follows"
        )
    vectors = np.array([[_vector(word, bits, where) for word in part] for part in parts])
    return seen("recall", vectors), vectors[items.index(asked) + 1]


def _sort(line: str, bits: int, where: str) -> tuple[np.ndarray, np.ndarray]:
    vectors, priorities = [], []
    for word in line.split():
        vector, colon, text = word.partition(":")
        if not colon:
            raise DataError(
                f"{where} vectors of {bits} bits with their priorities, such as "
                f"{'01' * (bits // 2)}:0.35, got {files.one_line(repr(word), 60)}; add : and a "
                f"priority, {_OTHER}"
            )
        vectors.append(_vector(vector, bits, where))
        if not re.fullmatch(_NUMBER, text) or not -1 <= float(text) <= 1:
            raise DataError(
                f"{where} priorities from -1 to 1, got {files.one_line(repr(text), 60)}; scale "
                "them, or correct the number"
            )
        priorities.append(float(text))
    order = np.argsort(-np.array(priorities), kind="stable")
    return seen("sort", np.array(vectors), np.array(priorities)), np.array(vectors)[order]
