"""Packing for the tile unit: factors as lines of pairs of bfloat16 numbers, and their parts.

The LLVM types and small functions are those of `_tile_unit_llvm` as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from .. import recorded
from . import target
from ._bounds_llvm import smaller
from ._types_llvm import llvm_call, mask_first
from .tile_unit import SIDE, STEPS, WORDS

recorded.record()

I1, I8, I16, I32, I64 = (ir.IntType(n) for n in (1, 8, 16, 32, 64))
POINTER = I8.as_pointer()
FLOATS = ir.VectorType(ir.FloatType(), SIDE)
INTS = ir.VectorType(I32, SIDE)
HALVES = ir.VectorType(I16, 2 * SIDE)
LINE = 4 * SIDE  # bytes of a line
TILE_BYTES = 4 * WORDS


class BFloat(ir.Type):
    """LLVM's bfloat, which llvmlite has no class for."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, BFloat)

    def __hash__(self) -> int:
        return hash(BFloat)


def number(value: int) -> ir.Constant:
    return ir.Constant(I64, value)


def splat(value: int) -> ir.Constant:
    return ir.Constant(INTS, [value] * SIDE)


def function_of(module: Any, name: str, kinds: Any, make: Callable[[Any, Any], None]) -> Any:
    """The internal function of this name; `make(builder, arguments)` emits its code."""
    if name in module.globals:
        return module.globals[name]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    function.attributes.add("nounwind")
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    make(builder, function.args)
    builder.ret_void()
    return function


def load(builder: Any, pointer: Any, mask: Any = None) -> Any:
    at = builder.bitcast(pointer, FLOATS.as_pointer())
    if mask is None:
        return builder.load(at, align=4, typ=FLOATS)
    zero = ir.Constant(FLOATS, [0.0] * SIDE)
    arguments = [at, ir.Constant(I32, 4), mask, zero]
    return llvm_call(builder, f"llvm.masked.load.v{SIDE}f32.p0", FLOATS, arguments)


def store(builder: Any, value: Any, pointer: Any, mask: Any = None) -> None:
    at = builder.bitcast(pointer, value.type.as_pointer())
    if mask is None:
        builder.store(value, at, align=4)
        return
    arguments = [value, at, ir.Constant(I32, 4), mask]
    llvm_call(builder, f"llvm.masked.store.v{SIDE}f32.p0", ir.VoidType(), arguments)


def lanes(builder: Any, count: Any) -> Any:
    """Mask of the first `count` lanes, all or none of them where it is out of range."""
    count = smaller(builder, count, number(SIDE))
    return mask_first(builder, count, SIDE)


# ---------------------------------------------------------------- packing


def _rounded(builder: Any, x: Any) -> Any:
    """bfloat16's number in the upper half of each lane's bits, the lower half is 0."""
    word = builder.bitcast(x, INTS)
    odd = builder.and_(builder.lshr(word, splat(16)), splat(1))
    up = builder.add(word, builder.add(odd, splat(0x7FFF)))
    quiet = builder.or_(word, splat(0x400000))
    nan = builder.fcmp_unordered("uno", x, x)
    return builder.and_(builder.select(nan, quiet, up), splat(-0x10000))


