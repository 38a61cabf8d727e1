"""Windows of a sample as it lies in memory, whose borders count as zeros.

Where a window's row is one run of the image, windows are copied row by row, otherwise place by
place: of each place of the window, the channels at all the positions along a line, so that what is
inside is known once for a line.
"""

from __future__ import annotations

from ..declare import helper
from .rows import add_row, copy_row, zero_row
from .windows import end_inside, first_inside


@helper
def take_window(x, row, left, columns, channels, first, last, room, at):
    """room[at:] = elements `first` to `last` of one row of a window of all channels, which begins
    at the place `left` of the image's row at `row` (flat index of x). Places outside are 0."""
    begin = min(max(first, -left * channels), last)
    end = max(min(last, (columns - left) * channels), begin)
    if begin > first:
        zero_row(room, at, begin - first)
    if end > begin:
        copy_row(x, row + left * channels + begin, room, at + begin - first, end - begin)
    if last > end:
        zero_row(room, at + end - first, last - end)


@helper
def add_window(room, at, left, columns, channels, size, x, row):
    """Add one row of a window, of `size` elements, to the image's row: the reverse of
    `take_window`; what falls outside is dropped."""
    begin = min(max(0, -left * channels), size)
    end = max(min(size, (columns - left) * channels), begin)
    if end > begin:
        add_row(room, at + begin, x, row + left * channels + begin, end - begin)


@helper
def take_windows(
    x, n, width, first, count, kernel_w, group, channel, stride_h, stride_w, dilation_h, dilation_w,
    top, left, lo, hi, room, at, pitch,
):  # fmt: skip
    """room[at + t*pitch:] = the elements `lo` to `hi` of the window at position `first` + t of
    sample n, for t < `count`; `width` positions are a row. Of each place a window has `group`
    channels, from `channel` on."""
    rows, columns, channels = x.shape[1], x.shape[2], x.shape[3]
    if dilation_w > 1 or group < channels:
        take_places(x, n, width, first, count, kernel_w, group, channel, stride_h, stride_w,
                    dilation_h, dilation_w, top, left, lo, hi, room, at, pitch)  # fmt: skip
        return
    line = kernel_w * group
    p, q = first // width, first % width
    for t in range(count):
        to = at + t * pitch
        for i in range(lo // line, (hi + line - 1) // line):
            begin, end = max(lo - i * line, 0), min(hi - i * line, line)
            row = p * stride_h + i * dilation_h - top
            if 0 <= row < rows:
                take_window(x, (n * rows + row) * columns * channels, q * stride_w - left, columns,
                            channels, begin, end, room, to)  # fmt: skip
            else:
                zero_row(room, to, end - begin)
            to += end - begin
        q += 1
        if q == width:
            p, q = p + 1, 0


@helper
def take_places(
    x, n, width, first, count, kernel_w, group, channel, stride_h, stride_w, dilation_h, dilation_w,
    top, left, lo, hi, room, at, pitch,
):  # fmt: skip
    """The same, place by place of the window."""
    rows, columns, channels = x.shape[1], x.shape[2], x.shape[3]
    for place in range(lo // group, (hi + group - 1) // group):
        begin, end = max(lo - place * group, 0), min(hi - place * group, group)
        to, size = at + place * group + begin - lo, end - begin
        p, q, t = first // width, first % width, 0
        while t < count:
            some = min(width - q, count - t)
            row = p * stride_h + place // kernel_w * dilation_h - top
            column = q * stride_w + place % kernel_w * dilation_w - left
            a, b = 0, 0
            if 0 <= row < rows:
                a = min(first_inside(column, stride_w), some)
                b = max(end_inside(column, stride_w, columns, some), a)
            source = ((n * rows + row) * columns + column) * channels + channel + begin
            for s in range(a):
                zero_row(room, to + s * pitch, size)
            for s in range(a, b):
                copy_row(x, source + s * stride_w * channels, room, to + s * pitch, size)
            for s in range(b, some):
                zero_row(room, to + s * pitch, size)
            to += some * pitch
            t += some
            p, q = p + 1, 0


@helper
def add_places(
    room, at, x, n, width, first, count, kernel_h, kernel_w, group, channel, stride_h, stride_w,
    dilation_h, dilation_w, top, left,
):  # fmt: skip
    """Add windows, all of their elements, to sample n: the reverse of `take_windows`. What several
    windows add to an element is added in the order of their positions: by places, that is from
    the last one to the first."""
    rows, columns, channels = x.shape[1], x.shape[2], x.shape[3]
    line = kernel_w * group
    depth = kernel_h * line
    if dilation_w == 1 and group == channels:
        p, q = first // width, first % width
        for t in range(count):
            for i in range(kernel_h):
                row = p * stride_h + i * dilation_h - top
                if 0 <= row < rows:
                    to = (n * rows + row) * columns * channels
                    add_window(room, at + t * depth + i * line, q * stride_w - left, columns,
                               channels, line, x, to)  # fmt: skip
            q += 1
            if q == width:
                p, q = p + 1, 0
        return
    for back in range(kernel_h * kernel_w):
        place = kernel_h * kernel_w - 1 - back
        source = at + place * group
        p, q, t = first // width, first % width, 0
        while t < count:
            some = min(width - q, count - t)
            row = p * stride_h + place // kernel_w * dilation_h - top
            column = q * stride_w + place % kernel_w * dilation_w - left
            if 0 <= row < rows:
                a = min(first_inside(column, stride_w), some)
                to = ((n * rows + row) * columns + column) * channels + channel
                for s in range(a, end_inside(column, stride_w, columns, some)):
                    add_row(room, source + s * depth, x, to + s * stride_w * channels, group)
            source += some * depth
            t += some
            p, q = p + 1, 0
