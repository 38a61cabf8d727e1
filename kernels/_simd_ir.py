"""Typing rules and LLVM code of the functions of `simd` on values, for both devices.

`Operations` is the generator. A device's subclass says what a value is there (a vector register on
the CPU, one number on CUDA) and how a few functions are done better; the functions on memory, and
the operators that Numba lacks, stand with it: `cpu/_simd_llvm.py` and `cuda/_simd_nvvm.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from . import recorded, simd

recorded.record()

#: functions and operators with the instruction that each one is
CONVERSIONS = {
    simd.bits: "bitcast",
    simd.from_bits: "bitcast",
    simd.to_int: "fptosi",
    simd.to_float: "sitofp",
}
SHIFTS = {simd.shift_left: "shl", simd.shift_right: "ashr"}
#: functions that LLVM has, by its names for them
INTRINSICS = {
    simd.fma: "fma",
    simd.absolute: "fabs",
    simd.sqrt: "sqrt",
    simd.rint: "rint",
    simd.floor: "floor",
    simd.copysign: "copysign",
}
#: width of a float: bits of its mantissa, bias of its exponent
LAYOUT = {32: (23, 127), 64: (52, 1023)}


class Operations:
    """What `simd` computes on values of a device.

    A typing rule takes the arguments' types and gives the result's, or None. A code generator is
    called as Numba calls it: (context, builder, signature, arguments).
    """

    # ------------------------------------------------------------ what a subclass says

    #: registers a function with Numba: (function, typing rule, code generator)
    define: Callable[..., None]
    #: the type of an operation on values of these types; None if they do not go together
    common: Callable[..., Any]
    #: bits of an element of values, or of an array, of this type
    width: Callable[[Any], int]
    #: LLVM's type of a value
    llvm: Callable[[Any], Any]
    #: the integers as wide as these floats, and the floats as wide as these integers, or None
    integer_of: Callable[[Any], Any]
    float_of: Callable[[Any], Any]
    #: whether `where` takes this type for its condition
    is_mask: Callable[[Any], bool]
    #: a mask as LLVM's `select` takes it: (context, builder, value, type)
    condition: Callable[..., Any]
    #: a value, or a number, as a value of another type: (context, builder, value, from, to)
    convert: Callable[..., Any]
    #: a call of one of `INTRINSICS`: (builder, name, type, values)
    call: Callable[..., Any]
    #: the code of `simd.multiply_high`
    multiply_high: Callable[..., Any]

    # ------------------------------------------------------------ typing rules

    def is_float(self, kind: Any) -> bool:
        return self.integer_of(kind) is not None

    def is_value(self, kind: Any) -> bool:
        return self.is_float(kind) or self.float_of(kind) is not None

    def common_float(self, *kinds: Any) -> Any:
        kind = self.common(*kinds)
        return kind if self.is_float(kind) else None

    def integers(self, a: Any, b: Any) -> Any:
        """Integers `a` and a number (or integers of the same type)."""
        return a if self.float_of(a) is not None and self.common(a, b) == a else None

    def like(self, v: Any, *numbers: Any) -> Any:
        return v if self.is_value(v) else None

    # ------------------------------------------------------------ code

    def constant(self, kind: Any, value: Any) -> ir.Constant:
        whole = self.llvm(kind)
        return ir.Constant(whole, [value] * whole.count if hasattr(whole, "count") else value)

    def converted(self, context: Any, builder: Any, sig: Any, args: Any) -> list[Any]:
        """The arguments as the type of the result."""
        pairs = zip(args, sig.args, strict=True)
        return [self.convert(context, builder, v, t, sig.return_type) for v, t in pairs]

    def instruction(self, name: str) -> Any:
        def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return getattr(builder, name)(*self.converted(context, builder, sig, args))

        return code

    def conversion(self, name: str) -> Any:
        def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return getattr(builder, name)(args[0], self.llvm(sig.return_type))

        return code

    def intrinsic(self, name: str) -> Any:
        def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            values = self.converted(context, builder, sig, args)
            return self.call(builder, name, sig.return_type, values)

        return code

    def chosen(self, symbol: str) -> Any:
        """`a` where it compares so with `b`, else `b`."""

        def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            a, b = self.converted(context, builder, sig, args)
            is_float = self.is_float(sig.return_type)
            compare = builder.fcmp_ordered if is_float else builder.icmp_signed
            return builder.select(compare(symbol, a, b), a, b)

        return code

    def where(self, context: Any, builder: Any, sig: Any, args: Any) -> Any:
        test = self.condition(context, builder, args[0], sig.args[0])
        pairs = zip(args[1:], sig.args[1:], strict=True)
        return builder.select(
            test, *(self.convert(context, builder, v, t, sig.return_type) for v, t in pairs)
        )

    def second(self, context: Any, builder: Any, sig: Any, args: Any) -> Any:
        """The second argument as the type of the result."""
        return self.convert(context, builder, args[1], sig.args[1], sig.return_type)

    def pick(self, context: Any, builder: Any, sig: Any, args: Any) -> Any:
        k = 1 if self.width(sig.return_type) == 32 else 2
        return self.convert(context, builder, args[k], sig.args[k], sig.return_type)

    def is32(self, context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return ir.Constant(ir.IntType(1), int(self.width(sig.args[0]) == 32))

    def polynomial(self, context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = sig.return_type
        k = 1 if self.width(kind) == 32 else 2
        result, *rest = [
            self.convert(context, builder, builder.extract_value(args[k], i), t, kind)
            for i, t in enumerate(sig.args[k].types)
        ]
        for c in rest:
            result = self.call(builder, "fma", kind, [result, args[0], c])
        return result

    def ldexp(self, context: Any, builder: Any, sig: Any, args: Any) -> Any:
        """a 2^n = a 2^h 2^(n-h) with h about n/2: both factors are normal numbers, and only the
        second product can round."""
        kind = sig.return_type
        a, n = self.converted(context, builder, sig, args)
        mantissa, bias = LAYOUT[self.width(kind)]
        integer = self.integer_of(kind)
        whole = builder.fptosi(n, self.llvm(integer))
        half = builder.ashr(whole, self.constant(integer, 1))
        for part in (half, builder.sub(whole, half)):
            exponent = builder.add(part, self.constant(integer, bias))
            power = builder.shl(exponent, self.constant(integer, mantissa))
            a = builder.fmul(a, builder.bitcast(power, a.type))
        return a

    def twice_sqrt(self, context: Any, builder: Any, sig: Any, args: Any) -> Any:
        root = self.intrinsic("sqrt")(context, builder, sig, args)
        return builder.fadd(root, root)

    def multiply_low(self, context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = sig.return_type
        result = builder.mul(*self.converted(context, builder, sig, args))
        return self.word(builder, result, kind)

    def word(self, builder: Any, value: Any, kind: Any) -> Any:
        """The lower 32 bits of integers."""
        if self.width(kind) == 32:
            return value
        return builder.and_(value, self.constant(kind, 0xFFFFFFFF))

    # ------------------------------------------------------------ all of them

    def register(self, boolean: Any) -> None:
        """Teach Numba the functions; `boolean` is its type of truth values."""
        for function, name in CONVERSIONS.items():
            to_integer = function in (simd.bits, simd.to_int)
            rule = self.integer_of if to_integer else self.float_of
            self.define(function, rule, self.conversion(name))
        for function, name in SHIFTS.items():
            self.define(function, self.integers, self.instruction(name))
        for function, name in INTRINSICS.items():
            self.define(function, self.common_float, self.intrinsic(name))
        self.define(simd.minimum, self.common, self.chosen("<"))
        self.define(simd.maximum, self.common, self.chosen(">"))
        self.define(
            simd.where,
            lambda mask, a, b: self.common(a, b) if self.is_mask(mask) else None,
            self.where,
        )
        self.define(simd.fill_like, self.like, self.second)
        self.define(simd.pick, self.like, self.pick)
        self.define(simd.is32, lambda v: boolean, self.is32)
        self.define(
            simd.polynomial,
            lambda v, *c: v if self.is_float(v) and all(hasattr(t, "types") for t in c) else None,
            self.polynomial,
        )
        self.define(simd.ldexp, self.common_float, self.ldexp)
        self.define(simd.twice_sqrt, self.common_float, self.twice_sqrt)
        self.define(simd.multiply_low, self.integers, self.multiply_low)
        self.define(simd.multiply_high, self.integers, self.multiply_high)
