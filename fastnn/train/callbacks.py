"""Callbacks with Keras's names: stopping early, checkpoints, tables, learning rates, progress."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from fastnn.train.health import GradientHealth
from fastnn.train.hooks import Callback, CallbackList, LambdaCallback, Logs, TrainerLike
from fastnn.train.progress import ProgressBar
from fastnn.train.states import ResetStates

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

#: parts of names of values that should grow, for mode "auto"
LARGER_IS_BETTER = ("acc", "auc", "bleu", "f1", "precision", "recall", "top")


class Monitor(Callback):
    """Base of callbacks that follow one value of the logs and know when it has improved.

    `mode` is "min", "max" or "auto": "max" where the name speaks of accuracy, top-k, precision,
    recall, F1, AUC or BLEU, else "min". NaN is never an improvement.
    """

    def __init__(self, monitor: str, mode: str = "auto", min_delta: float = 0.0) -> None:
        if mode not in ("auto", "min", "max"):
            raise ValueError(
                f"{type(self).__name__}: mode must be 'auto', 'min' or 'max', got {mode!r}"
            )
        self.monitor = monitor
        grows = any(part in monitor.lower() for part in LARGER_IS_BETTER)
        self.mode = mode if mode != "auto" else ("max" if grows else "min")
        self.min_delta = abs(min_delta)
        self.best = self.worst

    @property
    def worst(self) -> float:
        return math.inf if self.mode == "min" else -math.inf

    def current(self, logs: Logs) -> float:
        """The monitored value. Raises ValueError where the logs don't have it."""
        if self.monitor not in logs:
            hint = "; give validation data to fit" if self.monitor.startswith("val_") else ""
            raise ValueError(
                f"{type(self).__name__} monitors {self.monitor!r}, but there is only "
                f"{', '.join(logs) or 'nothing'}{hint}"
            )
        return float(logs[self.monitor])

    def improved(self, value: float, reference: float) -> bool:
        if self.mode == "min":
            return value < reference - self.min_delta
        return value > reference + self.min_delta


class EarlyStopping(Monitor):
    """Stops when `monitor` has not improved by more than `min_delta` for `patience` epochs.

    With a `baseline`, patience also runs out while that value is not beaten. The first
    `start_from_epoch` epochs don't count. `restore_best_weights` (here on by default) puts the
    parameters of the best epoch back when training ends, whatever ended it. After training
    ``best``, ``best_epoch`` and ``stopped_epoch`` (None where the run was not stopped by it) tell
    what happened. Prechelt, "Early stopping - but when?", 1998.

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
        if patience < 0:
            raise ValueError(f"EarlyStopping: patience must be at least 0, got {patience}")
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
        self._best_parameters: Mapping[str, np.ndarray] | None = None

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
                self._best_parameters = self.trainer.get_parameters()
            if self.baseline is None or self.improved(value, self.baseline):
                self.wait = 0
                return
        if self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.stop_reason = "early stopping"
            self.trainer.stop_training = True

    def on_train_end(self, logs: Logs) -> None:
        if self._best_parameters is not None:
            self.trainer.set_parameters(self._best_parameters)
            self._best_parameters = None


class ModelCheckpoint(Monitor):
    """Saves checkpoints; the path may name epoch (from 1) and logs: ``{epoch}``, ``{loss:.3f}``.

    `save_freq` is "epoch", or a number of training steps, after which the path may also name
    ``{batch}`` (from 1) and training returns to Python at every step. With `save_best_only` it
    saves only when `monitor` is better than ever before, or than `initial_value_threshold`. Missing
    folders are made.

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
        if save_freq != "epoch" and not (isinstance(save_freq, int) and save_freq > 0):
            raise ValueError(
                "ModelCheckpoint: save_freq must be 'epoch' or a number of steps above 0, "
                f"got {save_freq!r}"
            )
        self.filepath = os.fspath(filepath)
        self.save_best_only = save_best_only
        self.save_freq = save_freq
        if initial_value_threshold is not None:
            self.best = initial_value_threshold
        self._steps = 0
        if save_freq != "epoch":
            # set on the instance, so that only then training returns to Python at every step
            self.on_train_batch_end = self._count_step  # type: ignore[method-assign]

    def path_for(self, epoch: int, logs: Mapping[str, float]) -> Path:
        """The path with its fields filled in. Raises ValueError for a field that is not there."""
        try:
            return Path(self.filepath.format(epoch=epoch + 1, **logs))
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(
                f"ModelCheckpoint: cannot fill in {self.filepath!r} ({error}); "
                f"there is epoch, {', '.join(logs)}"
            ) from None

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        if self.save_freq == "epoch":
            self._save(epoch, logs)

    def _count_step(self, batch: int, logs: Logs) -> None:
        self._steps += 1
        if self._steps % int(self.save_freq) == 0:
            self._save(self.trainer.epoch, {**logs, "batch": batch + 1})

    def _save(self, epoch: int, logs: Logs) -> None:
        if self.save_best_only:
            value = self.current(logs)
            if not self.improved(value, self.best):
                return
            self.best = value
        path = self.path_for(epoch, logs)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.trainer.save(path)


