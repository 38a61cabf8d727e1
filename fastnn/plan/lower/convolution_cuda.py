"""Convolutions on CUDA: by the tile of matrix products, or element by element, whichever is
estimated to be quicker (`kernels/convolution/cuda_choice.py`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn.graph.node import Node
from fastnn.graph.value import Value
from fastnn.kernels.convolution import cuda_choice
from fastnn.kernels.matmul.cuda import Choice
from fastnn.plan.factors import counts_of
from fastnn.plan.lower.lowering import Lowering

#: what the element kernels take on the CPU alone
ABSENT = {"room": None, "w_packed": None}


def convolve(to: Lowering, node: Node, x: Value, w: Value, bias: Value | None, y: Value) -> None:
    extra: dict[str, Any] = {"x": x, "w": w, "bias": bias, "y": y}
    product = cuda_choice.forward_product(y.shape, w.shape, node.attrs["groups"])
    _call(to, node, "convolution_forward", extra, _choice(to, product))


def to_input(to: Lowering, node: Node, dy: Value, w: Value, dx: Value) -> None:
    extra: dict[str, Any] = {"dy": dy, "w": w, "dx": dx, "y": None}
    stride = node.attrs["stride_h"], node.attrs["stride_w"]
    product = cuda_choice.input_product(dx.shape, w.shape, node.attrs["groups"], stride)
    _call(to, node, "convolution_backward_input", extra, _choice(to, product))


def to_weight(to: Lowering, node: Node, x: Value, dy: Value, dw: Value) -> None:
    extra: dict[str, Any] = {"x": x, "dy": dy, "dw": dw, "kernel_w": dw.shape[1]}
    product = cuda_choice.weight_product(dy.shape, dw.shape, node.attrs["groups"])
    choice = _choice(to, product, splits=True)
    extra |= {"parts": None, "bias_parts": None, "counts": None, "dbias": None}
    if choice is not None and choice.parts > 1:
        parts, depth, outputs = choice.parts, product.rows, dw.shape[3]
        extra["parts"] = to.value((parts, depth, outputs), name=f"parts of {dw.name}")
        extra["bias_parts"] = to.value((parts, outputs), name="parts of a bias")
        extra["counts"] = counts_of(to)
    _call(to, node, "convolution_backward_weight", extra, choice)


def _choice(to: Lowering, product: cuda_choice.Product, splits: bool = False) -> Choice | None:
    itemsize = np.dtype(to.dtype).itemsize
    return cuda_choice.choose(product, itemsize, to.precision, to.limits[1], splits)


def _call(
    to: Lowering, node: Node, kernel: str, extra: dict[str, Any], choice: Choice | None
) -> None:
    if choice is None:
        to.call_for(kernel, node, {**extra, **ABSENT})
    else:
        to.call_for(f"{kernel}_tile{choice.suffix}", node, {**extra, "activation": -1})
