"""What compiled code asks of the machine: words that threads share, waiting, calls by address,
rounding, products of whole words."""

from __future__ import annotations

from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastnn.kernels import recorded

recorded.record()

_I64 = ir.IntType(64)
_X86 = not binding.get_process_triple().startswith(("aarch64", "arm64"))


@intrinsic
def call_address(tc: Any, address: Any, record: Any, lo: Any, hi: Any) -> Any:
    """Call compiled code by its address; returns 0 unless it has raised an exception."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = ir.FunctionType(_I64, [_I64] * 3)
        return builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])

    return types.int64(*[types.int64] * 4), codegen


@intrinsic
def atomic_add(tc: Any, address: Any, value: Any) -> Any:
    """Add to a word in memory; returns the word's value before."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], _I64.as_pointer())
        return builder.atomic_rmw("add", pointer, args[1], "seq_cst")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def atomic_load(tc: Any, address: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], _I64.as_pointer())
        return builder.load_atomic(pointer, "seq_cst", 8, typ=_I64)

    return types.int64(types.int64), codegen


@intrinsic
def atomic_store(tc: Any, address: Any, value: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], _I64.as_pointer())
        builder.store_atomic(args[1], pointer, "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def publish(tc: Any, address: Any, value: Any) -> Any:
    """Store a word: who reads it sees all that this thread has written before."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], _I64.as_pointer())
        builder.store_atomic(args[1], pointer, "release", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def atomic_swap(tc: Any, address: Any, value: Any) -> Any:
    """Store a word; returns the one that was there."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], _I64.as_pointer())
        return builder.atomic_rmw("xchg", pointer, args[1], "seq_cst")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def atomic_replace(tc: Any, address: Any, expected: Any, value: Any) -> Any:
    """Store a word if the one there is as expected; returns the one that was there."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], _I64.as_pointer())
        pair = builder.cmpxchg(pointer, args[1], args[2], "seq_cst", "seq_cst")
        return builder.extract_value(pair, 0)

    return types.int64(types.int64, types.int64, types.int64), codegen


def _external(name: str) -> Any:
    """An intrinsic that calls a C function or LLVM intrinsic without a result."""

    @intrinsic
    def function(tc: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [])
            return context.get_dummy_value()

        return types.void(), codegen

    return function


pause = _external("llvm.x86.sse2.pause") if _X86 else _external("sched_yield")
yield_core = _external("sched_yield")


@intrinsic
def flush_to_zero(tc: Any) -> Any:
    """Make denormal numbers zero on this thread; returns the control word to restore."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        if not _X86:
            get = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(_I64, []), "llvm.aarch64.get.fpcr"
            )
            old = builder.call(get, [])
            _set_fpcr(builder, builder.or_(old, ir.Constant(_I64, 1 << 24)))
            return old
        slot = cgutils.alloca_once(builder, ir.IntType(32))
        _mxcsr(builder, "stmxcsr", slot)
        old = builder.load(slot)
        builder.store(builder.or_(old, ir.Constant(ir.IntType(32), 0x8040)), slot)
        _mxcsr(builder, "ldmxcsr", slot)
        return builder.zext(old, _I64)

    return types.int64(), codegen


@intrinsic
def restore_rounding(tc: Any, word: Any) -> Any:
    """Put back the control word that `flush_to_zero` returned."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        if not _X86:
            _set_fpcr(builder, args[0])
            return context.get_dummy_value()
        slot = cgutils.alloca_once(builder, ir.IntType(32))
        builder.store(builder.trunc(args[0], ir.IntType(32)), slot)
        _mxcsr(builder, "ldmxcsr", slot)
        return context.get_dummy_value()

    return types.void(types.int64), codegen


def _mxcsr(builder: Any, name: str, slot: Any) -> None:
    pointer = ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [pointer])
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.sse.{name}")
    builder.call(function, [builder.bitcast(slot, pointer)])


def _set_fpcr(builder: Any, value: Any) -> None:
    kind = ir.FunctionType(ir.VoidType(), [_I64])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.aarch64.set.fpcr")
    builder.call(function, [value])


@intrinsic
def short_at(tc: Any, address: Any) -> Any:
    """The two bytes at an address."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], ir.IntType(16).as_pointer())
        return builder.zext(builder.load(pointer), _I64)

    return types.int64(types.int64), codegen


@intrinsic
def multiply_high(tc: Any, a: Any, b: Any) -> Any:
    """The upper half of the product of two words without a sign."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        wide = ir.IntType(128)
        product = builder.mul(*(builder.zext(arg, wide) for arg in args))
        return builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), _I64)

    return types.int64(types.int64, types.int64), codegen
