"""Finds the kernels of fastnn: a folder a topic, a module or several a device.

A topic's modules are called by their device (`cpu`, `cpu_blocked`, `cuda`), what both share by what
it is. Kernels enter the tables of `declare` when their module is imported; `load` imports all of a
device, once, when somebody first asks for a kernel by its name.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator

from fastnn.interrupts import uninterrupted

#: folders of what kernels are built on
BUILDING_BLOCKS = ("cpu", "cuda")
#: called when a device's kernels are asked for, by device: declares those that are made on demand
ON_DEMAND: dict[str, list[Callable[[], None]]] = {"cpu": [], "cuda": []}
_loaded: set[str] = set()


def modules(device: str) -> Iterator[str]:
    """Names of the modules with kernels for a device, "cpu" or "cuda"."""
    package = importlib.import_module(__package__)
    for topic in pkgutil.iter_modules(package.__path__):
        if not topic.ispkg or topic.name in BUILDING_BLOCKS:
            continue
        folder = importlib.import_module(f"{__package__}.{topic.name}")
        for module in pkgutil.iter_modules(folder.__path__):
            if module.name.split("_")[0] == device:
                yield f"{folder.__name__}.{module.name}"


def load(device: str) -> None:
    """Declare all kernels for a device.

    Ctrl-C waits for the end: Python's import would lose one that comes while a module's lock is
    dropped, and the run would go on as if there had been none.
    """
    if device not in _loaded:
        with uninterrupted():
            for name in modules(device):
                importlib.import_module(name)
            _loaded.add(device)
    for declare in ON_DEMAND[device]:
        declare()
