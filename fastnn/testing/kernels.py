"""Call a compiled kernel directly on NumPy arrays, as tests and benchmarks do."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from fastnn.kernels.declare import Array, CudaKernel, Kernel
from fastnn.runtime import _cuda
from fastnn.runtime.cpu import compiler

TYPES = {"r": np.float64, "i": np.int64}


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
    dtype, data_dtype = "float32", ""
    letters: dict[str, int] = {}
    for name, parameter in kernel.params.items():
        value = operands[name]
        if not isinstance(parameter, Array) or value is None:
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
    return letters, dtype, data_dtype


def call(kernel: Kernel, lo: int = 0, hi: int | None = None, /, **operands: Any) -> None:
    """Run the compiled kernel for items `lo` to `hi` (all by default); results are in the arrays.

    Arrays are passed by name (None: absent) and must be C-contiguous; float arrays all of one type,
    float32 or float64, which chooses the variant.

    >>> call(KERNELS["relu_forward"], x=x, y=y)  # doctest: +SKIP
    """
    words, dtype, data_dtype, items = record(kernel, operands)
    address = compiler.address(kernel, dtype, data_dtype)
    compiler.CALL(address)(words.ctypes.data, lo, items if hi is None else hi)


def call_cuda(kernel: CudaKernel, /, **operands: Any) -> None:
    """Run a CUDA kernel on NumPy arrays: copied to the device, and back what it writes.

    Where Numba's simulator is on (`NUMBA_ENABLE_CUDASIM=1`) it runs there, as plain Python.
    Arguments as for `call`.
    """
    from fastnn.runtime.cuda import compiler as cuda_compiler

    letters, dtype, data_dtype = checked(kernel, operands)
    sizes = letters | {
        name: int(operands[name])
        for name, p in kernel.params.items()
        if not isinstance(p, Array) and p.kind == "int"
    }
    for parameter in kernel.arrays.values():  # absent arrays have no sizes
        for letter in parameter.dims:
            sizes.setdefault(letter, 0)
    launch = cuda_compiler.launch_of(kernel, sizes, dtype)
    if _cuda.simulated():
        _simulate(kernel, launch, dtype, data_dtype, operands)
    else:
        _run_on_device(kernel, launch, dtype, data_dtype, operands)


def _simulate(
    kernel: CudaKernel, launch: Any, dtype: str, data_dtype: str, operands: dict[str, Any]
) -> None:
    from fastnn.runtime.cuda import simulator

    scalars: dict[str, Any] = {"int": int, "double": np.float64, "real": np.dtype(dtype).type}
    elements = {"f": dtype, "d": data_dtype or dtype, "r": "float64", "i": "int64"}
    arguments = []
    for name, parameter in kernel.params.items():
        value = operands[name]
        if not isinstance(parameter, Array):
            value = scalars[parameter.kind](value)
        elif value is None:
            value = np.empty((0,) * len(parameter.dims), elements[parameter.dtype])
        arguments.append(value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # overflow and the like are results
        simulator.run(kernel.function, launch, arguments, kernel.cooperative)


def _run_on_device(
    kernel: CudaKernel, launch: Any, dtype: str, data_dtype: str, operands: dict[str, Any]
) -> None:
    from fastnn.runtime.cuda import compiler as cuda_compiler

    core, driver = _cuda.core(), _cuda.driver()
    device = core.Device()
    device.set_current()
    stream = device.create_stream()
    buffers: dict[str, Any] = {}
    places: dict[str, Any] = {}
    for name, parameter in kernel.params.items():
        value = operands[name]
        if not isinstance(parameter, Array):
            places[name] = value
        elif value is None or value.size == 0:
            places[name] = (0, (0,) * len(parameter.dims) if value is None else value.shape)
        else:
            buffers[name] = device.memory_resource.allocate(value.nbytes, stream=stream)
            address = int(buffers[name].handle)
            _cuda.check(driver.cuMemcpyHtoD(address, value.ctypes.data, value.nbytes))
            places[name] = (address, value.shape)
    code = cuda_compiler.code(kernel, dtype, data_dtype, _cuda.compute_capability())
    function = core.ObjectCode.from_cubin(code.cubin).get_kernel(cuda_compiler.ENTRY)
    config = core.LaunchConfig(
        grid=launch.grid, block=launch.threads, shmem_size=launch.shared,
        cooperative_launch=kernel.cooperative,
    )  # fmt: skip
    if launch.shared > 48 * 1024:
        attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        _cuda.check(driver.cuFuncSetAttribute(int(function.handle), attribute, launch.shared))
    core.launch(stream, config, function, *cuda_compiler.arguments(kernel, dtype, places))
    stream.sync()
    for name, buffer in buffers.items():
        if kernel.arrays[name].writes:
            value = operands[name]
            _cuda.check(driver.cuMemcpyDtoH(value.ctypes.data, int(buffer.handle), value.nbytes))
        buffer.close(stream)
