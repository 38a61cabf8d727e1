"""The functions of `kernels.cuda.half`, compiled: thin, in LLVM code and inline assembly."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from .. import recorded
from . import half
from ._tile_nvvm import (
    F32,
    FOUR,
    I32,
    I64,
    SHARED,
    _assembly,
    _at,
    _constant,
    _constants,
    _copy,
    _elements,
    _index,
    _place,
)
from ._types_nvvm import define, types

recorded.record()

I16 = ir.IntType(16)
NAMES = ("f16", "bf16")  # by is_bf16


def _are_words(kind: Any) -> bool:
    return isinstance(kind, types.Array) and kind.dtype == types.uint16


def _value(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    if not sig.args[1].literal_value:
        return _assembly(builder, "cvt.f32.f16 $0, $1;", "=f,h", F32, [args[0]])
    word = builder.shl(builder.zext(args[0], I32), ir.Constant(I32, 16))
    return builder.bitcast(word, F32)


def _rounded(builder: Any, number: Any, is_bf16: int) -> Any:
    return _assembly(builder, f"cvt.rn.{NAMES[is_bf16]}.f32 $0, $1;", "=h,f", I16, [number])


def _word(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return _rounded(builder, args[0], sig.args[1].literal_value)


define(
    half.half_value,
    lambda word, b: types.float32 if word == types.uint16 and _constant(b) else None,
    _value,
)
define(
    half.half_word,
    lambda x, b: types.uint16 if x == types.float32 and _constant(b) else None,
    _word,
)


def _copy8(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    count = builder.trunc(_index(context, builder, sig, args, 4), I32)
    _copy(context, builder, sig, args, 0, 16, builder.shl(count, ir.Constant(I32, 1)))
    return context.get_dummy_value()


define(
    half.copy8,
    lambda memory, at, x, i, n: types.none if _are_words(memory) and _are_words(x) else None,
    _copy8,
)

LOAD = "ldmatrix.sync.aligned.m8n8.x4{turned}.shared.b16 {{$0,$1,$2,$3}}, [$4+{offset}];"
FOUR_WORDS = ir.LiteralStructType([I32] * 4)
MMA = (
    "mma.sync.aligned.m16n8k16.row.col.f32.{kind}.{kind}.f32 "
    "{{$0,$1,$2,$3}}, {{$4,$5,$6,$7}}, {{$8,$9}}, {{$10,$11,$12,$13}};"
)
MMA_OPERANDS = "=f,=f,=f,=f,r,r,r,r,r,r,f,f,f,f"


def _four(builder: Any, result: Any) -> list[Any]:
    return [builder.extract_value(result, k) for k in range(4)]


def _multiply(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    a_row, a_turned, b_row, b_turned, m, n, depth = _constants(
        [sig.args[k] for k in (3, 4, 6, 7, 8, 9, 10)]
    )
    text = MMA.format(kind=NAMES[sig.args[12].literal_value])
    places = _elements(context, builder, sig, args, 4 * m * n)
    values = [builder.load(p) for p in places]
    lane = builder.trunc(_index(context, builder, sig, args, 11), I32)

    def number(value: int) -> Any:
        return ir.Constant(I32, value)

    # a lane says where a row of one of four matrices of 8 x 8 lies: its row in the matrix, whether
    # that is in the second half of 16 rows (or columns), of 16 terms. The order of the four is that
    # of the registers of mma: of A rows, then terms; of B terms, then columns
    row = builder.and_(lane, number(7))
    low = builder.and_(builder.lshr(lane, number(3)), number(1))
    high = builder.lshr(lane, number(4))

    def first(index: int, step: int, turned: int, across: Any, along: Any) -> Any:
        """The byte in shared memory; `across`: half of the rows (columns), `along` of the terms."""
        across, along = (builder.shl(half_, number(3)) for half_ in (across, along))
        if turned:  # matrices lie with their terms as rows
            offset = builder.add(builder.mul(builder.add(along, row), number(step)), across)
        else:
            offset = builder.add(builder.mul(builder.add(across, row), number(step)), along)
        place = _place(context, builder, sig, args, 1, index)
        place = builder.addrspacecast(place, ir.PointerType(place.type.pointee, SHARED))
        return builder.add(builder.ptrtoint(place, I32), builder.shl(offset, number(1)))

    a_first = first(2, a_row, a_turned, low, high)
    b_first = first(5, b_row, b_turned, high, low)

    def load(place: Any, turned: int, offset: int) -> list[Any]:
        load_text = LOAD.format(turned=".trans" if turned else "", offset=2 * offset)
        kind = ir.FunctionType(FOUR_WORDS, [I32])
        # in its place among barriers and copies
        made = ir.InlineAsm(kind, load_text, "=r,=r,=r,=r,r,~{memory}", side_effect=True)
        return _four(builder, builder.call(made, [place]))

    for t in range(0, depth, 16):
        a = [
            load(a_first, a_turned, t * a_row + 16 * p if a_turned else 16 * p * a_row + t)
            for p in range(m)
        ]
        b: list[list[Any]] = []
        for c in range(0, n, 2):
            found = load(b_first, b_turned, t * b_row + 8 * c if b_turned else 8 * c * b_row + t)
            b += [found[:2], found[2:]]
        for p in range(m):
            for c in range(n):
                own = [((2 * p + h) * n + c) * 2 + e for h in (0, 1) for e in (0, 1)]
                operands = [*a[p], *b[c], *(values[k] for k in own)]
                result = _assembly(builder, text, MMA_OPERANDS, FOUR, operands)
                for k, value in zip(own, _four(builder, result), strict=True):
                    values[k] = value
    for value, place in zip(values, places, strict=True):
        builder.store(value, place)
    return context.get_dummy_value()


def _multiply_type(sums: Any, memory: Any, *rest: Any) -> Any:
    good = _are_words(memory) and sums.dtype == types.float32
    good = good and _constant(*(rest[k] for k in (1, 2, 4, 5, 6, 7, 8, 10)))
    return types.none if good else None


define(half.multiply_halves, _multiply_type, _multiply)


def _store(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    m, n, is_bf16 = _constants(sig.args[7:])
    places = _elements(context, builder, sig, args, 4 * m * n)
    values = [builder.load(p) for p in places]
    first = _place(context, builder, sig, args, 1, 2)
    step, rows, columns = (_index(context, builder, sig, args, k) for k in (3, 4, 5))
    vectors = context.cast(builder, args[6], sig.args[6], types.boolean)
    pack = f"cvt.rn.{NAMES[is_bf16]}x2.f32 $0, $1, $2;"  # the first one is the upper half

    def exists(offset: int, left: Any) -> Any:
        return builder.icmp_signed("<", ir.Constant(I64, offset), left)

    for i in range(2 * m):
        with builder.if_then(exists(8 * i, rows)):
            line = builder.gep(first, [builder.mul(step, ir.Constant(I64, 8 * i))])
            for j in range(n):
                pair = values[(i * n + j) * 2 : (i * n + j) * 2 + 2]
                with builder.if_else(vectors) as (together, single):
                    with together, builder.if_then(exists(8 * j, columns)):
                        word = _assembly(builder, pack, "=r,f,f", I32, pair[::-1])
                        place = builder.bitcast(_at(builder, line, 8 * j), I32.as_pointer())
                        builder.store(word, place, align=4)
                    with single:
                        for e, value in enumerate(pair):
                            with builder.if_then(exists(8 * j + e, columns)):
                                word = _rounded(builder, value, is_bf16)
                                builder.store(word, _at(builder, line, 8 * j + e))
    return context.get_dummy_value()


def _store_type(sums: Any, c: Any, *rest: Any) -> Any:
    return types.none if _are_words(c) and _constant(*rest[5:]) else None


define(half.store_halves, _store_type, _store)


def _pair(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    text = f"cvt.rn.{NAMES[sig.args[2].literal_value]}x2.f32 $0, $1, $2;"  # the upper half first
    return _assembly(builder, text, "=r,f,f", I32, [args[1], args[0]])


def _multiply_piece(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    text = MMA.format(kind=NAMES[sig.args[10].literal_value])
    result = _assembly(builder, text, MMA_OPERANDS, FOUR, args[:10])
    return context.make_tuple(builder, sig.return_type, _four(builder, result))


def _piece_type(*given: Any) -> Any:
    words, sums = given[:6], given[6:10]
    good = set(words) == {types.uint32} and set(sums) == {types.float32} and _constant(given[10])
    return types.UniTuple(types.float32, 4) if good else None


define(
    half.half_pair,
    lambda low, high, b: types.uint32 if low == high == types.float32 and _constant(b) else None,
    _pair,
)
define(half.multiply_piece, _piece_type, _multiply_piece)
