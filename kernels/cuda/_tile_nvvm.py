"""The functions of `kernels.cuda.tile`, compiled: thin, in LLVM code and inline assembly."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from .. import recorded
from . import tile
from ._types_nvvm import call, define, numba, types

recorded.record()

I32, I64, F32 = ir.IntType(32), ir.IntType(64), ir.FloatType()
NOTHING = ir.VoidType()
SHARED = 3  # the address space


def _is_array(kind: Any) -> bool:
    return isinstance(kind, types.Array) and isinstance(kind.dtype, types.Float)


def _constant(*kinds: Any) -> bool:
    """Whether these arguments are constant integers."""
    return all(isinstance(k, types.IntegerLiteral) for k in kinds)


def _constants(kinds: Any) -> list[int]:
    """The values of constant arguments."""
    return [k.literal_value for k in kinds]


def _index(context: Any, builder: Any, sig: Any, args: Any, k: int) -> Any:
    """Argument `k` as int64."""
    return context.cast(builder, args[k], sig.args[k], types.int64)


def _place(context: Any, builder: Any, sig: Any, args: Any, array: int, index: int) -> Any:
    """Address of the element that argument `index` counts (flat) in argument `array`."""
    data = context.make_array(sig.args[array])(context, builder, args[array]).data
    return builder.gep(data, [_index(context, builder, sig, args, index)])


def _at(builder: Any, base: Any, offset: int) -> Any:
    return builder.gep(base, [ir.Constant(I64, offset)])


def _assembly(builder: Any, text: str, constraints: str, result: Any, args: list[Any]) -> Any:
    kind = ir.FunctionType(result, [a.type for a in args])
    for_effect = result is NOTHING  # else only the result counts, and LLVM may move it
    return builder.call(ir.InlineAsm(kind, text, constraints, side_effect=for_effect), args)


# ---------------------------------------------------------------- copies into shared memory


def _copy(
    context: Any, builder: Any, sig: Any, args: Any, start: int, size: int, given: Any
) -> None:
    """Copy `size` bytes from byte `start` of both places on; what is past `given` of them is 0.

    (memory, at, x, i) are the first arguments. 16 bytes pass by the L1 cache.
    """
    to = _place(context, builder, sig, args, 0, 1)
    to = builder.addrspacecast(to, ir.PointerType(to.type.pointee, SHARED))
    source = builder.ptrtoint(_place(context, builder, sig, args, 2, 3), I64)
    cache = "cg" if size == 16 else "ca"
    text = f"cp.async.{cache}.shared.global [$0+{start}], [$1+{start}], {size}, $2;"
    operands = [builder.ptrtoint(to, I32), source, given]
    _assembly(builder, text, "r,l,r,~{memory}", NOTHING, operands)


def _copy4(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    size = sig.args[2].dtype.bitwidth // 8
    count = builder.trunc(_index(context, builder, sig, args, 4), I32)
    given = builder.mul(count, ir.Constant(I32, size))
    low, high = ir.Constant(I32, 0), ir.Constant(I32, 16)
    for start in range(0, 4 * size, 16):
        part = given
        if size == 8:  # two copies of 16 bytes: how much of each exists
            part = builder.sub(given, ir.Constant(I32, start))
            part = builder.select(builder.icmp_signed("<", part, low), low, part)
            part = builder.select(builder.icmp_signed(">", part, high), high, part)
        _copy(context, builder, sig, args, start, 16, part)
    return context.get_dummy_value()


def _copy1(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    size = sig.args[2].dtype.bitwidth // 8
    there = context.cast(builder, args[4], sig.args[4], types.boolean)
    given = builder.select(there, ir.Constant(I32, size), ir.Constant(I32, 0))
    _copy(context, builder, sig, args, 0, size, given)
    return context.get_dummy_value()


def _commit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    _assembly(builder, "cp.async.commit_group;", "~{memory}", NOTHING, [])
    return context.get_dummy_value()


def _wait(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    text = f"cp.async.wait_group {sig.args[0].literal_value};"
    _assembly(builder, text, "~{memory}", NOTHING, [])
    return context.get_dummy_value()


def _copy_type(memory: Any, at: Any, x: Any, i: Any, count: Any) -> Any:
    return types.none if _is_array(memory) and memory.dtype == x.dtype else None


define(tile.copy4, _copy_type, _copy4)
define(tile.copy1, _copy_type, _copy1)
define(tile.commit_copies, lambda: types.none, _commit)
define(tile.wait_copies, lambda groups: types.none if _constant(groups) else None, _wait)


def _computed_here(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    number = builder.trunc(_index(context, builder, sig, args, 0), I32)
    here = ir.InlineAsm(ir.FunctionType(I32, [I32]), "mov.b32 $0, $1;", "=r,r", side_effect=True)
    return builder.zext(builder.call(here, [number]), I64)  # so LLVM knows that it isn't negative


define(tile.computed_here, lambda i: types.int64, _computed_here)


# ---------------------------------------------------------------- products


def _load(builder: Any, place: Any, count: int) -> list[Any]:
    """`count` neighbouring elements, by loads of 16 bytes where there are that many."""
    kind = place.type.pointee
    size = 4 if kind == F32 else 8
    step = min(count, 16 // size)
    found: list[Any] = []
    for k in range(0, count, step):
        vector = ir.VectorType(kind, step)
        part = builder.bitcast(_at(builder, place, k), vector.as_pointer())
        together = builder.load(part, align=step * size, typ=vector)
        found += [builder.extract_element(together, ir.Constant(I32, e)) for e in range(step)]
    return found


def _fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    return call(builder, "llvm.fma.f32" if a.type == F32 else "llvm.fma.f64", a.type, [a, b, c])


def _elements(context: Any, builder: Any, sig: Any, args: Any, count: int) -> list[Any]:
    """Where the elements of the local array that is the first argument lie."""
    data = context.make_array(sig.args[0])(context, builder, args[0]).data
    return [_at(builder, data, k) for k in range(count)]


def _multiply(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    a_step, b_step, m, n, depth = _constants([sig.args[k] for k in (3, 5, 6, 7, 8)])
    places = _elements(context, builder, sig, args, m * n)
    values = [builder.load(p) for p in places]
    first_a = _place(context, builder, sig, args, 1, 2)
    first_b = _place(context, builder, sig, args, 1, 4)
    for t in range(depth):
        a: list[Any] = []
        b: list[Any] = []
        for i in range(0, m, 4):
            a += _load(builder, _at(builder, first_a, t * a_step + tile.place_of(i, 4, 16)), 4)
        for j in range(0, n, 4):
            place = _at(builder, first_b, t * b_step + tile.place_of(j, 4, 32))
            b += _load(builder, place, min(n, 4))
        for i in range(m):
            for j in range(n):
                values[i * n + j] = _fma(builder, a[i], b[j], values[i * n + j])
    for value, place in zip(values, places, strict=True):
        builder.store(value, place)
    return context.get_dummy_value()


def _multiply_type(
    sums: Any, memory: Any, a_at: Any, a_step: Any, b_at: Any, b_step: Any, *shape: Any
) -> Any:
    good = _is_array(sums) and _constant(a_step, b_step, *shape[:3])
    return types.none if good else None


define(tile.multiply_tile, _multiply_type, _multiply)


def _store(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    m, n, row_piece, row_step, piece, piece_step = _constants(sig.args[7:])
    places = _elements(context, builder, sig, args, m * n)
    values = [builder.load(p) for p in places]
    first = _place(context, builder, sig, args, 1, 2)
    step, rows, columns = (_index(context, builder, sig, args, k) for k in (3, 4, 5))
    vectors = context.cast(builder, args[6], sig.args[6], types.boolean)

    def exists(offset: int, left: Any) -> Any:
        return builder.icmp_signed("<", ir.Constant(I64, offset), left)

    for i in range(m):
        row = tile.place_of(i, row_piece, row_step)
        with builder.if_then(exists(row, rows)):
            line = builder.gep(first, [builder.mul(step, ir.Constant(I64, row))])
            for j in range(0, n, piece):
                column = tile.place_of(j, piece, piece_step)
                own = values[i * n + j : i * n + j + piece]
                if piece < 4:
                    for e, value in enumerate(own):
                        with builder.if_then(exists(column + e, columns)):
                            builder.store(value, _at(builder, line, column + e))
                    continue
                with builder.if_else(vectors) as (together, single):
                    with together, builder.if_then(exists(column, columns)):
                        _store_vectors(builder, _at(builder, line, column), own)
                    with single:
                        for e, value in enumerate(own):
                            with builder.if_then(exists(column + e, columns)):
                                builder.store(value, _at(builder, line, column + e))
    return context.get_dummy_value()


def _store_vectors(builder: Any, place: Any, values: list[Any]) -> None:
    """Write neighbouring elements by stores of 16 bytes."""
    kind = values[0].type
    size = 4 if kind == F32 else 8
    vector = ir.VectorType(kind, 16 // size)
    for k in range(0, len(values), 16 // size):
        together = ir.Constant(vector, ir.Undefined)
        for e in range(16 // size):
            together = builder.insert_element(together, values[k + e], ir.Constant(I32, e))
        part = builder.bitcast(_at(builder, place, k), vector.as_pointer())
        builder.store(together, part, align=16)


def _store_type(sums: Any, c: Any, *rest: Any) -> Any:
    good = _is_array(sums) and sums.dtype == c.dtype and _constant(*rest[5:])
    return types.none if good else None


define(tile.store_tile, _store_type, _store)

MMA = (
    "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
    "{$0,$1,$2,$3}, {$4,$5,$6,$7}, {$8,$9}, {$10,$11,$12,$13};"
)
MMA_OPERANDS = "=f,=f,=f,=f,r,r,r,r,r,r,f,f,f,f"
FOUR = ir.LiteralStructType([F32] * 4)


def _tf32(builder: Any, number: Any) -> Any:
    """The number rounded to TF32."""
    return _assembly(builder, "cvt.rna.tf32.f32 $0, $1;", "=r,f", I32, [number])


def _mma(builder: Any, a: list[Any], b: list[Any], sums: list[Any]) -> list[Any]:
    result = _assembly(builder, MMA, MMA_OPERANDS, FOUR, [*a, *b, *sums])
    return [builder.extract_value(result, k) for k in range(4)]


class _Pieces:
    """What a warp's products on tensor cores are made of: its sums in registers, where its numbers
    of both factors lie."""

    def __init__(self, context: Any, builder: Any, sig: Any, args: Any):
        a_step, b_step, m, n, self.depth = _constants([sig.args[k] for k in (3, 5, 6, 7, 8)])
        self.builder, self.m, self.n = builder, m, n
        self.places = _elements(context, builder, sig, args, 4 * m * n)
        self.values = [builder.load(p) for p in self.places]
        lane = _index(context, builder, sig, args, 9)
        g, q = builder.lshr(lane, ir.Constant(I64, 2)), builder.and_(lane, ir.Constant(I64, 3))
        self.sides = [
            (
                builder.gep(
                    _place(context, builder, sig, args, 1, k),
                    [builder.add(g, builder.mul(q, ir.Constant(I64, step)))],
                ),
                step,
                size,
            )
            for k, step, size in ((2, a_step, 16), (4, b_step, 8))
        ]

    def numbers(self, side: int, t: int, p: int) -> list[Any]:
        """The thread's numbers of piece `p` of A (side 0) or B, for eight terms from `t` on."""
        base, step, size = self.sides[side]
        places = [
            _at(self.builder, base, (t + d) * step + size * p + i)
            for d in (0, 4)
            for i in range(0, size, 8)
        ]
        return [self.builder.load(place, align=4) for place in places]

    def own(self, p: int, c: int) -> list[int]:
        """Which sums are those of a piece."""
        return [((2 * p + h) * self.n + c) * 2 + e for h in (0, 1) for e in (0, 1)]

    def store(self) -> None:
        for value, place in zip(self.values, self.places, strict=True):
            self.builder.store(value, place)


