"""Kernels that are declared outside of this folder: an optimiser's, which are made from its rule.

Whoever wants all kernels there are, to compile them ahead in this process or another, imports the
modules that have entered themselves here.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable

#: names of modules that declare kernels when they are imported
MODULES: list[str] = []


def enter(module: str) -> None:
    """Name a module whose import declares kernels."""
    if module not in MODULES:
        MODULES.append(module)


def load(modules: Iterable[str] = ()) -> None:
    """Declare them: those that have entered themselves, and those that another process has."""
    for module in (*MODULES, *modules):
        importlib.import_module(module)
