"""Matrix products: which kernel, and what it takes packed."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn.graph.node import Node
from fastnn.graph.value import Value
from fastnn.kernels.declare import kernel_of
from fastnn.kernels.matmul.cpu import LinearChoice, choose_linear, packed_shape
from fastnn.kernels.matmul.cpu_blocked import scratch_columns
from fastnn.kernels.matmul.cpu_unit import pays, product_scratch, unit_shape
from fastnn.plan.lower.lowering import Lowering, Values, forward, gradient

#: the products on CUDA, where nothing is packed
ON_CUDA = ("linear_forward", "linear_backward_input_unpacked", "linear_backward_weight")
#: those on the CPU's tile unit; how gradients of weights are computed is chosen later
ON_TILE_UNIT = ("linear_forward_unit", "linear_backward_input_unit", "linear_backward_weight")
#: weights from which a product with few rows is split by columns instead of rows, also in loops
WIDE = 1 << 19
#: and from which it is where that moves less from core to core
SHARED = 3 << 15


def need(node: Node, name: str) -> Value:
    """An input that is not absent."""
    value = node.inputs[name]
    assert value is not None
    return value


def packed(to: Lowering, w: Value, *, transposed: bool = False, parts: int = 0) -> Value:
    """The packed copy of a matrix (or of its transpose), made once a step however often used.

    With `parts` it is cut into so many bfloat16 parts for the tile unit.
    """
    key = ("packed", w, transposed, parts)
    if key not in to.memo:
        rows, columns = w.shape[::-1] if transposed else w.shape
        itemsize = np.dtype(to.dtype).itemsize
        shape = unit_shape(rows, columns, parts) if parts else packed_shape(rows, columns, itemsize)
        value = to.value(shape, name=f"packed {w.name}")
        kernel = "pack_unit" if parts else "pack_panels"
        more = {"parts": parts} if parts else {}
        to.call(kernel + "_transposed" * transposed, w=w, packed=value, **more)
        to.memo[key] = value
    return to.memo[key]


def _scratch(to: Lowering, product: str, x: Value) -> dict[str, Any]:
    """The scratch memory that a product with the left factor `x` takes, a part for each row, and
    how many parts factors are cut into; products of the same sizes share the memory."""
    if not _takes(product, "scratch"):
        return {}
    rows, parts = x.size // x.shape[-1], to.parts if _takes(product, "parts") else 0
    columns = (
        product_scratch(x.shape[-1], parts)
        if parts
        else scratch_columns(rows, np.dtype(to.dtype).itemsize)
    )
    key = ("scratch", rows, columns, x.batched)
    if key not in to.memo:
        to.memo[key] = to.value((rows, columns), name="scratch")
    return {"scratch": to.memo[key], **({"parts": parts} if parts else {})}


def _choice(to: Lowering, x: Value, w: Value) -> LinearChoice:
    """The kernels for these sizes; by the whole batch, so that blocks and workers don't matter.

    On CUDA they are chosen when all calls are known (`plan/products.py`).
    """
    if to.device == "cuda":
        return LinearChoice(*ON_CUDA)
    n, (c, k) = x.size // max(x.shape[-1], 1), w.shape
    if to.parts and pays(n, c, k, to.parts):
        return LinearChoice(*ON_TILE_UNIT)
    wide = n < 8 and c * k >= WIDE
    # in a loop, rows go through all steps without a barrier, which columns can't
    if wide or (not to.in_loop and columns_move_less(n, c, k)):
        return choose_linear(n, c, k, np.dtype(to.dtype).itemsize, workers=2)
    return choose_linear(n, c, k, np.dtype(to.dtype).itemsize)


def columns_move_less(n: int, c: int, k: int) -> bool:
    """Whether two workers do better with the columns of a weight than with rows of the batch.

    An update splits a weight by rows, so half of what a worker reads of it lies in the other's
    cache: of all columns, or of half of them. For that half of each row of x and y cross, which the
    other has written or reads next, and there are two barriers more. So a quarter of the weight is
    to be saved and half of that, at most, spent. One row is read as quickly by one worker.
    """
    return n > 1 and c * k >= SHARED and c * k > 4 * n * (c + k)


def _takes(product: str, name: str) -> bool:
    """Whether a product has a parameter of this name: "w_packed", its weights transposed in panels,
    or "scratch", working memory in which it packs them block by block."""
    return name in kernel_of(product).params


@forward("linear")
def _linear(to: Lowering, node: Node) -> None:
    x = need(node, "x")
    kernel = _choice(to, x, need(node, "w")).forward
    to.call_for(kernel, node, _scratch(to, kernel, x))


@gradient("linear")
def _linear_gradient(to: Lowering, node: Node, douts: Values, written: Values) -> None:
    x, w, dy = need(node, "x"), need(node, "w"), douts["y"]
    choice = _choice(to, x, w)
    if "x" in written:
        extra = {"dy": dy, "dx": written["x"], **_scratch(to, choice.backward_input, dy)}
        if _takes(choice.backward_input, "w_packed"):
            extra["w_packed"] = packed(to, w, transposed=True)
        to.call_for(choice.backward_input, node, extra)
    if "w" in written:
        # x and dy are packed where it pays: only later all rows are known (see the loop)
        to.call_for("linear_backward_weight", node, {"dy": dy, "dw": written["w"]})
    if "bias" in written:
        to.call_for("sum_rows", node, {"x": dy, "y": written["bias"]})


@forward("linear_transposed")
def _transposed(to: Lowering, node: Node) -> None:
    x, w, y = need(node, "x"), need(node, "w"), node.outputs["y"]
    kernel = _choice(to, y, w).backward_input
    extra: dict[str, Any] = {"dy": x, "dx": y, **_scratch(to, kernel, x)}
    if _takes(kernel, "w_packed"):
        extra["w_packed"] = packed(to, w, transposed=True)
    to.call_for(kernel, node, extra)


@gradient("linear_transposed")
def _transposed_gradient(to: Lowering, node: Node, douts: Values, written: Values) -> None:
    x, w, dy = need(node, "x"), need(node, "w"), douts["y"]
    choice = _choice(to, dy, w)
    if "x" in written:
        extra: dict[str, Any] = {"x": dy, "y": written["x"], "bias": None}
        extra |= _scratch(to, choice.forward, dy)
        to.call_for(choice.forward, node, extra)
    if "w" in written:
        to.call_for("linear_backward_weight", node, {"x": dy, "dy": x, "dw": written["w"]})
