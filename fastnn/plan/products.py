"""The sizes of a matrix product decide by which kernels it is computed.

The graph asks for a product by its plain name; the planner puts the fastest kernel in its place,
where all sizes are known (a loop's weight gradient, say, sums over the rows of all steps). On CUDA
that goes for all products and for gradients of tables, on the CPU for the gradients of weights, for
products with a factor that may have many zeros (`sparse.py`), for those of few rows with a
transposed matrix (`turned.py`) and for those of one row (`taking.py`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from fastnn.graph.memo import Memo
from fastnn.graph.value import Repeat, Value
from fastnn.kernels.declare import CUDA_KERNELS, CudaKernel, kernel_of
from fastnn.kernels.matmul.cpu import choose_linear
from fastnn.kernels.matmul.cpu_own import own_scratch
from fastnn.kernels.matmul.cpu_unit import gradient_scratch, pays, unit_shape
from fastnn.plan.call import Call
from fastnn.plan.endings import with_endings
from fastnn.plan.exchanges import cleared_at_once
from fastnn.plan.factors import counts_of, names_of, sizes_of
from fastnn.plan.halves import in_halves
from fastnn.plan.lower.lowering import Lowering
from fastnn.plan.lower.strided import indices
from fastnn.plan.once import computed_once
from fastnn.plan.rounding import rounded
from fastnn.plan.scaled import scaled
from fastnn.plan.sparse import sparse, with_zeros
from fastnn.plan.taking import taking
from fastnn.plan.turned import turned
from fastnn.plan.unread import without_unread


def chosen(lowered: Lowering, kept: Collection[Value] = ()) -> list[Call]:
    """The calls with the products' kernels chosen; `kept` is memory that is looked at after the
    step."""
    once = computed_once(lowered.calls, kept)
    if lowered.device == "cpu":
        return with_endings(taking(lowered, _packed(lowered, once)), kept, "cpu")
    from fastnn.kernels.matmul.cuda import PLAIN  # not needed on the CPU
    from fastnn.kernels.matmul.cuda_half import LETTERS

    calls: list[Call] = []
    occurring = {k.traits.occurring_of: k for k in CUDA_KERNELS.values() if k.traits.occurring_of}
    # a transpose that nobody reads must not stand between a convolution and its activation
    once = without_unread(once, {*lowered.graph.last, *lowered.graph.passed}, kept)
    given = with_endings(scaled(cleared_at_once(lowered, once)), kept)
    if lowered.precision in LETTERS:
        given = rounded(lowered, in_halves(lowered, given, kept))
    for call in given:
        if call.kernel in PLAIN:
            calls += _product(lowered, call)
        elif call.kernel in occurring:
            calls += _table(call, occurring[call.kernel])
        else:
            calls.append(call)
    return calls


def _table(call: Call, occurring: CudaKernel) -> list[Call]:
    """A table's gradient: where there are more rows than ids, of the rows that occur alone."""
    arrays = occurring.arrays
    table = next(call.operands[name] for name, p in arrays.items() if p.writes)
    ids = next(call.operands[name] for name, p in arrays.items() if p.dtype == "i")
    if table.shape[0] <= ids.size:
        return [call]
    zeros = {"given": None, "state": table}
    return [
        replace(call, kernel="state_begin", operands=zeros),
        replace(call, kernel=occurring.name),
    ]


def _product(lowered: Lowering, call: Call) -> list[Call]:
    from fastnn.kernels.matmul.cuda import PLAIN, SPLIT, choose_product

    _, _, written = names_of(call)
    result = call.operands[written]
    plain = PLAIN[call.kernel]
    rows, columns, depth = sizes_of(call)
    choice = choose_product(
        plain, rows, columns, depth, np.dtype(lowered.dtype).itemsize, lowered.precision,
        lowered.limits[1],
    )  # fmt: skip
    if choice.parts == 1:
        return [replace(call, kernel=call.kernel + choice.suffix)]
    kernel = kernel_of(SPLIT[call.kernel])
    parts = lowered.value((choice.parts, rows, columns), name=f"parts of {result.name}")
    known: dict[str, Any] = {"bias": None, "y": None, "activation": -1, **call.operands}
    known |= {"parts": parts, "counts": counts_of(lowered)}
    if "dbias" in call.operands:
        known["bias_parts"] = lowered.value((choice.parts, columns), name="parts of a bias")
    operands = {name: known[name] for name in kernel.params}
    return [replace(call, kernel=kernel.name, operands=operands)]


