"""Callbacks that change the learning rate between epochs."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import MappingProxyType

from fastnn.engine.metadata import number, whole
from fastnn.errors import CheckpointError, OptionError, check_numbers, check_whole
from fastnn.files import one_line
from fastnn.train.hooks import Callback, Logs, State, TrainerLike
from fastnn.train.monitor import Monitor


class ReduceLROnPlateau(Monitor):
    """Multiplies the learning rate by `factor` after `patience` epochs without improvement of
    `monitor` by more than `min_delta`; `mode` says what is better, as for `EarlyStopping`.

    It then waits `cooldown` epochs before it counts again, as PyTorch's does (Keras's waits one
    less). The rate never falls below `min_lr`. Writes "learning_rate" into the logs. PyTorch's
    scheduler of this name reduces one epoch later (patience + 1 epochs without improvement) and
    takes `min_delta` relative to the best value.

    Raises OptionError for a `factor` outside (0, 1), and for negative numbers.

    >>> on_plateau = fnn.callbacks.ReduceLROnPlateau("val_loss", factor=0.5, patience=3)
    >>> callbacks = [on_plateau]  # for Trainer.fit
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
        check_numbers("ReduceLROnPlateau", factor=factor, min_lr=min_lr)
        check_whole("ReduceLROnPlateau", 0, patience=patience, cooldown=cooldown)
        if not 0 < factor < 1:
            raise OptionError(
                f"ReduceLROnPlateau: factor must lie between 0 and 1, so that the learning rate "
                f"falls; got {factor}"
            )
        if min_lr < 0:
            raise OptionError(f"ReduceLROnPlateau: expected min_lr >= 0, got {min_lr}")
        self.factor = factor
        self.patience = patience
        self.cooldown = cooldown
        self.min_lr = min_lr
        self.wait = 0
        self.cooldown_left = 0

    remembered = MappingProxyType({"wait": whole, "cooldown_left": whole})

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
    """Sets the learning rate to ``schedule(epoch, learning_rate)`` before each epoch.

    Writes "learning_rate" into the logs. For a rate that changes at every step give the trainer a
    schedule of `fastnn.optim.schedules`: those need no return to Python.

    Raises OptionError for a schedule that is no function, and, in training, for a rate that is
    negative or not finite; CheckpointError for a state that is not of such a callback.

    >>> falling = fnn.callbacks.LearningRateScheduler(lambda epoch, lr: 0.9 * lr)
    >>> callbacks = [falling]  # for Trainer.fit
    """

    def __init__(self, schedule: Callable[[int, float], float]) -> None:
        if not callable(schedule):
            raise OptionError(
                "LearningRateScheduler: expected a function of (epoch, learning_rate), got "
                f"{schedule!r}"
            )
        self.schedule = schedule
        #: the last epoch that it set the rate of, with the rates before and after
        self.last: tuple[int, float, float] | None = None

    def set_trainer(self, trainer: TrainerLike) -> None:
        if trainer is not getattr(self, "trainer", None):
            self.last = None
        super().set_trainer(trainer)

    def state_dict(self) -> State:
        return {} if self.last is None else {"last": list(self.last)}

    def check_state(self, state: State) -> None:
        last = state.get("last")
        if not (
            isinstance(last, list) and len(last) == 3 and whole(last[0]) and all(map(number, last))
        ):
            raise CheckpointError(
                f"LearningRateScheduler: expected an epoch and two rates in its state, got "
                f"{one_line(repr(last), 60)}; use another copy"
            )

    def load_state_dict(self, state: State) -> None:
        self.check_state(state)
        epoch, before, after = state["last"]
        self.last = epoch, float(before), float(after)

    def on_epoch_begin(self, epoch: int, logs: Logs) -> None:
        before = self.trainer.learning_rate
        if self.last is not None and (epoch, before) == self.last[::2]:
            before = self.last[1]  # an epoch that was begun already and is gone on with
        rate = float(self.schedule(epoch, before))
        if not (math.isfinite(rate) and rate >= 0):
            raise OptionError(
                f"LearningRateScheduler: the schedule gave {rate} for epoch {epoch}; "
                "a learning rate is finite and at least 0"
            )
        self.last = epoch, before, rate
        self.trainer.learning_rate = rate
        self.last = epoch, before, self.trainer.learning_rate  # as it comes back

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        logs["learning_rate"] = self.trainer.learning_rate
