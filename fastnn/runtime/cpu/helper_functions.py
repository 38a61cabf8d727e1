"""Numba's C functions that machine code calls: LLVM is told where they are.

Importing Numba tells it all of them, and takes half a second and more. Code that only looks at an
array in another shape calls one function, which Numba's extension module has without the rest of
the package.
"""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

NAMES = re.compile(rb"\bnumba_\w+")
RESHAPE = "attempt_nocopy_reshape"


def make_known(code: bytes) -> Any:
    """Tell LLVM the addresses of what object code calls, before it is loaded: for a function that
    LLVM can't find it would end the process.

    Returns what has to be kept alive.
    """
    names = set(NAMES.findall(code))
    if not names:
        return None
    if names == {f"numba_{RESHAPE}".encode()} and _reshape_known():
        return None
    from numba.core.registry import cpu_target

    return cpu_target.target_context  # making it tells LLVM the addresses


@functools.cache
def _reshape_known() -> bool:
    """Tell LLVM where `reshape`'s function is, without importing Numba; False: not found."""
    from llvmlite import binding

    if "numba" in sys.modules or (found := importlib.util.find_spec("numba")) is None:
        return False
    name = "_helperlib"
    for folder in found.submodule_search_locations or ():
        for suffix in importlib.machinery.EXTENSION_SUFFIXES:
            path = Path(folder) / (name + suffix)
            if path.is_file():
                spec = importlib.util.spec_from_file_location(f"numba.{name}", path)
                assert spec is not None
                assert spec.loader is not None
                module = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(module)
                address = getattr(module, "c_helpers", {}).get(RESHAPE)
                if address is not None:
                    binding.add_symbol(f"numba_{RESHAPE}", address)
                    return True
    return False
