"""Products with a transposed matrix: few rows are turned, not the matrix packed.

Lowering has the transposed matrix packed, once a step however often it is read. If one product
alone reads it, and has few rows, the copy mostly costs more than it saves (`matmul/cpu_turned.py`):
the rows are turned, or each worker packs the matrix for itself, block by block. Of even fewer rows
each worker takes all, and its own columns of the result (`matmul/cpu_columns.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fastnn.graph.value import Value
from fastnn.kernels.declare import kernel_of
from fastnn.kernels.matmul.cpu_blocked import own_columns
from fastnn.kernels.matmul.cpu_columns import (
    BLOCK_COLUMNS,
    columns_scratch,
    columns_turned,
    pays_by_columns,
)
from fastnn.kernels.matmul.cpu_turned import blocks_pay, pays, turned_columns
from fastnn.plan.call import Call
from fastnn.plan.lower.lowering import Lowering


def turned(lowered: Lowering, given: Sequence[Call]) -> list[Call]:
    """The calls, with the products that gain by it computed from the plain matrix.

    At the product the matrix has to be what it was where it was packed.
    """
    reads = Counter(v.root for call in given for _, p, v in call.arrays() if not p.writes)
    made: dict[Value, Call] = {}  # by a packed matrix: its packing, since which nothing has changed
    gone: set[Call] = set()
    calls: list[Call] = []
    for call in given:
        traits = kernel_of(call.kernel).traits
        packing = None
        if traits.turned_as and not call.repeats:
            packing = made.get(call.operands["w_packed"].root)
        if packing and reads[call.operands["w_packed"].root] == 1:
            dy, w = call.operands["dy"], packing.operands["w"]
            rows = dy.size // max(dy.shape[-1], 1)
            itemsize = np.dtype(lowered.dtype).itemsize
            # not over time: each length on another side of `pays` would have a plan of its own
            if len(dy.shape) == 2 and pays_by_columns(rows, *w.shape, itemsize):
                gone.add(packing)
                call = _by_columns(lowered, call, w, rows, itemsize)
            elif len(dy.shape) == 2 and pays(rows, *w.shape, itemsize):
                gone.add(packing)
                kernel = traits.turned_as
                call = _plain(lowered, call, kernel, w, rows, turned_columns(w.shape[-1]))
            elif len(dy.shape) == 2 and blocks_pay(rows):
                gone.add(packing)
                kernel, columns = traits.blocked_as, own_columns(rows, *w.shape, itemsize)
                call = _plain(lowered, call, kernel, w, rows, columns)
        calls.append(call)
        written = {v.root for _, p, v in call.arrays() if p.writes}
        made = {packed: before for packed, before in made.items()
                if not written & {packed, before.operands["w"].root}}  # fmt: skip
        if traits.packs and not call.repeats:
            made[call.operands["packed"].root] = call
    return [call for call in calls if call not in gone]


def _by_columns(lowered: Lowering, call: Call, w: Value, rows: int, itemsize: int) -> Call:
    """The call by a kernel that is split by the columns of its result."""
    traits, (c, k) = kernel_of(call.kernel).traits, w.shape
    turn = columns_turned(rows, c, k, itemsize)
    kernel = traits.turned_columns_as if turn else traits.blocked_columns_as
    columns = columns_scratch(rows, k) if turn else BLOCK_COLUMNS
    return _plain(lowered, call, kernel, w, c, columns, batched=False)


def _plain(
    lowered: Lowering, call: Call, kernel: str, w: Value, items: int, columns: int,
    batched: bool = True,
) -> Call:  # fmt: skip
    """The call by a kernel that takes the plain matrix, and so many columns of scratch memory for
    each of its items."""
    dy, dx = call.operands["dy"], call.operands["dx"]
    batched = batched and dy.batched
    key = ("turned", items, columns, batched)
    if key not in lowered.memo:
        lowered.memo[key] = lowered.value((items, columns), name="scratch", batched=batched)
    operands = {"dy": dy, "w": w, "dx": dx, "scratch": lowered.memo[key]}
    return replace(call, kernel=kernel, operands=operands)
