"""Declares the kernels of all optimisers, in all forms that their options give them.

A trainer declares those it needs; this is for compiling ahead.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable
from typing import Any

from fastnn import optim
from fastnn.optim.optimizer import Optimizer
from fastnn.optim.wrapper import Wrapper

#: options that change a rule's form
FORMS = {"momentum": 0.9, "nesterov": True, "centered": True, "amsgrad": True}


def forms(optimizer: Callable[..., Optimizer]) -> list[Optimizer]:
    """An optimiser with each set of the options above that it takes."""
    takes = [name for name in FORMS if name in inspect.signature(optimizer).parameters]
    chosen = itertools.chain.from_iterable(
        itertools.combinations(takes, count) for count in range(len(takes) + 1)
    )
    return [
        optimizer(**{name: FORMS[name] for name in names})
        for names in chosen
        if "nesterov" not in names or "momentum" in names  # one goes with the other
    ]


for kind in (getattr(optim, name) for name in optim.__all__):
    if not isinstance(kind, type) or kind is Optimizer:
        continue
    if issubclass(kind, Wrapper):  # what is wrapped most
        for inner in (optim.SGD(momentum=0.9), optim.Adam()):
            kind(inner).kernels()
        continue
    made: Any = kind
    for form in forms(made):
        form.kernels()
