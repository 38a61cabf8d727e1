"""Matrix products: the linear layer, and the embedding (a product with one-hot rows)."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn.errors import ShapeError, where
from fastnn.graph.graph import Graph, Node, Value
from fastnn.graph.op import Op, register
from fastnn.kernels.declare import declared
from fastnn.kernels.matmul.cpu import LinearChoice, choose_linear, packed_shape
from fastnn.kernels.matmul.cpu_blocked import scratch_columns

#: the products on CUDA, where nothing is packed
ON_CUDA = ("linear_forward", "linear_backward_input_unpacked", "linear_backward_weight")
#: weights from which a product with few rows is split by columns instead of rows
WIDE = 1 << 19


def _shape(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    x, w = inputs["x"], inputs["w"]
    if w.ndim != 2 or x.ndim < 1 or x.shape[-1] != w.shape[0]:
        raise ShapeError(
            f"{where(scope)}linear: expected {w.shape[0]} input features, got input of shape "
            f"{x.shape}; set in_features to {x.shape[-1] if x.ndim else 1} or flatten the input"
        )
    bias = inputs.get("bias")
    if bias is not None and bias.shape != (w.shape[1],):
        raise ShapeError(f"{where(scope)}linear: expected bias ({w.shape[1]},), got {bias.shape}")
    return {"y": ((*x.shape[:-1], w.shape[1]), "f")}


def packed(graph: Graph, w: Value, *, transposed: bool = False) -> Value:
    """The packed copy of a matrix (or of its transpose), made once a step however often used."""
    key = ("packed", w, transposed)
    if key not in graph.leaves:
        rows, columns = w.shape[::-1] if transposed else w.shape
        itemsize = np.dtype(graph.dtype).itemsize
        value = graph.value(packed_shape(rows, columns, itemsize), name=f"packed {w.name}")
        kernel = "pack_panels_transposed" if transposed else "pack_panels"
        graph.call(kernel, w=w, packed=value)
        graph.leaves[key] = value
    return graph.leaves[key]


def _scratch(graph: Graph, x: Value) -> Value:
    """Scratch memory with a part for each row of `x`; products with as many rows share it."""
    rows = x.size // x.shape[-1]
    key = ("scratch", rows, x.batched)
    if key not in graph.leaves:
        columns = scratch_columns(rows, np.dtype(graph.dtype).itemsize)
        graph.leaves[key] = graph.value((rows, columns), name="scratch")
    return graph.leaves[key]


def _choice(x: Value, w: Value) -> LinearChoice:
    """The kernels for these sizes; by the whole batch, so that blocks and workers don't matter.

    On CUDA the planner chooses (`plan/products.py`).
    """
    if x.graph.device == "cuda":
        return LinearChoice(*ON_CUDA)
    n, (c, k) = x.size // max(x.shape[-1], 1), w.shape
    wide = n < 8 and c * k >= WIDE  # few rows, many weights: workers share the columns
    return choose_linear(n, c, k, np.dtype(x.graph.dtype).itemsize, workers=2 if wide else 1)


def needs_scratch(name: str) -> bool:
    """Whether a product takes working memory (it packs its weights block by block)."""
    kernel = declared(name)
    return kernel is not None and "scratch" in kernel.params


def _lower(graph: Graph, node: Node) -> None:
    x, w = node.inputs["x"], node.inputs["w"]
    assert x is not None and w is not None
    kernel = _choice(x, w).forward
    extra = {"scratch": _scratch(graph, x)} if needs_scratch(kernel) else {}
    node.outputs["y"].batched = x.batched
    graph.call_for(kernel, node, extra)


def _gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    x, w, dy = node.inputs["x"], node.inputs["w"], douts["y"]
    assert x is not None and w is not None
    choice, found = _choice(x, w), {}
    if "x" in needed:
        found["x"] = graph.value(x.shape)
        extra = {"dy": dy, "dx": found["x"]}
        if choice.backward_input == "linear_backward_input":
            extra["w_packed"] = packed(graph, w, transposed=True)
        elif needs_scratch(choice.backward_input):
            extra["scratch"] = _scratch(graph, x)
        graph.call_for(choice.backward_input, node, extra)
    if "w" in needed:
        found["w"] = graph.value(w.shape)
        # the planner packs x and dy where it pays: only there all rows are known (see the loop)
        graph.call_for("linear_backward_weight", node, {"dy": dy, "dw": found["w"]})
    if "bias" in needed:
        found["bias"] = graph.value((w.shape[1],))
        graph.call_for("sum_rows", node, {"x": dy, "y": found["bias"]})
    return found


register(Op("linear", inputs=("x", "w", "bias"), shape=_shape, lower=_lower, gradient=_gradient))


def _embedding_shape(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    ids, table = inputs["ids"], inputs["table"]
    if ids.dtype != "i":
        raise ShapeError(
            f"{where(scope)}embedding: expected integer ids, got floating-point input; convert it "
            "with x.astype(np.int64)"
        )
    return {"y": ((*ids.shape, table.shape[1]), "f")}


register(
    Op("embedding", inputs=("ids", "table"), defaults={"padding_index": -1}, shape=_embedding_shape)
)
