"""The compiled side of `tile`: one LLVM function per shape and element type, in vector code.

The function is not inlined: a kernel calls it at several places and has one copy of it, whose
inner loop holds all sums in registers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types

from .. import recorded
from . import target, tile
from ._bounds_llvm import check_tile, smaller
from ._types_llvm import (
    FloatVector,
    define,
    is_array,
    llvm_call,
    llvm_type,
    register_of,
    splat_value,
    suffix,
)

recorded.record()

I1, I8, I64 = ir.IntType(1), ir.IntType(8), ir.IntType(64)
ARGUMENTS = ("a", "a_row", "a_step", "b", "b_step", "c", "c_row", "bias", "depth", "rows",
             "columns", "begin")  # fmt: skip

#: where a prefetched line goes, for `prefetch_line`
L1, L2 = 3, 2
#: A tile of many sums asks for the row of B, and the first element of the column of A, this many
#: steps before it multiplies with them. They come from L2 (16 cycles; a step takes 12): left to the
#: hardware, tiles reached 0.88 of their speed on operands in L1, with 8 to 32 steps 0.94, and where
#: A is strided (weight gradients) 0.85 became 0.97. With more than 8, rows that lie a power of two
#: apart evict each other.
STEPS_AHEAD = 8


def prefetch_line(builder: Any, pointer: Any, level: int) -> None:
    read, data_cache = ir.Constant(ir.IntType(32), 0), ir.Constant(ir.IntType(32), 1)
    arguments = [pointer, read, ir.Constant(ir.IntType(32), level), data_cache]
    llvm_call(builder, "llvm.prefetch.p0", ir.VoidType(), arguments)


class _Tile:
    """Builds the function of one shape."""

    def __init__(self, function: Any, rows: int, vectors: int, ty: FloatVector, masked: bool):
        self.rows, self.vectors, self.ty, self.masked = rows, vectors, ty, masked
        self.vec = llvm_type(ty)
        self.size = ty.width // 8
        self.function = function
        self.b = ir.IRBuilder(function.append_basic_block("entry"))
        for name, argument in zip(ARGUMENTS, function.args, strict=True):
            setattr(self, f"arg_{name}", argument)

    def bytes_of(self, elements: Any) -> Any:
        return self.b.mul(elements, ir.Constant(I64, self.size))

    def vector_pointer(self, base: Any, offset: Any) -> Any:
        return self.b.bitcast(self.b.gep(base, [offset]), self.vec.as_pointer())

    def load(self, base: Any, offset: Any) -> Any:
        pointer = self.vector_pointer(base, offset)
        if not self.masked:
            return self.b.load(pointer, align=self.size, typ=self.vec)
        zero = ir.Constant(self.vec, [0.0] * self.ty.lanes)
        arguments = [pointer, ir.Constant(ir.IntType(32), self.size), self.mask, zero]
        return llvm_call(self.b, f"llvm.masked.load.{suffix(self.ty)}.p0", self.vec, arguments)

    def store(self, value: Any, base: Any, offset: Any) -> None:
        pointer = self.vector_pointer(base, offset)
        if not self.masked:
            self.b.store(value, pointer, align=self.size)
            return
        arguments = [value, pointer, ir.Constant(ir.IntType(32), self.size), self.mask]
        name = f"llvm.masked.store.{suffix(self.ty)}.p0"
        llvm_call(self.b, name, ir.VoidType(), arguments)

    def offsets(self) -> None:
        """Byte offsets of rows and of column vectors; what lies past the end repeats the last."""
        b = self.b
        last_row = b.sub(self.arg_rows, ir.Constant(I64, 1))
        row = [smaller(self.b, ir.Constant(I64, i), last_row) for i in range(1, self.rows)]
        zero = ir.Constant(I64, 0)
        a_row, c_row = self.bytes_of(self.arg_a_row), self.bytes_of(self.arg_c_row)
        self.a_offset = [zero] + [b.mul(i, a_row) for i in row]
        self.c_offset = [zero] + [b.mul(i, c_row) for i in row]
        lanes = self.ty.lanes
        last = b.sub(self.arg_columns, ir.Constant(I64, lanes))
        starts = [ir.Constant(I64, j * lanes) for j in range(self.vectors)]
        ahead = ir.Constant(I64, STEPS_AHEAD)
        self.a_ahead, self.b_ahead = b.mul(self.a_bytes, ahead), b.mul(self.b_bytes, ahead)
        self.column = [zero] + [self.bytes_of(smaller(self.b, s, last)) for s in starts[1:]]
        if self.masked:
            index = ir.Constant(ir.VectorType(I64, lanes), list(range(lanes)))
            shape = ir.VectorType(I64, lanes)
            undefined = ir.Constant(shape, ir.Undefined)
            one = b.insert_element(undefined, self.arg_columns, ir.Constant(ir.IntType(32), 0))
            zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
            self.mask = b.icmp_signed("<", index, b.shuffle_vector(one, undefined, zeros))

    def build(self) -> None:
        b = self.b
        self.offsets()
        places = [(i, j) for i in range(self.rows) for j in range(self.vectors)]
        entry = b.block
        resume, head, body, done, add, store, end = (
            self.function.append_basic_block(name)
            for name in ("resume", "head", "body", "done", "add", "store", "end")
        )
        b.cbranch(self.arg_begin, head, resume)

        b.position_at_end(resume)
        row_c = [b.gep(self.arg_c, [offset]) for offset in self.c_offset]
        held = [self.load(row_c[i], self.column[j]) for i, j in places]
        b.branch(head)

        b.position_at_end(head)
        zero = ir.Constant(self.vec, [0.0] * self.ty.lanes)
        left, a, vb = b.phi(I64), b.phi(I8.as_pointer()), b.phi(I8.as_pointer())
        sums = [b.phi(self.vec) for _ in places]
        for block, start in ((entry, [zero] * len(places)), (resume, held)):
            left.add_incoming(self.arg_depth, block)
            a.add_incoming(self.arg_a, block)
            vb.add_incoming(self.arg_b, block)
            for phi, value in zip(sums, start, strict=True):
                phi.add_incoming(value, block)
        b.cbranch(b.icmp_signed(">", left, ir.Constant(I64, 0)), body, done)

        b.position_at_end(body)
        results = self.multiply(a, vb, sums)
        left.add_incoming(b.sub(left, ir.Constant(I64, 1)), body)
        a.add_incoming(b.gep(a, [self.a_bytes]), body)
        vb.add_incoming(b.gep(vb, [self.b_bytes]), body)
        for phi, value in zip(sums, results, strict=True):
            phi.add_incoming(value, body)
        b.branch(head)

        b.position_at_end(done)
        no_bias = b.icmp_unsigned("==", b.ptrtoint(self.arg_bias, I64), ir.Constant(I64, 0))
        b.cbranch(no_bias, store, add)
        b.position_at_end(add)
        bias = [self.load(self.arg_bias, offset) for offset in self.column]
        added = [b.fadd(s, bias[j]) for s, (_, j) in zip(sums, places, strict=True)]
        b.branch(store)
        b.position_at_end(store)
        final = []
        for plain, with_bias in zip(sums, added, strict=True):
            phi = b.phi(self.vec)
            phi.add_incoming(plain, done)
            phi.add_incoming(with_bias, add)
            final.append(phi)
        for value, (i, j) in zip(final, places, strict=True):
            self.store(value, b.gep(self.arg_c, [self.c_offset[i]]), self.column[j])
        b.branch(end)
        b.position_at_end(end)
        b.ret_void()

    def multiply(self, a: Any, vb: Any, sums: Any) -> Any:
        """One step along the depth: the sums plus (column of A) times (row of B)."""
        b = self.b
        element = self.vec.element
        row = [self.load(vb, offset) for offset in self.column]
        if self.rows >= 6 or self.vectors == 3:
            prefetch_line(b, b.gep(a, [self.a_ahead]), L1)
            start = b.gep(vb, [self.b_ahead])
            for offset in self.column:
                prefetch_line(b, b.gep(start, [offset]), L1)
        name = "llvm.fma" if target.host().has_fma else "llvm.fmuladd"
        results = []
        for i in range(self.rows):
            pointer = b.bitcast(b.gep(a, [self.a_offset[i]]), element.as_pointer())
            value = splat_value(b, b.load(pointer, align=self.size, typ=element), self.ty)
            for j in range(self.vectors):
                arguments = [value, row[j], sums[i * self.vectors + j]]
                results.append(llvm_call(b, f"{name}.{suffix(self.ty)}", self.vec, arguments))
        return results


def _declare(module: Any, name: str) -> Any:
    """An internal function with a tile's parameters, kept out of line."""
    pointer = I8.as_pointer()
    kinds = [pointer if n in ("a", "b", "c", "bias") else I64 for n in ARGUMENTS[:-1]] + [I1]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    function.attributes.add("nounwind")
    return function