class CSVLogger(Callback):
    """Writes a row an epoch as training goes: epoch and the values of the first epoch's logs.

    The file is complete after every epoch. `append` continues a file that is there. A value that
    a later epoch lacks stays empty.
    """

    def __init__(
        self, filename: str | os.PathLike[str], separator: str = ",", append: bool = False
    ) -> None:
        self.path = Path(filename)
        self.separator = separator
        self.append = append
        self._file: IO[str] | None = None
        self._columns: list[str] = []

    def on_train_begin(self, logs: Logs) -> None:
        self._columns = []
        if self.append and self.path.is_file():
            with self.path.open(newline="", encoding="utf-8") as file:
                self._columns = next(csv.reader(file, delimiter=self.separator), [])
        self._file = self.path.open("a" if self.append else "w", newline="", encoding="utf-8")

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        assert self._file is not None, "on_train_begin opens the file"
        writer = csv.writer(self._file, delimiter=self.separator)
        if not self._columns:
            self._columns = ["epoch", *logs]
            writer.writerow(self._columns)
        values: dict[str, Any] = {**logs, "epoch": epoch}
        writer.writerow([values.get(column, "") for column in self._columns])
        self._file.flush()

    def on_train_end(self, logs: Logs) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class ReduceLROnPlateau(Monitor):
    """Multiplies the learning rate by `factor` after `patience` epochs without improvement.

    Then it waits `cooldown` epochs before it counts again, as PyTorch's does (Keras's waits one
    less); the rate never falls below `min_lr`.
    Writes "learning_rate" into the logs. PyTorch's scheduler of this name reduces one epoch later
    (patience + 1 epochs without improvement) and takes `min_delta` relative to the best value.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        if not 0 < factor < 1:
            raise ValueError(
                f"ReduceLROnPlateau: factor must lie between 0 and 1, so that the learning rate "
                f"falls; got {factor}"
            )
        self.factor = factor
        self.patience = patience
        self.cooldown = cooldown
        self.min_lr = min_lr
        self.wait = 0
        self.cooldown_left = 0

    def on_train_begin(self, logs: Logs) -> None:
        self.best = self.worst
        self.wait = 0
        self.cooldown_left = 0

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        value = self.current(logs)
        rate = logs["learning_rate"] = self.trainer.learning_rate
        cooling = self.cooldown_left > 0
        if cooling:
            self.cooldown_left -= 1
            self.wait = 0
        if self.improved(value, self.best):
            self.best = value
            self.wait = 0
        elif not cooling:
            self.wait += 1
            if self.wait >= self.patience and rate > self.min_lr:
                self.trainer.learning_rate = max(rate * self.factor, self.min_lr)
                self.cooldown_left = self.cooldown
                self.wait = 0


class LearningRateScheduler(Callback):
    """Before each epoch sets the learning rate to ``schedule(epoch, learning_rate)``.

    Writes "learning_rate" into the logs. For a rate that changes at every step give the trainer a
    schedule of `fastnn.optim.schedules`: those need no return to Python.
    """

    def __init__(self, schedule: Callable[[int, float], float]) -> None:
        self.schedule = schedule

    def on_epoch_begin(self, epoch: int, logs: Logs) -> None:
        rate = float(self.schedule(epoch, self.trainer.learning_rate))
        if not (math.isfinite(rate) and rate >= 0):
            raise ValueError(
                f"LearningRateScheduler: the schedule gave {rate} for epoch {epoch}; "
                "a learning rate is finite and at least 0"
            )
        self.trainer.learning_rate = rate

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        logs["learning_rate"] = self.trainer.learning_rate
