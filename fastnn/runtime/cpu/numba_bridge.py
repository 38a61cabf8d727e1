"""The only module of the CPU runtime that imports Numba; loaded when something is compiled."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils, compiler, registry
from numba.core.compiler_lock import global_compiler_lock
from numba.extending import intrinsic, register_jitable
from numba.np import arrayobj

import fastnn.kernels.cpu._simd_llvm
import fastnn.kernels.cpu._tile_llvm
import fastnn.kernels.cpu._tile_unit_llvm
import fastnn.kernels.cpu._transpose_llvm  # noqa: F401  (each registers its functions)
from fastnn.kernels import recorded
from fastnn.kernels.cpu import _bounds_llvm, _types_llvm
from fastnn.kernels.declare import HELPERS
from fastnn.runtime.cpu.checks import checked

recorded.record()

#: options of all code; no fast-math: sums keep their order, NaN and infinity stay
OPTIONS = {"error_model": "numpy", "boundscheck": checked()}
ENTRY_ARGUMENTS = (types.int64, types.int64, types.int64)
_registered: set[int] = set()


@intrinsic
def words(typing_context: Any, address: Any) -> Any:
    """An address as a pointer to int64."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], ir.IntType(64).as_pointer())

    return types.CPointer(types.int64)(address), codegen


@intrinsic
def array_at(typing_context: Any, address: Any, shape: Any, dtype: Any) -> Any:
    """The C-contiguous array of this shape and element type that lies at an address."""
    return _array_at(address, shape, dtype, True)


@intrinsic
def sums_array_at(typing_context: Any, address: Any, shape: Any, dtype: Any) -> Any:
    """Likewise, for a kernel that adds lanes up (`_types_llvm.vector_of`)."""
    return _array_at(address, shape, dtype, False)


def _array_at(address: Any, shape: Any, dtype: Any, aligned: bool) -> Any:
    kind = types.Array(dtype.dtype, len(shape), "C", aligned=aligned)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        size = ir.Constant(ir.IntType(64), np.dtype(str(kind.dtype)).itemsize)
        sizes = cgutils.unpack_tuple(builder, args[1])
        strides: list[Any] = []
        step = size
        for extent in reversed(sizes):
            strides.insert(0, step)
            step = builder.mul(step, extent)
        array = context.make_array(kind)(context, builder)
        arrayobj.populate_array(
            array,
            data=builder.inttoptr(args[0], array.data.type),
            shape=sizes,
            strides=strides,
            itemsize=size,
            meminfo=None,
        )
        return array._getvalue()

    return kind(address, shape, dtype), codegen


@intrinsic
def as_float(typing_context: Any, word: Any) -> Any:
    """The float64 whose bits an int64 holds."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.int64), codegen


def register_helpers() -> None:
    """Make every function marked `@helper` callable from compiled code."""
    for function in HELPERS:
        if id(function) not in _registered:
            _registered.add(id(function))
            register_jitable(forceinline=True, **OPTIONS)(function)


def entry_scope(function: Callable[..., None]) -> dict[str, Any]:
    register_helpers()
    return {
        "np": np,
        "words": words,
        "array_at": array_at,
        "sums_array_at": sums_array_at,
        "as_float": as_float,
        "kernel": numba.njit(**OPTIONS)(function),
    }


def optimised_llvm(entry: Callable[..., Any], name: str) -> str:
    """Optimised LLVM text with a C function `int64 name(int64, int64, int64)` that calls `entry`.

    It returns Numba's status: 0, or another number where the code has raised an exception.

    Numba's own C wrapper is not used: it refers to Numba's run-time helpers, and object files
    have to load in a process that never imports Numba.
    """
    cpu = registry.cpu_target
    flags = compiler.Flags()
    flags.no_cpython_wrapper = True
    flags.no_cfunc_wrapper = True
    flags.error_model = OPTIONS["error_model"]
    noting = _bounds_llvm.noting() if OPTIONS["boundscheck"] else nullcontext()
    with global_compiler_lock, noting:
        cpu.typing_context.refresh()
        cpu.target_context.refresh()
        _types_llvm.install(cpu.typing_context, cpu.target_context)
        result = compiler.compile_extra(
            cpu.typing_context, cpu.target_context, entry, ENTRY_ARGUMENTS, types.void, flags, {}
        )
        result.library._ensure_finalized()  # links in what the function calls, then optimises
        text = result.library.get_llvm_str()
    return (
        f"{text}\ndefine i64 @{name}(i64 %record, i64 %lo, i64 %hi) {{\n"
        "  %result = alloca ptr\n"
        "  %error = alloca ptr\n"
        f"  %status = call i32 @{result.fndesc.llvm_func_name}"
        "(ptr %result, ptr %error, i64 %record, i64 %lo, i64 %hi)\n"
        "  %long = sext i32 %status to i64\n"
        "  ret i64 %long\n}\n"
    )
