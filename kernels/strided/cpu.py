"""Kernels that rearrange: copies by strides, their reverse, and the choice of elements by index.

A transpose, a slice with steps, a reversal and a repeated axis all read ``x[begin + sum of
place*stride]``; the gradient of a slice and a frame of padding write places that lie `step` apart
and fill the rest.
"""

from __future__ import annotations

from typing import Any

from ..cpu.parts import copy_run, fill_row
from ..cpu.tile import tile_lanes, transpose_block
from ..declare import helper, kernel
from ..simd import lanes, splat, store, store_first

#: rows of a transpose that are copied at once; the lines of more of them would compete for the same
#: few places in the cache
TOGETHER = 8


@helper
def fill_run(target: Any, k: int, size: int, value: Any) -> None:
    """target[k:k+size] = value (flat)."""
    v, n, j = splat(target, value), lanes(target), 0
    while j + n <= size:
        store(target, k + j, v)
        j += n
    if j < size:
        store_first(target, k + j, v, size - j)


@helper
def place_in(row: int, begin: int, extents: Any, strides: Any) -> int:
    """Where row number `row` of an array of `extents` begins, by the strides of its axes."""
    at = begin
    for d in range(extents.shape[0] - 1, -1, -1):
        at += row % extents[d] * strides[d]
        row //= extents[d]
    return at


@helper
def are_neighbours(row: int, count: int, extents: Any, strides: Any) -> bool:
    """Whether `count` rows from this one on read neighbours, as in a transpose: then they are
    copied at once, so that a line of the cache that is read is used up."""
    last = extents.shape[0] - 1
    return strides[last] == 1 and row % extents[last] + count <= extents[last]


@helper
def transpose_rows(x: Any, i: int, step: int, y: Any, k: int, width: int) -> None:
    """y[k + j*width + c] = x[i + c*step + j] (flat) for c < width and as many j as a vector has
    elements, block by block; the last one ends at the last c. There are as many c, too."""
    n = tile_lanes(x)
    for begin in range(0, width, n):
        c = min(begin, width - n)
        transpose_block(x, i + c * step, step, y, k + c, width)


@kernel
def copy_strided(
    x: "in whole f[X]",
    extents: "in whole i[D]",
    strides: "in whole i[D]",
    y: "out rows f[N,C]",
    begin: "int",
    step: "int",
    lo: "begin",
    hi: "end",
):
    """y[n,c] = x[begin + n_0*strides[0] + n_1*strides[1] + ... + c*step], where n_0, n_1, ... is
    the place of n in an array of `extents`. No aliases."""
    width, row = y.shape[1], lo
    while row < hi:
        at = place_in(row, begin, extents, strides)
        n = tile_lanes(x)
        if step > 1 and width >= n and row + n <= hi and are_neighbours(row, n, extents, strides):
            transpose_rows(x, at, step, y, row * width, width)
            row += n
            continue
        if step > 1 and row + TOGETHER <= hi and are_neighbours(row, TOGETHER, extents, strides):
            for c in range(width):
                for j in range(TOGETHER):
                    y[row + j, c] = x[at + c * step + j]
            row += TOGETHER
            continue
        if step == 1:
            copy_run(x, at, y, row * width, width)
        elif step == 0:
            fill_run(y, row * width, width, x[at])
        else:
            for c in range(width):
                y[row, c] = x[at + c * step]
        row += 1


@kernel
def copy_strided_rows(
    x: "in rows f[N,X]",
    extents: "in whole i[D]",
    strides: "in whole i[D]",
    y: "out rows f[N,Y]",
    begin: "int",
    step: "int",
    width: "int",
    lo: "begin",
    hi: "end",
):
    """Within each row n the copy of `copy_strided`, to a row of Y / width runs: y[n, r*width + c] =
    x[n, begin + r_0*strides[0] + ... + c*step]. No aliases."""
    X, Y = x.shape[1], y.shape[1]
    for n in range(lo, hi):
        r, runs = 0, Y // width
        while r < runs:
            at, k, some = place_in(r, begin, extents, strides), r * width, tile_lanes(x)
            if (
                step > 1 and width >= some and r + some <= runs
                and are_neighbours(r, some, extents, strides)
            ):  # fmt: skip
                transpose_rows(x, n * X + at, step, y, n * Y + k, width)
                r += some
                continue
            if step > 1 and r + TOGETHER <= runs and are_neighbours(r, TOGETHER, extents, strides):
                for c in range(width):
                    for j in range(TOGETHER):
                        y[n, k + j * width + c] = x[n, at + c * step + j]
                r += TOGETHER
                continue
            if step == 1:
                copy_run(x, n * X + at, y, n * Y + k, width)
            elif step == 0:
                fill_run(y, n * Y + k, width, x[n, at])
            else:
                for c in range(width):
                    y[n, k + c] = x[n, at + c * step]
            r += 1


