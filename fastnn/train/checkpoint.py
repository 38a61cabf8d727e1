"""Checkpoints: safetensors files that are always whole, checked when they are read.

Arrays are called ``model.<parameter>`` (trained parameters and buffers, in PyTorch's shapes),
``optimizer.<slot>.<parameter>``, and ``totals`` (running loss and metrics of an epoch that is not
done). The metadata are strings of JSON: see `_trainer_metadata`. ``checksum`` is BLAKE2b over the
other metadata and over every array's name, element type, shape and bytes.

A trainer's checkpoint holds all that the rest of the run follows from: parameters, optimiser state,
step, seed, epoch and the place in its data order (the order itself follows from seed and epoch).
What callbacks remember, such as the patience of `EarlyStopping`, is not in it: after a resume they
count anew.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.errors import CheckpointError
from fastnn.kernels import clock as words

if TYPE_CHECKING:
    from fastnn.nn.module import Module
    from fastnn.nn.parameter import Parameter
    from fastnn.optim.optimizer import Optimizer
    from fastnn.train.trainer import Trainer

FORMAT_VERSION = 1
Arrays = dict[str, np.ndarray]
Metadata = dict[str, Any]


# -------------------------------------------------------------------- public


def save_model(model: Module, path: str | os.PathLike[str]) -> None:
    """Write all parameters and buffers of a model.

    The file appears at once and whole: it is written beside `path`, flushed to the disk and
    renamed. Missing folders are made.

    Args:
        model: the model; it is initialised if it is not yet.
        path: the file to write; an old one is replaced.

    Raises:
        CheckpointError: the file cannot be written. An old file is still there then.

    >>> import tempfile
    >>> from fastnn import nn
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     nn.Linear(3, 2).save(f"{folder}/model.safetensors")
    ...     model = nn.Linear(3, 2).load(f"{folder}/model.safetensors")
    """
    dtype = model.store().dtype
    _write(Path(path), _model_arrays(model), {"kind": "model", "dtype": dtype})


def load_model(model: Module, path: str | os.PathLike[str]) -> None:
    """Read parameters and buffers from a file of `save_model` or `save_trainer`.

    A model that is new takes the file's element type.

    Args:
        model: a model with the same parameter names and shapes.
        path: the file to read.

    Raises:
        CheckpointError: the file is missing, damaged, or does not fit the model; the message says
            what differs. The model is unchanged then.
    """
    arrays, metadata = _read(Path(path))
    store = model.memory()
    if store is not None and store.chosen and store.dtype != metadata["dtype"]:
        raise CheckpointError(
            f"checkpoint {str(path)!r}: it holds {metadata['dtype']}, the model is in "
            f"{store.dtype}; load it into a new model, or train with dtype={metadata['dtype']!r}"
        )
    found = {n: a for n, a in arrays.items() if n.startswith("model.")}
    _compare(found, _model_shapes(model), metadata["dtype"], path)
    model.store(metadata["dtype"])
    _set_model(model, found)


def save_trainer(trainer: Trainer, path: str | os.PathLike[str]) -> None:
    """Write what `fit(..., resume=path)` needs to go on as if it had not been interrupted.

    See `save_model` for how the file is written. Callable between steps, that is, outside of `fit`
    or in any callback but `update`. What callbacks remember is not saved.

    Raises:
        CheckpointError: the file cannot be written, or the workers are in the middle of steps.
    """
    if trainer.session.running:
        raise CheckpointError(
            "a checkpoint cannot be written while steps are running; save in on_epoch_end or "
            "on_train_batch_end, not in update"
        )
    arrays = _model_arrays(trainer.model)
    for name, slot, parameter in _slots(trainer):
        flat = trainer.session.runtime.read(slot)
        arrays[name] = _as_seen(trainer.store.view(flat, parameter), parameter)
    metadata = _trainer_metadata(trainer)
    if metadata["cursor"]:
        arrays["totals"] = trainer.session.totals.copy()
    _write(Path(path), arrays, metadata)


def load_trainer(trainer: Trainer, path: str | os.PathLike[str]) -> None:
    """Put a trainer into the state that `save_trainer` wrote; the next `fit` goes on from there.

    Model, optimiser (with all its options) and element type have to be the same; the seed, the
    learning rate as callbacks left it, and the place in the data are taken over.

    Raises:
        CheckpointError: the file is missing, damaged, or does not fit; the message says what
            differs. The trainer and its model are unchanged then.
    """
    arrays, metadata = _read(Path(path))
    if metadata["kind"] != "trainer":
        raise CheckpointError(
            f"checkpoint {str(path)!r}: it holds a model without a trainer's state, so training "
            "cannot resume from it; read its parameters with model.load(path) and start anew"
        )
    if metadata["dtype"] != trainer.dtype:
        raise CheckpointError(
            f"checkpoint {str(path)!r}: it holds {metadata['dtype']}, the trainer works in "
            f"{trainer.dtype}; make the trainer with dtype={metadata['dtype']!r}"
        )
    _compare_optimizers(metadata["optimizer"], describe(trainer.optimizer), path)
    shapes = _model_shapes(trainer.model)
    shapes.update({name: parameter.shape for name, _, parameter in _slots(trainer)})
    totals = arrays.pop("totals", None)
    _compare(arrays, shapes, trainer.dtype, path)
    if metadata["cursor"] and (
        metadata["names"] != trainer.names
        or totals is None
        or totals.shape != trainer.session.totals.shape
    ):
        raise CheckpointError(
            f"checkpoint {str(path)!r}: it was written in the middle of an epoch with the totals "
            f"of {metadata['names']}, the trainer has {trainer.names}; use the same metrics"
        )
    _set_model(trainer.model, {n: a for n, a in arrays.items() if n.startswith("model.")})
    for name, slot, parameter in _slots(trainer):
        flat = trainer.session.memory[slot]
        _as_seen(trainer.store.view(flat, parameter), parameter, copy=False)[...] = arrays[name]
    trainer.session.totals[:] = 0.0 if totals is None else totals
    trainer.session.clock[words.STEP] = metadata["step"]
    trainer.session.clock[words.SEED] = trainer.seed = metadata["seed"]
    trainer.session.clock[words.CURSOR] = metadata["cursor"]
    trainer.epoch, trainer.cursor = metadata["epoch"], metadata["cursor"]
    trainer.epoch_done = False
    trainer.rate_factor = metadata["rate_factor"]


def describe(optimizer: Optimizer) -> Metadata:
    """An optimiser's kind and options as JSON can hold them.

    >>> from fastnn import optim
    >>> describe(optim.SGD(lr=0.1))["kind"]
    'SGD'
    """
    return {
        "kind": type(optimizer).__name__,
        "options": _plain(optimizer.options),
        "groups": _plain(optimizer.groups),
        "clip_global_norm": _plain(optimizer.clip_global_norm),
        "schedule": _plain(optimizer.schedule),
    }


# -------------------------------------------------------------------- what is in a file


def _trainer_metadata(trainer: Trainer) -> Metadata:
    epoch, cursor = trainer.place
    return {
        "kind": "trainer",
        "dtype": trainer.dtype,
        "optimizer": describe(trainer.optimizer),
        "step": trainer.step,
        "seed": trainer.seed,
        "epoch": epoch,  # epochs done, beside
        "cursor": cursor,  # samples of the next one that are done
        "rate_factor": trainer.rate_factor,
        "names": trainer.names,  # what the totals are of
    }


def _plain(value: Any) -> Any:
    """A value as JSON gives it back."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(v) for v in value]
    if dataclasses.is_dataclass(value):
        fields = {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"kind": type(value).__name__, **fields}
    return getattr(value, "__qualname__", type(value).__qualname__)


