"""The options that `Trainer` and `fastnn.compile` share, checked in one place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fastnn import optim
from fastnn.errors import OptionError
from fastnn.nn.loss import LOSSES
from fastnn.nn.module import Module

#: optimisers by the names that a trainer accepts
OPTIMIZERS: dict[str, Callable[..., optim.Optimizer]] = {
    "sgd": optim.SGD,
    "adagrad": optim.Adagrad,
    "rmsprop": optim.RMSprop,
    "adadelta": optim.Adadelta,
    "adam": optim.Adam,
    "adamw": optim.AdamW,
}


def check_options(
    model: Any, loss: Any, optimizer: Any, seed: Any, dtype: Any
) -> tuple[Any, optim.Optimizer]:
    """The loss and the optimiser, from their names where names were given.

    Raises:
        OptionError: for anything that cannot be trained with; it names the argument.
    """
    if not isinstance(model, Module):
        raise OptionError(f"model: expected an nn.Module, got {type(model).__name__}")
    if dtype not in ("float32", "float64"):
        raise OptionError(f"dtype: expected 'float32' or 'float64', got {dtype!r}")
    if not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**63:
        raise OptionError(f"seed: expected a whole number in 0..2**63-1, got {seed!r}")
    function = _resolve("loss", loss, LOSSES)
    update = _resolve("optimizer", optimizer, OPTIMIZERS)
    if not isinstance(update, optim.Optimizer):
        raise OptionError(
            f"optimizer: expected one from fastnn.optim, got {type(optimizer).__name__}"
        )
    return function, update


def _resolve(what: str, given: Any, known: Mapping[str, Callable[..., Any]]) -> Any:
    """An object from its name, or the object itself."""
    if isinstance(given, str):
        if given not in known:
            raise OptionError(f"unknown {what} {given!r}; expected one of {sorted(known)}")
        return known[given]()
    if isinstance(given, type):
        raise OptionError(f"{what}: expected an object, got a class; write {given.__name__}()")
    if not callable(given) and not isinstance(given, optim.Optimizer):
        raise OptionError(f"{what}: expected one of {sorted(known)} or an object, got {given!r}")
    return given
