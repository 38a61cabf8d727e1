"""What a model is made again from: a description in JSON beside its checkpoint.

A checkpoint of a model that has been `mark`ed holds digests of its description, so that one of
another training is noticed, also where it has as many symbols. Where a checkpoint has none, the
description holds a digest of both.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

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


class Kind(NamedTuple):
    """A kind of described model: what it is, what trains it, and what uses it."""

    what: str
    trained: str
    used: str


KINDS = {
    "asr": Kind("a speech recogniser", "fastnn train asr", "fastnn transcribe"),
    "ner": Kind("a tagger", "fastnn train ner", "fastnn tag"),
    "translate": Kind("a translator", "fastnn train translate", "fastnn translate"),
    "language": Kind(
        "a language model", "fastnn train char-lm` or `fastnn train word-lm", "fastnn sample"
    ),
    "recordings": Kind("a model of recordings", "fastnn train speech-commands", "fastnn recognise"),
    "images": Kind("a model of images", "fastnn train vae` or `fastnn train gan", "fastnn sample"),
    "wavenet": Kind("a WaveNet", "fastnn train wavenet", "fastnn sample"),
    "memory": Kind(
        "a net with a memory", "fastnn train copy`, `recall` or `sort", "fastnn remember"
    ),
}


def kind_of(state: Any) -> str | None:
    """The kind of model, among `KINDS`, that a description is of; None if that can't be told."""
    if not isinstance(state, Mapping):
        return None
    task, kind = state.get("task"), state.get("kind")
    if task in ("asr", "ner"):
        return str(task)
    if kind is not None:
        return "recordings" if kind == "recordings" else "images"
    signs = {"translator": "translate", "unit": "language", "sound": "wavenet", "net": "memory"}
    return next((name for sign, name in signs.items() if sign in state), None)


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
def read(path: str | os.PathLike[str], *kinds: str) -> Iterator[tuple[Path, Any]]:
    """A checkpoint and its description's contents, for a context that makes the model of them.

    Args:
        path: the checkpoint, or the folder with its `model.safetensors`.
        kinds: those of `KINDS` that are expected.

    Raises DataError where there is no description, where it stands in the checkpoint's place, where
    it is of a model of another kind, where the context finds it bad, and where it is that of
    another training than the checkpoint.
    """
    given = checkpoint = files.as_path(path)
    what = " or ".join(KINDS[kind].what for kind in kinds)
    command = "` or `".join(KINDS[kind].trained for kind in kinds)
    if not os.path.lexists(given):
        raise DataError(
            f"{given}: no such file or folder; expected the checkpoint of {what}, as `{command}` "
            "writes it, or its folder; check the path"
        )
    if given.suffix == ".json" and not os.path.isdir(given):
        raise DataError(
            f"{given}: expected the checkpoint of {what}, or its folder, got a description; give "
            f"{given.with_suffix('.safetensors')}"
        )
    if os.path.isdir(checkpoint):
        checkpoint = checkpoint / "model.safetensors"
    description = checkpoint.with_suffix(".json")
    expected = f"expected the description of {what}, as `{command}` writes it"
    if not os.path.isfile(description):
        where = "in this folder" if checkpoint != given else "beside the checkpoint"
        raise DataError(f"{description}: no such file {where}; {expected}")
    text = files.read_text(description, f"description of {what}")
    other = None
    try:
        state = json.loads(text)
        other = kind_of(state)
        if other in (None, *kinds):
            yield checkpoint, state
    except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError) as error:
        found = "some of it is of another kind"
        if isinstance(error, ValueError):
            found = str(error)
        elif isinstance(error, KeyError):
            found = f"it has no {str(error.args[0])!r}, so it may be of another task"
        raise DataError(f"{description}: {expected} ({files.one_line(found)})") from None
    if other is not None and other not in kinds:
        raise DataError(
            f"{description}: {expected}, got that of {KINDS[other].what}, a model of another task; "
            f"{_use(other, given)}"
        )
    if not _belong(head(checkpoint), state):
        raise DataError(
            f"{description}: expected the description of the checkpoint {str(checkpoint)!r}, got "
            "that of another training (it has other symbols or settings, or was changed); use the "
            f"file that was written with the checkpoint, or train again with `{command}`"
        )


def _use(kind: str, path: Path) -> str:
    """How a model of a kind is used."""
    return f"use it with `{KINDS[kind].used} --checkpoint {shlex.quote(str(path))}`"


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
