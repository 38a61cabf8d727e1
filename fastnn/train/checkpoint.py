"""Checkpoints: safetensors files that are always whole, checked when they are read.

Arrays are called ``model.<parameter>`` (trained parameters and buffers, in PyTorch's shapes),
``optimizer.<slot>.<parameter>``, ``optimizer.search`` (a line search's numbers), ``totals``
(running loss and metrics of an unfinished epoch), and ``callback.<name>...`` (the states of
callbacks). See `engine/container.py` for the file and `engine/metadata.py` for what its metadata
look like.

A trainer's checkpoint holds everything that determines the rest of the run: parameters, optimiser
state, step, seed, epoch and the place in its data order (the order itself follows from seed and
epoch), the learning rate as callbacks left it, and the states of callbacks
(`hooks.Callback.state_dict`).

Nothing is changed until the whole file has been checked.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn import files
from fastnn.engine import metadata as checks
from fastnn.engine.access import Access, access_to
from fastnn.engine.container import Arrays, Metadata, read, write
from fastnn.engine.model import described, streams
from fastnn.errors import CheckpointError, DataError, warn
from fastnn.graph.leaf import as_seen
from fastnn.kernels import control_block
from fastnn.nn.saving import (
    compare,
    compare_described,
    compare_streams,
    model_arrays,
    model_shapes,
    set_model,
)
from fastnn.train.hooks import CallbackList
from fastnn.train.packing import pack, unpack
from fastnn.weak import weak

if TYPE_CHECKING:
    from fastnn.nn.module import Module
    from fastnn.nn.parameter import Parameter
    from fastnn.optim.optimizer import Optimizer
    from fastnn.train.trainer import Trainer

#: what a full-batch method's search goes on from
SEARCH = "optimizer.search"
#: the words of the control block that scaled gradients go on from
SCALING = [control_block.SCALE, control_block.GOOD, control_block.SKIPPED]

# -------------------------------------------------------------------- public


def save_trainer(trainer: Trainer, path: str | os.PathLike[str]) -> None:
    """Write what `fit(..., resume=path)` needs to continue as if it had not been interrupted.

    See `nn/saving.py` for how the file is written. It may be called between steps, that is, outside
    `fit` or in any callback hook but `update`.

    Raises:
        CheckpointError: the file cannot be written, or the workers are in the middle of steps.
        BusyError: another thread is training the model.
    """
    target = files.as_path(path, "checkpoint", CheckpointError)
    if trainer.session.running:
        raise CheckpointError(
            "a checkpoint cannot be written while steps are running; save in on_epoch_end or "
            "on_train_batch_end, not in update"
        )
    turn = access_to(trainer.store).read(Access("saving", sys._getframe()))
    try:
        arrays = model_arrays(trainer.model)
        for name, slot, parameter in _slots(trainer):
            flat = trainer.session.runtime.read(slot)
            arrays[name] = _as_seen(trainer.store.view(flat, parameter), parameter)
        metadata = _trainer_metadata(trainer, arrays)
        if metadata["cursor"]:
            arrays["totals"] = trainer.session.totals.copy()
        if trainer.search.size:
            arrays[SEARCH] = trainer.search.copy()
    finally:
        turn.end()
    write(target, arrays, metadata)


class Loaded:
    """A trainer's checkpoint that has been read and found to fit; nothing is changed yet.

    Args:
        trainer: the trainer that is to go on from it.
        path: the file.

    Raises:
        CheckpointError: the file is missing, damaged, or does not fit.
    """

    trainer: weak[Trainer] = weak()  # which may keep it until its next run

    def __init__(self, trainer: Trainer, path: str | os.PathLike[str]):
        self.path = files.as_path(path, "checkpoint", CheckpointError)
        arrays, texts = read(self.path)
        metadata = checks.check(texts, self.path)
        if metadata["kind"] != "trainer":
            raise CheckpointError(
                f"{self}: it holds a model without a trainer's state, so training cannot resume "
                "from it; read its parameters with model.load(path) and start anew"
            )
        if metadata["dtype"] != trainer.dtype:
            raise CheckpointError(
                f"{self}: it holds {metadata['dtype']}, the trainer works in {trainer.dtype}; make "
                f"the trainer with dtype={metadata['dtype']!r}"
            )
        compare_described(trainer.model, metadata, self.path)
        _compare_optimizers(metadata["optimizer"], describe(trainer.optimizer), self.path)
        compare_streams(trainer.model, metadata, self.path)
        _compare_slots(trainer, arrays, metadata, self.path)
        kept = {n: a for n, a in arrays.items() if n.startswith("callback.")}
        shapes = model_shapes(trainer.model)
        shapes.update({name: parameter.shape for name, _, parameter in _slots(trainer)})
        totals = arrays.pop("totals", None)
        searched = arrays.pop(SEARCH, np.zeros(0))
        if searched.shape != trainer.search.shape or searched.dtype != np.float64:
            raise CheckpointError(
                f"{self}: expected {trainer.search.size} float64 numbers of a line search, got "
                f"{searched.dtype}{list(searched.shape)}; use another copy"
            )
        self.search = searched
        compare({n: a for n, a in arrays.items() if n not in kept}, shapes, trainer.dtype,
                 self.path)  # fmt: skip
        if (totals is None) != (metadata["cursor"] == 0) or (
            totals is not None
            and (
                metadata["names"] != trainer.names
                or totals.shape != trainer.session.totals.shape
                or totals.dtype != trainer.session.totals.dtype
            )
        ):
            raise CheckpointError(
                f"{self}: it was written in the middle of an epoch with the totals of "
                f"{files.one_line(metadata['names'], 80)}, the trainer has {trainer.names}; use "
                "the same metrics"
            )
        self.trainer, self.arrays, self.metadata, self.totals = trainer, arrays, metadata, totals
        self.states = {
            name: unpack(state["state"], kept, f"{self}, {name}")
            for name, state in metadata["callbacks"].items()
        }

    def __str__(self) -> str:
        return f"checkpoint {str(self.path)!r}"

    def check_feed(self, feed: Mapping[str, Any]) -> None:
        """Whether the data are cut into batches as before.

        Raises DataError where they are not and an epoch is not done; between epochs the run
        may go on with others, and a warning says so.
        """
        before = self.metadata["feed"]
        if before is None or dict(before) == dict(feed):
            return
        differs = ", ".join(
            f"{key} was {before.get(key)!r} and is {feed.get(key)!r}"
            for key in {**before, **feed}
            if before.get(key) != feed.get(key)
        )
        if self.metadata["cursor"]:
            raise DataError(
                f"{self}: it was written after {self.metadata['cursor']} samples of epoch "
                f"{self.metadata['epoch'] + 1}, but {files.one_line(differs)}; use the data and "
                "the batch size of the previous run"
            )
        warn(
            f"{self}: {files.one_line(differs)}: the run goes on, but not as if it had not been "
            "interrupted",
        )

    def check_callbacks(self, hooks: CallbackList) -> None:
        """Whether the callbacks can take up their states."""
        named = hooks.named()
        for name, callback in named.items():
            if name in self.states:
                try:
                    callback.check_state(self.states[name])
                except CheckpointError as error:
                    raise CheckpointError(f"{self}: {error}") from None
        missing = [name for name in self.states if name not in named]
        missing = [name for name in missing if not self.metadata["callbacks"][name].get("passive")]
        if missing:
            warn(
                f"{self}: it has the state of {', '.join(missing)}, which is not among the "
                "callbacks: the run goes on without it",
            )

    def apply(self) -> None:
        """Put the trainer into the state of the file."""
        turn = access_to(self.trainer.store).train(Access("loading", sys._getframe()))
        try:
            self._apply()
        finally:
            turn.end()

    def _apply(self) -> None:
        trainer, metadata = self.trainer, self.metadata
        _compare_frozen(trainer.model, metadata, self.path)
        set_model(trainer.model, self.arrays)
        for name, slot, parameter in _slots(trainer):
            view = trainer.store.view(trainer.session.memory[slot], parameter)
            _as_seen(view, parameter, copy=False)[...] = self.arrays[name]
        trainer.session.totals[:] = 0.0 if self.totals is None else self.totals
        trainer.search[:] = self.search
        trainer.session.control[control_block.STEP] = metadata["step"]
        trainer.session.control[control_block.SEED] = trainer.seed = metadata["seed"]
        trainer.session.control[control_block.CURSOR] = metadata["cursor"]
        scale = int(trainer.session.control[control_block.SCALE])
        trainer.session.control[SCALING] = metadata["scaling"] or [scale, 0, 0]
        trainer.epoch, trainer.cursor = metadata["epoch"], metadata["cursor"]
        trainer.epoch_done = False
        trainer.rate_factor = metadata["rate_factor"]
        trainer.pending = self


def load_trainer(trainer: Trainer, path: str | os.PathLike[str]) -> None:
    """Put a trainer into the state that `save_trainer` wrote; the next `fit` continues from there.

    Model, optimiser (with all its options) and element type must be the same; the seed, the
    learning rate as callbacks left it, and the position in the data come from the file. The
    callbacks of the next `fit` restore their states.

    Raises:
        CheckpointError: the file is missing, damaged, or does not fit; the message says what
            differs. The trainer and its model are unchanged then.
    """
    Loaded(trainer, path).apply()


def describe(optimizer: Optimizer) -> Metadata:
    """An optimiser's kind and options as JSON can hold them.

    >>> from fastnn import optim
    >>> describe(optim.SGD(lr=0.1))["kind"]
    'SGD'
    """
    return {
        "kind": optimizer.description,
        "options": _plain(optimizer.options),
        "groups": _plain(optimizer.groups),
        "clip_global_norm": _plain(optimizer.clip_global_norm),
        **({"accumulate": optimizer.accumulate} if optimizer.accumulate > 1 else {}),
        "schedule": _plain(optimizer.schedule),
    }


# -------------------------------------------------------------------- what is in a file


def _trainer_metadata(trainer: Trainer, arrays: Arrays) -> Metadata:
    epoch, cursor = trainer.place
    call = trainer.hook_call
    before = None if call is None or trainer.fitting else call.cut_off
    states, factor = {}, trainer.rate_factor
    for name, callback in trainer.hooks.named().items():
        state = callback.state_dict()
        if before is not None and before.callback is callback:  # it was cut off in the middle
            state, factor = before.state, before.rate_factor
        if state:
            packed = pack(state, f"callback.{name}", arrays)
            states[name] = {"state": packed, "passive": callback.passive}
    return {
        "kind": "trainer",
        "dtype": trainer.dtype,
        "optimizer": describe(trainer.optimizer),
        "step": trainer.step,
        "seed": trainer.seed,
        "scaling": _scaling(trainer),
        "epoch": epoch,  # epochs done, beside
        "cursor": cursor,  # samples of the next one that are done
        "rate_factor": factor,
        "names": trainer.names,  # what the totals are of
        "streams": streams(trainer.model),
        **described(trainer.model),
        "frozen": _frozen(trainer.model),
        "feed": trainer.feed_description,
        "callbacks": states,
        "turn": None if call is None else call.describe(trainer),
    }


def _scaling(trainer: Trainer) -> list[int] | None:
    """How gradients are scaled, or were in steps before."""
    words = [int(word) for word in trainer.session.control[SCALING]]
    return words if any(words) else None


def _frozen(model: Module) -> list[str]:
    """Names of the parameters that training does not move."""
    return [n for n, p in model.named_arrays().items() if not (p.trainable or p.buffer)]


def _compare_frozen(model: Module, metadata: Metadata, path: Path) -> None:
    """A warning where other parameters are frozen than in the run that wrote the file."""
    saved, mine = metadata["frozen"], _frozen(model)
    if saved is None or set(saved) == set(mine):
        return
    other = ", ".join(sorted(set(saved) ^ set(mine)))
    warn(
        f"checkpoint {str(path)!r}: the previous run had {len(saved)} frozen parameters, "
        f"this one has {len(mine)} (they differ in {files.one_line(other)}): the run goes on, but "
        "not as if it had not been interrupted; see model.freeze",
    )


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
    seen = as_seen(stored) if parameter.transposed else stored
    return np.array(seen, order="C") if copy else seen


def _slots(trainer: Trainer) -> Iterator[tuple[str, str, Parameter]]:
    """Name in the file, segment and parameter of everything the optimiser remembers."""
    for slot in trainer.optimizer.arrays:
        for name, parameter in trainer.model.named_arrays().items():
            if not parameter.buffer:  # the frozen ones, too
                yield f"optimizer.{slot}.{name}", f"slots/{slot}", parameter


def _compare_slots(trainer: Trainer, arrays: Arrays, metadata: Metadata, path: Path) -> None:
    """An error where the optimiser of the version that wrote the file kept other arrays."""
    mine = {name.split(".")[1] for name, _, _ in _slots(trainer)}
    saved = {n.split(".")[1] for n in arrays if n.startswith("optimizer.") and n != SEARCH}
    if saved == mine or not (saved and mine):  # a model without parameters has no slots
        return
    kind = type(trainer.optimizer).__name__
    problems = [f"the file lacks {slot!r}, which {kind} keeps" for slot in sorted(mine - saved)]
    problems += [f"it has {slot!r}, which {kind} does not keep" for slot in sorted(saved - mine)]
    version = files.one_line(metadata.get("fastnn_version", "unknown"), 40)
    raise CheckpointError(
        f"checkpoint {str(path)!r}: {files.one_line('; '.join(problems))}: another version of "
        f"the optimizer wrote it (fastnn {version}). Go on with that version, or read its "
        "parameters alone with model.load(path) and train from there"
    )


def _compare_optimizers(saved: Metadata, mine: Metadata, path: str | os.PathLike[str]) -> None:
    if saved == mine:
        return
    if saved["kind"] != mine["kind"]:
        problems = [f"it was written with {saved['kind']}, the trainer has {mine['kind']}"]
    else:
        before, now = ({**d.pop("options"), **d} for d in (dict(saved), dict(mine)))
        problems = _differences(before, now)
    raise CheckpointError(
        f"checkpoint {os.fspath(path)!r}: its optimizer differs: "
        f"{files.one_line('; '.join(problems))}. Make the "
        "trainer with the optimizer it was written with (on the command line, give the options it "
        "was trained with, --epochs among them), or read its parameters alone with "
        "model.load(path)"
    )


def _differences(before: Metadata, now: Metadata, inside: str = "") -> list[str]:
    """What differs, by name; of dictionaries with the same keys only their entries that do."""
    found = []
    for key in {**before, **now}:
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict) and set(old) == set(new):
            found += _differences(old, new, f"{inside}{key}: ")
        elif old != new:
            found.append(f"{inside}{key}: expected {new!r}, got {old!r}")
    return found
