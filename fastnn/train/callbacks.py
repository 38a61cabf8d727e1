"""Callbacks with Keras's names: stopping early, checkpoints, tables, learning rates, progress."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from fastnn.engine.metadata import whole
from fastnn.errors import (
    CheckpointError,
    OptionError,
    check_flags,
    check_numbers,
    check_whole,
    is_whole,
)  # fmt: skip
from fastnn.files import as_path, told
from fastnn.train.health import GradientHealth
from fastnn.train.hooks import (
    Callback,
    CallbackList,
    LambdaCallback,
    Logs,
    State,
    TrainerLike,
)
from fastnn.train.learning_rates import LearningRateScheduler, ReduceLROnPlateau
from fastnn.train.monitor import Monitor
from fastnn.train.progress import ProgressBar
from fastnn.train.stateful import ResetStates
from fastnn.train.tables import CSVLogger

__all__ = [
    "CSVLogger",
    "Callback",
    "CallbackList",
    "EarlyStopping",
    "GradientHealth",
    "LambdaCallback",
    "LearningRateScheduler",
    "Logs",
    "ModelCheckpoint",
    "ProgressBar",
    "ReduceLROnPlateau",
    "ResetStates",
    "TrainerLike",
]


def _epoch(value: Any) -> bool:
    return value is None or whole(value)


def _arrays(value: Any) -> bool:
    return value is None or (
        isinstance(value, Mapping) and all(isinstance(v, np.ndarray) for v in value.values())
    )


class EarlyStopping(Monitor):
    """Stops when `monitor` has not improved by more than `min_delta` for `patience` epochs.

    `mode` says what is better: "min", "max", or "auto", which goes by the name.

    With a `baseline`, patience also runs out while that value has not been beaten. The first
    `start_from_epoch` epochs don't count. `restore_best_weights` (on by default) restores the
    parameters of the best epoch when training ends for whatever reason except Ctrl-C: the run then
    stays where it stopped, so that it can continue from there (`best_parameters` holds those of the
    best epoch; they are also in checkpoints). After training, ``best``, ``best_epoch`` and
    ``stopped_epoch`` (None if this callback did not stop the run) say what happened. Prechelt,
    "Early stopping - but when?", 1998.

    Raises OptionError for a negative patience, and for a baseline that is no number.

    >>> EarlyStopping("val_accuracy", patience=5).mode
    'max'
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0.0,
        patience: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = True,
        start_from_epoch: int = 0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        check_whole("EarlyStopping", 0, patience=patience, start_from_epoch=start_from_epoch)
        check_flags("EarlyStopping", restore_best_weights=restore_best_weights)
        if baseline is not None:
            check_numbers("EarlyStopping", True, baseline=baseline)
        self.patience = patience
        self.baseline = baseline
        self.restore_best_weights = restore_best_weights
        self.start_from_epoch = start_from_epoch
        self._reset()

    def _reset(self) -> None:
        self.best = self.worst
        self.best_epoch: int | None = None
        self.stopped_epoch: int | None = None
        self.stop_reason = ""
        self.wait = 0
        self.best_parameters: Mapping[str, np.ndarray] | None = None

    remembered = MappingProxyType(
        {
            "best_epoch": _epoch, "stopped_epoch": _epoch, "wait": whole,
            "stop_reason": lambda v: isinstance(v, str), "best_parameters": _arrays,
        }
    )  # fmt: skip

    def check_state(self, state: State) -> None:
        super().check_state(state)
        best = state["best_parameters"]
        if best is None or self.model is None:
            return
        mine = {name: p.shape for name, p in self.model.named_arrays().items()}
        if {name: array.shape for name, array in best.items()} != mine:
            raise CheckpointError(
                "EarlyStopping: the best parameters in its state are not the model's; use another "
                "copy"
            )

    def load_state_dict(self, state: State) -> None:
        super().load_state_dict(state)
        if self.stopped_epoch is not None:
            self.trainer.stop_training = True

    def on_train_begin(self, logs: Logs) -> None:
        self._reset()

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        if epoch < self.start_from_epoch:
            return
        value = self.current(logs)
        self.wait += 1
        if self.improved(value, self.best):
            self.best, self.best_epoch = value, epoch
            if self.restore_best_weights:
                self.best_parameters = self.trainer.get_parameters()
            if self.baseline is None or self.improved(value, self.baseline):
                self.wait = 0
                return
        if self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.stop_reason = "early stopping"
            self.trainer.stop_training = True

    def on_train_end(self, logs: Logs) -> None:
        if self.best_parameters is not None and not getattr(self.trainer, "interrupted", False):
            self.trainer.set_parameters(self.best_parameters)
            self.best_parameters = None