def _multiply_tf32(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    pieces = _Pieces(context, builder, sig, args)
    for t in range(0, pieces.depth, 8):
        a, b = (
            [[_tf32(builder, x) for x in pieces.numbers(side, t, p)] for p in range(count)]
            for side, count in ((0, pieces.m), (1, pieces.n))
        )
        for p in range(pieces.m):
            for c in range(pieces.n):
                own = pieces.own(p, c)
                result = _mma(builder, a[p], b[c], [pieces.values[k] for k in own])
                for k, value in zip(own, result, strict=True):
                    pieces.values[k] = value
    pieces.store()
    return context.get_dummy_value()


def _split(builder: Any, numbers: list[Any]) -> tuple[list[Any], list[Any]]:
    """The nearest TF32 number of each, and what is left of it."""
    big = [_tf32(builder, x) for x in numbers]
    rest = [
        _tf32(builder, builder.fsub(x, builder.bitcast(y, F32)))
        for x, y in zip(numbers, big, strict=True)
    ]
    return big, rest


def _multiply_tf32x3(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    pieces = _Pieces(context, builder, sig, args)
    nothing = [ir.Constant(F32, 0.0)] * 4
    for t in range(0, pieces.depth, 8):
        b = [_split(builder, pieces.numbers(1, t, c)) for c in range(pieces.n)]
        for p in range(pieces.m):
            big, rest = _split(builder, pieces.numbers(0, t, p))
            for c in range(pieces.n):
                part = _mma(builder, rest, b[c][0], nothing)
                part = _mma(builder, big, b[c][1], part)
                part = _mma(builder, big, b[c][0], part)
                for k, value in zip(pieces.own(p, c), part, strict=True):
                    pieces.values[k] = builder.fadd(pieces.values[k], value)
    pieces.store()
    return context.get_dummy_value()


def _multiply_tf32_type(sums: Any, *rest: Any) -> Any:
    single = _is_array(sums) and sums.dtype == numba.types.float32
    return _multiply_type(sums, *rest) if single else None


define(tile.multiply_tile_tf32, _multiply_tf32_type, _multiply_tf32)
define(tile.multiply_tile_tf32x3, _multiply_tf32_type, _multiply_tf32x3)