def _packed(lowered: Lowering, given: list[Call]) -> list[Call]:
    """The calls with large weight gradients by kernels that copy their factors, and zeros left out
    where there may be many."""
    calls: list[Call] = []
    copies = Memo()
    itemsize = np.dtype(lowered.dtype).itemsize
    loops: tuple[Repeat, ...] = ()
    zeros: set[Value] = set()
    for call in rounded(lowered, turned(lowered, given)):
        if call.repeats != loops:  # a loop's first step may find what a later one may not
            copies, loops = Memo(), call.repeats
        zeros |= with_zeros(call, zeros)
        turn = partial(_transposed, lowered, call, calls, copies)
        if (other := sparse(lowered, call, zeros, turn)) is not None:
            call = other
        elif kernel_of(call.kernel).traits.copied_as:
            call = _large_gradient(lowered, call, calls, copies, itemsize)
        calls.append(call)
        if copies:  # what is written anew has to be packed anew
            written = _written(call)
            copies.keep(lambda key, _: key[0] not in written)  # noqa: B023
    return calls


def _large_gradient(
    lowered: Lowering, call: Call, calls: list[Call], copies: Memo, itemsize: int
) -> Call:
    c, k, rows = sizes_of(call)
    if lowered.parts and pays(c, rows, k, lowered.parts):
        return _on_unit(lowered, call, calls, copies, (c, k, rows))
    if choose_linear(rows, c, k, itemsize).backward_weight == call.kernel:
        return call
    key = ("own", c, own_scratch(rows))
    if key not in lowered.memo:
        lowered.memo[key] = lowered.value((c, own_scratch(rows)), name="scratch")
    operands = {**call.operands, "scratch": lowered.memo[key]}
    return replace(call, kernel=kernel_of(call.kernel).traits.copied_as, operands=operands)


def _transposed(
    lowered: Lowering, call: Call, calls: list[Call], copies: Memo,
    x: Value, rows: int, columns: int,
) -> Value:  # fmt: skip
    """The transpose of a call's operand x with so many rows and columns, made once."""
    key = (x.root, x.shift, x.shape, "transposed")
    if key not in copies:
        copies[key] = lowered.value((columns, rows), name=f"transposed {x.name}")
        operands = {
            "x": x, "extents": indices(lowered, [columns]), "strides": indices(lowered, [1]),
            "y": copies[key], "begin": 0, "step": columns,
        }  # fmt: skip
        calls.append(replace(call, kernel="copy_strided", operands=operands))
    return copies[key]


def _on_unit(
    lowered: Lowering, call: Call, calls: list[Call], copies: Memo,
    sizes: tuple[int, int, int],
) -> Call:  # fmt: skip
    """A weight's gradient on the CPU's tile unit, its right factor cut into parts once."""
    (c, k, rows), parts = sizes, lowered.parts
    dy = call.operands["dy"]
    key = (dy.root, dy.shift, dy.shape, *dy.strides.items())
    if key not in copies:
        copies[key] = lowered.value(unit_shape(rows, k, parts), name=f"packed {dy.name}")
        whole = {"w": dy, "packed": copies[key], "parts": parts}
        calls.append(replace(call, kernel="pack_unit", operands=whole))
    scratch = lowered.value((c, gradient_scratch(rows, parts)), name="scratch")
    operands = {
        "x": call.operands["x"], "dy_packed": copies[key], "dw": call.operands["dw"],
        "scratch": scratch, "parts": parts,
    }  # fmt: skip
    return replace(call, kernel="linear_backward_weight_unit", operands=operands)


def _written(call: Call) -> set[Value]:
    """The memory that a call writes to."""
    return {value.root for _, parameter, value in call.arrays() if parameter.writes}
