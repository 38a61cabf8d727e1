"""Files of a model's parameters: written by fastnn, or by others such as PyTorch.

A file that holds a model alone uses the names of its state dict. In a trainer's file, which holds
other arrays as well, and in files of older versions, they begin with ``model.``.

Nothing is changed until the whole file has been checked.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn import files
from fastnn.engine import foreign
from fastnn.engine import metadata as checks
from fastnn.engine.access import Access, access_to
from fastnn.engine.container import Arrays, Metadata, read, write
from fastnn.engine.metadata import PREFIX
from fastnn.engine.model import described, streams
from fastnn.errors import CheckpointError, DataError

if TYPE_CHECKING:
    from fastnn.nn.module import Module


def save_model(model: Module, path: str | os.PathLike[str]) -> None:
    """Write all parameters and buffers of a model, under the names of its state dict.

    PyTorch reads them with ``module.load_state_dict(safetensors.torch.load_file(path))``.

    The file appears whole or not at all: it is written next to `path`, flushed to disk and renamed.
    Missing folders are created.

    Args:
        model: the model; it is initialised if it has not been yet.
        path: the file to write; an existing one is replaced.

    Raises:
        CheckpointError: the file cannot be written. An existing file is left as it was.
        BusyError: another thread is training the model (it waits for the end of a single step).

    >>> import tempfile
    >>> from fastnn import nn
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     nn.Linear(3, 2).save(f"{folder}/model.safetensors")
    ...     model = nn.Linear(3, 2).load(f"{folder}/model.safetensors")
    """
    target = files.as_path(path, "checkpoint", CheckpointError)
    metadata = {
        "kind": "model", "dtype": model.store().dtype, "streams": streams(model), "prefix": "",
        **described(model),
    }  # fmt: skip
    write(target, model_arrays(model, ""), metadata)


def load_model(model: Module, path: str | os.PathLike[str]) -> None:
    """Read parameters and buffers from a file of `save_model` or `save_trainer`.

    A new model takes the element type of the file.

    Args:
        model: a model with the same parameter names and shapes.
        path: the file to read.

    Raises:
        CheckpointError: the file is missing, damaged, or does not fit the model; the message says
            what differs. The model is left unchanged.
    """
    source = files.as_path(path, "checkpoint", CheckpointError)
    arrays, texts = read(source)
    metadata = checks.check(texts, source)
    store = model.memory()
    if store is not None and store.chosen and store.dtype != metadata["dtype"]:
        raise CheckpointError(
            f"checkpoint {str(source)!r}: it holds {metadata['dtype']}, the model is in "
            f"{store.dtype}; load it into a new model, or train with dtype={metadata['dtype']!r}"
        )
    compare_streams(model, metadata, source)
    prefix = metadata["prefix"]
    found = {n: a for n, a in arrays.items() if n.startswith(prefix)}
    compare(found, model_shapes(model, prefix), metadata["dtype"], source)
    model.store(metadata["dtype"])
    set_model(model, found, prefix)
    if metadata["description"] is not None:
        vars(model).setdefault("_described", tuple(metadata["description"]))


def read_model(path: str | os.PathLike[str]) -> Arrays:
    """Parameters and buffers by name from a file of `save_model` or `save_trainer`."""
    source = files.as_path(path, "checkpoint", CheckpointError)
    arrays, texts = read(source)
    head = checks.check(texts, source)["prefix"]
    return {n.removeprefix(head): a for n, a in arrays.items() if n.startswith(head)}


def load_weights(model: Module, path: Any, strict: bool, prefix: str) -> None:
    """What `Module.load` does, which see."""
    source = files.as_path(path, "checkpoint", CheckpointError)
    files.regular(source, "checkpoint", CheckpointError)
    own = foreign.is_own(source)
    if own and strict and not prefix:
        load_model(model, source)
        return
    arrays = read_model(source) if own else foreign.read_plain(source)
    try:
        model.load_state_dict(arrays, strict, prefix)
    except DataError as error:
        raise CheckpointError(f"checkpoint {str(source)!r}: {error}") from None


# -------------------------------------------------------------------- names, shapes, contents


def model_arrays(model: Module, prefix: str = PREFIX) -> Arrays:
    """What a file holds of a model: all parameters and buffers by name."""
    turn = access_to(model.store()).read(Access("saving", sys._getframe()))
    try:
        arrays = model.named_arrays()
        return {f"{prefix}{n}": np.array(p.read(), order="C") for n, p in arrays.items()}
    finally:
        turn.end()


def model_shapes(model: Module, prefix: str = PREFIX) -> dict[str, tuple[int, ...]]:
    """The shapes of `model_arrays`."""
    return {f"{prefix}{name}": p.shape for name, p in model.named_arrays().items()}


def set_model(model: Module, arrays: Arrays, prefix: str = PREFIX) -> None:
    """Copy arrays, which fit, into a model."""
    turn = access_to(model.store()).train(Access("loading", sys._getframe()))
    try:
        for name, parameter in model.named_arrays().items():
            parameter.value = arrays[f"{prefix}{name}"]
    finally:
        turn.end()


def compare(
    arrays: Arrays, shapes: Mapping[str, tuple[int, ...]], dtype: str, path: str | os.PathLike[str]
) -> None:
    """Raise an error that lists all names, shapes and element types that differ."""
    problems = [f"missing {n!r}" for n in shapes if n not in arrays]
    problems += [f"unexpected {n!r}" for n in arrays if n not in shapes]
    for name, shape in shapes.items():
        array = arrays.get(name)
        if array is not None and array.shape != shape:
            problems.append(f"{name!r}: expected shape {shape}, got {array.shape}")
        elif array is not None and array.dtype.name != dtype:
            problems.append(f"{name!r}: expected {dtype}, got {array.dtype.name}")
    if problems:
        more = f"; and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise CheckpointError(
            f"checkpoint {os.fspath(path)!r} does not fit the model: "
            f"{'; '.join(files.one_line(p, 120) for p in problems[:8])}{more}. Build the model "
            "with the layers it was saved with"
        )


def compare_described(model: Module, metadata: Metadata, path: Path) -> None:
    """An error where a file's ids or features mean something else than the model's do."""
    mine, saved = described(model).get("description"), metadata["description"]
    if mine is not None and saved is not None and mine[0] != saved[0]:
        raise CheckpointError(
            f"checkpoint {str(path)!r}: it was trained with other symbols or features than those "
            "of this run's data, or for another task; resume with the task and the data it was "
            "trained with, or read its parameters alone with model.load(path)"
        )


def compare_streams(model: Module, metadata: Metadata, path: Path) -> None:
    mine, saved = streams(model), metadata["streams"]
    for name in mine if saved is not None else ():
        if name in saved and saved[name] != mine[name]:
            raise CheckpointError(
                f"checkpoint {str(path)!r}: it has the states of {saved[name]} streams, "
                f"{f'layer {name!r}' if name else 'the model'} has {mine[name]}; make it with "
                f"stateful={saved[name]}, or load it into the model with strict=False: states then "
                "start from zeros"
            )
