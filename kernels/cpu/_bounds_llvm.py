"""Bounds checks for the checked mode (`FASTNN_CHECK=1`).

Numba checks plain indices, but doesn't say which one was wrong: `noting` has it compile
`check_index` instead. The other checks cover what Numba can't see: vectors and register tiles,
which are addressed by flat index. They are emitted where the calling function is compiled with
`boundscheck`, else there is nothing of them in the code. One that fails raises IndexError, as
Numba's do, after it has noted what it has found in words of the compiled module (`WORDS`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.np import arrayobj

from .. import recorded
from . import tile

recorded.record()

I64 = ir.IntType(64)

#: name of the words in a module: kind of access (0: none failed), the array's address, index, size,
#: axis
WORDS = "fastnn_out_of_bounds"
COUNT = 5
#: kinds of access (named in `fastnn/runtime/cpu/fault.py`)
LOAD, STORE, TILE, TRANSPOSE, INDEX = 1, 2, 3, 4, 5


def check(
    context: Any,
    builder: Any,
    array_type: Any,
    array: Any,
    span: Sequence[Any],
    kind: int,
    touched: Any = None,
) -> None:
    """Raise IndexError unless the flat indices of `span` are all within the array.

    `span` holds the indices that are the first and the last touched (i64 values, in any order);
    `touched` (i1) says whether anything is touched at all.
    """
    if not context.enable_boundscheck:
        return
    held = context.make_array(array_type)(context, builder, array)
    first, last = span
    # as unsigned numbers, negative ones are large
    first_bad, last_bad = (builder.icmp_unsigned(">=", i, held.nitems) for i in span)
    bad = builder.or_(first_bad, last_bad)
    if touched is not None:
        bad = builder.and_(bad, touched)
    with cgutils.if_unlikely(builder, bad):
        index = builder.select(first_bad, first, last)
        values = [builder.ptrtoint(held.data, I64), index, held.nitems]
        _fail(context, builder, kind, values)


def _fail(context: Any, builder: Any, kind: int, values: Sequence[Any], axis: int = 0) -> None:
    """Note an access and raise IndexError."""
    numbers = [ir.Constant(I64, kind), *values, ir.Constant(I64, axis)]
    builder.call(_note(builder.module), numbers)
    context.call_conv.return_user_exc(builder, IndexError, ("index is out of bounds",))


class _Indexed:
    """The arrays whose plain indices Numba is emitting code for, the innermost last."""

    def __init__(self) -> None:
        self.addresses: list[Any] = []
        self.numbas = arrayobj.basic_indexing

    def basic_indexing(
        self, context: Any, builder: Any, kind: Any, array: Any, *others: Any, **options: Any
    ) -> Any:
        """As Numba's, with the array known to `check_index`."""
        self.addresses.append(array.data)
        try:
            return self.numbas(context, builder, kind, array, *others, **options)
        finally:
            self.addresses.pop()

    def check_index(
        self, context: Any, builder: Any, index: Any, size: Any, axis: Any = None
    ) -> None:
        """Raise IndexError unless a plain index, negative ones counted from the end already, is
        within its axis."""
        with cgutils.if_unlikely(builder, builder.icmp_unsigned(">=", index, size)):
            address = ir.Constant(I64, 0)
            if self.addresses:
                address = builder.ptrtoint(self.addresses[-1], I64)
            place = axis if isinstance(axis, int) else 0
            _fail(context, builder, INDEX, [address, index, size], place)


@contextmanager
def noting() -> Iterator[None]:
    """Within this context (and Numba's lock) code for plain indices notes the one that fails."""
    indexed = _Indexed()
    before = cgutils.do_boundscheck, arrayobj.basic_indexing
    cgutils.do_boundscheck = indexed.check_index
    arrayobj.basic_indexing = indexed.basic_indexing
    try:
        yield
    finally:
        cgutils.do_boundscheck, arrayobj.basic_indexing = before


