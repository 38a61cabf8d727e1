"""The compiled side of `tile_unit`: functions that are not inlined, on vectors of 16 numbers.

On a CPU without the unit `unit_multiply` is the same sums by multiply-adds, for tests and for code
that was planned elsewhere; programs are not planned with it there. In float64 programs, which never
come to it, there is no code.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

from .. import recorded
from . import target, tile_unit
from ._bounds_llvm import TILE, block_span, check, smaller
from ._pairs_llvm import make_pairs
from ._tile_unit_pack_llvm import (
    FLOATS,
    I1,
    I8,
    I32,
    I64,
    INTS,
    LINE,
    POINTER,
    TILE_BYTES,
    function_of,
    lanes,
    load,
    make_pack,
    number,
    splat,
    store,
)
from ._types_llvm import FloatVector, define, is_array, llvm_call, splat_value
from .tile_unit import PRODUCTS, SHAPES, SIDE, STEPS, WORDS

recorded.record()

# ---------------------------------------------------------------- multiplying


class _Multiply:
    """Emits the function of one shape."""

    def __init__(self, builder: Any, arguments: Any, shape: int):
        self.b = builder
        self.high, self.wide = SHAPES[shape]
        self.a, self.a_step, self.a_part, self.bb, self.b_step, self.b_part = arguments[:6]
        self.c, self.c_row, self.bias = arguments[6:9]
        self.tiles, self.parts, self.rows, self.columns, self.begin = arguments[9:]
        self.width = 4 * SIDE * self.wide  # bytes of a line of the sums kept aside

    def on_unit(self) -> None:
        b = self.b
        aside = b.alloca(ir.ArrayType(I8, self.width * SIDE * self.high))
        aside.align = 64
        self.aside = b.bitcast(aside, POINTER)
        no_bias = b.icmp_unsigned("==", b.ptrtoint(self.bias, I64), number(0))
        whole = b.and_(b.icmp_signed(">=", self.rows, number(SIDE * self.high)),
                       b.icmp_signed(">=", self.columns, number(SIDE * self.wide)))  # fmt: skip
        direct = b.and_(whole, no_bias)
        with b.if_else(self.begin) as (yes, no):
            with yes:
                for k in range(self.high * self.wide):
                    self.tile("tilezero", k)
            with no, b.if_else(direct) as (straight, around):
                with straight:
                    self.sums("tileloadd64", self.c, self.c_row)
                with around:
                    self.copy(self.c, self.c_row, self.aside, number(self.width), None)
                    self.sums("tileloadd64", self.aside, number(self.width))
        for parts in range(1, len(PRODUCTS)):
            with b.if_then(b.icmp_signed("==", self.parts, number(parts))):
                self.loop(PRODUCTS[parts])
        with b.if_else(direct) as (straight, around):
            with straight:
                self.sums("tilestored64", self.c, self.c_row)
            with around:
                self.sums("tilestored64", self.aside, number(self.width))
                with b.if_else(no_bias) as (plain, biased):
                    with plain:
                        self.copy(self.aside, number(self.width), self.c, self.c_row, None)
                    with biased:
                        self.copy(self.aside, number(self.width), self.c, self.c_row, self.bias)

    def tile(self, name: str, register: int, *rest: Any) -> None:
        values = [ir.Constant(I8, register), *rest]
        llvm_call(self.b, f"llvm.x86.{name}", ir.VoidType(), values)

    def sums(self, name: str, start: Any, row: Any) -> None:
        """Load or store the tiles of sums."""
        for i in range(self.high):
            line = self.b.gep(start, [self.b.mul(row, number(i * SIDE))])
            for j in range(self.wide):
                place = self.b.gep(line, [number(4 * SIDE * j)])
                self.tile(name, i * self.wide + j, place, row)

    def copy(self, source: Any, row: Any, to: Any, to_row: Any, bias: Any) -> None:
        """Copy rows and columns that there are, and add a bias."""
        b = self.b
        rows = smaller(b, self.rows, number(SIDE * self.high))
        for j in range(self.wide):
            mask = lanes(b, b.sub(self.columns, number(SIDE * j)))
            offset = number(4 * SIDE * j)
            added = load(b, b.gep(bias, [offset]), mask) if bias is not None else None
            with cgutils.for_range(b, rows) as loop:
                x = b.gep(b.gep(source, [b.mul(loop.index, row)]), [offset])
                y = b.gep(b.gep(to, [b.mul(loop.index, to_row)]), [offset])
                value = load(b, x, mask)
                store(b, value if added is None else b.fadd(value, added), y, mask)

    def loop(self, products: Any) -> None:
        """All tiles of the depth; what a register holds already is not loaded again."""
        b, line = self.b, number(LINE)
        accumulators = self.high * self.wide
        left = list(range(accumulators, accumulators + self.high))
        right = list(range(accumulators + self.high, 8))
        with cgutils.for_range(b, self.tiles) as loop:
            a = b.gep(self.a, [b.mul(loop.index, self.a_step)])
            bb = b.gep(self.bb, [b.mul(loop.index, self.b_step)])
            held: dict[int, tuple[int, int]] = {}  # column and part of B by register
            a_held = -1
            for p, q in products:
                if p != a_held:
                    start = b.gep(a, [b.mul(self.a_part, number(p))])
                    for i, register in enumerate(left):
                        place = b.gep(start, [number(i * TILE_BYTES)])
                        self.tile("tileloadd64", register, place, line)
                    a_held = p
                start = b.gep(bb, [b.mul(self.b_part, number(q))])
                for j in range(self.wide):
                    register = right[j % len(right)]
                    if held.get(register) != (j, q):
                        place = b.gep(start, [number(j * TILE_BYTES)])
                        self.tile("tileloadd64", register, place, line)
                        held[register] = j, q
                    for i in range(self.high):
                        into = ir.Constant(I8, i * self.wide + j)
                        operands = ir.Constant(I8, left[i]), ir.Constant(I8, register)
                        name = "llvm.x86.tdpbf16ps"
                        llvm_call(b, name, ir.VoidType(), [into, *operands])

    def by_pairs(self) -> None:
        """Products of one part by vectors of pairs."""
        make_pairs(self.b, [
            self.a, self.a_step, self.bb, self.b_step, self.c, self.c_row, self.bias, self.tiles,
            smaller(self.b, self.rows, number(SIDE * self.high)),
            smaller(self.b, self.columns, number(SIDE * self.wide)), self.begin,
        ])  # fmt: skip

    def by_multiply_adds(self) -> None:
        """The same sums without the unit, 16 columns at a time."""
        b, ty = self.b, FloatVector(32, SIDE)
        count = [len(products) for products in PRODUCTS]
        flat = [n for row in PRODUCTS for pair in (*row, *[(0, 0)] * 6)[:6] for n in pair]
        table = cgutils.global_constant(
            b.module, "fastnn_unit_products",
            ir.Constant(ir.ArrayType(I64, len(flat)), flat),
        )  # fmt: skip
        table = b.bitcast(table, I64.as_pointer())
        products = number(0)
        for parts, n in enumerate(count):
            same = b.icmp_signed("==", self.parts, number(parts))
            products = b.select(same, number(n), products)
        no_bias = b.icmp_unsigned("==", b.ptrtoint(self.bias, I64), number(0))
        zero = ir.Constant(FLOATS, [0.0] * SIDE)
        total, even, odd = (cgutils.alloca_once(b, FLOATS) for _ in range(3))
        rows = smaller(b, self.rows, number(SIDE * self.high))
        columns = smaller(b, self.columns, number(SIDE * self.wide))
        vectors = b.sdiv(b.add(columns, number(SIDE - 1)), number(SIDE))
        fused = "llvm.fma" if target.host().has_fma else "llvm.fmuladd"

        def entry(index: Any) -> Any:
            return b.load(b.gep(table, [index]), typ=I64)

        with cgutils.for_range(b, rows) as over_rows, cgutils.for_range(b, vectors) as across:
            r, j = over_rows.index, across.index
            offset = b.mul(j, number(LINE))
            place = b.gep(b.gep(self.c, [b.mul(r, self.c_row)]), [offset])
            mask = lanes(b, b.sub(columns, b.mul(j, number(SIDE))))
            b.store(zero, total)
            with b.if_then(b.not_(self.begin)):
                b.store(load(b, place, mask), total)
            with cgutils.for_range(b, self.tiles) as deep, cgutils.for_range(b, products) as one:
                base = b.mul(b.add(b.mul(self.parts, number(6)), one.index), number(2))
                p, q = entry(base), entry(b.add(base, number(1)))
                x = b.gep(self.a, [b.add(b.mul(deep.index, self.a_step), b.mul(p, self.a_part))])
                x = b.gep(x, [b.mul(r, number(LINE))])
                y = b.gep(self.bb, [b.add(b.mul(deep.index, self.b_step), b.mul(q, self.b_part))])
                y = b.gep(y, [b.mul(j, number(TILE_BYTES))])
                b.store(zero, even)
                b.store(zero, odd)
                with cgutils.for_range(b, number(SIDE)) as pair:
                    at = b.gep(x, [b.mul(pair.index, number(4))])
                    word = b.load(b.bitcast(at, I32.as_pointer()), typ=I32)
                    word = splat_value(b, b.bitcast(word, ir.FloatType()), ty)
                    words = (
                        b.bitcast(word, INTS),
                        b.bitcast(load(b, b.gep(y, [b.mul(pair.index, number(LINE))])), INTS),
                    )
                    low = [b.bitcast(b.shl(w, splat(16)), FLOATS) for w in words]
                    high = [b.bitcast(b.and_(w, splat(-0x10000)), FLOATS) for w in words]
                    for chain, factors in ((even, low), (odd, high)):
                        added = [*factors, b.load(chain, typ=FLOATS)]
                        value = llvm_call(b, f"{fused}.v{SIDE}f32", FLOATS, added)
                        b.store(value, chain)
                chains = b.fadd(b.load(even, typ=FLOATS), b.load(odd, typ=FLOATS))
                b.store(b.fadd(b.load(total, typ=FLOATS), chains), total)
            with b.if_then(b.not_(no_bias)):
                bias = load(b, b.gep(self.bias, [offset]), mask)
                b.store(b.fadd(b.load(total, typ=FLOATS), bias), total)
            store(b, b.load(total, typ=FLOATS), place, mask)


# ---------------------------------------------------------------- what kernels call


class _Arguments:
    """The arguments of a call: numbers as i64, places in arrays as addresses."""

    def __init__(self, context: Any, builder: Any, sig: Any, args: Any):
        self.context, self.builder, self.kinds, self.args = context, builder, sig.args, args

    def number(self, k: int) -> Any:
        return self.context.cast(self.builder, self.args[k], self.kinds[k], types.intp)

    def bytes(self, k: int) -> Any:
        return self.builder.mul(self.number(k), number(4))

    def flag(self, k: int) -> Any:
        value = self.context.cast(self.builder, self.args[k], self.kinds[k], types.boolean)
        return self.builder.trunc(value, I1)

    def address(self, k: int) -> Any:
        data = self.context.make_array(self.kinds[k])(self.context, self.builder, self.args[k]).data
        return self.builder.gep(self.builder.bitcast(data, POINTER), [self.bytes(k + 1)])

    def check(self, k: int, sides: Any, touched: Any) -> None:
        """In the checked mode: all that is touched from the place on is in the array."""
        if self.context.enable_boundscheck:
            span = block_span(self.builder, self.number(k + 1), sides)
            check(self.context, self.builder, self.kinds[k], self.args[k], span, TILE, touched)

    def last(self, k: int, most: int) -> Any:
        """The last of `number(k)` places, of at most `most`."""
        b = self.builder
        return b.sub(smaller(b, self.number(k), number(most)), number(1))


def _is32(kind: Any) -> bool:
    return bool(kind.dtype == types.float32)


def _pack(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    given = _Arguments(context, builder, sig, args)
    if _is32(sig.args[0]):
        zero, one = number(0), number(1)
        rows, depth, parts = (given.number(k) for k in (7, 8, 9))
        some = builder.and_(builder.icmp_signed(">", rows, zero),
                            builder.icmp_signed(">", depth, zero))  # fmt: skip
        given.check(0, [(zero, given.last(7, SIDE), given.number(2)),
                        (zero, given.last(8, STEPS), given.number(3))], some)  # fmt: skip
        last = builder.sub(parts, one)
        given.check(4, [(zero, last, given.number(6)), (zero, number(WORDS - 1), one)],
                    ir.Constant(I1, 1))  # fmt: skip
        kinds = [POINTER, I64, I64, POINTER, I64, I64, I64, I64, I1]
        function = function_of(builder.module, "fastnn_unit_pack", kinds, make_pack)
        builder.call(function, [
            given.address(0), given.bytes(2), given.bytes(3), given.address(4), given.bytes(6),
            rows, depth, parts, given.flag(10),
        ])  # fmt: skip
    return context.get_dummy_value()


def _multiply(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    given = _Arguments(context, builder, sig, args)
    if not _is32(sig.args[1]):
        return context.get_dummy_value()
    shape = sig.args[0].literal_value
    high, wide = SHAPES[shape]
    host, one = target.host(), number(1)

    def make(inner: Any, arguments: Any) -> None:
        emitted = _Multiply(inner, arguments, shape)
        if host.tile_unit:
            emitted.on_unit()
        elif host.pairs:
            with inner.if_else(inner.icmp_signed("==", emitted.parts, one)) as (yes, no):
                with yes:
                    emitted.by_pairs()
                with no:
                    emitted.by_multiply_adds()
        else:
            emitted.by_multiply_adds()

    zero, yes = number(0), ir.Constant(I1, 1)
    some = builder.icmp_signed(">", given.number(14), zero)
    part = zero, builder.sub(given.number(15), one)
    deep = zero, builder.sub(given.number(14), one)
    for k, tiles in ((1, high), (5, wide)):
        sides = [(*deep, given.number(k + 2)), (*part, given.number(k + 3)),
                 (zero, number(tiles * WORDS - 1), one)]  # fmt: skip
        given.check(k, sides, some)
    row, column = given.last(16, SIDE * high), given.last(17, SIDE * wide)
    given.check(9, [(zero, row, given.number(11)), (zero, column, one)], yes)
    none = builder.icmp_signed("<", given.number(13), zero)
    given.check(12, [(zero, column, one)], builder.not_(none))
    bias = builder.select(none, ir.Constant(POINTER, None), given.address(12))
    kinds = [POINTER, I64, I64, POINTER, I64, I64, POINTER, I64, POINTER, I64, I64, I64, I64, I1]
    function = function_of(builder.module, f"fastnn_unit_{high}x{wide}", kinds, make)
    builder.call(function, [
        given.address(1), given.bytes(3), given.bytes(4), given.address(5), given.bytes(7),
        given.bytes(8), given.address(9), given.bytes(11), bias, given.number(14),
        given.number(15), given.number(16), given.number(17), given.flag(18),
    ])  # fmt: skip
    return context.get_dummy_value()


def _configuration(module: Any) -> Any:
    """The 64 bytes that say what tiles are like: palette 1, 8 of 16 lines of 64 bytes."""
    name = "fastnn_unit_configuration"
    if name in module.globals:
        return module.globals[name]
    content = [1] + [0] * 15 + [LINE, 0] * 8 + [0] * 16 + [SIDE] * 8 + [0] * 8
    words = ir.GlobalVariable(module, ir.ArrayType(I8, 64), name)
    words.initializer = ir.Constant(words.value_type, bytearray(content))
    words.global_constant, words.linkage = True, "internal"
    return words


def _begin(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    if target.host().tile_unit and _is32(sig.args[0]):
        words = builder.bitcast(_configuration(builder.module), POINTER)
        llvm_call(builder, "llvm.x86.ldtilecfg", ir.VoidType(), [words])
    return context.get_dummy_value()


def _end(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    if target.host().tile_unit and _is32(sig.args[0]):
        llvm_call(builder, "llvm.x86.tilerelease", ir.VoidType(), [])
    return context.get_dummy_value()


def _pack_type(*args: Any) -> Any:
    return types.void if len(args) == 11 and is_array(args[0]) and is_array(args[4]) else None


def _multiply_type(*args: Any) -> Any:
    fits = len(args) == 19 and all(is_array(args[k]) for k in (1, 5, 9, 12))
    return types.void if fits and isinstance(args[0], types.IntegerLiteral) else None


def _array_type(*args: Any) -> Any:
    return types.void if is_array(args[0]) else None


define(tile_unit.unit_begin, _array_type, _begin)
define(tile_unit.unit_end, _array_type, _end)
define(tile_unit.unit_pack, _pack_type, _pack)
define(tile_unit.unit_multiply, _multiply_type, _multiply)
