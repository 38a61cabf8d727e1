"""Why a kernel does not compile, in one line: where, what, and what is expected of kernels."""

from __future__ import annotations

import linecache
import os
import re
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from fastnn import switches
from fastnn.errors import ProgramError

#: Numba's lines that say nothing of the cause
_FRAME = re.compile(r"Failed in|During:|File |raised from|- |There are|\^|<source|$")
_PLACE = re.compile(r"^( *)During: typing of .* at (\S.*) \((\d+)\)$", re.M)
_LINE = re.compile(r'^( *)File "(.+)", line (\d+):$', re.M)
_COLOUR = re.compile(r"\x1b\[[\d;]*m")
_LITERAL = re.compile(r"Literal\[\w+\]\((.*?)\)")


def refuse(
    kernel: str, function: Callable[..., Any], dtype: str, error: Exception, may_use: str
) -> NoReturn:
    """Raise the error of a kernel that Numba refuses.

    Args:
        kernel: what it is called in the message ("kernel 'f'").
        function: its Python function.
        dtype: the type that it is compiled for.
        error: Numba's.
        may_use: what kernels of this device may use.
    """
    file, line, reason = _cause(_COLOUR.sub("", str(error)), function)
    source = linecache.getline(file, line).strip()
    shown = f", {source!r}" if source and not source.startswith("@") else ""
    raise ProgramError(
        f"{kernel} ({file}, line {line}{shown}) cannot be compiled for {dtype}: {reason}. A kernel "
        f"may use {may_use} and functions that are decorated with @fnn.helper; it must not make "
        "arrays. (FASTNN_DEBUG=1 shows all that Numba says.)"
    ) from (error if switches.on("FASTNN_DEBUG") else None)


def refuse_without_package(
    kernel: str, function: Callable[..., Any], error: ImportError
) -> NoReturn:
    """Raise the error of a kernel that calls what Numba needs a package for: SciPy's BLAS and
    LAPACK are behind its products and decompositions."""
    code = function.__code__
    raise ProgramError(
        f"{kernel} ({code.co_filename}, line {code.co_firstlineno}) calls a function of NumPy's, "
        f"such as np.dot or np.linalg, for which Numba needs a package that is not installed "
        f"({error}): install SciPy (pip install scipy), write the sums as loops, or compute the "
        "product outside the kernel with ops.matmul"
    ) from error


def _cause(text: str, function: Callable[..., Any]) -> tuple[str, int, str]:
    """File, line, and what Numba has against it."""
    code = function.__code__
    place = next((m for m in _PLACE.finditer(text) if _of_user(m[2])), None)
    if place is None:
        place = next((m for m in _LINE.finditer(text) if _of_user(m[2])), None)
        file, line = (place[2], int(place[3])) if place else ("", 0)
        if not os.path.exists(file):
            file, line = code.co_filename, code.co_firstlineno
        return file, line, _first(text.splitlines())
    before = text[: place.start()]
    call = re.findall(rf"^{place[1]} >>> (.+)$", before, re.M)
    reason = f"Numba has no {_LITERAL.sub(chr(92) + '1', call[-1])}" if call else ""
    return place[2], int(place[3]), reason or _first(before.splitlines())


def _of_user(file: str) -> bool:
    return not file.startswith("<") and f"{os.sep}site-packages{os.sep}numba" not in file


def _first(lines: Iterable[str]) -> str:
    """The first line that says something."""
    found = (line.strip() for line in lines)
    return next((f.rstrip(".:") for f in found if not _FRAME.match(f)), "Numba refuses it")
