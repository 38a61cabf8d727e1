"""The functions of `kernels.simd` on values, compiled for CUDA: a vector is one number.

Floats are Numba's own. The integers that `simd.bits` makes of float32 are a type of their own,
`Word`, that stays 32 bits wide: Numba's int32 become int64 at the first operation.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir

from .. import recorded
from .._simd_ir import Operations
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


class _Numbers(Operations):
    """Operations on single numbers: Numba's floats, int64 and words."""

    define = staticmethod(define)
    convert = staticmethod(convert)

    def common(self, *kinds: Any) -> Any:
        """float32 before float64: constants give way to it."""
        if any(k == WORD for k in kinds):
            return WORD if all(k == WORD or isinstance(k, types.Integer) for k in kinds) else None
        if not all(isinstance(k, (types.Number, types.Boolean)) for k in kinds):
            return None
        floats = [k for k in kinds if isinstance(k, types.Float)]
        if floats:
            return min(floats, key=lambda k: k.bitwidth)
        whole = any(isinstance(k, types.Integer) for k in kinds)
        return types.int64 if whole else types.boolean

    def width(self, kind: Any) -> int:
        return 32 if getattr(kind, "dtype", kind) in (types.float32, WORD) else 64

    def llvm(self, kind: Any) -> Any:
        if isinstance(kind, types.Float):
            return ir.FloatType() if kind == types.float32 else ir.DoubleType()
        return ir.IntType(self.width(kind))

    def integer_of(self, kind: Any) -> Any:
        return _INTEGERS.get(kind)

    def float_of(self, kind: Any) -> Any:
        return _FLOATS.get(kind)

    def like(self, v: Any, *numbers: Any) -> Any:
        return v if v == WORD or isinstance(v, types.Number) else None

    def is_mask(self, kind: Any) -> bool:
        return True

    def condition(self, context: Any, builder: Any, value: Any, kind: Any) -> Any:
        return context.cast(builder, value, kind, types.boolean)

    def call(self, builder: Any, name: str, kind: Any, values: Any) -> Any:
        single = kind == types.float32
        if name in _LIBDEVICE:
            name = f"__nv_{name}{'f' if single else ''}"
        else:
            name = f"llvm.{name}.{'f32' if single else 'f64'}"
        return call(builder, name, values[0].type, values)

    def multiply_high(self, context: Any, builder: Any, sig: Any, args: Any) -> Any:
        long = ir.IntType(64)
        a, m = args[0], context.cast(builder, args[1], sig.args[1], types.int64)
        wide = builder.zext(a, long) if sig.return_type == WORD else a
        high = builder.lshr(builder.mul(wide, m), ir.Constant(long, 32))
        return builder.trunc(high, I32) if sig.return_type == WORD else high


_INTEGERS = {types.float32: WORD, types.float64: types.int64}
_FLOATS = {WORD: types.float32, types.int64: types.float64}
#: NVVM knows few of LLVM's functions; libdevice has these
_LIBDEVICE = ("fabs", "rint", "floor", "copysign")
NUMBERS = _Numbers()
NUMBERS.register(types.boolean)

# ---------------------------------------------------------------- operators of words

for _op, _name in (
    (operator.add, "add"),
    (operator.sub, "sub"),
    (operator.and_, "and_"),
    (operator.or_, "or_"),
    (operator.xor, "xor"),
):
    define_operator(
        _op,
        lambda a, b: WORD if NUMBERS.common(a, b) == WORD else None,
        NUMBERS.instruction(_name),
        Word,
    )
