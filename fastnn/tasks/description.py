"""What a model is made again from: a description in JSON beside its checkpoint.

A checkpoint of a model that has been `mark`ed holds digests of its description, so that one of
another training is noticed, also where it has as many symbols. Where a checkpoint has none, the
description holds a digest of both.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fastnn import files, nn
from fastnn.engine.container import head
from fastnn.errors import DataError

#: what may differ while the numbers of a checkpoint mean the same: what only training, measuring or
#: decoding make of it
FREE = frozenset({
    "augmented", "checkpoint", "context", "dropout", "sampled", "seconds", "spread", "streams",
    "variational", "weight", "weight_drop", "word_dropout",
})  # fmt: skip
#: and what may differ where training goes on: shapes are compared anyway, texts may become more
CHANGING = frozenset({"options", "texts"})


def digests(state: Mapping[str, Any]) -> list[str]:
    """Digests of what ids and features mean, and of all that a description has to agree in."""
    parts = [FREE | CHANGING, FREE]
    texts = [json.dumps(_without(state, names), sort_keys=True, default=_plain) for names in parts]
    return [hashlib.blake2b(text.encode(), digest_size=16).hexdigest() for text in texts]


def _without(value: Any, names: frozenset[str]) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {k: _without(v, names) for k, v in value.items() if k not in names}


def _plain(value: Any) -> Any:
    """A number of NumPy's as one of Python's."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"expected what JSON can hold, got {type(value).__name__}")


def mark(model: nn.Module, state: Mapping[str, Any]) -> None:
    """Have the checkpoints of a model hold the digests of its description."""
    vars(model)["_described"] = tuple(digests(state))


def write(checkpoint: Path, state: dict[str, Any], model: nn.Module | None = None) -> Path:
    """Write a description beside a checkpoint; returns its path.

    Args:
        checkpoint: the file, which may not be there yet.
        state: what JSON can hold.
        model: what is described; it is marked.

    Raises DataError where the checkpoint is that of a model with another description.
    """
    if model is not None:
        mark(model, state)
    there = head(checkpoint)
    if there.get("description") not in (None, digests(state)):
        raise DataError(
            f"{checkpoint}: expected the checkpoint of the model that is described, got that of a "
            "training with other symbols or settings; save the model first, or describe the one "
            "that the checkpoint is of"
        )
    if there and "description" not in there:
        state = {**state, "checkpoint": _both(there, state)}
    path = checkpoint.with_suffix(".json")
    text = json.dumps(state, ensure_ascii=False, indent=0, default=_plain)
    files.write_text(path, text + "\n", "description")
    return path


@contextmanager
def read(path: str | os.PathLike[str], what: str, command: str) -> Iterator[tuple[Path, Any]]:
    """A checkpoint and its description's contents, for a context that makes the model of them.

    Args:
        path: the checkpoint, or the folder with its `model.safetensors`.
        what: what is described, for messages.
        command: what writes such a description.

    Raises DataError where there is no description, where the context finds it bad, and where it is
    that of another training than the checkpoint.
    """
    checkpoint = files.as_path(path)
    if os.path.isdir(checkpoint):
        checkpoint = checkpoint / "model.safetensors"
    description = checkpoint.with_suffix(".json")
    expected = f"expected the description of {what}, as `{command}` writes it"
    if not os.path.isfile(description):
        raise DataError(f"{description}: no such file; {expected}")
    text = files.read_text(description, f"description of {what}")
    try:
        state = json.loads(text)
        yield checkpoint, state
    except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError) as error:
        found = "some of it is of another kind"
        if isinstance(error, ValueError):
            found = str(error)
        elif isinstance(error, KeyError):
            found = f"it has no {str(error.args[0])!r}, so it may be of another task"
        raise DataError(f"{description}: {expected} ({files.one_line(found)})") from None
    if not _belong(head(checkpoint), state):
        raise DataError(
            f"{description}: expected the description of the checkpoint {str(checkpoint)!r}, got "
            "that of another training (it has other symbols or settings, or was changed); use the "
            f"file that was written with the checkpoint, or train again with `{command}`"
        )


def _belong(there: Mapping[str, Any], state: Mapping[str, Any]) -> bool:
    """Whether a checkpoint, by its metadata, and a description can be of one training. Files of
    older versions say nothing of that."""
    if not there or not isinstance(state, Mapping):  # what reads them says what is wrong
        return True
    marked = there.get("description")
    if marked is not None:
        return bool(marked == [*marked[:1], digests(state)[1]])
    return state.get("checkpoint") in (None, _both(there, state))


def _both(there: Mapping[str, Any], state: Mapping[str, Any]) -> str:
    """A digest of a checkpoint's checksum and of a description."""
    both = f"{there['checksum']} {digests(state)[1]}"
    return hashlib.blake2b(both.encode(), digest_size=16).hexdigest()
