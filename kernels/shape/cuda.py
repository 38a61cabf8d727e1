"""Kernels that move columns between matrices, and maxout, which chooses among them."""

from __future__ import annotations

from typing import Any

from ..cuda.device import divide_index, flat, flat_index, fours_launch
from ..declare import cuda_kernel, helper
from ..simd import where
from . import cpu


@cuda_kernel(
    like=cpu.insert_columns,
    launch=lambda s: fours_launch(s["N"] * s["C"]),
    share=lambda s: (s["offset"], s["offset"] + s["C"], s["K"]),
)
def insert_columns(x, y, offset):
    i, size, width = 4 * flat_index(), x.size, x.shape[1]
    row = divide_index(i, width)
    c = i - row * width
    for k in range(i, min(i + 4, size)):
        y[row, offset + c] = flat(x)[k]
        c += 1
        if c == width:
            row, c = row + 1, 0


@cuda_kernel(like=cpu.extract_columns, launch=lambda s: fours_launch(s["N"] * s["C"]))
def extract_columns(x, y, offset):
    i, size, width = 4 * flat_index(), y.size, y.shape[1]
    row = divide_index(i, width)
    c = i - row * width
    for k in range(i, min(i + 4, size)):
        flat(y)[k] = x[row, offset + c]
        c += 1
        if c == width:
            row, c = row + 1, 0


@helper
def _larger(a: Any, b: Any) -> Any:
    """The larger of two numbers; NaN where one of them is."""
    return where((b > a) | (b != b), b, a)


@cuda_kernel(like=cpu.maxout_forward, launch=lambda s: fours_launch(4 * s["N"] * s["C"]))
def maxout_forward(x, y):
    i, width = flat_index(), y.shape[1]
    if i < y.size:
        row = divide_index(i, width)
        c = i - row * width
        value = x[row, c]
        for k in range(c + width, x.shape[1], width):
            value = _larger(value, x[row, k])
        y[row, c] = value


@cuda_kernel(like=cpu.maxout_backward, launch=lambda s: fours_launch(4 * s["N"] * s["C"]))
def maxout_backward(x, y, dy, dx):
    i, width = flat_index(), y.shape[1]
    if i < y.size:
        row = divide_index(i, width)
        c = i - row * width
        top, left = y[row, c], dy[row, c]
        for k in range(c, x.shape[1], width):
            chosen = x[row, k] == top
            dx[row, k] = where(chosen, left, 0.0)
            left = where(chosen, 0.0, left)  # spent: later pieces get nothing
