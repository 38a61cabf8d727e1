"""The options that `Trainer` and `fastnn.compile` share, checked in one place."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from fastnn import optim
from fastnn.errors import OptionError, is_whole
from fastnn.nn.module import Module
from fastnn.optim.names import by_name
from fastnn.runtime import devices
from fastnn.train.losses import Losses

#: an epsilon from which on what float32 loses of tiny gradients' squares does not matter
LEAST_EPS = 1e-16


@functools.cache
def optimizers() -> dict[str, Callable[..., optim.Optimizer]]:
    """Optimisers by the names that a trainer accepts."""
    return by_name([getattr(optim, name) for name in optim.__all__])


def check_options(
    model: Any, loss: Any, optimizer: Any, seed: Any, dtype: Any, loss_weights: Any = None
) -> tuple[Losses, optim.Optimizer]:
    """The losses and the optimiser, from their names where names were given.

    Raises:
        OptionError: for anything that cannot be trained with; it names the argument.
    """
    if not isinstance(model, Module):
        raise OptionError(f"model: expected an nn.Module, got {type(model).__name__}")
    if dtype not in ("float32", "float64"):
        raise OptionError(f"dtype: expected 'float32' or 'float64', got {dtype!r}")
    if not is_whole(seed, 0) or seed >= 2**63:
        raise OptionError(f"seed: expected a whole number in 0..2**63-1, got {seed!r}")
    losses = Losses(loss, loss_weights)
    update = _optimizer(optimizer)
    if not isinstance(update, optim.Optimizer):
        raise OptionError(
            f"optimizer: expected one from fastnn.optim, got {type(optimizer).__name__}"
        )
    _check_eps(update, dtype)
    return losses, update


def _check_eps(optimizer: optim.Optimizer, dtype: str) -> None:
    """Refuse an epsilon that is lost beside the roots that it is added to.

    Squares of float32 gradients below some 1e-19 are flushed to 0, and with them their root.
    """
    for number in range(optimizer.group_count):
        eps = optimizer.group_options(number).get("eps")
        if dtype == "float32" and eps is not None and eps < LEAST_EPS:
            raise OptionError(
                f"{type(optimizer).__name__}: expected eps of at least {LEAST_EPS:g} in float32, "
                f"where squares of gradients below 1e-19 are 0, got {eps:g}; take a larger one, or "
                "dtype='float64'"
            )


def check_device_options(device: Any, graphs: bool) -> None:
    """Refuse options for GPUs where the CPU was asked for."""
    if devices.on_host(device) and not graphs:
        raise OptionError("graphs: it is for GPUs, and the device is 'cpu'; leave it out")


def check_on_gradients(function: Any) -> None:
    """Refuse what can't be called."""
    if function is not None and (isinstance(function, type) or not callable(function)):
        raise OptionError(
            f"on_gradients: expected a function of the gradients by name, got {function!r}"
        )


def _optimizer(given: Any) -> Any:
    """An optimiser from its name, or what was given itself."""
    if isinstance(given, str):
        known = optimizers()
        if given not in known:
            raise OptionError(f"unknown optimizer {given!r}; expected one of {sorted(known)}")
        return known[given]()
    if isinstance(given, type):
        raise OptionError(f"optimizer: expected an object, got a class; write {given.__name__}()")
    if not callable(given) and not isinstance(given, optim.Optimizer):
        raise OptionError(
            f"optimizer: expected one of {sorted(optimizers())} or an object, got {given!r}"
        )
    return given
