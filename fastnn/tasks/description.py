"""What a model is made again from: a description in JSON beside its checkpoint."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastnn import files
from fastnn.errors import DataError


def write(checkpoint: Path, state: dict[str, Any]) -> Path:
    """Write a description beside a checkpoint; returns its path."""
    path = checkpoint.with_suffix(".json")
    text = json.dumps(state, ensure_ascii=False, indent=0)
    files.write_text(path, text + "\n", "description")
    return path


@contextmanager
def read(path: str | os.PathLike[str], what: str, command: str) -> Iterator[tuple[Path, Any]]:
    """A checkpoint and its description's contents, for a context that makes the model of them.

    Args:
        path: the checkpoint, or the folder with its `model.safetensors`.
        what: what is described, for messages.
        command: what writes such a description.

    Raises DataError where there is no description, and where the context finds it bad.
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
        yield checkpoint, json.loads(text)
    except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError) as error:
        found = "some of it is of another kind"
        if isinstance(error, ValueError):
            found = str(error)
        elif isinstance(error, KeyError):
            found = f"it has no {str(error.args[0])!r}, so it may be of another task"
        raise DataError(f"{description}: {expected} ({files.one_line(found)})") from None
