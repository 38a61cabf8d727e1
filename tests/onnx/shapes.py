"""ONNX's operators that rearrange."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn import ops
from tests.onnx.cases import Case, op


@op("Reshape")
def _reshape(c: Case, x: Any, shape: Any) -> Any:
    wanted = tuple(
        x.shape[k] if n == 0 and not c.get("allowzero", 0) else int(n) for k, n in enumerate(shape)
    )
    return ops.reshape(x * 1.0, wanted)


@op("Flatten")
def _flatten(c: Case, x: Any) -> Any:
    axis = c.get("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return ops.reshape(x * 1.0, int(np.prod(x.shape[:axis])), -1)


@op("Transpose")
def _transpose(c: Case, x: Any) -> Any:
    return ops.transpose(x, c.get("perm", list(range(x.ndim))[::-1])) * 1.0


@op("Concat")
def _concat(c: Case, *xs: Any) -> Any:
    return ops.concatenate(*xs, axis=c.get("axis"))


@op("Split")
def _split(c: Case, x: Any, sizes: Any = None) -> Any:
    axis, count = c.get("axis", 0), c.get("num_outputs", len(c.outputs))
    if sizes is None:
        part = -(-x.shape[axis] // count)
        sizes = [min(part, x.shape[axis] - k * part) for k in range(count)]
    return tuple(ops.split(x * 1.0, [int(n) for n in sizes], axis))


@op("Slice")
def _slice(c: Case, x: Any, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Any:
    key = [slice(None)] * x.ndim
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    for begin, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        key[axis] = slice(int(begin), int(end), int(step))
    return x[tuple(key)] * 1.0


@op("Gather")
def _gather(c: Case, x: Any, indices: Any) -> Any:
    return ops.take(x, indices, c.get("axis", 0))


@op("GatherElements")
def _gather_elements(c: Case, x: Any, indices: Any) -> Any:
    return ops.gather(x, indices, c.get("axis", 0))


@op("Expand")
def _expand(c: Case, x: Any, shape: Any) -> Any:
    return ops.expand(x, np.broadcast_shapes(x.shape, tuple(int(n) for n in shape)))


@op("Squeeze")
def _squeeze(c: Case, x: Any, axes: Any) -> Any:
    return ops.squeeze(x * 1.0, [int(a) for a in axes])


@op("Unsqueeze")
def _unsqueeze(c: Case, x: Any, axes: Any) -> Any:
    return ops.unsqueeze(x * 1.0, [int(a) for a in axes])


@op("Pad")
def _pad(c: Case, x: Any, pads: Any, value: Any = None, axes: Any = None) -> Any:
    widths = [(0, 0)] * x.ndim
    axes = range(x.ndim) if axes is None else axes
    half = len(pads) // 2
    for k, axis in enumerate(axes):
        widths[axis] = (int(pads[k]), int(pads[half + k]))
    return ops.pad(x, widths, c.get("mode", "constant"), 0.0 if value is None else float(value))
