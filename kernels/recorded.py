"""The code of modules that take part in compiling, as it is in memory.

A module whose own code decides what machine code comes out (code generators, types, options) calls
`record` on its first lines. What a cache is keyed by is then what ran, not what a file says later.

What such a module has for plain Python alone, the twins of generated code and what they need, is
marked with ``@recorded.plain``: no key counts its body, so that it can be changed freely.
"""

from __future__ import annotations

import importlib
import importlib.util
import linecache
import sys
import types
from typing import Any, TypeVar

_code: dict[str, types.CodeType] = {}
_read: dict[str, types.CodeType] = {}
Marked = TypeVar("Marked")


def record() -> None:
    """Keep the code object of the module that calls this."""
    frame: Any = sys._getframe(1)
    _code[frame.f_globals["__name__"]] = frame.f_code


def plain(marked: Marked) -> Marked:
    """Mark a function or class at the top of a module that takes part in compiling: nobody runs it
    while code is made. `fastnn.runtime.sources` looks for this mark, written ``@recorded.plain``;
    of what bears it only the name and the parameters count."""
    return marked


def execute(source: str, name: str, scope: dict[str, Any]) -> None:
    """Run source that was generated. It stays readable under `name`, a text like ``<kernel relu>``
    (with a number where another source has this name): for tracebacks, and for keys, which are made
    of sources."""
    lines, own, number = source.splitlines(keepends=True), name, 1
    while own in linecache.cache and linecache.getlines(own) != lines:
        number += 1
        own = f"{name[:-1]}, {number}>"
    linecache.cache[own] = (len(source), None, lines, own)
    exec(compile(source, own, "exec"), scope)


def code_of(module: str) -> types.CodeType:
    """A module's code: what ran, or what would run if it were imported now.

    The latter is looked at once. Whoever goes by it has to ask again when the module has been
    imported: a file may change in between.
    """
    if module in _code:
        return _code[module]
    if module in sys.modules:
        raise RuntimeError(f"{module} takes part in compiling and has to call `record`")
    if module not in _read:
        loader: Any = getattr(importlib.util.find_spec(module), "loader", None)
        if not hasattr(loader, "get_code"):
            importlib.import_module(module)
            return _code[module]
        _read[module] = loader.get_code(module)
    return _read[module]