def _as_seen(stored: np.ndarray, parameter: Parameter, copy: bool = True) -> np.ndarray:
    """An array of storage shape in the shape that users see; a copy is C-contiguous.

    (safetensors writes the bytes of a strided array in memory order, without a word.)
    """
    seen = stored.T if parameter.transposed else stored
    return np.array(seen, order="C") if copy else seen


def _model_arrays(model: Module) -> Arrays:
    model.store()
    return {f"model.{n}": np.array(p.read(), order="C") for n, p in model.named_arrays().items()}


def _model_shapes(model: Module) -> dict[str, tuple[int, ...]]:
    return {f"model.{name}": p.shape for name, p in model.named_arrays().items()}


def _set_model(model: Module, arrays: Arrays) -> None:
    for name, parameter in model.named_arrays().items():
        parameter.value = arrays[f"model.{name}"]


def _slots(trainer: Trainer) -> Iterator[tuple[str, str, Parameter]]:
    """Name in the file, segment and parameter of everything the optimiser remembers."""
    for slot in trainer.optimizer.slots:
        for name, parameter in trainer.model.named_arrays().items():
            if not parameter.buffer:  # the frozen ones, too
                yield f"optimizer.{slot}.{name}", f"slots/{slot}", parameter


# -------------------------------------------------------------------- files