class ModelCheckpoint(Monitor):
    """Saves checkpoints; `filepath` may name epoch (from 1) and logs: ``{epoch}``, ``{loss:.3f}``.

    `save_freq` is "epoch", or a number of training steps, after which the path may also name
    ``{batch}`` (from 1) and training returns to Python at every step. With `save_best_only` it
    saves only when `monitor` is better than ever before, or than `initial_value_threshold`; `mode`
    says what is better, as for `EarlyStopping`. Missing
    folders are created. Its hooks are called after those of other callbacks, whose states are in
    the file.

    Raises OptionError for a `save_freq` that is neither "epoch" nor a number of steps above 0.

    >>> callback = ModelCheckpoint("run/{epoch:02d}-{val_loss:.3f}.safetensors")
    >>> callback.path_for(4, {"val_loss": 0.25}).name
    '05-0.250.safetensors'
    """

    def __init__(
        self,
        filepath: str | os.PathLike[str],
        monitor: str = "val_loss",
        save_best_only: bool = False,
        mode: str = "auto",
        save_freq: str | int = "epoch",
        initial_value_threshold: float | None = None,
    ) -> None:
        super().__init__(monitor, mode)
        if save_freq != "epoch" and not is_whole(save_freq, 1):
            raise OptionError(
                "ModelCheckpoint: save_freq must be 'epoch' or a number of steps above 0, "
                f"got {save_freq!r}"
            )
        self.filepath = os.fspath(as_path(filepath, "ModelCheckpoint: filepath", CheckpointError))
        check_flags("ModelCheckpoint", save_best_only=save_best_only)
        self.save_best_only = save_best_only
        self.save_freq = save_freq
        if initial_value_threshold is not None:
            threshold = {"initial_value_threshold": initial_value_threshold}
            check_numbers("ModelCheckpoint", True, **threshold)
            self.best = initial_value_threshold
        self.steps = 0
        if save_freq != "epoch":
            # set on the instance, so that only then training returns to Python at every step
            self.on_train_batch_end = self._count_step  # type: ignore[method-assign]

    passive = saves = True
    remembered = MappingProxyType({"steps": whole})

    def path_for(self, epoch: int, logs: Mapping[str, float]) -> Path:
        """The path with its fields filled in. Raises OptionError for an unknown field."""
        try:
            text = self.filepath.format(epoch=epoch + 1, **logs)
        except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
            raise OptionError(
                f"ModelCheckpoint: cannot fill in {self.filepath!r} ({error}); "
                f"there is epoch, {', '.join(logs)}"
            ) from None
        return as_path(text, "ModelCheckpoint: filepath", CheckpointError)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        if self.save_freq == "epoch":
            self._save(epoch, logs)

    def _count_step(self, batch: int, logs: Logs) -> None:
        self.steps += 1
        if self.steps % int(self.save_freq) == 0:
            self._save(self.trainer.epoch, {**logs, "batch": batch + 1})

    def _save(self, epoch: int, logs: Logs) -> None:
        if self.save_best_only:
            value = self.current(logs)
            if not self.improved(value, self.best):
                return
            self.best = value
        path = self.path_for(epoch, logs)
        with told(f"folder {str(path.parent)!r} cannot be made", "choose another", CheckpointError):
            path.parent.mkdir(parents=True, exist_ok=True)
        self.trainer.save(path)
