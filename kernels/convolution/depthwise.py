"""A sample of a depthwise convolution, forwards or, with windows of stride 1, back to the
input: the same on images that are read from their last place to the first.

Vectors are of channels. Each output is one chain of multiply-adds, in the order of its window, so
speed comes from several outputs side by side, and from reading little for each multiply-add:

- where windows have three columns and up to three lines inside of the image, as of a 3x3 kernel,
  all weights of some channels stay in registers along a line of outputs (`line_of`). Four outputs
  side by side share the columns of their windows: 6 vectors are read for 12 multiply-adds;
- other windows are taken by four outputs, which share each weight that is read (`side_by_side`);
- at the borders, where columns are missing, by one output and four vectors of channels, the last
  of which may be a part (`window_sum`). So are images with fewer channels than a vector has.

The last vector of channels ends at the last channel. Where it overlaps the one before it, both
compute the same sums of the same numbers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

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
from ..declare import helper
from ..places import Place, Rows
from ..simd import fma, lanes, load, splat, store
from .grid import Steps
from .windows import end_inside, first_inside


class Sample(NamedTuple):
    """An image: its first place in `array` at `at`, each `unit` numbers after the one before."""

    array: Any
    at: int
    unit: int
    rows: int
    columns: int


class Run(NamedTuple):
    """Numbers in `array` from `at` on, with steps between lines, places, and windows."""

    array: Any
    at: int
    line: int
    place: int
    window: int


class Windows(NamedTuple):
    """The windows along a line of `columns` places: `count` of them, of which those from `first` to
    `last` have all their columns inside."""

    count: int
    first: int
    last: int
    stride: int
    dilation: int
    left: int
    columns: int


@helper
def three_columns(count, stride, dilation, left, columns):
    """The windows along a line, of three columns each."""
    first = first_inside(-left, stride)
    last = end_inside(2 * dilation - left, stride, columns, count)
    return Windows(count, first, last, stride, dilation, left, columns)


@helper
def columns_inside(windows, q):
    """Which of the three columns of window q are inside."""
    if windows.first <= q < windows.last:
        return True, True, True
    a = q * windows.stride - windows.left
    b = a + windows.dilation
    c = b + windows.dilation
    return 0 <= a < windows.columns, 0 <= b < windows.columns, 0 <= c < windows.columns


@helper
def part_fma(a, b, c):
    """a*b + c of one vector; `strip_fma` is the same for four."""
    return fma(a, b, c)


@helper
def part_splat(x, value):
    """One vector with this number in every lane; `strip_splat` is the same for four."""
    return splat(x, value)


@helper
def four_load(x, i, step):
    """Four vectors of x, `step` numbers from each other."""
    return (load(x, i), load(x, i + step), load(x, i + 2 * step), load(x, i + 3 * step))


@helper
def four_store(x, i, step, v):
    """The reverse."""
    store(x, i, v[0])
    store(x, i + step, v[1])
    store(x, i + 2 * step, v[2])
    store(x, i + 3 * step, v[3])


@helper
def four_fma(a, b, c):
    """a*b + c of four vectors a and c and one vector b."""
    return (fma(a[0], b, c[0]), fma(a[1], b, c[1]), fma(a[2], b, c[2]), fma(a[3], b, c[3]))


@helper
def four_add(a, b):
    """a + b of four vectors a and one vector b."""
    return (a[0] + b, a[1] + b, a[2] + b, a[3] + b)


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


@helper
def three_weights(w, at, step):
    """The weights of a line."""
    return (load(w, at), load(w, at + step), load(w, at + 2 * step))


@helper
def line_of_four(x, at, step, w, total):
    """The sums of four windows side by side go on through a line of three places each."""
    a, b, c = load(x, at), load(x, at + step), load(x, at + 2 * step)
    d, e, f = load(x, at + 3 * step), load(x, at + 4 * step), load(x, at + 5 * step)
    total = four_fma((a, b, c, d), w[0], total)
    total = four_fma((b, c, d, e), w[1], total)
    return four_fma((c, d, e, f), w[2], total)


@helper
def line_of_one(x, at, step, w, columns, total):
    """The sum of one window goes on likewise, through the columns that are inside."""
    if columns[0]:
        total = fma(load(x, at), w[0], total)
    if columns[1]:
        total = fma(load(x, at + step), w[1], total)
    if columns[2]:
        total = fma(load(x, at + 2 * step), w[2], total)
    return total


@helper
def line_of(x, w, y, bias, lines, windows):
    """The outputs of a line of windows, of a vector of channels, where windows have three columns
    and one to three lines: x and w lie as a `Run`, from the first of these lines on, y as `Rows`.
    """
    v, step = x.array, x.window
    zero = splat(v, 0.0)
    w0 = three_weights(w.array, w.at, w.place)
    w1, w2, more = w0, w0, zero
    if lines > 1:
        w1 = three_weights(w.array, w.at + w.line, w.place)
    if lines > 2:
        w2 = three_weights(w.array, w.at + 2 * w.line, w.place)
    if bias.at >= 0:
        more = load(bias.array, bias.at)
    at, to, q = x.at, y.at, 0
    while q < windows.count:
        while x.window == x.place and windows.first <= q and q + 4 <= windows.last:
            four = line_of_four(v, at, step, w0, (zero, zero, zero, zero))
            if lines > 1:
                four = line_of_four(v, at + x.line, step, w1, four)
            if lines > 2:
                four = line_of_four(v, at + 2 * x.line, step, w2, four)
            if bias.at >= 0:
                four = four_add(four, more)
            four_store(y.array, to, y.stride, four)
            at += 4 * step
            to += 4 * y.stride
            q += 4
        if q >= windows.count:
            break
        inside = columns_inside(windows, q)
        one = line_of_one(v, at, x.place, w0, inside, zero)
        if lines > 1:
            one = line_of_one(v, at + x.line, x.place, w1, inside, one)
        if lines > 2:
            one = line_of_one(v, at + 2 * x.line, x.place, w2, inside, one)
        if bias.at >= 0:
            one = one + more
        store(y.array, to, one)
        at += step
        to += y.stride
        q += 1


@helper
def side_by_side(x, w, lines, taps):
    """The sums of four windows, of `lines` lines with the columns 0 to `taps`; x and w lie as a
    `Run`."""
    zero = splat(x.array, 0.0)
    total = (zero, zero, zero, zero)
    whole = taps - taps % 3 if x.window == x.place else 0
    for a in range(lines):
        at, to = x.at + a * x.line, w.at + a * w.line
        b = 0
        while b < whole:
            factors = three_weights(w.array, to, w.place)
            total = line_of_four(x.array, at, x.place, factors, total)
            at += 3 * x.place
            to += 3 * w.place
            b += 3
        while b < taps:
            total = four_fma(four_load(x.array, at, x.window), load(w.array, to), total)
            at += x.place
            to += w.place
            b += 1
    return total


@helper
def border(x, w, y, bias, i, j, channels):
    """An output of which columns may be missing, all its channels. x and w lie as a `Run`."""
    x_steps, w_steps = Steps(x.line, x.place), Steps(w.line, w.place)
    c = 0
    while c + strip_lanes(x.array) <= channels:
        total = window_sum(
            strip_load, strip_fma, strip_splat, Place(x.array, x.at + c), x_steps,
            Place(w.array, w.at + c), w_steps, i, j, channels - c,
        )  # fmt: skip
        if bias.at >= 0:
            total = strip_add(total, strip_load(bias.array, bias.at + c, channels - c))
        strip_store(y.array, y.at + c, total, channels - c)
        c += strip_lanes(x.array)
    while c < channels:
        part = window_sum(
            load_part, part_fma, part_splat, Place(x.array, x.at + c), x_steps,
            Place(w.array, w.at + c), w_steps, i, j, channels - c,
        )  # fmt: skip
        if bias.at >= 0:
            part = part + load_part(bias.array, bias.at + c, channels - c)
        store_part(y.array, y.at + c, part, channels - c)
        c += lanes(x.array)


@helper
def convolve(x, w, y, bias, grid):
    """The outputs y of the image x, both a `Sample`; w [I,J,1,C];
    bias is a `Place`, at -1 where there is none."""
    channels, vector = w.shape[3], lanes(x.array)
    line_step, place_step = grid.dilation_h * x.columns * x.unit, grid.dilation_w * x.unit
    w_line = grid.kernel_w * channels
    first = first_inside(-grid.left, grid.stride_w)
    last = end_inside((grid.kernel_w - 1) * grid.dilation_w - grid.left, grid.stride_w, x.columns,
                      y.columns)  # fmt: skip
    if channels < vector:
        last = 0
    windows = three_columns(y.columns, grid.stride_w, grid.dilation_w, grid.left, x.columns)
    for p in range(y.rows):
        row = p * grid.stride_h - grid.top
        i0 = first_inside(row, grid.dilation_h)
        i1 = end_inside(row, grid.dilation_h, x.rows, grid.kernel_h)
        q = 0
        while q < y.columns:
            at = y.at + (p * y.columns + q) * y.unit
            column = q * grid.stride_w - grid.left
            source = x.at + (row * x.columns + column) * x.unit
            begin = source + i0 * line_step
            rest = last - q if q >= first else 0
            if grid.kernel_w == 3 and 0 < i1 - i0 <= 3 and channels >= vector:
                for k in range(0, channels, vector):
                    c = min(k, channels - vector)
                    line_of(
                        Run(x.array, begin + c, line_step, place_step, grid.stride_w * x.unit),
                        Run(w, i0 * w_line + c, w_line, channels, 0),
                        Rows(y.array, at + c, y.unit),
                        Place(bias.array, bias.at + c if bias.at >= 0 else -1), i1 - i0, windows,
                    )  # fmt: skip
                q = y.columns
            elif rest >= 4:
                for k in range(0, channels, vector):
                    c = min(k, channels - vector)
                    four = side_by_side(
                        Run(x.array, begin + c, line_step, place_step, grid.stride_w * x.unit),
                        Run(w, i0 * w_line + c, w_line, channels, 0), i1 - i0, grid.kernel_w,
                    )  # fmt: skip
                    if bias.at >= 0:
                        four = four_add(four, load(bias.array, bias.at + c))
                    four_store(y.array, at + c, y.unit, four)
                q += 4
            else:
                j0 = first_inside(column, grid.dilation_w)
                j1 = end_inside(column, grid.dilation_w, x.columns, grid.kernel_w)
                border(
                    Run(x.array, source, line_step, place_step, 0),
                    Run(w, 0, w_line, channels, 0), Place(y.array, at), bias, (i0, i1), (j0, j1),
                    channels,
                )  # fmt: skip
                q += 1
