"""How kernels and their helpers are handed to Numba for CUDA.

Numba's CUDA target learns three sets of functions: every `@helper` (as it is written, below), the
functions of `kernels.simd` on values, and those of `kernels.cuda` (`_simd_nvvm`, `_device_nvvm`).

Functions are not compiled quite as they are (`adapted`): the name `cuda` becomes the module
`numba.cuda`, and where the program's type is float32, float constants become float32: Numba would
compute ``0.5 * x`` in float64. A helper is in float32 if one of its arguments is.
"""

from __future__ import annotations

import functools
import importlib
import types as pytypes
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir

from fastnn.kernels import recorded
from fastnn.kernels.cuda import device
from fastnn.kernels.declare import HELPERS
from fastnn.runtime import _cuda

recorded.record()

numba: Any = _cuda.extension()
types: Any = numba.types
# these register compiled functions with Numba when they are imported
_device: Any = importlib.import_module("fastnn.kernels.cuda._device_nvvm")
_simd: Any = importlib.import_module("fastnn.kernels.cuda._simd_nvvm")
for _name in ("tile", "half", "exchange", "near"):
    importlib.import_module(f"fastnn.kernels.cuda._{_name}_nvvm")

_registered: set[int] = set()
_INLINE = {"forceinline": True}


def adapted(function: Callable[..., Any], single: bool) -> Any:
    """The function with `cuda` as the real module, and with float32 constants if `single`."""
    return _adapted(function, single)


@functools.cache
def _adapted(function: Any, single: bool) -> Any:
    def convert(value: Any) -> Any:
        if value is device.cuda:
            return _cuda.numba_cuda()
        if single and type(value) is float:
            return np.float32(value)
        if type(value) is tuple:
            return tuple(convert(v) for v in value)
        return value

    code = function.__code__
    names = [n for n in code.co_names if n in function.__globals__]
    made = pytypes.FunctionType(
        code.replace(co_consts=tuple(convert(c) for c in code.co_consts)),
        {**function.__globals__, **{n: convert(function.__globals__[n]) for n in names}},
        function.__name__,
        function.__defaults__,
        tuple(pytypes.CellType(convert(c.cell_contents)) for c in function.__closure__ or ()),
    )
    made.__kwdefaults__ = function.__kwdefaults__
    made.__module__ = function.__module__
    made.__qualname__ = function.__qualname__
    return made


def is_single(kind: Any) -> bool:
    """Whether a Numba type is float32 (or its bits), an array of it, or a tuple with one."""
    if isinstance(kind, types.Array):
        return bool(kind.dtype == types.float32)
    if isinstance(kind, types.BaseTuple):
        return any(is_single(t) for t in kind)
    return bool(kind == types.float32 or kind == _simd.WORD)


def register_helpers() -> None:
    """Make every function marked `@helper` callable from kernels."""
    for function in list(HELPERS):
        if id(function) not in _registered:
            _registered.add(id(function))
            _register_helper(function)


def _register_helper(function: Callable[..., Any]) -> None:
    def choose(*arguments: Any, **named: Any) -> Any:
        return adapted(function, any(map(is_single, [*arguments, *named.values()])))

    numba.extending.overload(function, jit_options=_INLINE, strict=False)(choose)


@numba.extending.intrinsic
def array_at(typing_context: Any, address: Any, shape: Any, dtype: Any) -> Any:
    """The C-contiguous array of this shape and element type at an address in global memory."""
    kind = types.Array(dtype.dtype, len(shape), "C")

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        data = context.make_array(kind)(context, builder).data.type
        # by way of a pointer to global memory, so that LLVM sees where it points
        pointer = builder.inttoptr(args[0], ir.PointerType(data.pointee, 1))
        sizes = numba.cgutils.unpack_tuple(builder, args[1])
        return _device.array_value(
            context, builder, kind, builder.addrspacecast(pointer, data), sizes
        )

    return kind(address, shape, dtype), codegen


def entry_scope(function: Callable[..., None], dtype: str) -> dict[str, Any]:
    """The globals of an entry that calls `kernel` on arrays at addresses (`array_at`)."""
    register_helpers()

    def kernel(*arguments: Any) -> None:
        """Stands for the kernel's function."""

    made = adapted(function, dtype == "float32")
    numba.extending.overload(kernel, jit_options=_INLINE, strict=False)(lambda *arguments: made)
    return {"np": np, "array_at": array_at, "kernel": kernel}
