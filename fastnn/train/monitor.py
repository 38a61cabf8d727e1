"""The base of callbacks that follow one value of the logs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from fastnn.engine.metadata import number
from fastnn.errors import CheckpointError, OptionError, check_numbers
from fastnn.files import one_line
from fastnn.train.hooks import Callback, Logs, State

#: parts of names of values that should grow, for mode "auto"
LARGER_IS_BETTER = ("acc", "auc", "bleu", "f1", "precision", "recall", "top")


class Monitor(Callback):
    """Base of callbacks that follow one value of the logs and know when it has improved.

    `mode` is "min", "max" or "auto": "max" if the name mentions accuracy, top-k, precision, recall,
    F1, AUC or BLEU, else "min". NaN is never an improvement.
    """

    def __init__(self, monitor: str, mode: str = "auto", min_delta: float = 0.0) -> None:
        if mode not in ("auto", "min", "max"):
            raise OptionError(
                f"{type(self).__name__}: mode must be 'auto', 'min' or 'max', got {mode!r}"
            )
        if not isinstance(monitor, str):
            raise OptionError(
                f"{type(self).__name__}: expected monitor to be a name in the logs, got {monitor!r}"
            )
        check_numbers(type(self).__name__, min_delta=min_delta)
        self.monitor = monitor
        grows = any(part in monitor.lower() for part in LARGER_IS_BETTER)
        self.mode = mode if mode != "auto" else ("max" if grows else "min")
        self.min_delta = abs(min_delta)
        self.best = self.worst

    @property
    def worst(self) -> float:
        return math.inf if self.mode == "min" else -math.inf

    def current(self, logs: Logs) -> float:
        """The monitored value. Raises OptionError if it is not in the logs."""
        if self.monitor not in logs:
            validated = any(name.startswith("val_") for name in logs)
            missing = self.monitor.startswith("val_") and not validated
            hint = "give validation data to fit" if missing else "monitor one of these"
            raise OptionError(
                f"{type(self).__name__} monitors {self.monitor!r}, but there is only "
                f"{', '.join(logs) or 'nothing'}; {hint}"
            )
        return float(logs[self.monitor])

    #: what its state has beside `monitor`, `mode` and `best`, each with a check
    remembered: Mapping[str, Callable[[Any], bool]] = MappingProxyType({})

    def state_dict(self) -> State:
        own = {name: getattr(self, name) for name in self.remembered}
        return {"monitor": self.monitor, "mode": self.mode, "best": self.best, **own}

    def check_state(self, state: State) -> None:
        kind = type(self).__name__
        for name in ("monitor", "mode"):
            if state.get(name) != getattr(self, name):
                raise CheckpointError(
                    f"{kind}: it was written with {name}={one_line(repr(state.get(name)), 60)}, "
                    f"the callback has {getattr(self, name)!r}; use the same"
                )
        for name, fits in {"best": number, **self.remembered}.items():
            if name not in state or not fits(state[name]):
                raise CheckpointError(
                    f"{kind}: {name!r} of its state is {one_line(repr(state.get(name)), 60)}, "
                    "which it never is; use another copy"
                )

    def load_state_dict(self, state: State) -> None:
        self.check_state(state)
        self.best = float(state["best"])
        for name in self.remembered:
            setattr(self, name, state[name])

    def improved(self, value: float, reference: float) -> bool:
        if self.mode == "min":
            return value < reference - self.min_delta
        return value > reference + self.min_delta
