"""The compiled side of `simd`: vector types for Numba and the LLVM code of each operation.

Importing this module registers everything; `fastnn.runtime.cpu.numba_bridge` does so before the
first compilation. Each operation is a typing rule and a code generator entered directly
(no `@overload`, which would send every single operator through the whole compiler).
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types

from .. import recorded, simd
from . import target
from ._bounds_llvm import LOAD, STORE, check, lane_span, masked_span
from ._types_llvm import (
    I32,
    I64,
    FloatVector,
    IntVector,
    Mask,
    as_vector,
    constant,
    define,
    define_operator,
    is_array,
    is_number,
    is_vector,
    llvm_call,
    llvm_type,
    mask_between,
    pointer_to,
    splat_value,  # noqa: F401  (`_tile_llvm` takes it from here)
    suffix,
    vector_of,
)

recorded.record()

# ---------------------------------------------------------------- operators


def _arithmetic(op: Any, float_op: str | None, int_op: str | None) -> None:
    def typer(*args: Any) -> Any:
        vectors = [a for a in args if is_vector(a)]
        if not vectors or any(v != vectors[0] for v in vectors):
            return None
        if not all(is_vector(a) or is_number(a) for a in args):
            return None
        has = int_op if isinstance(vectors[0], IntVector) else float_op
        return vectors[0] if has else None

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        ty = sig.return_type
        values = [
            as_vector(context, builder, v, t, ty) for v, t in zip(args, sig.args, strict=True)
        ]
        return getattr(builder, int_op if isinstance(ty, IntVector) else float_op)(*values)

    define_operator(op, typer, codegen, 2)


_arithmetic(operator.add, "fadd", "add")
_arithmetic(operator.sub, "fsub", "sub")
_arithmetic(operator.mul, "fmul", "mul")
_arithmetic(operator.truediv, "fdiv", None)


def _bitwise(op: Any, name: str) -> None:
    def typer(a: Any, b: Any) -> Any:
        if isinstance(a, Mask) and a == b:
            return a
        vector = a if isinstance(a, IntVector) else b
        if isinstance(vector, IntVector) and all(t == vector or is_number(t) for t in (a, b)):
            return vector
        return None

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        ty = sig.return_type
        if not isinstance(ty, Mask):
            args = [
                as_vector(context, builder, v, t, ty) for v, t in zip(args, sig.args, strict=True)
            ]
        return getattr(builder, name)(*args)

    define_operator(op, typer, codegen, 2)


_bitwise(operator.and_, "and_")
_bitwise(operator.or_, "or_")
_bitwise(operator.xor, "xor")


def _negate_code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    if isinstance(sig.return_type, FloatVector):
        return builder.fneg(args[0])
    return builder.neg(args[0])


define_operator(operator.neg, lambda a: a if is_vector(a) else None, _negate_code, 1)
define_operator(
    operator.invert,
    lambda a: a if isinstance(a, Mask) else None,
    lambda context, builder, sig, args: builder.not_(args[0]),
    1,
)


def _comparison(op: Any, symbol: str) -> None:
    def typer(a: Any, b: Any) -> Any:
        vectors = [t for t in (a, b) if is_vector(t)]
        if not vectors or any(v != vectors[0] for v in vectors):
            return None
        return Mask(vectors[0].lanes) if all(is_vector(t) or is_number(t) for t in (a, b)) else None

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        ty = next(t for t in sig.args if is_vector(t))
        a, b = (as_vector(context, builder, v, t, ty) for v, t in zip(args, sig.args, strict=True))
        if isinstance(ty, IntVector):
            return builder.icmp_signed(symbol, a, b)
        if symbol == "!=":
            return builder.fcmp_unordered(symbol, a, b)
        return builder.fcmp_ordered(symbol, a, b)

    define_operator(op, typer, codegen, 2)


for _op, _symbol in (
    (operator.lt, "<"),
    (operator.le, "<="),
    (operator.gt, ">"),
    (operator.ge, ">="),
    (operator.eq, "=="),
    (operator.ne, "!="),
):
    _comparison(_op, _symbol)

# ---------------------------------------------------------------- memory


def _load(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    index = context.cast(builder, args[1], sig.args[1], types.intp)
    span = lane_span(builder, index, sig.return_type.lanes)
    check(context, builder, sig.args[0], args[0], span, LOAD)
    pointer = pointer_to(context, builder, sig.args[0], args[0], index)
    vec = llvm_type(sig.return_type)
    return builder.load(
        builder.bitcast(pointer, vec.as_pointer()), align=sig.args[0].dtype.bitwidth // 8, typ=vec
    )


def _store(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    ty = vector_of(sig.args[0])
    index = context.cast(builder, args[1], sig.args[1], types.intp)
    value = as_vector(context, builder, args[2], sig.args[2], ty)
    check(context, builder, sig.args[0], args[0], lane_span(builder, index, ty.lanes), STORE)
    pointer = pointer_to(context, builder, sig.args[0], args[0], index)
    builder.store(value, builder.bitcast(pointer, value.type.as_pointer()), align=ty.width // 8)
    return context.get_dummy_value()


def _masked_load(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    ty = sig.return_type
    index, *bounds = (
        context.cast(builder, v, t, types.intp) for v, t in zip(args[1:], sig.args[1:], strict=True)
    )
    span, any_lane = masked_span(builder, index, bounds, ty.lanes)
    check(context, builder, sig.args[0], args[0], span, LOAD, any_lane)
    vec = llvm_type(ty)
    pointer = builder.bitcast(
        pointer_to(context, builder, sig.args[0], args[0], index), vec.as_pointer()
    )
    mask = mask_between(builder, bounds, ty.lanes)
    zero = ir.Constant(vec, [0.0] * ty.lanes)
    arguments = [pointer, ir.Constant(I32, ty.width // 8), mask, zero]
    return llvm_call(builder, f"llvm.masked.load.{suffix(ty)}.p0", vec, arguments)


def _masked_store(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    ty = vector_of(sig.args[0])
    index = context.cast(builder, args[1], sig.args[1], types.intp)
    bounds = [
        context.cast(builder, v, t, types.intp) for v, t in zip(args[3:], sig.args[3:], strict=True)
    ]
    value = as_vector(context, builder, args[2], sig.args[2], ty)
    span, any_lane = masked_span(builder, index, bounds, ty.lanes)
    check(context, builder, sig.args[0], args[0], span, STORE, any_lane)
    pointer = builder.bitcast(
        pointer_to(context, builder, sig.args[0], args[0], index), value.type.as_pointer()
    )
    mask = mask_between(builder, bounds, ty.lanes)
    arguments = [value, pointer, ir.Constant(I32, ty.width // 8), mask]
    llvm_call(builder, f"llvm.masked.store.{suffix(ty)}.p0", ir.VoidType(), arguments)
    return context.get_dummy_value()


def _of_array(*args: Any) -> Any:
    return vector_of(args[0]) if is_array(args[0]) else None


def _nothing(*args: Any) -> Any:
    return types.void if is_array(args[0]) else None


define(simd.load, _of_array, _load)
define(simd.store, _nothing, _store)
for _function in (simd.load_first, simd.load_between):
    define(_function, _of_array, _masked_load)
for _function in (simd.store_first, simd.store_between):
    define(_function, _nothing, _masked_store)

# ---------------------------------------------------------------- constants


def _lanes(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return ir.Constant(I64, vector_of(sig.args[0]).lanes)


def _splat(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return as_vector(context, builder, args[1], sig.args[1], sig.return_type)


def _iota(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    ty = sig.return_type
    return ir.Constant(llvm_type(ty), [float(i) for i in range(ty.lanes)])


define(simd.lanes, lambda x: types.intp if is_array(x) else None, _lanes)
define(simd.splat, _of_array, _splat)
define(simd.fill_like, lambda v, value: v if is_vector(v) else None, _splat)
define(simd.iota, _of_array, _iota)
define(
    simd.is32,
    lambda v: types.boolean if is_vector(v) or is_array(v) else None,
    lambda context, builder, sig, args: ir.Constant(
        ir.IntType(1), int((getattr(sig.args[0], "width", 0) or sig.args[0].dtype.bitwidth) == 32)
    ),
)


def _pick(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    ty = sig.return_type
    k = 1 if ty.width == 32 else 2
    return as_vector(context, builder, args[k], sig.args[k], ty)


define(
    simd.pick,
    lambda v, a, b: v if is_vector(v) and is_number(a) and is_number(b) else None,
    _pick,
)

# ---------------------------------------------------------------- arithmetic functions


def _common(*args: Any) -> Any:
    vectors = [a for a in args if is_vector(a)]
    if not vectors or any(v != vectors[0] for v in vectors):
        return None
    return vectors[0] if all(is_vector(a) or is_number(a) for a in args) else None


def _vectors(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return [
        as_vector(context, builder, v, t, sig.return_type)
        for v, t in zip(args, sig.args, strict=True)
    ]


def _fma(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    values = _vectors(context, builder, sig, args)
    name = "llvm.fma" if target.host().has_fma else "llvm.fmuladd"
    return llvm_call(builder, f"{name}.{suffix(sig.return_type)}", values[0].type, values)


def _polynomial(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    ty = sig.return_type
    k = 1 if ty.width == 32 else 2
    coefficients = [
        as_vector(context, builder, builder.extract_value(args[k], i), kind, ty)
        for i, kind in enumerate(sig.args[k].types)
    ]
    name = "llvm.fma" if target.host().has_fma else "llvm.fmuladd"
    result = coefficients[0]
    for c in coefficients[1:]:
        result = llvm_call(builder, f"{name}.{suffix(ty)}", c.type, [result, args[0], c])
    return result


def _ldexp(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    a, n = args
    ty = sig.return_type
    if target.host().vector_bits == 512:
        bits = ir.IntType(ty.lanes)
        name = f"llvm.x86.avx512.mask.scalef.{'ps' if ty.width == 32 else 'pd'}.512"
        current_rounding = ir.Constant(I32, 4)
        arguments = [a, n, a, ir.Constant(bits, -1), current_rounding]
        return llvm_call(builder, name, a.type, arguments)
    # 2^n = 2^h * 2^(n-h) with h about n/2: both factors are normal numbers, and only the second
    # product can round
    mantissa, bias = (23, 127) if ty.width == 32 else (52, 1023)
    integers = IntVector(ty.width, ty.lanes)
    whole = builder.fptosi(n, llvm_type(integers))
    half = builder.ashr(whole, constant(integers, 1))
    for part in (half, builder.sub(whole, half)):
        exponent = builder.add(part, constant(integers, bias))
        factor = builder.bitcast(builder.shl(exponent, constant(integers, mantissa)), a.type)
        a = builder.fmul(a, factor)
    return a


def _twice_sqrt(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    ty, a = sig.return_type, args[0]
    if ty.width != 32 or target.host().vector_bits != 512:
        root = llvm_call(builder, f"llvm.sqrt.{suffix(ty)}", a.type, [a])
        return builder.fadd(root, root)
    everywhere = ir.Constant(ir.IntType(ty.lanes), -1)
    # 14 bits of 1/sqrt(a); not 0 where a is infinite: 0 times infinity is no number
    r = llvm_call(builder, "llvm.x86.avx512.rsqrt14.ps.512", a.type, [a, a, everywhere])
    low = constant(ty, 2.0**-65)
    r = builder.select(builder.fcmp_ordered(">", low, r), low, r)
    # one Newton step on the root: s/2 (3 - s r); no term of it leaves the range of a's root
    s = builder.fmul(a, r)
    arguments = [builder.fneg(s), r, constant(ty, 3.0)]
    return builder.fmul(s, llvm_call(builder, f"llvm.fma.{suffix(ty)}", a.type, arguments))


def _choose(symbol: str) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        a, b = _vectors(context, builder, sig, args)
        if isinstance(sig.return_type, IntVector):
            return builder.select(builder.icmp_signed(symbol, a, b), a, b)
        return builder.select(builder.fcmp_ordered(symbol, a, b), a, b)

    return codegen


def _where(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    ty = sig.return_type
    a, b = (as_vector(context, builder, args[k], sig.args[k], ty) for k in (1, 2))
    return builder.select(args[0], a, b)


def _float_intrinsic(name: str) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        values = _vectors(context, builder, sig, args)
        return llvm_call(builder, f"llvm.{name}.{suffix(sig.return_type)}", values[0].type, values)

    return codegen


define(simd.fma, _common, _fma)
define(simd.minimum, _common, _choose("<"))
define(simd.maximum, _common, _choose(">"))
define(simd.where, lambda m, a, b: _common(a, b) if isinstance(m, Mask) else None, _where)


def _float_only(*args: Any) -> Any:
    ty = _common(*args)
    return ty if isinstance(ty, FloatVector) else None


def _polynomial_type(v: Any, single: Any, double: Any) -> Any:
    tuples = isinstance(single, types.BaseTuple) and isinstance(double, types.BaseTuple)
    return v if isinstance(v, FloatVector) and tuples else None


define(simd.polynomial, _polynomial_type, _polynomial)
define(simd.ldexp, _float_only, _ldexp)
define(simd.twice_sqrt, _float_only, _twice_sqrt)
for _function, _name in (
    (simd.absolute, "fabs"),
    (simd.sqrt, "sqrt"),
    (simd.rint, "rint"),
    (simd.floor, "floor"),
    (simd.copysign, "copysign"),
):
    define(_function, _float_only, _float_intrinsic(_name))

# ---------------------------------------------------------------- bits and conversions


def _float_to_int(v: Any) -> Any:
    return IntVector(v.width, v.lanes) if isinstance(v, FloatVector) else None


def _int_to_float(v: Any) -> Any:
    return FloatVector(v.width, v.lanes) if isinstance(v, IntVector) else None


def _convert(name: str) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return getattr(builder, name)(args[0], llvm_type(sig.return_type))

    return codegen


define(simd.bits, _float_to_int, _convert("bitcast"))
define(simd.from_bits, _int_to_float, _convert("bitcast"))
define(simd.to_int, _float_to_int, _convert("fptosi"))
define(simd.to_float, _int_to_float, _convert("sitofp"))


def _shift(name: str) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        count = as_vector(context, builder, args[1], sig.args[1], sig.return_type)
        return getattr(builder, name)(args[0], count)

    return codegen


def _int_vector(v: Any, n: Any) -> Any:
    return v if isinstance(v, IntVector) and (n == v or is_number(n)) else None


define(simd.shift_left, _int_vector, _shift("shl"))
define(simd.shift_right, _int_vector, _shift("ashr"))

# ---------------------------------------------------------------- unsigned 32-bit words


def _words_of(x: Any, *rest: Any) -> Any:
    if not is_array(x):
        return None
    vector = vector_of(x)
    return IntVector(vector.width, vector.lanes)


def _words(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    ty = sig.return_type
    first = as_vector(context, builder, args[1], sig.args[1], ty)
    result = builder.add(first, ir.Constant(llvm_type(ty), list(range(ty.lanes))))
    return result if ty.width == 32 else builder.and_(result, constant(ty, 0xFFFFFFFF))


def _multiply_low(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    ty = sig.return_type
    result = builder.mul(args[0], as_vector(context, builder, args[1], sig.args[1], ty))
    return result if ty.width == 32 else builder.and_(result, constant(ty, 0xFFFFFFFF))


def _multiply_high(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """Products of 64 bits of the even and of the odd lanes (one instruction each on x86: LLVM sees
    that both factors have 32 bits), of which the upper halves are put together."""
    ty = sig.return_type
    wide = IntVector(64, ty.lanes * ty.width // 64)
    factor = as_vector(context, builder, args[1], sig.args[1], wide)
    value = builder.bitcast(args[0], llvm_type(wide))
    low, by32 = constant(wide, 0xFFFFFFFF), constant(wide, 32)
    even = builder.lshr(builder.mul(builder.and_(value, low), factor), by32)
    if ty.width == 64:
        return even
    odd = builder.mul(builder.lshr(value, by32), factor)
    high = builder.and_(odd, constant(wide, -(1 << 32)))
    return builder.bitcast(builder.or_(even, high), llvm_type(ty))


define(simd.words, _words_of, _words)
define(simd.multiply_low, _int_vector, _multiply_low)
define(simd.multiply_high, _int_vector, _multiply_high)

# ---------------------------------------------------------------- across lanes


def _fold(combine: Callable[[Any, Any, Any], Any]) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value, lanes = args[0], sig.args[0].lanes
        while lanes > 1:
            lanes //= 2
            kind = ir.VectorType(I32, lanes)
            low = ir.Constant(kind, list(range(lanes)))
            high = ir.Constant(kind, list(range(lanes, 2 * lanes)))
            undefined = ir.Constant(value.type, ir.Undefined)
            value = combine(
                builder,
                builder.shuffle_vector(value, undefined, low),
                builder.shuffle_vector(value, undefined, high),
            )
        return builder.extract_element(value, ir.Constant(I32, 0))

    return codegen


def _element(v: Any) -> Any:
    return v.element if isinstance(v, FloatVector) else None


define(simd.sum_lanes, _element, _fold(lambda builder, a, b: builder.fadd(a, b)))
define(
    simd.max_lanes,
    _element,
    _fold(lambda builder, a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b)),
)
