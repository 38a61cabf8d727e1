"""The gradient to the weights of a depthwise convolution; shapes as in `cpu_depthwise.py`.

An element of it is a sum over all places of a channel: of each line of windows one chain of
multiply-adds, of the lines of a sample, and of the samples. Nine elements, of three lines and three
columns of the window, are summed up side by side for a vector of channels (`block_sum`): of four
windows side by side, 22 vectors are read for 36 multiply-adds. Columns beyond a multiple of three,
and fewer channels than a vector has, go one element after the other (`sample_sum`).
"""

from __future__ import annotations

from typing import NamedTuple

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
from ..places import Place, Rows
from ..simd import fma, iota, lanes, load, splat, store, where
from .depthwise import (
    Run,
    columns_inside,
    four_load,
    part_fma,
    part_splat,
    three_columns,
)
from .grid import Steps
from .windows import end_inside, first_inside


class Lines(NamedTuple):
    """The lines of windows: `count` of them, which begin `stride` apart, the first at the line
    `begin` of `rows`; what is summed up has `high` lines of each, `dilation` apart."""

    count: int
    stride: int
    dilation: int
    begin: int
    rows: int
    high: int


@helper
def part_add(a, b):
    """a + b of one vector; `strip_add` is the same for four."""
    return a + b


@helper
def three_add(a, b):
    """a + b of three vectors each."""
    return (a[0] + b[0], a[1] + b[1], a[2] + b[2])


@helper
def four_windows(x, at, step, dy, total):
    """The sums of three columns go on through four windows side by side, which begin at x's places
    from `at` on, `step` numbers from each other."""
    a, b, c = load(x, at), load(x, at + step), load(x, at + 2 * step)
    d, e, f = load(x, at + 3 * step), load(x, at + 4 * step), load(x, at + 5 * step)
    one, two, three = fma(a, dy[0], total[0]), fma(b, dy[0], total[1]), fma(c, dy[0], total[2])
    one, two, three = fma(b, dy[1], one), fma(c, dy[1], two), fma(d, dy[1], three)
    one, two, three = fma(c, dy[2], one), fma(d, dy[2], two), fma(e, dy[2], three)
    return (fma(d, dy[3], one), fma(e, dy[3], two), fma(f, dy[3], three))


@helper
def one_window(x, at, step, dy, columns, total):
    """They go on through one window, of which not all columns may be inside."""
    one, two, three = total
    if columns[0]:
        one = fma(load(x, at), dy, one)
    if columns[1]:
        two = fma(load(x, at + step), dy, two)
    if columns[2]:
        three = fma(load(x, at + 2 * step), dy, three)
    return (one, two, three)


@helper
def line_sum(x, dy, lines, windows):
    """The sums of a line of windows of x times dy, for three columns of each of three lines of the
    window, of which `lines` says which are inside. x lies as a `Run`, dy as `Rows`."""
    v, step = x.array, x.window
    zero = splat(v, 0.0)
    first, second, third = (zero, zero, zero), (zero, zero, zero), (zero, zero, zero)
    at, given, q = x.at, dy.at, 0
    while q < windows.count:
        while x.window == x.place and windows.first <= q and q + 4 <= windows.last:
            four = four_load(dy.array, given, dy.stride)
            if lines[0]:
                first = four_windows(v, at, step, four, first)
            if lines[1]:
                second = four_windows(v, at + x.line, step, four, second)
            if lines[2]:
                third = four_windows(v, at + 2 * x.line, step, four, third)
            at += 4 * step
            given += 4 * dy.stride
            q += 4
        if q >= windows.count:
            break
        columns = columns_inside(windows, q)
        one = load(dy.array, given)
        if lines[0]:
            first = one_window(v, at, x.place, one, columns, first)
        if lines[1]:
            second = one_window(v, at + x.line, x.place, one, columns, second)
        if lines[2]:
            third = one_window(v, at + 2 * x.line, x.place, one, columns, third)
        at += step
        given += dy.stride
        q += 1
    return first, second, third


@helper
def block_sum(x, dy, windows, lines, dw, before, begin):
    """Up to nine elements of dw, of a sample: x lies as a `Run` from the block's first element of
    the first window on, dy and dw as `Rows`, of dw those of a line; for the rest see `add_to`."""
    zero = splat(x.array, 0.0)
    first, second, third = (zero, zero, zero), (zero, zero, zero), (zero, zero, zero)
    for p in range(lines.count):
        a = p * lines.stride + lines.begin
        b = a + lines.dilation
        c = b + lines.dilation
        one, two = 0 <= a < lines.rows, lines.high > 1 and 0 <= b < lines.rows
        three = lines.high > 2 and 0 <= c < lines.rows
        if one or two or three:
            line = Run(x.array, x.at + p * lines.stride * (x.line // lines.dilation), x.line,
                       x.place, x.window)  # fmt: skip
            given = Rows(dy.array, dy.at + p * windows.count * dy.stride, dy.stride)
            sums = line_sum(line, given, (one, two, three), windows)
            if one:
                first = three_add(first, sums[0])
            if two:
                second = three_add(second, sums[1])
            if three:
                third = three_add(third, sums[2])
    add_to(dw.array, dw.at, dy.stride, first, before, begin)
    if lines.high > 1:
        add_to(dw.array, dw.at + dw.stride, dy.stride, second, before, begin)
    if lines.high > 2:
        add_to(dw.array, dw.at + 2 * dw.stride, dy.stride, third, before, begin)


@helper
def add_to(dw, at, step, total, before, begin):
    """Three elements of dw, `step` numbers from each other, += total, in the lanes from `before`
    on; at the beginning they are what was summed up."""
    for k in range(3):
        v = total[k]
        if not begin:
            there = load(dw, at)
            v = where(iota(dw) < before, there, there + v)
        store(dw, at, v)
        at += step


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
    whole = kernel_w - kernel_w % 3 if hi - lo >= lanes(x) else 0
    for n in range(x.shape[0]):  # a sample stays in the cache for all elements of the window
        for j in range(0, whole, 3):
            column = j * dilation_w - left
            windows = three_columns(places_w, stride_w, dilation_w, -column, columns)
            for i in range(0, dw.shape[0] // kernel_w, 3):
                here = (n * rows + i * dilation_h - top) * columns + column
                for k in range(lo, hi, lanes(x)):
                    c = min(k, hi - lanes(x))
                    block_sum(
                        Run(x, here * channels + c, dilation_h * columns * channels,
                            dilation_w * channels, stride_w * channels),
                        Rows(dy, n * places_h * places_w * channels + c, channels), windows,
                        Lines(places_h, stride_h, dilation_h, i * dilation_h - top, rows,
                              dw.shape[0] // kernel_w - i),
                        Rows(dw, (i * kernel_w + j) * channels + c, kernel_w * channels),
                        k - c, n == 0,
                    )  # fmt: skip
        for d in range(dw.shape[0]):
            if d % kernel_w < whole:
                continue
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