def _emit_pair(builder: Any, x: Any, y: Any, along: bool) -> tuple[Any, Any, Any]:
    """A line of words from two vectors (their neighbours along the depth lie side by side or,
    `along`, in one vector), and what is left of the vectors."""
    if target.host().tile_unit or target.host().pairs:  # rounded by the CPU, two vectors at once
        kind = ir.VectorType(BFloat(), 2 * SIDE)
        name = "llvm.x86.avx512bf16.cvtne2ps2bf16.512"
        both = builder.bitcast(llvm_call(builder, name, kind, [y, x]), HALVES)
        zero = ir.Constant(HALVES, [0] * (2 * SIDE))

        def chosen(places: Any, other: Any = both) -> Any:
            order = ir.Constant(ir.VectorType(I32, 2 * SIDE), list(places))
            return builder.bitcast(builder.shuffle_vector(both, other, order), INTS)

        def widened(begin: int) -> Any:
            """16 of the numbers as float32 bit patterns."""
            upper = range(begin, begin + SIDE)
            return chosen((p for place in upper for p in (2 * SIDE, place)), zero)

        first, second = widened(0), widened(SIDE)
        if along:
            line = builder.bitcast(both, INTS)
        else:
            line = chosen(i // 2 + i % 2 * SIDE for i in range(2 * SIDE))
    else:
        first, second = _rounded(builder, x), _rounded(builder, y)
        if along:
            odd = ir.Constant(ir.VectorType(I32, 2 * SIDE), [2 * i + 1 for i in range(2 * SIDE)])
            halves = builder.bitcast(first, HALVES), builder.bitcast(second, HALVES)
            line = builder.bitcast(builder.shuffle_vector(*halves, odd), INTS)
        else:
            line = builder.or_(builder.lshr(first, splat(16)), second)
    rest = [builder.fsub(v, builder.bitcast(h, FLOATS)) for v, h in ((x, first), (y, second))]
    return line, rest[0], rest[1]


def _turn(builder: Any, pointer: Any) -> None:
    """Transpose the words of a tile in place."""
    lines = [
        builder.load(
            builder.bitcast(builder.gep(pointer, [number(i * LINE)]), INTS.as_pointer()),
            align=4, typ=INTS,
        )
        for i in range(SIDE)
    ]  # fmt: skip
    for i, line in enumerate(_turned(builder, lines)):
        store(builder, line, builder.gep(pointer, [number(i * LINE)]))


def _turned(builder: Any, lines: list[Any]) -> list[Any]:
    """The columns of a tile's words; stage s swaps bit s of line and place."""
    stage = SIDE // 2
    kind = ir.VectorType(I32, SIDE)
    while stage:
        low = [c if not c & stage else SIDE + c - stage for c in range(SIDE)]
        high = [c + stage if not c & stage else SIDE + c for c in range(SIDE)]
        for i in range(SIDE):
            if not i & stage:
                pair = lines[i], lines[i + stage]
                lines[i] = builder.shuffle_vector(*pair, ir.Constant(kind, low))
                lines[i + stage] = builder.shuffle_vector(*pair, ir.Constant(kind, high))
        stage //= 2
    return lines


def _whole(builder: Any, arguments: Any, along: bool, turned: bool) -> None:
    """Round a tile of which there are all rows and steps, to one part."""
    a, row, step, out = arguments
    lines = []
    for i in range(SIDE):
        if along:
            place = builder.gep(a, [builder.mul(number(i), row)])
            places = place, builder.gep(place, [number(LINE)])
        else:
            place = builder.gep(a, [builder.mul(number(2 * i), step)])
            places = place, builder.gep(place, [step])
        x, y = (load(builder, p) for p in places)
        lines.append(_emit_pair(builder, x, y, along)[0])
    for i, line in enumerate(_turned(builder, lines) if turned else lines):
        store(builder, line, builder.gep(out, [number(i * LINE)]))


def make_pack(builder: Any, arguments: Any) -> None:
    if not target.host().pairs:
        _general(builder, arguments)
        return
    a, row, step, out, _, rows, depth, parts, right = arguments
    sure = builder.and_(builder.icmp_signed(">=", rows, number(SIDE)),
                        builder.icmp_signed(">=", depth, number(STEPS)))  # fmt: skip
    sure = builder.and_(sure, builder.icmp_signed("==", parts, number(1)))
    with builder.if_else(sure) as (yes, no):
        with yes, builder.if_else(builder.icmp_signed("==", step, number(4))) as (along, across):
            for branch, by_depth in ((along, True), (across, False)):
                with branch, builder.if_else(right) as (is_right, is_left):
                    for inner, for_right in ((is_right, True), (is_left, False)):
                        with inner:
                            turned = by_depth == for_right
                            name = f"fastnn_unit_pack_{by_depth:d}{turned:d}"
                            kinds = [POINTER, I64, I64, POINTER]
                            function = function_of(
                                builder.module, name, kinds,
                                lambda b, args, d=by_depth, t=turned: _whole(b, args, d, t),
                            )  # fmt: skip
                            builder.call(function, [a, row, step, out])
        with no:
            kinds = [argument.type for argument in arguments]
            general = function_of(builder.module, "fastnn_unit_pack_part", kinds, _general)
            builder.call(general, arguments)


def _general(builder: Any, arguments: Any) -> None:
    """Cut a tile of which there may be fewer rows and steps, to any number of parts."""
    a, row, step, out, part, rows, depth, parts, right = arguments
    turn = function_of(builder.module, "fastnn_unit_turn", [POINTER],
                     lambda b, args: _turn(b, args[0]))  # fmt: skip
    along = builder.icmp_signed("==", step, number(4))

    def lines(by_depth: bool) -> None:
        masks = (
            (lanes(builder, depth), lanes(builder, builder.sub(depth, number(SIDE))))
            if by_depth
            else (lanes(builder, rows), None)
        )
        none = ir.Constant(masks[0].type, None)
        with cgutils.for_range(builder, number(SIDE)) as loop:
            i = loop.index
            if by_depth:
                inside = builder.icmp_signed("<", i, rows)
                place = builder.gep(a, [builder.mul(i, row)])
                places = place, builder.gep(place, [number(LINE)])
                held = [builder.select(inside, m, none) for m in masks]
            else:
                t = builder.mul(i, number(2))
                place = builder.gep(a, [builder.mul(t, step)])
                places = place, builder.gep(place, [step])
                held = [
                    builder.select(
                        builder.icmp_signed("<", builder.add(t, number(k)), depth), masks[0], none
                    )
                    for k in (0, 1)
                ]
            x, y = (load(builder, p, m) for p, m in zip(places, held, strict=True))
            to = builder.gep(out, [builder.mul(i, number(LINE))])
            line, x, y = _emit_pair(builder, x, y, by_depth)
            store(builder, line, to)
            with builder.if_then(builder.icmp_signed(">", parts, number(1))):
                line, x, y = _emit_pair(builder, x, y, by_depth)
                to = builder.gep(to, [part])
                store(builder, line, to)
                with builder.if_then(builder.icmp_signed(">", parts, number(2))):
                    line, x, y = _emit_pair(builder, x, y, by_depth)
                    store(builder, line, builder.gep(to, [part]))

    with builder.if_else(along) as (yes, no):
        with yes:
            lines(True)
        with no:
            lines(False)
    turned = builder.icmp_unsigned("==", along, right)
    with builder.if_then(turned), cgutils.for_range(builder, parts) as loop:
        builder.call(turn, [builder.gep(out, [builder.mul(loop.index, part)])])
