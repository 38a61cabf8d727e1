"""The functions of `kernels.cuda.flags`, compiled: flags by acquiring and releasing accesses."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from .. import recorded
from . import flags
from ._types_nvvm import define, types

recorded.record()

_LONG = ir.IntType(64)


def _address(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    data = context.make_array(sig.args[0])(context, builder, args[0]).data
    index = context.cast(builder, args[1], sig.args[1], types.intp)
    return builder.ptrtoint(builder.gep(data, [index]), _LONG)


def _assembly(builder: Any, text: str, constraints: str, result: Any, args: list[Any]) -> Any:
    # it touches memory: nothing is moved across it, and it is not taken out of a loop
    kind = ir.FunctionType(result, [a.type for a in args])
    return builder.call(ir.InlineAsm(kind, text, constraints, side_effect=True), args)


def _load_acquire(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    address = _address(context, builder, sig, args)
    text, constraints = "ld.acquire.gpu.global.b64 $0, [$1];", "=l,l,~{memory}"
    return _assembly(builder, text, constraints, _LONG, [address])


def _store_release(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    address = _address(context, builder, sig, args)
    value = context.cast(builder, args[2], sig.args[2], types.int64)
    text = "st.release.gpu.global.b64 [$0], $1;"
    _assembly(builder, text, "l,l,~{memory}", ir.VoidType(), [address, value])
    return context.get_dummy_value()


def _is_flags(flags: Any) -> bool:
    return isinstance(flags, types.Array) and flags.dtype == types.int64


define(
    flags.load_acquire,
    lambda flags, i: types.int64 if _is_flags(flags) else None,
    _load_acquire,
)
define(
    flags.store_release,
    lambda flags, i, value: types.none if _is_flags(flags) else None,
    _store_release,
)
