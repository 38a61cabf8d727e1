"""Products whose left factor may have many zeros: data, and what a comparison gives.

How many there are is known only when a program runs, so the kernels look (`matmul/cpu_sparse.py`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from fastnn.graph.value import Value
from fastnn.kernels.declare import kernel_of
from fastnn.kernels.matmul.cpu_sparse import columns_needed, room_needed, words_needed
from fastnn.plan.call import Call
from fastnn.plan.lower.lowering import Lowering

#: rows of a batch from which on blocks of the other factor serve enough of them
ROWS = 64
#: inputs of a layer from which on its factors are looked at
INPUTS = 256


def with_zeros(call: Call) -> set[Value]:
    """The memory of what a call writes, if many of its elements may be 0."""
    if not kernel_of(call.kernel).traits.many_zeros:
        return set()
    return {value.root for _, parameter, value in call.arrays() if parameter.writes}


def sparse(lowered: Lowering, call: Call, zeros: Collection[Value]) -> Call | None:
    """The call by the kernel that leaves zeros out, if it is one of a product for which it pays.

    `zeros` is the memory that has zeros, beside that of the inputs.
    """
    kernel = kernel_of(call.kernel).traits.sparse_as
    if not kernel or call.repeats or lowered.parts:
        return None
    x, result = call.operands["x"], call.operands["y" if "y" in call.operands else "dw"]
    if x.dtype != "f" or not (x.root.segment == "input" or x.root in zeros):
        return None
    inputs, columns = x.shape[-1], result.shape[-1]
    rows, itemsize = x.size // max(inputs, 1), np.dtype(lowered.dtype).itemsize
    if rows < ROWS or inputs < INPUTS or columns < columns_needed(itemsize):
        return None
    items, depth = (rows, inputs) if "y" in call.operands else (inputs, rows)
    known = {
        **call.operands,
        "words": lowered.value((items, words_needed(depth)), "i", name="bits"),
        "room": lowered.value((items, room_needed(itemsize)), name="scratch"),
    }
    operands = {name: known[name] for name in kernel_of(kernel).params}
    return replace(call, kernel=kernel, operands=operands)
