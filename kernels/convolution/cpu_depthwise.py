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
    strip_add,
    strip_fma,
    strip_lanes,
    strip_load,
    strip_splat,
    strip_store,
)
from ..declare import helper, kernel
from ..places import Place
from ..simd import fma, lanes, splat
from .grid import Grid, Steps
from .windows import end_inside, first_inside


@helper
def part_fma(a, b, c):
    """a*b + c of one vector; `strip_fma` is the same for four."""
    return fma(a, b, c)


@helper
def part_add(a, b):
    """a + b of one vector; `strip_add` is the same for four."""
    return a + b


@helper
def part_splat(x, value):
    """One vector with this number in every lane; `strip_splat` is the same for four."""
    return splat(x, value)


@helper
def window_sum(take, add, fill, x, x_steps, w, w_steps, i, j, rest):
    """The sum over i[0] <= i < i[1] and j[0] <= j < j[1] of x*w, of `rest` channels: of a window
    at x and of the weights at w, with steps between the lines and places of either."""
    total = fill(x.array, 0.0)
    for a in range(i[0], i[1]):
        for b in range(j[0], j[1]):
            found = take(x.array, x.at + a * x_steps.line + b * x_steps.place, rest)
            factor = take(w.array, w.at + a * w_steps.line + b * w_steps.place, rest)
            total = add(found, factor, total)
    return total


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
    kernel_h, kernel_w = w.shape[0], w.shape[1]
    x_steps = Steps(dilation_h * columns * channels, dilation_w * channels)
    w_steps = Steps(kernel_w * channels, channels)
    for n in range(lo, hi):
        at = n * y.shape[1] * y.shape[2] * channels
        for p in range(y.shape[1]):
            row = p * stride_h - top
            i0 = first_inside(row, dilation_h)
            i1 = end_inside(row, dilation_h, rows, kernel_h)
            for q in range(y.shape[2]):
                column = q * stride_w - left
                j0 = first_inside(column, dilation_w)
                j1 = end_inside(column, dilation_w, columns, kernel_w)
                source = ((n * rows + row) * columns + column) * channels
                c = 0
                while c + strip_lanes(x) <= channels:
                    total = window_sum(
                        strip_load, strip_fma, strip_splat, Place(x, source + c), x_steps,
                        Place(w, c), w_steps, (i0, i1), (j0, j1), channels - c,
                    )  # fmt: skip
                    if bias.size:
                        total = strip_add(total, strip_load(bias, c, channels - c))
                    strip_store(y, at + c, total, channels - c)
                    c += strip_lanes(x)
                while c < channels:
                    part = window_sum(
                        load_part, part_fma, part_splat, Place(x, source + c), x_steps,
                        Place(w, c), w_steps, (i0, i1), (j0, j1), channels - c,
                    )  # fmt: skip
                    if bias.size:
                        part = part + load_part(bias, c, channels - c)
                    store_part(y, at + c, part, channels - c)
                    c += lanes(x)
                at += channels


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


@helper
def sample_sum(take, add, plus, fill, x, x_steps, dy, dy_steps, p, q, rest):
    """The sum over p[0] <= p < p[1] of those over q[0] <= q < q[1] of x*dy, of `rest` channels,
    with steps between the lines and places of either."""
    total = fill(x.array, 0.0)
    for a in range(p[0], p[1]):
        part = fill(x.array, 0.0)
        for b in range(q[0], q[1]):
            found = take(x.array, x.at + a * x_steps.line + b * x_steps.place, rest)
            given = take(dy.array, dy.at + a * dy_steps.line + b * dy_steps.place, rest)
            part = add(found, given, part)
        total = plus(total, part)
    return total


@kernel(grain=16, factors=("x", "dy"))
def depthwise_backward_weight(
    x: "in cols f[N,H,W,C]",
    dy: "in cols f[N,P,Q,C]",
    dw: "out cols f[D,C]",  # D = I*J
    kernel_w: "int",
    stride_h: "int",
    stride_w: "int",
    dilation_h: "int",
    dilation_w: "int",
    top: "int",
    left: "int",
    lo: "begin",
    hi: "end",
):
    """dw[d,c] = sum over samples and positions of x[n, ..., c]*dy[n,p,q,c]: of a row of positions,
    of a sample, then of the samples."""
    rows, columns, channels = x.shape[1], x.shape[2], x.shape[3]
    places_h, places_w = dy.shape[1], dy.shape[2]
    x_steps = Steps(stride_h * columns * channels, stride_w * channels)
    dy_steps = Steps(places_w * channels, channels)
    for n in range(x.shape[0]):  # a sample stays in the cache for all elements of the window
        for d in range(dw.shape[0]):
            row, column = d // kernel_w * dilation_h - top, d % kernel_w * dilation_w - left
            p = first_inside(row, stride_h), end_inside(row, stride_h, rows, places_h)
            q = first_inside(column, stride_w), end_inside(column, stride_w, columns, places_w)
            here = ((n * rows + row) * columns + column) * channels
            there = n * places_h * places_w * channels
            c, at = lo, d * channels
            while c + strip_lanes(x) <= hi:
                total = sample_sum(
                    strip_load, strip_fma, strip_add, strip_splat, Place(x, here + c), x_steps,
                    Place(dy, there + c), dy_steps, p, q, hi - c,
                )  # fmt: skip
                if n > 0:
                    total = strip_add(strip_load(dw, at + c, hi - c), total)
                strip_store(dw, at + c, total, hi - c)
                c += strip_lanes(x)
            while c < hi:
                part = sample_sum(
                    load_part, part_fma, part_add, part_splat, Place(x, here + c), x_steps,
                    Place(dy, there + c), dy_steps, p, q, hi - c,
                )  # fmt: skip
                if n > 0:
                    part = load_part(dw, at + c, hi - c) + part
                store_part(dw, at + c, part, hi - c)
                c += lanes(x)
