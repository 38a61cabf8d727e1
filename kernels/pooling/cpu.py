"""Pooling: the largest element or the average of each window, of each channel on its own.

x [N,H,W,C], y [N,P,Q,C]; a window of `kernel_h` x `kernel_w` places, `dilation` apart, begins at
``p*stride_h - top, q*stride_w - left``. Places outside of x count for no maximum, and in averages
as 0. One vector has the channels of one position.
"""

from __future__ import annotations

from ..cpu.parts import fill_row, load_part, store_part
from ..declare import helper, kernel
from ..simd import fill_like, lanes, splat, where
from .cpu_apart import (
    averages_side_by_side,
    maxima_side_by_side,
    share_side_by_side,
    side_by_side,
    spans_side_by_side,
    spread_side_by_side,
)
from .shared import Spans, Taps, first_largest, place_in, share, window_begin, window_end


@helper
def larger(v, best):
    """The larger of each pair; NaN where one is."""
    return where(v > best, v, where(v != v, v, best))


@kernel
def max_pool_forward(
    x: "in rows f[N,H,W,C]",
    y: "out rows f[N,P,Q,C]",
    kernel_h: "int",
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
    """y = the largest element of each window; NaN where there is one."""
    rows, columns, channels = x.shape[1], x.shape[2], x.shape[3]
    high = Taps(kernel_h, stride_h, dilation_h, top, rows)
    wide = Taps(kernel_w, stride_w, dilation_w, left, columns)
    apart = side_by_side(high, y.shape[1]) and side_by_side(wide, y.shape[2])
    for n in range(lo, hi):
        if apart and kernel_h == 2 and kernel_w == 2:
            maxima_side_by_side(x, y, n, 2, 2)  # a loop without branches
            continue
        if apart:
            maxima_side_by_side(x, y, n, kernel_h, kernel_w)
            continue
        at = n * y.shape[1] * y.shape[2] * channels
        for p in range(y.shape[1]):
            for q in range(y.shape[2]):
                for c in range(0, channels, lanes(x)):
                    rest = channels - c
                    best = splat(x, -float("inf"))
                    for i in range(kernel_h):
                        h = place_in(high, p, i)
                        if h < 0:
                            continue
                        for j in range(kernel_w):
                            w = place_in(wide, q, j)
                            if w >= 0:
                                source = ((n * rows + h) * columns + w) * channels + c
                                best = larger(load_part(x, source, rest), best)
                    store_part(y, at + c, best, rest)
                at += channels


@kernel
def max_pool_backward(
    x: "in rows f[N,H,W,C]",
    y: "in rows f[N,P,Q,C]",
    dy: "in rows f[N,P,Q,C]",
    dx: "out rows f[N,H,W,C]",
    kernel_h: "int",
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
    """dx = the sum of dy over the windows whose first largest element it is."""
    rows, columns, channels = x.shape[1], x.shape[2], x.shape[3]
    high = Taps(kernel_h, stride_h, dilation_h, top, rows)
    wide = Taps(kernel_w, stride_w, dilation_w, left, columns)
    size = rows * columns * channels
    apart = side_by_side(high, y.shape[1]) and side_by_side(wide, y.shape[2])
    apart = apart and (channels < lanes(x) or channels % lanes(x) == 0)
    for n in range(lo, hi):
        if apart and kernel_h == 2 and kernel_w == 2:
            spread_side_by_side(x, y, dy, dx, n, 2, 2)  # a loop without branches
            continue
        if apart:
            spread_side_by_side(x, y, dy, dx, n, kernel_h, kernel_w)
            continue
        fill_row(dx, n * size, size, 0.0)
        at = n * y.shape[1] * y.shape[2] * channels
        for p in range(y.shape[1]):
            for q in range(y.shape[2]):
                for c in range(0, channels, lanes(x)):
                    rest = channels - c
                    best = load_part(y, at + c, rest)
                    left_over = load_part(dy, at + c, rest)
                    zero = fill_like(best, 0.0)
                    for i in range(kernel_h):
                        h = place_in(high, p, i)
                        if h < 0:
                            continue
                        for j in range(kernel_w):
                            w = place_in(wide, q, j)
                            if w >= 0:
                                place = ((n * rows + h) * columns + w) * channels + c
                                v = load_part(x, place, rest)
                                own = where(v == best, left_over, where(v != v, left_over, zero))
                                left_over = where(v == best, zero, where(v != v, zero, left_over))
                                store_part(dx, place, load_part(dx, place, rest) + own, rest)
                at += channels


@kernel
def max_pool_pick(
    x: "in rows f[N,H,W,C]",
    best: "in rows f[N,P,Q,C]",  # of x by `max_pool_forward`
    t: "in rows f[N,H,W,C]",
    y: "out rows f[N,P,Q,C]",
    kernel_h: "int",
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
    """y = what `t` has where x has the first largest element of the window."""
    rows, columns, channels = x.shape[1], x.shape[2], x.shape[3]
    high = Taps(kernel_h, stride_h, dilation_h, top, rows)
    wide = Taps(kernel_w, stride_w, dilation_w, left, columns)
    for n in range(lo, hi):
        at = n * y.shape[1] * y.shape[2] * channels
        for p in range(y.shape[1]):
            for q in range(y.shape[2]):
                for c in range(0, channels, lanes(x)):
                    rest = channels - c
                    largest = load_part(best, at + c, rest)
                    found = fill_like(largest, 0.0)
                    for k in range(kernel_h * kernel_w - 1, -1, -1):  # the first one comes last
                        h, w = place_in(high, p, k // kernel_w), place_in(wide, q, k % kernel_w)
                        if h < 0 or w < 0:
                            continue
                        source = ((n * rows + h) * columns + w) * channels + c
                        v, picked = load_part(x, source, rest), load_part(t, source, rest)
                        found = where(v == largest, picked, where(v != v, picked, found))
                    store_part(y, at + c, found, rest)
                at += channels


@kernel
def max_pool_places(
    x: "in rows f[N,H,W,C]",
    best: "in rows f[N,P,Q,C]",  # of x by `max_pool_forward`
    y: "out rows i[N,P,Q,C]",
    kernel_h: "int",
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
    """y = the place, h*W + w, of the first largest element of each window."""
    high = Taps(kernel_h, stride_h, dilation_h, top, x.shape[1])
    wide = Taps(kernel_w, stride_w, dilation_w, left, x.shape[2])
    for n in range(lo, hi):
        for p in range(y.shape[1]):
            for q in range(y.shape[2]):
                for c in range(y.shape[3]):
                    y[n, p, q, c] = first_largest(x, n, p, q, c, best[n, p, q, c], high, wide)


@kernel
def avg_pool_forward(
    x: "in rows f[N,H,W,C]",
    y: "out rows f[N,P,Q,C]",
    kernel_h: "int",
    kernel_w: "int",
    stride_h: "int",
    stride_w: "int",
    top: "int",
    left: "int",
    adaptive: "int",  # 1: windows share out the image, whatever kernel and stride
    padding_counts: "int",  # 1: places outside are elements of the window
    divisor: "int",  # what sums are divided by instead of the number of elements, or 0
    lo: "begin",
    hi: "end",
):
    """y = the sum of each window, divided by the number of its elements."""
    rows, columns, channels = x.shape[1], x.shape[2], x.shape[3]
    high = Spans(kernel_h, stride_h, top, rows, y.shape[1], adaptive)
    wide = Spans(kernel_w, stride_w, left, columns, y.shape[2], adaptive)
    apart = spans_side_by_side(high) and spans_side_by_side(wide)
    parts = divisor if divisor > 0 else kernel_h * kernel_w
    for n in range(lo, hi):
        if apart and kernel_h == 2 and kernel_w == 2:
            averages_side_by_side(x, y, n, 2, 2, parts)  # a loop without branches
            continue
        if apart:
            averages_side_by_side(x, y, n, kernel_h, kernel_w, parts)
            continue
        at = n * high.count * wide.count * channels
        for p in range(high.count):
            h0, h1 = window_begin(high, p), window_end(high, p)
            for q in range(wide.count):
                w0, w1 = window_begin(wide, q), window_end(wide, q)
                count = share(high, wide, p, q, padding_counts, divisor)
                for c in range(0, channels, lanes(x)):
                    rest = channels - c
                    total = splat(x, 0.0)
                    for h in range(h0, h1):
                        for w in range(w0, w1):
                            source = ((n * rows + h) * columns + w) * channels + c
                            total = total + load_part(x, source, rest)
                    store_part(y, at + c, total / splat(x, count), rest)
                at += channels


@kernel
def avg_pool_backward(
    dy: "in rows f[N,P,Q,C]",
    dx: "out rows f[N,H,W,C]",
    kernel_h: "int",
    kernel_w: "int",
    stride_h: "int",
    stride_w: "int",
    top: "int",
    left: "int",
    adaptive: "int",
    padding_counts: "int",
    divisor: "int",
    lo: "begin",
    hi: "end",
):
    """dx = the sum of dy over all windows that this element is in, by what each is divided by."""
    rows, columns, channels = dx.shape[1], dx.shape[2], dx.shape[3]
    high = Spans(kernel_h, stride_h, top, rows, dy.shape[1], adaptive)
    wide = Spans(kernel_w, stride_w, left, columns, dy.shape[2], adaptive)
    size = rows * columns * channels
    apart = spans_side_by_side(high) and spans_side_by_side(wide)
    apart = apart and (channels < lanes(dx) or channels % lanes(dx) == 0)
    parts = divisor if divisor > 0 else kernel_h * kernel_w
    for n in range(lo, hi):
        if apart and kernel_h == 2 and kernel_w == 2:
            share_side_by_side(dy, dx, n, 2, 2, parts)  # a loop without branches
            continue
        if apart:
            share_side_by_side(dy, dx, n, kernel_h, kernel_w, parts)
            continue
        fill_row(dx, n * size, size, 0.0)
        at = n * high.count * wide.count * channels
        for p in range(high.count):
            h0, h1 = window_begin(high, p), window_end(high, p)
            for q in range(wide.count):
                w0, w1 = window_begin(wide, q), window_end(wide, q)
                count = share(high, wide, p, q, padding_counts, divisor)
                for c in range(0, channels, lanes(dx)):
                    rest = channels - c
                    part = load_part(dy, at + c, rest) / splat(dx, count)
                    for h in range(h0, h1):
                        for w in range(w0, w1):
                            place = ((n * rows + h) * columns + w) * channels + c
                            store_part(dx, place, load_part(dx, place, rest) + part, rest)
                at += channels