@kernel
def copy_strided_integers(
    x: "in rows i[N,X]",
    extents: "in whole i[D]",
    strides: "in whole i[D]",
    y: "out rows i[N,Y]",
    begin: "int",
    step: "int",
    width: "int",
    lo: "begin",
    hi: "end",
):
    """`copy_strided_rows` for integers."""
    for n in range(lo, hi):
        for r in range(y.shape[1] // width):
            at = place_in(r, begin, extents, strides)
            for c in range(width):
                y[n, r * width + c] = x[n, at + c * step]


@kernel
def spread_strided(
    x: "in rows f[N,X]",
    axes: "in whole i[D,5]",
    y: "out rows f[N,Y]",
    start: "int",
    step: "int",
    count: "int",
    width: "int",
    fill: "real",
    lo: "begin",
    hi: "end",
):
    """Within each row n: y = x where the places of x lie, else `fill`. A row is an array of Y /
    width runs; the places are start + j*step for j < count along its axes, and likewise in a run.
    A row of `axes`: extent of y, start, step, count, and the distance of neighbours in x. No
    aliases."""
    X, Y = x.shape[1], y.shape[1]
    for n in range(lo, hi):
        for r in range(Y // width):
            at, rest, inside, k = 0, r, True, n * Y + r * width
            for d in range(axes.shape[0] - 1, -1, -1):
                place = rest % axes[d, 0] - axes[d, 1]
                rest //= axes[d, 0]
                j = place // axes[d, 2]
                inside = inside and j * axes[d, 2] == place and 0 <= j < axes[d, 3]
                at += j * axes[d, 4]
            fill_row(y, k, width, fill)
            if inside and step == 1:
                copy_run(x, n * X + at, y, k + start, count)
            elif inside:
                for j in range(count):
                    y[n, r * width + start + j * step] = x[n, at + j]


@kernel
def gather_columns(
    x: "in rows f[N,C]",
    index: "in rows i[N,K]",
    y: "out rows f[N,K]",
    lo: "begin",
    hi: "end",
):
    """y[n,k] = x[n, index[n,k]], for indices within 0..C-1. No aliases."""
    for row in range(lo, hi):
        for k in range(index.shape[1]):
            y[row, k] = x[row, index[row, k]]


@kernel
def gather_columns_backward(
    index: "in rows i[N,K]",
    dy: "in rows f[N,K]",
    dx: "out rows f[N,C]",
    lo: "begin",
    hi: "end",
):
    """dx[n,c] = sum of dy[n,k] over all k with index[n,k] = c, k in order. No aliases."""
    for row in range(lo, hi):
        fill_row(dx, row * dx.shape[1], dx.shape[1], 0.0)
        for k in range(index.shape[1]):
            dx[row, index[row, k]] += dy[row, k]


@kernel
def compare_integers(
    a: "in rows i[N,C]",
    b: "in rows i[N,C]",
    y: "out rows f[N,C]",
    relation: "int",
    lo: "begin",
    hi: "end",
):
    """y = 1 where a and b are in the relation, else 0: bits of `relation` say whether
    less (1), equal (2) and greater (4) are."""
    for row in range(lo, hi):
        for c in range(a.shape[1]):
            found = 1 if a[row, c] < b[row, c] else 2 if a[row, c] == b[row, c] else 4
            y[row, c] = 1.0 if found & relation else 0.0


@kernel
def integers_to_floats(x: "in rows i[N,C]", y: "out rows f[N,C]", lo: "begin", hi: "end"):
    """y = x, rounded to the float type where it has more digits than that."""
    for row in range(lo, hi):
        for c in range(x.shape[1]):
            y[row, c] = x[row, c]
