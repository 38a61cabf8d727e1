"""Kernels whose arguments lie in the device's memory: in a row of words of 64 bits, one for each.

A launch in a graph has its arguments fixed. If it is to be made again and again with others (the
steps of a loop), its kernel is told where its row lies, and another launch writes the row before.
Such a kernel is the other one's PTX, in which reading a parameter has become reading a word: the
computation is the same, and Numba does not compile it again. Where the PTX does something else with
its parameters there is no such kernel: loops that launch it have all their steps as nodes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastnn.interrupts import uninterrupted
from fastnn.kernels import recorded
from fastnn.kernels.declare import CudaKernel
from fastnn.runtime import keys
from fastnn.runtime.cpu import compiler as files
from fastnn.runtime.cuda import compiler

recorded.record()

#: a kernel with its parameters, and an instruction that reads one
_ENTRY = re.compile(r"(\.entry\s+(\w+)\()([^)]*)(\)[^{]*\{\n)")
_READS = re.compile(r"\bld\.param\.(\w+)(\s+%\w+,\s*)\[(\w+)\];")
#: machine code by variant
_loaded: dict[Any, bytes] = {}
#: in place of machine code: this can't be made of the kernel
NONE = b"none"
#: the register that points to the row
POINTER = "%argument_row"


class Refused(RuntimeError):
    """PTX that `from_row` can't rewrite."""


def row_of(arguments: Sequence[Any]) -> np.ndarray:
    """The words of a kernel's arguments (NumPy scalars)."""
    words = np.zeros(len(arguments), np.int64)
    for k, argument in enumerate(arguments):
        words[k : k + 1].view(argument.dtype)[0] = argument
    return words


def from_row(ptx: str) -> str:
    """The PTX of a kernel that has one parameter, the address of a row, in place of its own."""
    entry = _ENTRY.search(ptx)
    if entry is None:
        raise Refused("expected a kernel with parameters in the PTX, found none")
    begin, name, parameters, end = entry.groups()
    names = [p.split()[-1] for p in parameters.split(",")]
    numbers = {own: k for k, own in enumerate(names)}
    pointer = f"{name}_row"

    def read(found: re.Match[str]) -> str:
        kind, target, parameter = found.groups()
        if parameter not in numbers:  # of a function that is called, or what it returns
            return found[0]
        return f"ld.global.nc.{kind}{target}[{POINTER}+{8 * numbers[parameter]}];"

    own, count = _READS.subn(read, ptx[entry.end() :])
    if any(re.search(rf"\b{n}\b", own) for n in names):
        raise Refused(f"{name} does something with a parameter but read it")
    first = f"\t.reg .b64 \t{POINTER};\n\tld.param.u64 \t{POINTER}, [{pointer}];\n" if count else ""
    return f"{ptx[: entry.start()]}{begin}\n\t.param .u64 {pointer}\n{end}{first}{own}"


def code_path(kernel: CudaKernel, dtype: str, data_dtype: str, cc: tuple[int, int]) -> Path:
    """The file that holds (or will hold) the machine code of this variant; see
    `compiler.code_path`."""
    path = compiler.code_path(kernel, dtype, data_dtype, cc)
    return path.with_name(f"{path.stem}-row-{keys.modules_key([__name__]).hex()[:8]}{path.suffix}")


def is_there(kernel: CudaKernel, dtype: str, data_dtype: str, cc: tuple[int, int]) -> bool:
    """Whether this variant's machine code is in the cache, or can't be kept there."""
    variant = kernel, dtype, data_dtype, cc
    if variant not in _loaded:
        try:
            found = files.cached(code_path(*variant))
        except keys.Unkeyed:
            return True
        if found is None:
            return False
        _loaded[variant] = found
    return True


def code(kernel: CudaKernel, dtype: str, data_dtype: str, cc: tuple[int, int]) -> bytes:
    """Machine code (a cubin) of the kernel that reads its arguments from a row; NONE if its PTX
    can't be rewritten.

    If it has to be compiled, the machine code of the kernel itself is made and kept, too: both come
    from the same PTX.
    """
    variant = kernel, dtype, data_dtype, cc

    def make() -> bytes:
        text = compiler.compile_ptx(*variant)
        files.obtain(
            lambda: compiler.code_path(*variant),
            lambda: compiler._pack(compiler.assemble(text, cc)),
            kernel, compiler.GENERATED,
        )  # fmt: skip
        try:
            text = from_row(text)
        except Refused:
            return NONE
        return compiler.assemble(text, cc).cubin

    if variant not in _loaded:
        with uninterrupted():
            _loaded[variant] = files.obtain(
                lambda: code_path(*variant), make, kernel, compiler.GENERATED
            )
    return _loaded[variant]
