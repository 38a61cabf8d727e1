"""What modules and packages show: what is defined in them, without a list of names.

A package of public things, such as `fastnn.ops`, imports ``*`` from its modules. Type checkers take
from a module what is defined there and does not begin with "_"; so does Python where the module
ends with `publish(globals(), ...)`.
"""

from __future__ import annotations

from typing import Any


def publish(module: dict[str, Any], kind: type, *more: str) -> None:
    """Set the `__all__` of a module, or of a package, to what is defined in it without a "_".

    Args:
        module: its `globals()`.
        kind: `types.FunctionType` for functions, `type` for classes.
        more: further names.
    """
    home = module["__name__"]
    found = [
        name
        for name, value in module.items()
        if isinstance(value, kind)
        and f"{value.__module__}.".startswith(f"{home}.")
        and not (name.startswith("_") or getattr(value, "__name__", "").startswith("_"))
    ]
    module["__all__"] = sorted([*found, *more])
