"""Depthwise convolutions: each channel on its own, with one kernel. No products of matrices:
vectors of channels, which are neighbours in memory. Shapes as in `cpu.py`, with w [I,J,1,C].

Channels are taken by strips of four vectors while there are so many, then by single ones: what it
takes to find an element of a window is shared by four chains of multiply-adds, none of which waits
for another. Each helper below gets the three functions of either.
"""

from __future__ import annotations

from ..cpu.parts import (
    load_part,
    store_part,
    strip_fma,
    strip_lanes,
    strip_load,
    strip_splat,
    strip_store,
)
from ..declare import helper, kernel
from ..places import Place
from ..simd import lanes
from .depthwise import Sample, convolve, part_fma, part_splat
from .grid import Grid


@helper
def part_add(a, b):
    """a + b of one vector; `strip_add` is the same for four."""
    return a + b


@kernel
def depthwise_forward(
    x: "in rows f[N,H,W,C]",
    w: "in whole f[I,J,U,C]",
    bias: "in whole f[B]",  # B is C, or 0: no bias
    y: "out rows f[N,P,Q,C]",
    stride_h: "int",
    stride_w: "int",
    dilation_h: "int",
    dilation_w: "int",
    top: "int",
    left: "int",
    lo: "begin",
    hi: "end",
):
    """y[n,p,q,c] = bias[c] + sum over i, j of x[n, ..., c]*w[i,j,c]"""
    rows, columns, channels = x.shape[1], x.shape[2], x.shape[3]
    places_h, places_w = y.shape[1], y.shape[2]
    grid = Grid(places_w, w.shape[0], w.shape[1], 1, stride_h, stride_w, dilation_h, dilation_w,
                top, left)  # fmt: skip
    for n in range(lo, hi):
        image = Sample(x, n * rows * columns * channels, channels, rows, columns)
        outputs = Sample(y, n * places_h * places_w * channels, channels, places_h, places_w)
        convolve(image, w, outputs, Place(bias, 0 if bias.size else -1), grid)


@helper
def place_sum(take, add, fill, dy, sample, w, grid, h, column, channel, rest):
    """The sum of dy*w over the windows that a place is in: the line `h` and the column `column` of
    the image, `rest` channels from `channel` on; `sample` is dy's first element."""
    places_h, places_w, channels = dy.shape[1], dy.shape[2], dy.shape[3]
    total = fill(dy, 0.0)
    for i in range(grid.kernel_h):
        up = h + grid.top - i * grid.dilation_h
        p = up if grid.stride_h == 1 else up // grid.stride_h
        if up < 0 or up != p * grid.stride_h or p >= places_h:
            continue
        for j in range(grid.kernel_w):
            across = column + grid.left - j * grid.dilation_w
            q = across if grid.stride_w == 1 else across // grid.stride_w
            if across < 0 or across != q * grid.stride_w or q >= places_w:
                continue
            found = take(dy, sample + (p * places_w + q) * channels + channel, rest)
            factor = take(w, (i * grid.kernel_w + j) * channels + channel, rest)
            total = add(found, factor, total)
    return total


@helper
def backwards(dy, w, dx, grid, n):
    """Sample n of dx, of windows of stride 1: the convolution of dy's, both from the last place to
    the first, so that the elements of a window have their order."""
    places_h, places_w, channels = dy.shape[1], dy.shape[2], dy.shape[3]
    rows, columns = dx.shape[1], dx.shape[2]
    turned = Grid(columns, grid.kernel_h, grid.kernel_w, 1, 1, 1, grid.dilation_h, grid.dilation_w,
                  rows - places_h + grid.top, columns - places_w + grid.left)  # fmt: skip
    given = Sample(
        dy, ((n + 1) * places_h * places_w - 1) * channels, -channels, places_h, places_w
    )
    made = Sample(dx, ((n + 1) * rows * columns - 1) * channels, -channels, rows, columns)
    convolve(given, w, made, Place(w, -1), turned)


@kernel
def depthwise_backward_input(
    dy: "in rows f[N,P,Q,C]",
    w: "in whole f[I,J,U,C]",
    dx: "out rows f[N,H,W,C]",
    stride_h: "int",
    stride_w: "int",
    dilation_h: "int",
    dilation_w: "int",
    top: "int",
    left: "int",
    lo: "begin",
    hi: "end",
):
    """dx[n,h,w,c] = the sum of dy*w over all windows that this element is in."""
    channels = dy.shape[3]
    grid = Grid(dy.shape[2], w.shape[0], w.shape[1], 1, stride_h, stride_w, dilation_h, dilation_w,
                top, left)  # fmt: skip
    if stride_h == 1 and stride_w == 1:
        for n in range(lo, hi):
            backwards(dy, w, dx, grid, n)
        return
    for n in range(lo, hi):
        at = n * dx.shape[1] * dx.shape[2] * channels
        sample = n * dy.shape[1] * dy.shape[2] * channels
        for h in range(dx.shape[1]):
            for column in range(dx.shape[2]):
                c = 0
                while c + strip_lanes(dx) <= channels:
                    total = place_sum(
                        strip_load, strip_fma, strip_splat, dy, sample, w, grid, h, column, c,
                        channels - c,
                    )  # fmt: skip
                    strip_store(dx, at + c, total, channels - c)
                    c += strip_lanes(dx)
                while c < channels:
                    part = place_sum(
                        load_part, part_fma, part_splat, dy, sample, w, grid, h, column, c,
                        channels - c,
                    )  # fmt: skip
                    store_part(dx, at + c, part, channels - c)
                    c += lanes(dx)
                at += channels
