"""Call a compiled kernel directly on NumPy arrays, as tests and benchmarks do."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn.kernels import types
from fastnn.kernels.declare import Array, CudaKernel, Kernel
from fastnn.runtime import _cuda
from fastnn.runtime.cpu import compiler, fault
from fastnn.runtime.cuda.gpu import gpu
from fastnn.runtime.cuda.place import Piece, Place


def record(kernel: Kernel, operands: dict[str, Any]) -> tuple[np.ndarray, str, str, int]:
    """The record for these operands, the float type, the data type and the number of items."""
    letters, dtype, data_dtype = checked(kernel, operands)
    parts = []
    for name, parameter in kernel.params.items():
        value = operands[name]
        if not isinstance(parameter, Array):
            is_int = parameter.kind == "int"
            parts.append(np.array([value], np.int64 if is_int else np.float64).view(np.int64))
        elif value is None:
            parts.append(np.zeros(1 + len(parameter.dims), np.int64))
        else:
            parts.append(np.array([value.ctypes.data, *value.shape], np.int64))
    items = letters[kernel.items] if kernel.items else 1
    return np.concatenate(parts), dtype, data_dtype, items


def checked(
    kernel: Kernel | CudaKernel, operands: dict[str, Any]
) -> tuple[dict[str, int], str, str]:
    """Sizes by dimension letter, the float type and the data type of operands that fit."""
    if set(operands) != set(kernel.params):
        raise ValueError(f"{kernel.name} takes {list(kernel.params)}, got {list(operands)}")
    dtype = _one_type(kernel, operands, "f") or "float32"
    data_dtype = _one_type(kernel, operands, "d")
    if dtype not in ("float32", "float64"):
        raise ValueError(f"{kernel.name}: expected arrays of float32 or float64, got {dtype}")
    letters: dict[str, int] = {}
    for name, parameter in kernel.params.items():
        value = operands[name]
        if not isinstance(parameter, Array) or value is None:
            continue
        if not (isinstance(value, np.ndarray) and value.flags.c_contiguous):
            raise ValueError(f"{kernel.name}, {name}: expected a C-contiguous array")
        if value.ndim != len(parameter.dims):
            raise ValueError(f"{kernel.name}, {name}: expected {parameter}, got {value.shape}")
        if parameter.dtype not in "fd" and value.dtype.name != types.storage(
            parameter.dtype, dtype
        ):
            raise ValueError(f"{kernel.name}, {name}: expected {parameter}, got {value.dtype}")
        for letter, size in zip(parameter.dims, value.shape, strict=True):
            if letters.setdefault(letter, size) != size:
                raise ValueError(f"{kernel.name}, {name}: {letter} is {letters[letter]} and {size}")
    return letters, dtype, data_dtype


def _one_type(kernel: Kernel | CudaKernel, operands: dict[str, Any], letter: str) -> str:
    """The type of all arrays of a letter; "" if there are none."""
    found = {
        name: value.dtype.name
        for name, parameter in kernel.arrays.items()
        if parameter.dtype == letter and isinstance(value := operands[name], np.ndarray)
    }
    if len(set(found.values())) > 1:
        raise ValueError(f"{kernel.name}: expected arrays of one type, got {found}")
    return next(iter(found.values()), "")


def call(kernel: Kernel, lo: int = 0, hi: int | None = None, /, **operands: Any) -> None:
    """Run the compiled kernel for items `lo` to `hi` (all by default); results are in the arrays.

    Arrays are passed by name (None: absent) and must be C-contiguous; float arrays all of one type,
    float32 or float64, which chooses the variant.

    >>> call(KERNELS["relu_forward"], x=x, y=y)  # doctest: +SKIP
    """
    words, dtype, data_dtype, items = record(kernel, operands)
    address = compiler.address(kernel, dtype, data_dtype)
    hi = items if hi is None else hi
    if compiler.CALL(address)(words.ctypes.data, lo, hi) != 0:
        raise fault.error(kernel, words.ctypes.data, lo, hi, dtype, data_dtype)


def call_cuda(kernel: CudaKernel, /, **operands: Any) -> None:
    """Run a CUDA kernel on NumPy arrays: copied to the device, and back what it writes.

    Where Numba's simulator is on (`NUMBA_ENABLE_CUDASIM=1`) it runs there, as plain Python.
    Arguments as for `call`.
    """
    _, dtype, data_dtype = checked(kernel, operands)
    device = gpu("cuda:0")
    places: dict[str, Any] = {}
    for name, parameter in kernel.params.items():
        value = operands[name]
        if isinstance(parameter, Array) and value is not None:
            if _cuda.simulated():  # in place, so that writing beside the array is seen
                piece = Piece(value.ctypes.data, value.nbytes, value)
            else:
                piece = device.allocate(value.nbytes, name)
                device.upload(value, piece)
            value = Place(piece, 0, value.shape, value.dtype.name)
        places[name] = value
    device.prepared(kernel, dtype, data_dtype, places)()
    for name, parameter in kernel.arrays.items():
        if parameter.writes and operands[name] is not None and not _cuda.simulated():
            device.download(places[name].piece, operands[name])
