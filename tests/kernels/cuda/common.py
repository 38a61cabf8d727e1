"""Runs a CUDA kernel as its tests need it."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn.kernels.declare import CUDA_KERNELS, KERNELS, Array, CudaKernel, Kernel
from fastnn.kernels.types import LETTERS, storage
from fastnn.testing.kernels import call_cuda
from tests.kernels.common import GUARD, close, poisoned

#: edges of a warp, few enough for the simulator
EDGES = [1, 2, 15, 16, 17, 31, 32, 33]


def compute_cuda(
    name: str, dtype: Any, out: dict[str, tuple[int, ...]], **operands: Any
) -> dict[str, np.ndarray]:
    """Outputs of CUDA kernel `name`, as `tests.kernels.common.compute` gives those on the CPU.

    `out` gives the outputs' shapes; `inout` and `part` operands are copied and returned too.
    Asserts that every run gives the same bits, whatever was in the outputs, and that nothing beside
    them is written.
    """
    kernel = CUDA_KERNELS[name]
    fixed, inout = prepared(kernel, dtype, out, operands)

    def once(byte: int) -> dict[str, np.ndarray]:
        changed, buffers = outputs(kernel, dtype, out, inout, byte)
        before = {key: b.copy() for key, b in buffers.items()}
        call_cuda(kernel, **fixed, **changed)
        for key, buffer in buffers.items():
            for part in (slice(None, GUARD), slice(-GUARD, None)):
                assert buffer[part].tobytes() == before[key][part].tobytes(), f"{key}: overrun"
        return changed

    first, second = once(0xFF), once(0x00)
    for key, value in first.items():
        assert value.tobytes() == second[key].tobytes(), f"{key}: depends on what was there"
    return first


def compute_both(
    name: str,
    dtype: Any,
    out: dict[str, tuple[int, ...]],
    factor: float = 5,
    exact: bool = False,
    **operands: Any,
) -> dict[str, np.ndarray]:
    """Like `compute_cuda`, and asserts that the CPU's kernel (as plain Python) agrees: bit for bit
    if `exact`, else within `factor` times the usual tolerance."""
    results = compute_cuda(name, dtype, out, **operands)
    kernel = KERNELS[name]
    fixed, inout = prepared(kernel, dtype, out, operands)
    expected, _ = outputs(kernel, dtype, out, inout, 0xFF)
    letters = {
        letter: size
        for key, p in kernel.arrays.items()
        for letter, size in zip(p.dims, np.shape({**fixed, **expected}[key]), strict=True)
    }
    with np.errstate(all="ignore"):
        kernel(
            **fixed, **expected, **({"lo": 0, "hi": letters[kernel.items]} if kernel.items else {})
        )
    for key, value in expected.items():
        if exact:
            assert value.tobytes() == results[key].tobytes(), f"{key}: not the CPU's bits"
        else:
            close(results[key], value, dtype, factor)
    return results


def prepared(
    kernel: Kernel | CudaKernel, dtype: Any, out: dict[str, Any], operands: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The operands that are only read, and those that are written, with their element types."""
    types = {letter: storage(letter, np.dtype(dtype).name) or None for letter in LETTERS}
    assert set(operands) | set(out) == set(kernel.params), f"{kernel.name}: {list(kernel.params)}"
    fixed, inout = {}, {}
    for key, value in operands.items():
        parameter = kernel.params[key]
        if isinstance(parameter, Array) and value is not None:
            value = np.ascontiguousarray(value, types.get(parameter.dtype))
            if value.ndim == 0:
                value = value.reshape(1)
        written = isinstance(parameter, Array) and parameter.mode in ("inout", "part", "flag")
        (inout if written else fixed)[key] = value
    return fixed, inout


def outputs(
    kernel: Kernel | CudaKernel,
    dtype: Any,
    out: dict[str, tuple[int, ...]],
    inout: dict[str, np.ndarray],
    byte: int,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Arrays to be written (copies, or filled with `byte`), and the larger buffers they lie in."""
    types = {letter: storage(letter, np.dtype(dtype).name) or None for letter in LETTERS}
    changed, buffers = {}, {}
    for key, value in inout.items():
        changed[key], buffers[key] = poisoned(value.shape, value.dtype, byte)
        changed[key][...] = value
    for key, shape in out.items():
        changed[key], buffers[key] = poisoned(shape, types[kernel.arrays[key].dtype], byte)
    return changed, buffers
