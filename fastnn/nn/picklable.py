"""Initialisers that pickle takes, and what stands for those that it does not take."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from fastnn.errors import OptionError


def picklable(init: Callable[..., Any], name: str, initialized: bool) -> Callable[..., Any]:
    """The initialiser of a parameter, or where pickle can't take it what says so when it is needed.

    Raises OptionError if it is needed, since the parameter is not initialised yet.
    """
    function = getattr(init, "func", init)
    called = getattr(function, "__qualname__", "")
    if "<" not in called:
        return init
    if not initialized:
        raise OptionError(
            f"parameter {name!r} has no contents yet, and its initialiser {called} is local to a "
            "function, so pickle can't take it; call model.store() first, or define it at the top "
            "of a module"
        )
    return functools.partial(_lost, name=called)


def _lost(shape: tuple[int, ...], rng: np.random.Generator, *, name: str) -> np.ndarray:
    """Stands for an initialiser that pickle could not take."""
    raise OptionError(
        f"the initialiser {name} was local to a function, so pickle did not keep it; set the "
        "parameter's init anew before it is initialised"
    )
