"""The functions of `kernels.cuda.device`, compiled: sums by warp shuffles, vector loads, views."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import cuda

from .. import recorded
from . import device
from ._simd_nvvm import convert
from ._types_nvvm import define, numba, types

recorded.record()

_INLINE = {"forceinline": True}
ALL = 0xFFFFFFFF  # all threads of a warp


def array_value(context: Any, builder: Any, kind: Any, data: Any, sizes: list[Any]) -> Any:
    """A C-contiguous array of type `kind` with this data pointer and shape."""
    array = context.make_array(kind)(context, builder)
    itemsize = ir.Constant(ir.IntType(64), np.dtype(str(kind.dtype)).itemsize)
    strides: list[Any] = []
    step = itemsize
    for extent in reversed(sizes):
        strides.insert(0, step)
        step = builder.mul(step, extent)
    numba.arrayobj.populate_array(
        array, data=data, shape=sizes, strides=strides, itemsize=itemsize, meminfo=None
    )
    return array._getvalue()


def _flat(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    array = context.make_array(sig.args[0])(context, builder, args[0])
    return array_value(context, builder, sig.return_type, array.data, [array.nitems])


define(
    device.flat,
    lambda x: types.Array(x.dtype, 1, "C") if isinstance(x, types.Array) else None,
    _flat,
)


def _cast(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return convert(context, builder, args[1], sig.args[1], sig.return_type)


define(device.cast, lambda x, value: getattr(x, "dtype", x), _cast)


def _divide_index(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    a, b = (context.cast(builder, v, t, types.int64) for v, t in zip(args, sig.args, strict=True))
    return builder.udiv(a, b)


define(device.divide_index, lambda i, n: types.int64, _divide_index)


# numbers of threads and blocks are computed with 32 bits and widened as what is never negative

_LONG = ir.IntType(64)


def _special(builder: Any, *names: str) -> Any:
    """The product of special registers (numbers of 32 bits)."""
    result = numba.call_sreg(builder, names[0])
    for name in names[1:]:
        result = builder.mul(result, numba.call_sreg(builder, name))
    return result


def _thread_number(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    row = builder.add(_special(builder, "tid.y"), _special(builder, "ntid.y", "tid.z"))
    number = builder.add(_special(builder, "tid.x"), builder.mul(_special(builder, "ntid.x"), row))
    return builder.zext(number, _LONG)


def _block_threads(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.zext(_special(builder, "ntid.x", "ntid.y", "ntid.z"), _LONG)


def _flat_index(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    block, threads, thread = (
        builder.zext(_special(builder, name), _LONG) for name in ("ctaid.x", "ntid.x", "tid.x")
    )
    return builder.add(builder.mul(block, threads), thread)


def _one_register(name: str) -> Any:
    return lambda context, builder, sig, args: builder.zext(_special(builder, name), _LONG)


def _nothing(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return context.get_dummy_value()


define(device.give_way, lambda: types.none, _nothing)
define(device.thread_number, lambda: types.int64, _thread_number)
define(device.block_threads, lambda: types.int64, _block_threads)
define(device.flat_index, lambda: types.int64, _flat_index)
define(device.block_number, lambda: types.int64, _one_register("ctaid.x"))


# ---------------------------------------------------------------- four elements at once


def _vector_pointer(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    vector = ir.VectorType(context.get_value_type(kind.dtype), 4)
    return builder.bitcast(builder.gep(data, [index]), vector.as_pointer(data.type.addrspace))


def _can_load4(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    data = context.make_array(sig.args[0])(context, builder, args[0]).data
    address = builder.ptrtoint(data, ir.IntType(64))
    rest = builder.and_(address, ir.Constant(ir.IntType(64), 15))
    return builder.icmp_unsigned("==", rest, ir.Constant(ir.IntType(64), 0))


def _load4(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    index = context.cast(builder, args[1], sig.args[1], types.intp)
    pointer = _vector_pointer(context, builder, sig.args[0], args[0], index)
    value = builder.load(pointer, align=16)
    items = [builder.extract_element(value, ir.Constant(ir.IntType(32), k)) for k in range(4)]
    return context.make_tuple(builder, sig.return_type, items)


def _store4(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    index = context.cast(builder, args[1], sig.args[1], types.intp)
    pointer = _vector_pointer(context, builder, sig.args[0], args[0], index)
    value = ir.Constant(pointer.type.pointee, ir.Undefined)
    for k in range(4):
        item = context.cast(builder, args[2 + k], sig.args[2 + k], sig.args[0].dtype)
        value = builder.insert_element(value, item, ir.Constant(ir.IntType(32), k))
    builder.store(value, pointer, align=16)
    return context.get_dummy_value()


def _is_float_array(x: Any, *others: Any) -> bool:
    return isinstance(x, types.Array) and (isinstance(x.dtype, types.Float) or x.dtype in others)


define(device.can_load4, lambda x: types.boolean, _can_load4)
define(
    device.load4,
    lambda x, i: types.UniTuple(x.dtype, 4) if _is_float_array(x, types.uint32) else None,
    _load4,
)
define(
    device.store4,
    lambda x, i, a, b, c, d: types.none if _is_float_array(x) else None,
    _store4,
)


# ---------------------------------------------------------------- sums over threads


def _add(a: Any, b: Any) -> Any:
    return a + b


def _larger(a: Any, b: Any) -> Any:
    return a if a > b else b


_add_on_device = cuda.jit(device=True, forceinline=True)(_add)
_larger_on_device = cuda.jit(device=True, forceinline=True)(_larger)


def _warp_body(combine: Any) -> Callable[..., Any]:
    def body(value: Any) -> Any:
        # the lower lane's value comes first, as in `device._fold`
        value = combine(value, cuda.shfl_xor_sync(ALL, value, 16))
        value = combine(value, cuda.shfl_xor_sync(ALL, value, 8))
        value = combine(value, cuda.shfl_xor_sync(ALL, value, 4))
        value = combine(value, cuda.shfl_xor_sync(ALL, value, 2))
        return combine(value, cuda.shfl_xor_sync(ALL, value, 1))

    return body


def _block_body(warp: Any, kind: Any, empty: Any) -> Callable[..., Any]:
    dtype = kind

    def body(value: Any) -> Any:
        partial = cuda.shared.array(32, dtype)
        number = device.thread_number()
        lane = number & 31
        value = warp(value)
        if lane == 0:
            partial[number >> 5] = value
        cuda.syncthreads()
        value = empty
        if lane < device.block_threads() >> 5:
            value = partial[lane]
        value = warp(value)
        cuda.syncthreads()  # the array may be used again
        return value

    return body


def _register(function: Callable[..., Any], body: Callable[..., Any]) -> None:
    numba.extending.overload(function, jit_options=_INLINE, strict=False)(lambda *a: body)


def _register_sums(block: Any, warp: Any, combine: Any, empty: float) -> None:
    warp_body = _warp_body(combine)
    _register(warp, warp_body)

    def choose(value: Any) -> Any:
        kind = types.int64 if isinstance(value, types.Integer) else value
        number = np.dtype(str(kind)).type
        if kind == types.int64 and empty < 0:
            return _block_body(warp, kind, np.iinfo(np.int64).min)
        return _block_body(warp, kind, number(empty))

    numba.extending.overload(block, jit_options=_INLINE, strict=False)(choose)


_register_sums(device.block_sum, device.warp_sum, _add_on_device, 0.0)
_register_sums(device.block_max, device.warp_max, _larger_on_device, -float("inf"))