def _function(module: Any, shape: int, ty: FloatVector) -> Any:
    rows, vectors = tile.shapes()[shape]
    masked = shape == tile.NARROW
    name = f"fastnn_tile_{suffix(ty)}_{rows}x{vectors}{'m' if masked else ''}"
    if name in module.globals:
        return module.globals[name]
    function = _declare(module, name)
    builder = _Tile(function, rows, vectors, ty, masked)
    builder.a_bytes = builder.bytes_of(builder.arg_a_step)
    builder.b_bytes = builder.bytes_of(builder.arg_b_step)
    builder.build()
    return function


def _best(module: Any, ty: FloatVector) -> Any:
    """The function that jumps to the shape for the rows and columns it is given."""
    name = f"fastnn_tile_{suffix(ty)}_best"
    if name in module.globals:
        return module.globals[name]
    function = _declare(module, name)
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    rows, columns = (function.args[ARGUMENTS.index(n)] for n in ("rows", "columns"))

    def compare(sign: str, x: Any, y: int) -> Any:
        return builder.icmp_signed(sign, x, ir.Constant(I64, y))

    def use(shape: int, condition: Any) -> None:
        yes, no = function.append_basic_block(), function.append_basic_block()
        builder.cbranch(condition, yes, no)
        builder.position_at_end(yes)
        builder.call(_function(module, shape, ty), function.args, tail=True)
        builder.ret_void()
        builder.position_at_end(no)

    lanes, shapes = ty.lanes, tile.shapes()
    some = compare(">", rows, 2)
    whole = builder.and_(some, compare("==", columns, lanes))
    narrow = builder.or_(compare("<", columns, lanes), whole)
    use(tile.NARROW, narrow)
    use(tile.ONE, compare("==", rows, 1))
    use(tile.TWO, compare("==", rows, 2))
    wide = compare(">", columns, 2 * lanes)
    if shapes[tile.MAIN][1] > 2:
        use(tile.MAIN, builder.and_(wide, compare(">", rows, shapes[tile.WIDE][0])))
    use(tile.WIDE, wide)
    use(tile.FOUR, compare("<=", rows, 4))
    builder.call(_function(module, tile.MIDDLE, ty), function.args, tail=True)
    builder.ret_void()
    return function


