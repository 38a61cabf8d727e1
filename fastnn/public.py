"""What modules and packages show: what is defined in them, without a list of names.

A package of public things, such as `fastnn.ops`, imports ``*`` from its modules. Type checkers take
from a module what is defined there and does not begin with "_"; so does Python where the module
ends with `publish(globals(), ...)`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def publish(module: dict[str, Any], kind: type, *more: str) -> None:
    """Set the `__all__` of a module, or of a package, to what is defined in it without a "_".

    Args:
        module: its `globals()`.
        kind: `types.FunctionType` for functions, `type` for classes.
        more: further names.
    """
    package = module["__name__"]
    found = [
        name
        for name, value in module.items()
        if isinstance(value, kind)
        and f"{value.__module__}.".startswith(f"{package}.")
        and not (name.startswith("_") or getattr(value, "__name__", "").startswith("_"))
    ]
    module["__all__"] = sorted([*found, *more])


def lazily(
    package: str, names: Mapping[str, str], *modules: str
) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """The `__all__`, `__getattr__` and `__dir__` of a package whose modules are imported when
    something of them is asked for: its import costs no more than what is used.

    Args:
        package: its name.
        names: by module, the names that it has, with blanks between.
        modules: those that are public themselves.
    """
    module_of = {name: module for module, found in names.items() for name in found.split()}
    shown = sorted([*module_of, *modules])

    def get(name: str) -> Any:
        if name in modules:
            return importlib.import_module(f"{package}.{name}")
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found = getattr(importlib.import_module(f"{package}.{module_of[name]}"), name)
        setattr(sys.modules[package], name, found)
        return found

    return shown, get, lambda: sorted({*shown, *vars(sys.modules[package])})
