"""The compiled side of `tile.transpose_block`: a square of vectors, turned in registers."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types

from .. import recorded
from . import tile
from ._bounds_llvm import TRANSPOSE, block_span, check
from ._types_llvm import define, is_array, llvm_type, register_of

recorded.record()

I64 = ir.IntType(64)


def _transpose_block(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """Rows as vectors; stage s swaps bit s of the row's and the column's index."""
    ty = register_of(sig.args[0])
    vec, lanes, align = llvm_type(ty), ty.lanes, ty.width // 8
    a, b = (context.make_array(sig.args[k])(context, builder, args[k]).data for k in (0, 3))
    a_at, a_row, b_at, b_row = (
        context.cast(builder, args[k], sig.args[k], types.intp) for k in (1, 2, 4, 5)
    )
    if context.enable_boundscheck:
        side = ir.Constant(I64, 0), ir.Constant(I64, lanes - 1)
        along = (*side, ir.Constant(I64, 1))
        for k, at, step in ((0, a_at, a_row), (3, b_at, b_row)):
            span = block_span(builder, at, [(*side, step), along])
            check(context, builder, sig.args[k], args[k], span, TRANSPOSE)

    def pointer(data: Any, at: Any, row: Any, i: int) -> Any:
        index = builder.add(at, builder.mul(row, ir.Constant(I64, i)))
        return builder.bitcast(builder.gep(data, [index]), vec.as_pointer())

    row = [builder.load(pointer(a, a_at, a_row, i), align=align, typ=vec) for i in range(lanes)]
    stage = lanes // 2
    while stage:
        low = [c if not c & stage else lanes + c - stage for c in range(lanes)]
        high = [c + stage if not c & stage else lanes + c for c in range(lanes)]
        mask = ir.VectorType(ir.IntType(32), lanes)
        for i in range(lanes):
            if not i & stage:
                pair = row[i], row[i + stage]
                row[i] = builder.shuffle_vector(*pair, ir.Constant(mask, low))
                row[i + stage] = builder.shuffle_vector(*pair, ir.Constant(mask, high))
        stage //= 2
    for i in range(lanes):
        builder.store(row[i], pointer(b, b_at, b_row, i), align=align)
    return context.get_dummy_value()


define(
    tile.transpose_block,
    lambda *args: types.void if is_array(args[0]) and is_array(args[3]) else None,
    _transpose_block,
)
