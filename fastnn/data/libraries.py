"""Libraries that are used where they are installed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from fastnn.errors import OptionError


def choose(library: str, name: str, module: str) -> Any:
    """A module of a library, or None for our own code.

    Args:
        library: what was asked for: `name`, "own", or "auto", the library where it is installed.
        name: the library that there is.
        module: what is wanted of it.

    Raises OptionError for something else, ImportError for a library that is not installed.
    """
    if library not in (name, "own", "auto"):
        raise OptionError(f"library: expected {name!r}, 'own' or 'auto', got {library!r}")
    if library == "own":
        return None
    try:
        return import_module(module)
    except ImportError as error:
        if library == "auto":
            return None
        raise ImportError(
            f"library={name!r} needs {name}, which is not installed: pip install {name}, "
            "or take library='own'"
        ) from error
