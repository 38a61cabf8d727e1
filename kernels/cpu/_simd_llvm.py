"""The compiled side of `simd`: vector types for Numba and the LLVM code of each operation.

Importing this module registers everything; `fastnn.runtime.cpu.numba_bridge` does so before the
first compilation. Each operation is a typing rule and a code generator entered directly
(no `@overload`, which would send every single operator through the whole compiler); what CUDA
shares comes from `_simd_ir`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types

from .. import recorded, simd
from .._simd_ir import Operations
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
    register_of,
    suffix,
    vector_of,
)

recorded.record()


class _Vectors(Operations):
    """Operations on vector registers; numbers among the operands go into every lane."""

    define = staticmethod(define)
    width = staticmethod(lambda kind: getattr(kind, "width", 0) or kind.dtype.bitwidth)
    llvm = staticmethod(llvm_type)
    convert = staticmethod(as_vector)

    def common(self, *kinds: Any) -> Any:
        vectors = [k for k in kinds if is_vector(k)]
        if not vectors or any(v != vectors[0] for v in vectors):
            return None
        return vectors[0] if all(is_vector(k) or is_number(k) for k in kinds) else None

    def integer_of(self, kind: Any) -> Any:
        return IntVector(kind.width, kind.lanes) if isinstance(kind, FloatVector) else None

    def float_of(self, kind: Any) -> Any:
        return FloatVector(kind.width, kind.lanes) if isinstance(kind, IntVector) else None

    def is_mask(self, kind: Any) -> bool:
        return isinstance(kind, Mask)

    def condition(self, context: Any, builder: Any, value: Any, kind: Any) -> Any:
        return value

    def call(self, builder: Any, name: str, kind: Any, values: Any) -> Any:
        if name == "fma" and not target.host().has_fma:
            name = "fmuladd"
        return llvm_call(builder, f"llvm.{name}.{suffix(kind)}", llvm_type(kind), values)

    def ldexp(self, context: Any, builder: Any, sig: Any, args: Any) -> Any:
        ty = sig.return_type
        if ty.width * ty.lanes != 512 or target.host().vector_bits != 512:
            return super().ldexp(context, builder, sig, args)
        a, n = args
        everywhere, current_rounding = ir.Constant(ir.IntType(ty.lanes), -1), ir.Constant(I32, 4)
        name = f"llvm.x86.avx512.mask.scalef.{'ps' if ty.width == 32 else 'pd'}.512"
        return llvm_call(builder, name, a.type, [a, n, a, everywhere, current_rounding])

    def twice_sqrt(self, context: Any, builder: Any, sig: Any, args: Any) -> Any:
        ty, a = sig.return_type, args[0]
        if (ty.width, ty.lanes) != (32, 16) or not target.host().estimates_roots:
            return super().twice_sqrt(context, builder, sig, args)

        def fma(*values: Any) -> Any:
            return llvm_call(builder, f"llvm.fma.{suffix(ty)}", a.type, values)

        # small numbers are scaled: what is left of a below would be subnormal
        small = builder.fcmp_ordered("<", a, constant(ty, 2.0**-60))
        a = builder.fmul(a, builder.select(small, constant(ty, 2.0**64), constant(ty, 1.0)))
        everywhere = ir.Constant(ir.IntType(ty.lanes), -1)
        # 14 bits of 1/sqrt(a)
        r = llvm_call(builder, "llvm.x86.avx512.rsqrt14.ps.512", a.type, [a, a, everywhere])
        # one Newton step on the root s and on h = 1/(2s), then what is left of a: s is the root
        # rounded to nearest, whatever the CPU's estimate is (Markstein 1990)
        s, h = builder.fmul(a, r), builder.fmul(r, constant(ty, 0.5))
        e = fma(builder.fneg(s), h, constant(ty, 0.5))
        s, h = fma(s, e, s), fma(h, e, h)
        s = fma(fma(builder.fneg(s), s, a), h, s)
        back = builder.select(small, constant(ty, 2.0**-31), constant(ty, 2.0))
        infinite = builder.fcmp_ordered("==", a, constant(ty, float("inf")))
        return builder.select(infinite, a, builder.fmul(s, back))

    def multiply_high(self, context: Any, builder: Any, sig: Any, args: Any) -> Any:
        """Products of 64 bits of the even and of the odd lanes (one instruction each on x86: LLVM
        sees that both factors have 32 bits), of which the upper halves are put together."""
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


VECTORS = _Vectors()
VECTORS.register(types.boolean)

# ---------------------------------------------------------------- operators


def _arithmetic(op: Any, float_op: str | None, int_op: str | None) -> None:
    names = {FloatVector: float_op, IntVector: int_op}

    def typer(a: Any, b: Any) -> Any:
        ty = VECTORS.common(a, b)
        return ty if names.get(type(ty)) else None

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        name: Any = names[type(sig.return_type)]
        return VECTORS.instruction(name)(context, builder, sig, args)

    define_operator(op, typer, codegen, 2)


_arithmetic(operator.add, "fadd", "add")
_arithmetic(operator.sub, "fsub", "sub")
_arithmetic(operator.mul, "fmul", "mul")
_arithmetic(operator.truediv, "fdiv", None)


def _bitwise(op: Any, name: str) -> None:
    def typer(a: Any, b: Any) -> Any:
        if isinstance(a, Mask) and a == b:
            return a
        ty = VECTORS.common(a, b)
        return ty if isinstance(ty, IntVector) else None

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        if isinstance(sig.return_type, Mask):
            return getattr(builder, name)(*args)
        return VECTORS.instruction(name)(context, builder, sig, args)

    define_operator(op, typer, codegen, 2)


_bitwise(operator.and_, "and_")
_bitwise(operator.or_, "or_")
_bitwise(operator.xor, "xor")


def _negate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return (builder.fneg if isinstance(sig.return_type, FloatVector) else builder.neg)(args[0])


define_operator(operator.neg, lambda a: a if is_vector(a) else None, _negate, 1)
define_operator(
    operator.invert,
    lambda a: a if isinstance(a, Mask) else None,
    lambda context, builder, sig, args: builder.not_(args[0]),
    1,
)


def _comparison(op: Any, symbol: str) -> None:
    def typer(a: Any, b: Any) -> Any:
        ty = VECTORS.common(a, b)
        return None if ty is None else Mask(ty.lanes)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        ty = VECTORS.common(*sig.args)
        a, b = (as_vector(context, builder, v, t, ty) for v, t in zip(args, sig.args, strict=True))
        if isinstance(ty, IntVector):
            return builder.icmp_signed(symbol, a, b)
        compare = builder.fcmp_unordered if symbol == "!=" else builder.fcmp_ordered
        return compare(symbol, a, b)

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


def _touch(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """Registers are stored as they were loaded. LLVM would leave that out, if it knew."""
    whole, part = vector_of(sig.args[0]), register_of(sig.args[0])
    index = context.cast(builder, args[1], sig.args[1], types.intp)
    check(context, builder, sig.args[0], args[0], lane_span(builder, index, whole.lanes), STORE)
    ty, align = llvm_type(part), part.width // 8
    hide = ir.FunctionType(ty, [ty]), "", "=w,0" if target.host().name == "NEON" else "=x,0"
    for k in range(0, whole.lanes, part.lanes):
        at = builder.add(index, ir.Constant(I64, k))
        pointer = pointer_to(context, builder, sig.args[0], args[0], at)
        pointer = builder.bitcast(pointer, ty.as_pointer())
        value = builder.load(pointer, align=align, typ=ty)
        builder.store(builder.asm(*hide, [value], side_effect=False), pointer, align=align)
    return context.get_dummy_value()


define(simd.touch, lambda x, i: types.none if is_array(x) else None, _touch)
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
define(simd.iota, _of_array, _iota)
# ---------------------------------------------------------------- unsigned 32-bit words


def _words_of(x: Any, *rest: Any) -> Any:
    return VECTORS.integer_of(_of_array(x))


def _words(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    ty = sig.return_type
    first = as_vector(context, builder, args[1], sig.args[1], ty)
    result = builder.add(first, ir.Constant(llvm_type(ty), list(range(ty.lanes))))
    return VECTORS.word(builder, result, ty)


define(simd.words, _words_of, _words)

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


for _function in (simd.sum_lanes, simd.count_lanes):
    define(_function, _element, _fold(lambda builder, a, b: builder.fadd(a, b)))
define(
    simd.max_lanes,
    _element,
    _fold(lambda builder, a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b)),
)


def _lanes_from(first: Callable[[int], int]) -> Any:
    """As many lanes of two vectors side by side as one has, from a lane on."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        lanes = sig.return_type.lanes
        chosen = [first(lanes) + i for i in range(lanes)]
        return builder.shuffle_vector(*args, ir.Constant(ir.VectorType(I32, lanes), chosen))

    return codegen


def _of_equal(a: Any, b: Any) -> Any:
    return a if isinstance(a, FloatVector) and a == b else None


define(simd.after_last, _of_equal, _lanes_from(lambda lanes: lanes - 1))
define(simd.until_first, _of_equal, _lanes_from(lambda lanes: 1))
