"""Which places of an axis a window has, for both devices."""

from typing import NamedTuple

from ..declare import helper


class Taps(NamedTuple):
    """Windows of a maximum along an axis of `extent` places: `kernel` places, `dilation` apart,
    from window to window `stride`; the first begins `before` the axis."""

    kernel: int
    stride: int
    dilation: int
    before: int
    extent: int


class Spans(NamedTuple):
    """Windows of an average along an axis of `extent` places: `kernel` neighbours, from window to
    window `stride`, the first `before` the axis; or where they are `adaptive`, the axis is shared
    out among `count` windows."""

    kernel: int
    stride: int
    before: int
    extent: int
    count: int
    adaptive: int


@helper
def place_in(axis, window, tap):
    """The place of a window's tap, or -1 where that is outside of the axis."""
    place = window * axis.stride + tap * axis.dilation - axis.before
    return place if 0 <= place < axis.extent else -1


@helper
def first_largest(x, n, p, q, c, best, high, wide):
    """The place of a window at which its largest element, `best`, is first; -1: at none."""
    for k in range(high.kernel * wide.kernel):
        h, w = place_in(high, p, k // wide.kernel), place_in(wide, q, k % wide.kernel)
        if h >= 0 and w >= 0:
            v = x[n, h, w, c]
            if v == best or v != v:
                return h * x.shape[2] + w
    return -1


@helper
def window_begin(axis, window):
    """The first place of a window within the axis."""
    if axis.adaptive:
        return window * axis.extent // axis.count
    return max(window * axis.stride - axis.before, 0)


@helper
def window_end(axis, window):
    """The place after its last one within the axis."""
    if axis.adaptive:
        return ((window + 1) * axis.extent + axis.count - 1) // axis.count
    return min(window * axis.stride - axis.before + axis.kernel, axis.extent)


@helper
def steps_of(length, steps, windows):
    """The valid steps of a sequence, shared out among windows."""
    return Spans(1, 1, 0, max(min(length, steps), 0), windows, 1)


@helper
def window_size(axis, window):
    """How many places it has, the padding included."""
    if axis.adaptive:
        return window_end(axis, window) - window_begin(axis, window)
    begin = window * axis.stride - axis.before
    return min(begin + axis.kernel, axis.extent + axis.before) - begin


@helper
def share(high, wide, p, q, padding_counts, divisor):
    """How many elements the sum of window (p, q) is divided by."""
    if divisor > 0:
        return divisor
    if padding_counts:
        return window_size(high, p) * window_size(wide, q)
    rows = window_end(high, p) - window_begin(high, p)
    return rows * (window_end(wide, q) - window_begin(wide, q))