def _checksum(arrays: Arrays, metadata: Mapping[str, str]) -> str:
    digest = hashlib.blake2b(digest_size=32)
    for key in sorted(metadata):
        digest.update(f"{key}={metadata[key]}\n".encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.name} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _write(path: Path, arrays: Arrays, metadata: Metadata) -> None:
    """Write aside, flush to the disk, rename."""
    from safetensors.numpy import save

    import fastnn

    everything = {
        "format_version": FORMAT_VERSION, "fastnn_version": fastnn.__version__, **metadata
    }  # fmt: skip
    texts = {key: json.dumps(value, sort_keys=True) for key, value in everything.items()}
    texts["checksum"] = _checksum(arrays, texts)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("xb") as file:
            file.write(save(arrays, texts))
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
        _flush_folder(path.parent)
    except OSError as error:
        raise CheckpointError(
            f"checkpoint {str(path)!r} cannot be written: {error}; choose another place, or make "
            "room and save again"
        ) from error
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    """Wait until a folder's list of names is on the disk, where the system can do that."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise CheckpointError(f"checkpoint {str(path)!r}: there is no such file; check the path")
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except SafetensorError as error:
        raise CheckpointError(
            f"checkpoint {str(path)!r} is not a whole safetensors file ({error}): it is truncated, "
            "damaged, or something else; use another copy or an earlier checkpoint"
        ) from None
    except OSError as error:
        raise CheckpointError(
            f"checkpoint {str(path)!r} cannot be read: {error}; check its permissions"
        ) from None


def _read(path: Path) -> tuple[Arrays, Metadata]:
    """Arrays and metadata of a file, checked against its checksum."""
    with _opened(path) as file:
        texts = dict(file.metadata() or {})
        if "format_version" not in texts or "checksum" not in texts:
            raise CheckpointError(
                f"checkpoint {str(path)!r}: fastnn did not write this safetensors file; read it "
                "with safetensors.numpy.load_file and give the arrays to model.load_state_dict"
            )
        version = texts["format_version"]
        if version != str(FORMAT_VERSION):
            raise CheckpointError(
                f"checkpoint {str(path)!r}: expected format version {FORMAT_VERSION}, got "
                f"{version}; read it with the fastnn that wrote it "
                f"({texts.get('fastnn_version', 'unknown')})"
            )
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    checksum = texts.pop("checksum")
    if _checksum(arrays, texts) != checksum:
        raise CheckpointError(
            f"checkpoint {str(path)!r}: its contents don't match its checksum: it was changed or "
            "damaged after it was written; use another copy or an earlier checkpoint"
        )
    return arrays, {key: json.loads(text) for key, text in texts.items()}


# -------------------------------------------------------------------- comparisons


def _compare(
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
        raise CheckpointError(
            f"checkpoint {os.fspath(path)!r} does not fit the model: {'; '.join(problems)}. Build "
            "the model with the layers it was saved with"
        )


def _compare_optimizers(saved: Metadata, mine: Metadata, path: str | os.PathLike[str]) -> None:
    if saved == mine:
        return
    if saved["kind"] != mine["kind"]:
        problems = [f"it was written with {saved['kind']}, the trainer has {mine['kind']}"]
    else:
        before, now = ({**d.pop("options"), **d} for d in (dict(saved), dict(mine)))
        problems = [
            f"{key}: expected {now.get(key)!r}, got {before.get(key)!r}"
            for key in {**before, **now}
            if before.get(key) != now.get(key)
        ]
    raise CheckpointError(
        f"checkpoint {os.fspath(path)!r}: its optimizer differs: {'; '.join(problems)}. Make the "
        "trainer with the optimizer it was written with, or read its parameters alone with "
        "model.load(path)"
    )
