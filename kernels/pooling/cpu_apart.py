"""Windows of maxima and averages that lie side by side, all inside of the image: no window needs to
look where it ends, and each element is in one of them at most.

Names are as in `cpu.py`.
"""

from __future__ import annotations

from ..cpu.parts import fill_row, load_part, store_part
from ..declare import helper
from ..simd import fill_like, lanes, maximum, splat, where
from ..vector_math import NAN


@helper
def side_by_side(taps, windows):
    """Whether an axis' windows lie side by side, all inside."""
    return (
        taps.kernel == taps.stride and taps.dilation == 1 and taps.before == 0
        and taps.kernel * windows <= taps.extent
    )  # fmt: skip


@helper
def maxima_side_by_side(x, y, n, kernel_h, kernel_w):
    """A sample's maxima of windows that lie side by side.

    A position with fewer channels than a vector is written as a whole vector all the same; the next
    position overwrites the surplus. Storing a part of a vector (a masked store) takes some CPUs as
    long as a dozen whole ones.
    """
    channels, step = x.shape[3], lanes(x)
    line = x.shape[2] * channels
    at = n * y.shape[1] * y.shape[2] * channels
    end = at + y.shape[1] * y.shape[2] * channels
    for p in range(y.shape[1]):
        source = (n * x.shape[1] + kernel_h * p) * line
        for _ in range(y.shape[2]):
            for c in range(0, channels, step):
                rest = channels - c
                if at + c + step <= end:
                    rest = step
                best = load_part(x, source + c, rest)
                odd = best != best
                for j in range(1, kernel_w):
                    v = load_part(x, source + c + j * channels, rest)
                    best, odd = maximum(v, best), odd | (v != v)
                for i in range(1, kernel_h):
                    for j in range(kernel_w):
                        v = load_part(x, source + c + i * line + j * channels, rest)
                        best, odd = maximum(v, best), odd | (v != v)
                store_part(y, at + c, where(odd, fill_like(best, NAN), best), rest)
            at += channels
            source += kernel_w * channels


@helper
def spread_side_by_side(x, y, dy, dx, n, kernel_h, kernel_w):
    """A sample's gradient through `maxima_side_by_side`; vectors are whole as there, but for those
    that would reach beyond the windows of the line. (Channels are a part of a vector, or whole
    vectors.)"""
    channels, step = x.shape[3], lanes(x)
    line, covered = x.shape[2] * channels, y.shape[2] * kernel_w * channels
    size = x.shape[1] * line
    below = y.shape[1] * kernel_h * line
    at = n * y.shape[1] * y.shape[2] * channels
    for p in range(y.shape[1]):
        source = n * size + kernel_h * p * line
        if covered < line:
            for i in range(kernel_h):
                fill_row(dx, source + i * line + covered, line - covered, 0.0)
        for q in range(y.shape[2]):
            for c in range(0, channels, step):
                rest = channels - c
                if c + step <= (y.shape[2] - q) * channels:
                    rest = step
                best, left_over = load_part(y, at + c, rest), load_part(dy, at + c, rest)
                zero = fill_like(best, 0.0)
                for i in range(kernel_h):
                    for j in range(kernel_w):
                        place = source + c + i * line + j * channels
                        v = load_part(x, place, rest)
                        own = where(v == best, left_over, where(v != v, left_over, zero))
                        left_over = where(v == best, zero, where(v != v, zero, left_over))
                        store_part(dx, place, own + zero, rest)
            at += channels
            source += kernel_w * channels
    if below < size:
        fill_row(dx, n * size + below, size - below, 0.0)


@helper
def spans_side_by_side(spans):
    """Whether an axis' windows lie side by side, all inside and of one size."""
    return (
        spans.adaptive == 0 and spans.kernel == spans.stride and spans.before == 0
        and spans.kernel * spans.count <= spans.extent
    )  # fmt: skip


@helper
def inverse(count):
    """1 / count where that is exact, and else 0: a product with it has the quotient's bits, and a
    division takes a core a dozen times as long."""
    return 1.0 / count if count & (count - 1) == 0 else 0.0


@helper
def averaged(total, count, factor):
    """total / count, by `inverse` where there is one."""
    return total * factor if factor != 0.0 else total / fill_like(total, count)


@helper
def averages_side_by_side(x, y, n, kernel_h, kernel_w, count):
    """A sample's averages of windows that lie side by side; vectors are whole as in
    `maxima_side_by_side`."""
    channels, step = x.shape[3], lanes(x)
    line, factor = x.shape[2] * channels, inverse(count)
    at = n * y.shape[1] * y.shape[2] * channels
    end = at + y.shape[1] * y.shape[2] * channels
    for p in range(y.shape[1]):
        source = (n * x.shape[1] + kernel_h * p) * line
        for _ in range(y.shape[2]):
            for c in range(0, channels, step):
                rest = channels - c
                if at + c + step <= end:
                    rest = step
                total = splat(x, 0.0)
                for i in range(kernel_h):
                    for j in range(kernel_w):
                        place = source + c + i * line + j * channels
                        total = total + load_part(x, place, rest)
                store_part(y, at + c, averaged(total, count, factor), rest)
            at += channels
            source += kernel_w * channels


@helper
def share_side_by_side(dy, dx, n, kernel_h, kernel_w, count):
    """A sample's gradient through `averages_side_by_side`; vectors as in `spread_side_by_side`."""
    channels, step = dx.shape[3], lanes(dx)
    line, covered = dx.shape[2] * channels, dy.shape[2] * kernel_w * channels
    size, below = dx.shape[1] * line, dy.shape[1] * kernel_h * line
    at, factor = n * dy.shape[1] * dy.shape[2] * channels, inverse(count)
    for p in range(dy.shape[1]):
        source = n * size + kernel_h * p * line
        if covered < line:
            for i in range(kernel_h):
                fill_row(dx, source + i * line + covered, line - covered, 0.0)
        for q in range(dy.shape[2]):
            for c in range(0, channels, step):
                rest = channels - c
                if c + step <= (dy.shape[2] - q) * channels:
                    rest = step
                part = averaged(load_part(dy, at + c, rest), count, factor) + splat(dx, 0.0)
                for i in range(kernel_h):
                    for j in range(kernel_w):
                        store_part(dx, source + c + i * line + j * channels, part, rest)
            at += channels
            source += kernel_w * channels
    if below < size:
        fill_row(dx, n * size + below, size - below, 0.0)
