"""Dropout whose rate falls from epoch to epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastnn.errors import OptionError, is_whole
from fastnn.nn.regularization import AnnealedDropout
from fastnn.train.hooks import Callback, Logs


class AnnealDropout(Callback):
    """Sets the rates of all `nn.AnnealedDropout` layers of the model before each epoch.

    With a whole number N a layer's rate is ``p * max(0, 1 - epoch / N)``, where p is its first rate
    and epochs count from 0 (Rennie, Goel & Thomas 2014, equation 5). Nothing is planned anew. After
    the run the rates are those of the last epoch. The largest rate is logged as "dropout".

    Args:
        schedule: epochs until there is no dropout, or a function of (epoch, p) that returns the
            rate in [0, 1), such as one of `fastnn.optim.schedules`.

    Raises OptionError if the model has no such layer, or the schedule returns a number outside [0,
    1].

    >>> from fastnn.optim import schedules
    >>> AnnealDropout(schedules.Exponential(0.9)).schedule(1, 0.5)
    0.45
    """

    def __init__(self, schedule: int | Callable[[int, float], float]) -> None:
        if not callable(schedule) and not is_whole(schedule, 1):
            raise OptionError(
                f"AnnealDropout: expected a number of epochs >= 1, or a function of (epoch, p), "
                f"got {schedule!r}"
            )
        self.schedule: Any = schedule if callable(schedule) else self._line
        self.epochs = 0 if callable(schedule) else int(schedule)

    def _line(self, epoch: int, p: float) -> float:
        return p * max(0.0, 1.0 - epoch / self.epochs)

    def _layers(self) -> list[AnnealedDropout]:
        modules = [module for _, module in self.model.named_modules()]
        return [module for module in modules if isinstance(module, AnnealedDropout)]

    def on_train_begin(self, logs: Logs) -> None:
        if not self._layers():
            raise OptionError(
                "AnnealDropout: expected a model with nn.AnnealedDropout layers, got none; put "
                "them where nn.Dropout stands"
            )

    def on_epoch_begin(self, epoch: int, logs: Logs) -> None:
        for layer in self._layers():
            rate = self.schedule(epoch, layer.p)
            try:
                layer.set_rate(rate)
            except OptionError:
                raise OptionError(
                    f"AnnealDropout: expected the schedule to give a rate in [0, 1) for epoch "
                    f"{epoch}, got {rate!r}"
                ) from None

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        logs["dropout"] = max(float(layer.rate.read()[0]) for layer in self._layers())
