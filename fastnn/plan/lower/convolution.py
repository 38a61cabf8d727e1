"""Convolutions: which kernels, and the memory in which they lay out windows (on the CPU; for CUDA
see `convolution_cuda.py`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn.graph.node import Node
from fastnn.graph.value import Value
from fastnn.kernels import rounding
from fastnn.kernels.convolution.shared import (
    lines_at_once,
    padded_numbers,
    tile_lines,
    tile_room,
    tiled,
    weight_room,
    windows_at_once,
)
from fastnn.kernels.cpu import target
from fastnn.kernels.cpu.tile import panel_width
from fastnn.plan.lower.lowering import Lowering, Values, forward, gradient
from fastnn.plan.lower.products import need, packed


def _padded(to: Lowering, node: Node, x: Value, w: Value, y: Value) -> int:
    """Numbers for a sample of `x` with its padding, of a convolution from x to y."""
    item = np.dtype(to.dtype).itemsize
    kernel = w.shape[0], w.shape[1]
    return padded_numbers(x.shape, y.shape, kernel, node.attrs, item, target.host().lanes(item))


def _room(to: Lowering, x: Value, depth: int, positions: int, padded: int) -> Value:
    """Scratch memory for windows and a padded sample, a row for each sample of `x`."""
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


def _lanes(to: Lowering) -> int:
    return target.host().lanes(np.dtype(to.dtype).itemsize)


def _tiled(to: Lowering, node: Node, x: Value, w: Value, y: Value) -> bool:
    """Whether a convolution from x to y is computed by tiles (`cpu_winograd.py`)."""
    if to.parts:
        return False
    item = np.dtype(to.dtype).itemsize
    inside = 0 <= node.attrs["top"] <= 2 and 0 <= node.attrs["left"] <= 2
    return inside and tiled(x.shape, w.shape, y.shape, node.attrs, item, _lanes(to))


def _planes(to: Lowering, w: Value, turned: bool = False) -> Value:
    """The weights' planes, made once a step."""
    key = ("planes", w, turned)
    if key not in to.memo:
        channels, outputs = w.shape[2:]
        if turned:
            made = to.value((16, outputs, channels), name=f"turned {w.name}")
            to.call("winograd_weights_turned", u=_planes(to, w), turned=made)
        else:
            made = to.value((16, channels, outputs), name=f"planes {w.name}")
            to.call("winograd_weights", w=w, u=made)
        to.memo[key] = made
    return to.memo[key]


def _by_tiles(
    to: Lowering, node: Node, x: Value, u: Value, bias: Value | None, y: Value, top: int, left: int
) -> None:
    lines = tile_lines(y.shape, x.shape[3], np.dtype(to.dtype).itemsize)
    columns = tile_room(y.shape, x.shape[3], lines, _lanes(to))
    key = ("tiles", x.shape[0], columns, x.batched)
    if key not in to.memo:
        to.memo[key] = to.value((x.shape[0], columns), name="tiles", batched=x.batched)
    to.call_for("winograd_forward", node, {
        "x": x, "u": u, "bias": bias, "y": y, "room": to.memo[key], "top": top, "left": left,
        "lines": lines,
    })  # fmt: skip


def _convolve(to: Lowering, node: Node, x: Value, w: Value, bias: Value | None, y: Value) -> None:
    extra: dict[str, Any] = {"x": x, "w": w, "bias": bias, "y": y}
    if _depthwise(x, w):
        to.call_for("depthwise_forward", node, extra)
        return
    if to.device == "cuda":
        from fastnn.plan.lower import convolution_cuda  # not needed on the CPU

        convolution_cuda.convolve(to, node, x, w, bias, y)
        return
    if _tiled(to, node, x, w, y):
        _by_tiles(to, node, x, _planes(to, w), bias, y, node.attrs["top"], node.attrs["left"])
        return
    padded = _padded(to, node, x, w, y)
    extra["room"] = _room(to, x, _depth(w), y.shape[1] * y.shape[2], padded)
    by_lines = x.shape[3] == 1 and node.attrs["stride_w"] == 1 and padded
    if by_lines:
        extra["room"] = _room_for_lines(to, x, _depth(w), y, padded)
    extra["w_packed"] = None
    wide = w.shape[3] > panel_width(np.dtype(to.dtype).itemsize)
    exact = to.precision not in rounding.KERNELS  # where factors are rounded, packing rounds
    if node.attrs["groups"] == 1 and wide and exact and not by_lines:
        extra["w_packed"] = packed(to, _matrix(to, w))
    to.call_for("convolution_forward", node, extra)


def _to_input(to: Lowering, node: Node, dy: Value, w: Value, dx: Value) -> None:
    extra: dict[str, Any] = {"dy": dy, "w": w, "dx": dx}
    if _depthwise(dx, w):
        to.call_for("depthwise_backward_input", node, extra)
        return
    if to.device == "cuda":
        from fastnn.plan.lower import convolution_cuda  # not needed on the CPU

        convolution_cuda.to_input(to, node, dy, w, dx)
        return
    if _tiled(to, node, dx, w, dy) and _whole(dx):
        top, left = 2 - node.attrs["top"], 2 - node.attrs["left"]
        _by_tiles(to, node, dy, _planes(to, w, turned=True), None, dx, top, left)
        return
    padded = _padded(to, node, dx, w, dy)
    extra["room"] = _room(to, dy, _depth(w), dy.shape[1] * dy.shape[2], padded)
    extra["w_packed"] = packed(to, _matrix(to, w), transposed=True)
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
    if to.device == "cuda":
        from fastnn.plan.lower import convolution_cuda  # not needed on the CPU

        convolution_cuda.to_weight(to, node, x, dy, dw)
        return
    if _tiled(to, node, x, dw, dy):
        _tiles_to_weight(to, node, x, dy, dw)
        return
    item = np.dtype(to.dtype).itemsize
    padded = _padded(to, node, x, dw, dy)
    count = weight_room(depth, dy.shape[1] * dy.shape[2], dy.shape[3], item, padded)
    extra["room"] = to.value((depth, count), name="windows")
    to.call_for("convolution_backward_weight", node, extra)


def _whole(x: Value) -> bool:
    """Whether an image consists of whole tiles."""
    return x.shape[1] % 2 == x.shape[2] % 2 == 0


def _tiles_to_weight(to: Lowering, node: Node, x: Value, dy: Value, dw: Value) -> None:
    channels, outputs = dw.shape[2:]
    lanes = _lanes(to)
    tiles = dy.shape[1] // 2 * (dy.shape[2] // 2)
    padded = tile_room(dy.shape, channels, 0, lanes)
    du = to.value((16, channels, outputs), name=f"planes of {dw.name}")
    room = to.value((16, -(-padded // 4) + tiles * (channels + outputs)), name="tiles")
    to.call_for("winograd_backward_weight", node, {"x": x, "dy": dy, "du": du, "room": room})
    to.call("winograd_weights_gradient", du=du, dw=dw)


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
    _to_weight(to, node, need(node, "x"), need(node, "t"), node.outputs["y"])


@forward("max_pool_spread")
def _spread(to: Lowering, node: Node) -> None:
    extra = {"y": node.inputs["best"], "dy": node.inputs["t"], "dx": node.outputs["y"]}
    to.call_for("max_pool_backward", node, extra)


@gradient("convolution_weight")
def _weight_gradient(to: Lowering, node: Node, douts: Values, written: Values) -> None:
    x, t, dw = need(node, "x"), need(node, "t"), douts["y"]
    if "x" in written:
        _to_input(to, node, t, dw, written["x"])
    if "t" in written:
        _convolve(to, node, x, dw, None, written["t"])
