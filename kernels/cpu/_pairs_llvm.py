"""`unit_multiply` of one part where a CPU has AVX-512-BF16 and no tile unit.

``vdpbf16ps`` multiplies the pairs in the words of two vectors and adds both products to 16 sums. A
strip of sums stays in registers while the depth passes; a word of A is copied into all lanes.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils

from .. import recorded
from ._bounds_llvm import smaller
from ._tile_unit_pack_llvm import (
    FLOATS,
    I1,
    I32,
    I64,
    INTS,
    LINE,
    POINTER,
    BFloat,
    function_of,
    lanes,
    load,
    number,
    splat,
    store,
)
from ._types_llvm import llvm_call
from .tile_unit import SIDE

recorded.record()

#: sums that stay in registers: rows, vectors; they are ready after 6 cycles, one begins in each
ROWS, VECTORS = 8, 2
#: pairs of a tile's 16 that are written out
PAIRS = 4
_WORDS = ir.VectorType(BFloat(), 2 * SIDE)


def make_pairs(b: Any, arguments: Any) -> None:
    """Emit the products of up to `rows` rows and `columns` columns, a strip after the other; the
    words of all rows of A's tiles, and of all columns of B's, follow each other."""
    a, a_step, bb, b_step, c, c_row, bias, tiles, rows, columns, begin = arguments
    kinds = [POINTER, I64, POINTER, I64, POINTER, I64, POINTER, I64, I64, I64, I1]
    strip = function_of(b.module, "fastnn_pairs_strip", kinds, _strip)
    no_bias = b.icmp_unsigned("==", b.ptrtoint(bias, I64), number(0))
    wide = SIDE * VECTORS
    with cgutils.for_range_slice(b, number(0), columns, number(wide), inc=True) as (j, _):
        right = b.gep(bb, [b.mul(j, number(LINE))])
        across = b.mul(j, number(4))
        added = b.select(no_bias, bias, b.gep(bias, [across]))
        with cgutils.for_range_slice(b, number(0), rows, number(ROWS), inc=True) as (r, _):
            place = b.gep(b.gep(c, [b.mul(r, c_row)]), [across])
            b.call(strip, [
                b.gep(a, [b.mul(r, number(LINE))]), a_step, right, b_step, place, c_row, added,
                tiles, b.sub(rows, r), b.sub(columns, j), begin,
            ])  # fmt: skip


def _strip(b: Any, arguments: Any) -> None:
    a, a_step, bb, b_step, c, c_row, bias, tiles, rows, columns, begin = arguments
    sums = [[cgutils.alloca_once(b, FLOATS) for _ in range(VECTORS)] for _ in range(ROWS)]
    masks = [lanes(b, b.sub(columns, number(SIDE * j))) for j in range(VECTORS)]
    whole = b.and_(b.icmp_signed(">=", rows, number(ROWS)),
                   b.icmp_signed(">=", columns, number(SIDE * VECTORS)))  # fmt: skip
    last = b.sub(smaller(b, rows, number(ROWS)), number(1))

    def places(r: int, straight: bool) -> list[Any]:
        row = number(r) if straight else smaller(b, number(r), last)
        line = b.gep(c, [b.mul(row, c_row)])
        return [b.gep(line, [number(LINE * j)]) for j in range(VECTORS)]

    def load_sums(straight: bool) -> None:
        for r in range(ROWS):
            for j, place in enumerate(places(r, straight)):
                b.store(load(b, place, None if straight else masks[j]), sums[r][j])

    def store_row(r: int, straight: bool) -> None:
        for j, place in enumerate(places(r, straight)):
            store(b, b.load(sums[r][j], typ=FLOATS), place, None if straight else masks[j])

    with b.if_else(begin) as (yes, no):
        with yes:
            for row in sums:
                for place in row:
                    b.store(ir.Constant(FLOATS, [0.0] * SIDE), place)
        with no, b.if_else(whole) as (straight, around):
            with straight:
                load_sums(True)
            with around:
                load_sums(False)
    with cgutils.for_range(b, tiles) as deep:
        left = b.gep(a, [b.mul(deep.index, a_step)])
        right = b.gep(bb, [b.mul(deep.index, b_step)])
        with cgutils.for_range(b, number(SIDE // PAIRS)) as some:
            _products(b, b.gep(left, [b.mul(some.index, number(4 * PAIRS))]),
                      b.gep(right, [b.mul(some.index, number(LINE * PAIRS))]), sums)  # fmt: skip
    with b.if_then(b.icmp_unsigned("!=", b.ptrtoint(bias, I64), number(0))):
        for j in range(VECTORS):
            added = load(b, b.gep(bias, [number(LINE * j)]), masks[j])
            for row in sums:
                b.store(b.fadd(b.load(row[j], typ=FLOATS), added), row[j])
    with b.if_else(whole) as (straight, around):
        with straight:
            for r in range(ROWS):
                store_row(r, True)
        with around:
            for r in range(ROWS):
                with b.if_then(b.icmp_signed("<=", number(r), last)):
                    store_row(r, False)


def _products(b: Any, a: Any, bb: Any, sums: Any) -> None:
    """Add the products of `PAIRS` words of each row of A and column of B."""
    for p in range(PAIRS):
        vectors = [
            b.bitcast(load(b, b.gep(bb, [number(LINE * p + 16 * LINE * j)])), _WORDS)
            for j in range(VECTORS)
        ]
        for r, row in enumerate(sums):
            at = b.bitcast(b.gep(a, [number(LINE * r + 4 * p)]), I32.as_pointer())
            words = _copied(b, b.load(at, align=4, typ=I32))
            for vector, place in zip(vectors, row, strict=True):
                values = [b.load(place, typ=FLOATS), vector, words]
                b.store(llvm_call(b, "llvm.x86.avx512bf16.dpbf16ps.512", FLOATS, values), place)


def _copied(b: Any, word: Any) -> Any:
    """A word in all lanes."""
    none = ir.Constant(INTS, ir.Undefined)
    one = b.insert_element(none, word, ir.Constant(I32, 0))
    return b.bitcast(b.shuffle_vector(one, none, splat(0)), _WORDS)
