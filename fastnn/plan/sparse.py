"""Products with a factor that may have many zeros: data, what a comparison or a ReLU gives, and the
gradient that a ReLU lets through.

How many there are is known only when a program runs, so the kernels look (`matmul/cpu_sparse.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

import numpy as np

from fastnn.graph.value import Value
from fastnn.kernels.declare import kernel_of
from fastnn.kernels.matmul.cpu import choose_linear
from fastnn.kernels.matmul.cpu_blocked import scratch_columns
from fastnn.kernels.matmul.cpu_sparse import WORD, columns_needed, room_needed, words_needed
from fastnn.kernels.matmul.cpu_sparse_gradients import by_vectors, turned_room, turned_words
from fastnn.plan.call import Call
from fastnn.plan.lower.lowering import Lowering

#: rows of a batch from which on blocks of the other factor serve enough of them
ROWS = 64
#: inputs of a layer from which on its factors are looked at
INPUTS = 256


def with_zeros(call: Call, zeros: Collection[Value]) -> set[Value]:
    """The memory of what a call writes, if many of its elements may be 0; `zeros` is that of which
    this is known."""
    traits = kernel_of(call.kernel).traits
    found = traits.many_zeros
    if traits.copies:  # of data, too: what it writes is not memory of inputs
        x = call.operands["x"].root
        found = x in zeros or x.segment == "input"
    elif traits.keeps_zeros:
        found = found or call.operands["x"].root in zeros
    if not found:
        return set()
    return {value.root for _, parameter, value in call.arrays() if parameter.writes}


def sparse(
    lowered: Lowering, call: Call, zeros: Collection[Value],
    transposed: Callable[[Value, int, int], Value],
) -> Call | None:  # fmt: skip
    """The call by the kernel that leaves zeros out, if it is one of a product for which it pays.

    `zeros` is the memory that has zeros, beside that of the inputs. A large weight's gradient is
    the product of the transposed x, which `transposed` makes of x, its rows and columns.
    """
    if call.repeats or lowered.parts:
        return None
    traits, operands = kernel_of(call.kernel).traits, call.operands
    itemsize = np.dtype(lowered.dtype).itemsize

    def many(name: str, columns: int) -> bool:
        """Whether a factor may have many zeros, and is large enough to be looked at, as is the
        result with so many columns."""
        x = operands[name]
        if x.dtype != "f" or not (x.root.segment == "input" or x.root in zeros):
            return False
        inputs = x.shape[-1]
        enough = x.size // max(inputs, 1) >= ROWS and inputs >= INPUTS
        return bool(enough and columns >= columns_needed(itemsize))

    scratch: tuple[int, int, int] | None = None  # items, and of each words and elements of room
    if traits.sparse_as:
        left = "x" if "x" in operands else "dy"
        result = operands[next(name for name in ("y", "dx", "dw") if name in operands)]
        inputs, columns = operands[left].shape[-1], result.shape[-1]
        rows = operands[left].size // max(inputs, 1)
        whole = "w_packed" not in operands or by_vectors(columns, itemsize)
        if many(left, columns) and whole:
            items, depth = (inputs, rows) if "dw" in operands else (rows, inputs)
            scratch = items, words_needed(depth), room_needed(itemsize)
            kernel = traits.sparse_as
            if "dw" in operands:
                choice = choose_linear(rows, inputs, columns, itemsize).backward_weight
                if choice == traits.copied_as:
                    kernel = traits.transposed_sparse_as
                    turned = transposed(operands["x"], rows, inputs)
                    operands = {"x": turned, "w": operands["dy"], "bias": None,
                                "y": operands["dw"]}  # fmt: skip
    if scratch is None and traits.turned_sparse_as:
        inputs, columns = operands["dw"].shape
        if many("dy", inputs) and inputs >= WORD:  # as many as a word has bits
            rows = operands["dy"].size // max(columns, 1)
            scratch = inputs, turned_words(columns, rows), turned_room(columns, itemsize)
            kernel = traits.turned_sparse_as
    if scratch is None:
        return None
    items, words, room = scratch
    known = {**operands, "words": lowered.value((items, words), "i", name="bits")}
    if "scratch" in kernel_of(kernel).params:
        known["scratch"] = lowered.value((items, scratch_columns(items, itemsize)), name="scratch")
    else:
        known["room"] = lowered.value((items, room), name="scratch")
    return replace(
        call, kernel=kernel, operands={name: known[name] for name in kernel_of(kernel).params}
    )
