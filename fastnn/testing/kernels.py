"""Call a compiled kernel directly on NumPy arrays, as tests and benchmarks do."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn.kernels.declare import Array, Kernel
from fastnn.runtime.cpu import compiler

TYPES = {"r": np.float64, "i": np.int64}


def record(kernel: Kernel, operands: dict[str, Any]) -> tuple[np.ndarray, str, str, int]:
    """The record for these operands, the float type, the data type and the number of items."""
    if set(operands) != set(kernel.params):
        raise ValueError(f"{kernel.name} takes {list(kernel.params)}, got {list(operands)}")
    dtype, data_dtype, parts = "float32", "", []
    letters: dict[str, int] = {}
    for name, parameter in kernel.params.items():
        value = operands[name]
        if not isinstance(parameter, Array):
            is_int = parameter.kind == "int"
            parts.append(np.array([value], np.int64 if is_int else np.float64).view(np.int64))
            continue
        if value is None:
            parts.append(np.zeros(1 + len(parameter.dims), np.int64))
            continue
        if not (isinstance(value, np.ndarray) and value.flags.c_contiguous):
            raise ValueError(f"{kernel.name}, {name}: expected a C-contiguous array")
        if value.ndim != len(parameter.dims):
            raise ValueError(f"{kernel.name}, {name}: expected {parameter}, got {value.shape}")
        if parameter.dtype == "f":
            dtype = value.dtype.name
        elif parameter.dtype == "d":
            data_dtype = value.dtype.name
        elif value.dtype != TYPES[parameter.dtype]:
            raise ValueError(f"{kernel.name}, {name}: expected {parameter}, got {value.dtype}")
        for letter, size in zip(parameter.dims, value.shape, strict=True):
            if letters.setdefault(letter, size) != size:
                raise ValueError(f"{kernel.name}, {name}: {letter} is {letters[letter]} and {size}")
        parts.append(np.array([value.ctypes.data, *value.shape], np.int64))
    items = letters[kernel.items] if kernel.items else 1
    return np.concatenate(parts), dtype, data_dtype, items


def call(kernel: Kernel, lo: int = 0, hi: int | None = None, /, **operands: Any) -> None:
    """Run the compiled kernel for items `lo` to `hi` (all by default); results are in the arrays.

    Arrays are passed by name (None: absent) and must be C-contiguous; float arrays all of one type,
    float32 or float64, which chooses the variant.

    >>> call(KERNELS["relu_forward"], x=x, y=y)  # doctest: +SKIP
    """
    words, dtype, data_dtype, items = record(kernel, operands)
    address = compiler.address(kernel, dtype, data_dtype)
    compiler.CALL(address)(words.ctypes.data, lo, items if hi is None else hi)
