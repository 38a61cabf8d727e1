"""A matrix product's call: which of its arrays are the factors, and how large it is."""

from __future__ import annotations

import numpy as np

from fastnn.graph.value import Value
from fastnn.kernels.declare import kernel_of
from fastnn.plan.call import Call
from fastnn.plan.lower.lowering import Lowering


def names_of(call: Call) -> tuple[str, str, str]:
    """The parameters of a product that are its two factors and its result."""
    kernel = kernel_of(call.kernel)
    read = [name for name, p in kernel.arrays.items() if p.reads]
    return read[0], read[1], next(name for name, p in kernel.arrays.items() if p.writes)


def sizes_of(call: Call) -> tuple[int, int, int]:
    """Rows and columns of the result, and the length of the sums."""
    left, right, written = names_of(call)
    arrays = kernel_of(call.kernel).arrays
    sizes: dict[str, int] = {}
    for name in (left, right):
        value, (row, column) = call.operands[name], arrays[name].dims
        sizes |= {row: value.size // max(value.shape[-1], 1), column: value.shape[-1]}
    rows, columns = arrays[written].dims
    (summed,) = (letter for letter in arrays[left].dims if letter not in (rows, columns))
    return sizes[rows], sizes[columns], sizes[summed]


def counts_of(lowered: Lowering) -> Value:
    """Words that are 0 between launches, one for each tile of a product in parts."""
    from fastnn.kernels.matmul.cuda import TILES

    return lowered.constant(np.zeros(TILES, np.int64), "i", name="counts")
