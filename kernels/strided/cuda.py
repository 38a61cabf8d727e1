"""Kernels that rearrange: copies by strides, their reverse, and the choice of elements by index.

A thread computes one element; where elements of a row are summed, a row.
"""

from __future__ import annotations

from typing import Any

from ..cuda.device import cast, cuda, divide_index, flat, flat_index, thread_number
from ..declare import ceil_div, cuda_kernel, helper
from . import cpu


def _each(s: dict[str, int]) -> tuple[int, int]:
    """A thread for each element of y."""
    return ceil_div(s["N"] * s["C"], 256), 256


def _each_of_rows(s: dict[str, int]) -> tuple[int, int]:
    return ceil_div(s["N"] * s["Y"], 256), 256


@helper
def place_in(row: int, begin: int, extents: Any, strides: Any) -> int:
    """Where row number `row` of an array of `extents` begins, by the strides of its axes."""
    at = begin
    for k in range(extents.shape[0]):
        d = extents.shape[0] - 1 - k
        above = divide_index(row, extents[d])
        at += (row - above * extents[d]) * strides[d]
        row = above
    return at


@cuda_kernel(like=cpu.copy_strided, launch=_each)
def copy_strided(x, extents, strides, y, begin, step):
    i = flat_index()
    if i < y.size:
        row = divide_index(i, y.shape[1])
        c = i - row * y.shape[1]
        flat(y)[i] = x[place_in(row, begin, extents, strides) + c * step]


@cuda_kernel(like=cpu.copy_strided_rows, launch=_each_of_rows)
def copy_strided_rows(x, extents, strides, y, begin, step, width):
    i = flat_index()
    if i < y.size:
        n = divide_index(i, y.shape[1])
        r = divide_index(i - n * y.shape[1], width)
        c = i - n * y.shape[1] - r * width
        flat(y)[i] = x[n, place_in(r, begin, extents, strides) + c * step]


@cuda_kernel(like=cpu.copy_strided_integers, launch=_each_of_rows)
def copy_strided_integers(x, extents, strides, y, begin, step, width):
    i = flat_index()
    if i < y.size:
        n = divide_index(i, y.shape[1])
        r = divide_index(i - n * y.shape[1], width)
        c = i - n * y.shape[1] - r * width
        flat(y)[i] = x[n, place_in(r, begin, extents, strides) + c * step]


@helper
def place_along(place: int, step: int, count: int) -> int:
    """Which j < count has j*step = place; -1 if none has."""
    if step < 0:
        place, step = -place, -step
    if place < 0:
        return -1
    j = divide_index(place, step)
    if j * step != place or j >= count:
        return -1
    return j


@cuda_kernel(like=cpu.spread_strided, launch=_each_of_rows)
def spread_strided(x, axes, y, start, step, count, width, fill):
    i = flat_index()
    if i < y.size:
        n = divide_index(i, y.shape[1])
        r = divide_index(i - n * y.shape[1], width)
        at = place_along(i - n * y.shape[1] - r * width - start, step, count)
        inside = at >= 0
        for k in range(axes.shape[0]):
            d = axes.shape[0] - 1 - k
            above = divide_index(r, axes[d, 0])
            j = place_along(r - above * axes[d, 0] - axes[d, 1], axes[d, 2], axes[d, 3])
            r = above
            inside = inside and j >= 0
            at += j * axes[d, 4]
        value = fill
        if inside:
            value = x[n, at]
        flat(y)[i] = value


@cuda_kernel(like=cpu.gather_columns, launch=lambda s: (ceil_div(s["N"] * s["K"], 256), 256))
def gather_columns(x, index, y):
    i = flat_index()
    if i < y.size:
        flat(y)[i] = x[divide_index(i, y.shape[1]), flat(index)[i]]


@cuda_kernel(like=cpu.gather_columns_backward, launch=lambda s: (s["N"], 32))
def gather_columns_backward(index, dy, dx):
    """dx[n,c] = sum of dy[n,k] over all k with index[n,k] = c, k in order: a warp for a row, each
    thread for its own columns. No aliases."""
    row, thread = cuda.blockIdx.x, thread_number()
    for c in range(thread, dx.shape[1], 32):
        dx[row, c] = 0.0
    for k in range(index.shape[1]):
        c = index[row, k]
        if c % 32 == thread:
            dx[row, c] += dy[row, k]


@cuda_kernel(like=cpu.compare_integers, launch=_each)
def compare_integers(a, b, y, relation):
    i = flat_index()
    if i < y.size:
        v, w = flat(a)[i], flat(b)[i]
        found = 1 if v < w else 2 if v == w else 4
        flat(y)[i] = cast(y, 1.0 if found & relation else 0.0)


@cuda_kernel(like=cpu.integers_to_floats, launch=_each)
def integers_to_floats(x, y):
    i = flat_index()
    if i < y.size:
        flat(y)[i] = cast(y, flat(x)[i])