def _note(module: Any) -> Any:
    """The function that writes the words, unless another thread has done so already."""
    name = WORDS + "_note"
    if name in module.globals:
        return module.globals[name]
    words = ir.GlobalVariable(module, ir.ArrayType(I64, COUNT), WORDS)
    words.initializer = ir.Constant(words.value_type, None)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64] * COUNT), name)
    # helpers are modules of their own, linked into the kernel's: one of them is kept
    words.linkage, function.linkage = "weak", "linkonce_odr"
    for attribute in ("noinline", "cold", "nounwind"):
        function.attributes.add(attribute)
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    start = builder.bitcast(words, I64.as_pointer())
    kind, *values = function.args
    taken = builder.cmpxchg(start, ir.Constant(I64, 0), kind, "monotonic", "monotonic")
    with builder.if_then(builder.extract_value(taken, 1)):
        for place, value in enumerate(values, 1):
            builder.store(value, builder.gep(start, [ir.Constant(I64, place)]))
    builder.ret_void()
    return function


def lane_span(builder: Any, index: Any, lanes: int) -> list[Any]:
    """The first and the last index of a vector of `lanes`."""
    return [index, builder.add(index, ir.Constant(I64, lanes - 1))]


def masked_span(builder: Any, index: Any, bounds: Sequence[Any], lanes: int) -> tuple[Any, Any]:
    """The span of the lanes that are on, and whether any is; `bounds` as in `mask_between`."""
    zero, one, all_lanes = (ir.Constant(I64, n) for n in (0, 1, lanes))
    begin = larger(builder, bounds[0], zero) if len(bounds) == 2 else zero
    end = smaller(builder, bounds[-1], all_lanes)
    span = [builder.add(index, begin), builder.add(index, builder.sub(end, one))]
    return span, builder.icmp_signed("<", begin, end)


def smaller(builder: Any, x: Any, y: Any) -> Any:
    return builder.select(builder.icmp_signed("<", x, y), x, y)


def larger(builder: Any, x: Any, y: Any) -> Any:
    return builder.select(builder.icmp_signed(">", x, y), x, y)


def block_span(builder: Any, at: Any, sides: Sequence[tuple[Any, Any, Any]]) -> list[Any]:
    """The lowest and the highest of ``at + sum of (k * step)`` for k from `first` to `last`.

    `sides` holds (first, last, step) of each direction; steps may be negative.
    """
    low = high = at
    for first, last, step in sides:
        ends = builder.mul(first, step), builder.mul(last, step)
        low = builder.add(low, smaller(builder, *ends))
        high = builder.add(high, larger(builder, *ends))
    return [low, high]


def check_tile(
    context: Any, builder: Any, kinds: Any, args: Any, shape: int | None, lanes: int
) -> None:
    """In the checked mode: all that a tile of this shape (None: the best one) touches is in its
    arrays. `kinds` and `args` as `tile.best_tile` has them."""
    if not context.enable_boundscheck:
        return

    def number(k: int) -> Any:
        return context.cast(builder, args[k], kinds[k], types.intp)

    def const(value: int) -> ir.Constant:
        return ir.Constant(I64, value)

    def check_block(k: int, sides: list[Any], touched: Any = None) -> None:
        span = block_span(builder, number(k + 1), sides)
        check(context, builder, kinds[k], args[k], span, TILE, touched)

    zero, one = const(0), const(1)
    depth, rows, columns = number(12), builder.sub(number(13), one), number(14)
    first_column, last_column = zero, builder.sub(columns, one)
    if shape is not None:  # the best one has the rows and columns that it is given
        most_rows, vectors = tile.shapes()[shape]
        rows = smaller(builder, rows, const(most_rows - 1))
        last_column = smaller(builder, last_column, const(vectors * lanes - 1))
        if shape != tile.NARROW:  # the first vector is whole; others end at the last column
            last_column = larger(builder, last_column, const(lanes - 1))
            if vectors > 1:
                first_column = smaller(builder, zero, builder.sub(columns, const(lanes)))
    row = smaller(builder, rows, zero), larger(builder, rows, zero)
    steps = builder.icmp_signed(">", depth, zero)
    step = zero, builder.sub(depth, one)
    across = first_column, last_column, one
    any_column = builder.icmp_signed("<=", first_column, last_column)
    multiplied = builder.and_(steps, any_column)
    check_block(0, [(*row, number(2)), (*step, number(3))], steps)
    check_block(4, [(*step, number(6)), across], multiplied)
    check_block(7, [(*row, number(9)), across], any_column)
    has_bias = builder.icmp_signed(">=", number(11), zero)
    check_block(10, [across], builder.and_(has_bias, any_column))
