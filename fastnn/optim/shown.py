"""How an optimiser is shown: as the call that makes one like it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def call_text(kind: type, given: Sequence[Any], options: Mapping[str, Any]) -> str:
    """The call of a class with these arguments; of the others the defaults that say something.

    An argument called `optimizer` goes without its name.
    """
    signature = inspect.signature(kind.__init__)  # type: ignore[misc]
    bound = signature.bind(None, *given, **options)
    bound.apply_defaults()
    values = dict(list(bound.arguments.items())[1:])  # without self
    shown = []
    for name, value in list(values.items()):
        parameter = signature.parameters[name]
        if isinstance(value, np.generic):
            value = value.item()
        if parameter.kind is parameter.VAR_KEYWORD:
            shown += [f"{n}={v!r}" for n, v in value.items()]
        elif parameter.kind is parameter.VAR_POSITIONAL:
            shown += [repr(v) for v in value]
        elif name == "optimizer":
            shown.append(repr(value))
        elif (name in options or value != parameter.default) or value not in (None, 0.0):
            shown.append(f"{name}={value!r}")
    return f"{kind.__name__}({', '.join(shown)})"