def _call(
    context: Any, builder: Any, kinds: Any, args: Any, choose: Callable[[Any, FloatVector], Any]
) -> Any:
    """Call the function that `choose` gives, with the arguments of `tile.best_tile`."""
    ty = register_of(kinds[0])
    size = ir.Constant(I64, ty.width // 8)

    def number(k: int) -> Any:
        return context.cast(builder, args[k], kinds[k], types.intp)

    def address(k: int) -> Any:
        data = context.make_array(kinds[k])(context, builder, args[k]).data
        start = builder.bitcast(data, I8.as_pointer())
        return builder.gep(start, [builder.mul(number(k + 1), size)])

    begin = context.cast(builder, args[15], kinds[15], types.boolean)
    none = builder.icmp_signed("<", number(11), ir.Constant(I64, 0))
    bias = builder.select(none, ir.Constant(I8.as_pointer(), None), address(10))
    builder.call(
        choose(builder.module, ty),
        [address(0), number(2), number(3), address(4), number(6), address(7), number(9), bias,
         number(12), number(13), number(14), builder.trunc(begin, I1)],
    )  # fmt: skip
    return context.get_dummy_value()


def _tile(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    shape = sig.args[0].literal_value
    lanes = register_of(sig.args[1]).lanes
    check_tile(context, builder, sig.args[1:], args[1:], shape, lanes)

    def choose(module: Any, ty: FloatVector) -> Any:
        return _function(module, shape, ty)

    return _call(context, builder, sig.args[1:], args[1:], choose)


def _best_tile(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    check_tile(context, builder, sig.args, args, None, register_of(sig.args[0]).lanes)
    return _call(context, builder, sig.args, args, _best)


def _arrays(args: Any) -> bool:
    return len(args) == 16 and all(is_array(args[k]) for k in (0, 4, 7, 10))


def _tile_type(*args: Any) -> Any:
    literal = isinstance(args[0], types.IntegerLiteral)
    return types.void if literal and _arrays(args[1:]) else None


def _best_type(*args: Any) -> Any:
    return types.void if _arrays(args) else None


def _constant(value: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return ir.Constant(I64, value(sig.args[0].dtype.bitwidth // 8))

    return codegen


def _size(x: Any) -> Any:
    return types.intp if is_array(x) else None


def _prefetch(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    data = context.make_array(sig.args[0])(context, builder, args[0]).data
    pointer = builder.gep(data, [context.cast(builder, args[1], sig.args[1], types.intp)])
    prefetch_line(builder, pointer, L2)
    return context.get_dummy_value()


define(
    tile.prefetch,
    lambda *args: types.void if is_array(args[0]) else None,
    _prefetch,
)
define(tile.tile, _tile_type, _tile)
define(tile.best_tile, _best_type, _best_tile)
define(tile.tile_height, _size, _constant(lambda itemsize: tile.shapes()[tile.MAIN][0]))
define(tile.tile_width, _size, _constant(tile.panel_width))
define(tile.tile_lanes, _size, _constant(lambda itemsize: target.host().lanes(itemsize)))
