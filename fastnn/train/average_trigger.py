"""The callback that begins an average of parameters."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from fastnn.engine.metadata import number, whole
from fastnn.errors import OptionError, check_whole
from fastnn.train.hooks import Logs, State, TrainerLike
from fastnn.train.monitor import Monitor


class AverageTrigger(Monitor):
    """Begins the averaging of `optim.ASGD(t0=None)` or `optim.SWA(..., start=None)` after an epoch
    whose value is no better than the best value of more than `patience` epochs ago: the
    non-monotonic trigger of NT-ASGD (Merity, Keskar & Socher 2018, "Regularizing and optimizing
    LSTM language models", algorithm 1).

    Args:
        monitor: a name in the logs.
        patience: the non-monotonic interval n, in epochs.
        mode, min_delta: as for `EarlyStopping`.

    Attributes:
        begun: the step (from 1) at which averaging began, or None.

    Raises:
        OptionError: in `fit`, if the optimiser does not wait for a trigger.

    >>> import fastnn as fnn
    >>> average = fnn.optim.ASGD(t0=None, lambd=0.0, alpha=0.0)  # for the Trainer
    >>> callbacks = [fnn.callbacks.AverageTrigger(patience=5)]  # for Trainer.fit
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 5,
        mode: str = "auto",
        min_delta: float = 0.0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        check_whole("AverageTrigger", 0, patience=patience)
        self.patience = patience
        self.values: list[float] = []
        self.begun: int | None = None

    remembered = MappingProxyType(
        {
            "values": lambda v: isinstance(v, list) and all(map(number, v)),
            "begun": lambda v: v is None or whole(v),
        }
    )

    def set_trainer(self, trainer: TrainerLike) -> None:
        given: Any = trainer
        if given.optimizer.trigger is None:
            raise OptionError(
                "AverageTrigger: expected an optimizer whose average it can begin, "
                f"optim.ASGD(t0=None) or optim.SWA(..., start=None), got {given.optimizer!r}"
            )
        if trainer is not getattr(self, "trainer", None):
            self.values, self.begun, self.best = [], None, self.worst
        super().set_trainer(trainer)

    def load_state_dict(self, state: State) -> None:
        super().load_state_dict(state)
        self._begin(self.begun)

    def _begin(self, step: int | None) -> None:
        trainer: Any = self.trainer
        self.begun = step
        trainer.begin_average(step)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        value = self.current(logs)
        earlier = self.values[: len(self.values) - self.patience]
        better = min if self.mode == "min" else max
        if self.begun is None and earlier and not self.improved(value, better(earlier)):
            trainer: Any = self.trainer
            self._begin(trainer.step + 1)
        self.values.append(value)
