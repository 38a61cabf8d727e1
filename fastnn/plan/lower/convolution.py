"""Convolutions: which kernels, and the memory in which they lay out windows."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn.graph.node import Node
from fastnn.graph.value import Value
from fastnn.kernels.convolution.shared import lines_at_once, padded_numbers, windows_at_once
from fastnn.kernels.cpu import target
from fastnn.plan.lower.lowering import Lowering, Values, forward, gradient
from fastnn.plan.lower.products import need, packed


def _padded(to: Lowering, node: Node, x: Value, w: Value, y: Value) -> int:
    """Numbers for a sample of `x` with its padding, of a convolution from x to y."""
    item = np.dtype(to.dtype).itemsize
    kernel = w.shape[0], w.shape[1]
    return padded_numbers(x.shape, y.shape, kernel, node.attrs, item, target.host().lanes(item))


def _room(to: Lowering, x: Value, depth: int, positions: int, padded: int) -> Value | None:
    """Scratch memory for windows and a padded sample, a row for each sample of `x`."""
    if to.device == "cuda":
        return None
    columns = windows_at_once(depth, positions, np.dtype(to.dtype).itemsize) * depth + padded
    key = ("windows", x.shape[0], columns, x.batched)
    if key not in to.memo:
        to.memo[key] = to.value((x.shape[0], columns), name="windows", batched=x.batched)
    return to.memo[key]


def _room_for_lines(to: Lowering, x: Value, depth: int, y: Value, padded: int) -> Value:
    """The same for an image with one channel."""
    lanes = target.host().lanes(np.dtype(to.dtype).itemsize)
    _, height, width, outputs = y.shape
    lines = lines_at_once(depth, outputs, width, height, lanes)
    columns = lines * (depth + -(-outputs // lanes) * lanes) * width + padded
    return to.value((x.shape[0], columns), name="lines", batched=x.batched)


def _depth(w: Value) -> int:
    return w.size // w.shape[3]


def _depthwise(x: Value, w: Value) -> bool:
    """Whether each channel is convolved on its own, with one kernel."""
    return w.shape[2] == 1 and w.shape[3] == x.shape[3] > 1


def _convolve(to: Lowering, node: Node, x: Value, w: Value, bias: Value | None, y: Value) -> None:
    extra: dict[str, Any] = {"x": x, "w": w, "bias": bias, "y": y}
    if _depthwise(x, w):
        to.call_for("depthwise_forward", node, extra)
        return
    padded = _padded(to, node, x, w, y)
    extra["room"] = _room(to, x, _depth(w), y.shape[1] * y.shape[2], padded)
    if to.device == "cpu" and x.shape[3] == 1 and node.attrs["stride_w"] == 1 and padded:
        extra["room"] = _room_for_lines(to, x, _depth(w), y, padded)
    to.call_for("convolution_forward", node, extra)


def _to_input(to: Lowering, node: Node, dy: Value, w: Value, dx: Value) -> None:
    extra: dict[str, Any] = {"dy": dy, "w": w, "dx": dx}
    if _depthwise(dx, w):
        to.call_for("depthwise_backward_input", node, extra)
        return
    padded = _padded(to, node, dx, w, dy)
    extra["room"] = _room(to, dy, _depth(w), dy.shape[1] * dy.shape[2], padded)
    extra["w_packed"] = packed(to, _matrix(to, w), transposed=True) if to.device == "cpu" else None
    to.call_for("convolution_backward_input", node, extra)


def _matrix(to: Lowering, w: Value) -> Value:
    """Weights as the matrix of windows' elements and outputs; the same value each time."""
    key = ("matrix", w)
    if key not in to.memo:
        to.memo[key] = to.view(w, (_depth(w), w.shape[3]), batched=False)
    return to.memo[key]


def _to_weight(to: Lowering, node: Node, x: Value, dy: Value, dw: Value) -> None:
    depth = _depth(dw)
    extra: dict[str, Any] = {"x": x, "dy": dy, "dw": dw, "kernel_w": dw.shape[1]}
    if _depthwise(x, dw):
        to.call_for("depthwise_backward_weight", node, extra)
        return
    extra["room"] = None
    if to.device == "cpu":
        item = np.dtype(to.dtype).itemsize
        count = windows_at_once(depth, dy.shape[1] * dy.shape[2], item)
        # a padded sample for each of up to four workers, who have a part of the rows each
        count += -(-4 * _padded(to, node, x, dw, dy) // depth)
        extra["room"] = to.value((depth, count), name="windows")
    to.call_for("convolution_backward_weight", node, extra)


@forward("convolution")
def _convolution(to: Lowering, node: Node) -> None:
    bias = node.inputs["bias"]
    _convolve(to, node, need(node, "x"), need(node, "w"), bias, node.outputs["y"])


@gradient("convolution")
def _convolution_gradient(to: Lowering, node: Node, douts: Values, written: Values) -> None:
    x, w, dy = need(node, "x"), need(node, "w"), douts["y"]
    if "x" in written:
        _to_input(to, node, dy, w, written["x"])
    if "w" in written:
        _to_weight(to, node, x, dy, written["w"])
    if "bias" in written:
        to.call_for("sum_rows", node, {"x": dy, "y": written["bias"]})


@forward("convolution_transposed")
def _transposed(to: Lowering, node: Node) -> None:
    _to_input(to, node, need(node, "x"), need(node, "w"), node.outputs["y"])


@gradient("convolution_transposed")
def _transposed_gradient(to: Lowering, node: Node, douts: Values, written: Values) -> None:
    x, w, dy = need(node, "x"), need(node, "w"), douts["y"]
    if "x" in written:
        _convolve(to, node, dy, w, None, written["x"])
    if "w" in written:
        _to_weight(to, node, dy, x, written["w"])


@forward("convolution_weight")
def _weight(to: Lowering, node: Node) -> None:
    _to_weight(to, node, need(node, "x"), need(node, "dy"), node.outputs["y"])


@forward("max_pool_spread")
def _spread(to: Lowering, node: Node) -> None:
    extra = {"y": node.inputs["best"], "dy": node.inputs["t"], "dx": node.outputs["y"]}
    to.call_for("max_pool_backward", node, extra)


@gradient("convolution_weight")
def _weight_gradient(to: Lowering, node: Node, douts: Values, written: Values) -> None:
    x, dy, dw = need(node, "x"), need(node, "dy"), douts["y"]
    if "x" in written:
        _to_input(to, node, dy, dw, written["x"])
    if "dy" in written:
        _convolve(to, node, x, dw, None, written["dy"])
