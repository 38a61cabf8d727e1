"""The functions of `kernels.simd` on values, compiled for CUDA: a vector is one number.

Floats are Numba's own. The integers that `simd.bits` makes of float32 are a type of their own,
`Word`, that stays 32 bits wide: Numba's int32 become int64 at the first operation.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir

from .. import recorded, simd
from . import device
from ._types_nvvm import call, define, define_operator, numba, types

recorded.record()

I32 = ir.IntType(32)


class Word(types.Type):
    """The bits of a float32, with the operations of a vector of integers."""

    def __init__(self) -> None:
        super().__init__(name="Word")


WORD = Word()


@numba.register_model(Word)
class _WordModel(numba.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, I32)


def _word(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return convert(context, builder, args[0], sig.args[0], WORD)


define(device.word, lambda value: WORD if isinstance(value, types.Integer) else None, _word)


def convert(context: Any, builder: Any, value: Any, from_type: Any, to_type: Any) -> Any:
    """A value as another type; constants become words by cutting off."""
    if from_type == to_type:
        return value
    if to_type == WORD:
        value = context.cast(builder, value, from_type, types.int64)
        return builder.trunc(value, I32)
    return context.cast(builder, value, from_type, to_type)


def common(*arguments: Any) -> Any:
    """The type of an operation on values: float32 before float64 (constants give way to it)."""
    if any(a == WORD for a in arguments):
        return WORD if all(a == WORD or isinstance(a, types.Integer) for a in arguments) else None
    if not all(isinstance(a, (types.Number, types.Boolean)) for a in arguments):
        return None
    floats = [a for a in arguments if isinstance(a, types.Float)]
    whole = [a for a in arguments if isinstance(a, types.Integer)]
    if floats:
        return min(floats, key=lambda t: t.bitwidth)
    if whole:
        return types.int64
    return types.boolean


def common_float(*arguments: Any) -> Any:
    kind = common(*arguments)
    return kind if isinstance(kind, types.Float) else None


def converted(context: Any, builder: Any, sig: Any, args: Any) -> list[Any]:
    """The arguments as the type of the result."""
    pairs = zip(args, sig.args, strict=True)
    return [convert(context, builder, v, t, sig.return_type) for v, t in pairs]


# ---------------------------------------------------------------- operators of words

for _op, _name in (
    (operator.add, "add"),
    (operator.sub, "sub"),
    (operator.and_, "and_"),
    (operator.or_, "or_"),
    (operator.xor, "xor"),
):

    def _operate(context: Any, builder: Any, sig: Any, args: Any, name: str = _name) -> Any:
        return getattr(builder, name)(*converted(context, builder, sig, args))

    define_operator(_op, lambda a, b: WORD if common(a, b) == WORD else None, _operate, Word)


# ---------------------------------------------------------------- arithmetic


def _external(single: str, double: str) -> Callable[..., Any]:
    """A function of LLVM's or of libdevice's (NVVM knows few of LLVM's), by its names."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        values = converted(context, builder, sig, args)
        name = single if sig.return_type == types.float32 else double
        return call(builder, name, values[0].type, values)

    return codegen


for _function, _single, _double in (
    (simd.fma, "llvm.fma.f32", "llvm.fma.f64"),
    (simd.absolute, "__nv_fabsf", "__nv_fabs"),
    (simd.sqrt, "llvm.sqrt.f32", "llvm.sqrt.f64"),
    (simd.rint, "__nv_rintf", "__nv_rint"),
    (simd.floor, "__nv_floorf", "__nv_floor"),
    (simd.copysign, "__nv_copysignf", "__nv_copysign"),
):
    define(_function, common_float, _external(_single, _double))


def _twice_sqrt(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    root = _external("llvm.sqrt.f32", "llvm.sqrt.f64")(context, builder, sig, args)
    return builder.fadd(root, root)


define(simd.twice_sqrt, common_float, _twice_sqrt)


def _smaller_or_larger(symbol: str) -> Callable[..., Any]:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        a, b = converted(context, builder, sig, args)
        compare = (
            builder.fcmp_ordered
            if isinstance(sig.return_type, types.Float)
            else builder.icmp_signed
        )
        return builder.select(compare(symbol, a, b), a, b)

    return codegen


define(simd.minimum, common, _smaller_or_larger("<"))
define(simd.maximum, common, _smaller_or_larger(">"))


def _where(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    test = context.cast(builder, args[0], sig.args[0], types.boolean)
    pairs = zip(args[1:], sig.args[1:], strict=True)
    values = [convert(context, builder, v, t, sig.return_type) for v, t in pairs]
    return builder.select(test, *values)


define(simd.where, lambda mask, a, b: common(a, b), _where)


def _polynomial(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    kind = sig.return_type
    k = 1 if kind == types.float32 else 2
    c = [
        context.cast(builder, builder.extract_value(args[k], i), t, kind)
        for i, t in enumerate(sig.args[k].types)
    ]
    result = c[0]
    for term in c[1:]:
        name = f"llvm.fma.f{kind.bitwidth}"
        result = call(builder, name, result.type, [result, args[0], term])
    return result


define(
    simd.polynomial,
    lambda v, single, double: v if isinstance(v, types.Float) else None,
    _polynomial,
)


def _ldexp(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """a * 2^n = a * 2^h * 2^(n-h) with h about n/2: both factors are normal numbers, and only the
    second product can round."""
    kind = sig.return_type
    a, n = converted(context, builder, sig, args)
    mantissa, bias = (23, 127) if kind.bitwidth == 32 else (52, 1023)
    integer = ir.IntType(kind.bitwidth)
    whole = builder.fptosi(n, integer)
    half = builder.ashr(whole, ir.Constant(integer, 1))
    for part in (half, builder.sub(whole, half)):
        exponent = builder.add(part, ir.Constant(integer, bias))
        a = builder.fmul(
            a, builder.bitcast(builder.shl(exponent, ir.Constant(integer, mantissa)), a.type)
        )
    return a


define(simd.ldexp, common_float, _ldexp)


# ---------------------------------------------------------------- constants of a value's type


def _is_value(v: Any) -> bool:
    return bool(v == WORD or isinstance(v, types.Number))


def _fill_like(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return convert(context, builder, args[1], sig.args[1], sig.return_type)


def _pick(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    k = 1 if sig.return_type in (types.float32, WORD) else 2
    return convert(context, builder, args[k], sig.args[k], sig.return_type)


def _is32(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    kind = getattr(sig.args[0], "dtype", sig.args[0])
    return ir.Constant(ir.IntType(1), int(kind in (types.float32, WORD)))


define(simd.fill_like, lambda v, value: v if _is_value(v) else None, _fill_like)
define(simd.pick, lambda v, single, double: v if _is_value(v) else None, _pick)
define(simd.is32, lambda v: types.boolean, _is32)


# ---------------------------------------------------------------- bits and conversions

_TO_BITS = {types.float32: WORD, types.float64: types.int64}
_FROM_BITS = {WORD: types.float32, types.int64: types.float64}


def _converting(name: str) -> Callable[..., Any]:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return getattr(builder, name)(args[0], context.get_value_type(sig.return_type))

    return codegen


define(simd.bits, _TO_BITS.get, _converting("bitcast"))
define(simd.from_bits, _FROM_BITS.get, _converting("bitcast"))
define(simd.to_int, _TO_BITS.get, _converting("fptosi"))
define(simd.to_float, _FROM_BITS.get, _converting("sitofp"))


def _integer(a: Any, n: Any) -> Any:
    return a if a == WORD or a == types.int64 else None


def _shifting(name: str) -> Callable[..., Any]:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return getattr(builder, name)(*converted(context, builder, sig, args))

    return codegen


define(simd.shift_left, _integer, _shifting("shl"))
define(simd.shift_right, _integer, _shifting("ashr"))


def _multiply(high: bool) -> Callable[..., Any]:
    """Low or high half of a product of 32-bit words, which lie in Words or in int64."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        long = ir.IntType(64)
        a, m = args[0], context.cast(builder, args[1], sig.args[1], types.int64)
        wide = a if sig.return_type == types.int64 else builder.zext(a, long)
        product = builder.mul(wide, m)
        if high:
            product = builder.lshr(product, ir.Constant(long, 32))
        if sig.return_type == WORD:
            return builder.trunc(product, I32)
        return builder.and_(product, ir.Constant(long, 0xFFFFFFFF))

    return codegen


define(simd.multiply_low, _integer, _multiply(high=False))
define(simd.multiply_high, _integer, _multiply(high=True))
