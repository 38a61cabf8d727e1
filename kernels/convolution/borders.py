"""Windows of a sample as it lies in memory, whose borders count as zeros.

Where a window's row is one run of the image, windows are copied row by row, otherwise place by
place: of each place of the window, the channels at all the positions along a line, so that what is
inside is known once for a line.
"""

from __future__ import annotations

from ..declare import helper
from ..places import Place
from .rows import add_row, copy_row, zero_row
from .windows import end_inside, first_inside


@helper
def take_window(x, row, left, columns, channels, first, last, to):
    """The numbers at `to` = elements `first` to `last` of one row of a window of all channels,
    which begins at the place `left` of the image's row at `row` (flat index of x). Places outside
    are 0."""
    room, at = to.array, to.at
    begin = min(max(first, -left * channels), last)
    end = max(min(last, (columns - left) * channels), begin)
    if begin > first:
        zero_row(room, at, begin - first)
    if end > begin:
        copy_row(x, row + left * channels + begin, room, at + begin - first, end - begin)
    if last > end:
        zero_row(room, at + end - first, last - end)


@helper
def add_window(window, left, columns, channels, size, x, row):
    """Add one row of a window, of `size` elements, to the image's row: the reverse of
    `take_window`; what falls outside is dropped."""
    begin = min(max(0, -left * channels), size)
    end = max(min(size, (columns - left) * channels), begin)
    if end > begin:
        add_row(window.array, window.at + begin, x, row + left * channels + begin, end - begin)


@helper
def take_windows(x, n, channel, grid, first, count, lo, hi, windows):
    """The rows of `windows` = the elements `lo` to `hi` of the windows at `count` positions of
    sample n from the position `first` on. Of each place a window has its channels from `channel`
    on."""
    rows, columns, channels = x.shape[1], x.shape[2], x.shape[3]
    if grid.dilation_w > 1 or grid.group < channels:
        take_places(x, n, channel, grid, first, count, lo, hi, windows)
        return
    line = grid.kernel_w * grid.group
    p, q = first // grid.width, first % grid.width
    for t in range(count):
        to = windows.at + t * windows.stride
        for i in range(lo // line, (hi + line - 1) // line):
            begin, end = max(lo - i * line, 0), min(hi - i * line, line)
            row = p * grid.stride_h + i * grid.dilation_h - grid.top
            if 0 <= row < rows:
                take_window(x, (n * rows + row) * columns * channels,
                            q * grid.stride_w - grid.left, columns, channels, begin, end,
                            Place(windows.array, to))  # fmt: skip
            else:
                zero_row(windows.array, to, end - begin)
            to += end - begin
        q += 1
        if q == grid.width:
            p, q = p + 1, 0


@helper
def take_places(x, n, channel, grid, first, count, lo, hi, windows):
    """The same, place by place of the window."""
    rows, columns, channels = x.shape[1], x.shape[2], x.shape[3]
    room, pitch, group, step = windows.array, windows.stride, grid.group, grid.stride_w
    for place in range(lo // group, (hi + group - 1) // group):
        begin, end = max(lo - place * group, 0), min(hi - place * group, group)
        to, size = windows.at + place * group + begin - lo, end - begin
        p, q, t = first // grid.width, first % grid.width, 0
        while t < count:
            some = min(grid.width - q, count - t)
            row = p * grid.stride_h + place // grid.kernel_w * grid.dilation_h - grid.top
            column = q * step + place % grid.kernel_w * grid.dilation_w - grid.left
            a, b = 0, 0
            if 0 <= row < rows:
                a = min(first_inside(column, step), some)
                b = max(end_inside(column, step, columns, some), a)
            source = ((n * rows + row) * columns + column) * channels + channel + begin
            for s in range(a):
                zero_row(room, to + s * pitch, size)
            for s in range(a, b):
                copy_row(x, source + s * step * channels, room, to + s * pitch, size)
            for s in range(b, some):
                zero_row(room, to + s * pitch, size)
            to += some * pitch
            t += some
            p, q = p + 1, 0


@helper
def add_places(windows, x, n, channel, grid, first, count):
    """Add windows, all of their elements, to sample n: the reverse of `take_windows`. What several
    windows add to an element is added in the order of their positions: by places, that is from
    the last one to the first."""
    rows, columns, channels = x.shape[1], x.shape[2], x.shape[3]
    room, step = windows.array, grid.stride_w
    line = grid.kernel_w * grid.group
    depth = grid.kernel_h * line
    if grid.dilation_w == 1 and grid.group == channels:
        p, q = first // grid.width, first % grid.width
        for t in range(count):
            for i in range(grid.kernel_h):
                row = p * grid.stride_h + i * grid.dilation_h - grid.top
                if 0 <= row < rows:
                    to = (n * rows + row) * columns * channels
                    add_window(Place(room, windows.at + t * depth + i * line),
                               q * step - grid.left, columns, channels, line, x, to)  # fmt: skip
            q += 1
            if q == grid.width:
                p, q = p + 1, 0
        return
    for back in range(grid.kernel_h * grid.kernel_w):
        place = grid.kernel_h * grid.kernel_w - 1 - back
        source = windows.at + place * grid.group
        p, q, t = first // grid.width, first % grid.width, 0
        while t < count:
            some = min(grid.width - q, count - t)
            row = p * grid.stride_h + place // grid.kernel_w * grid.dilation_h - grid.top
            column = q * step + place % grid.kernel_w * grid.dilation_w - grid.left
            if 0 <= row < rows:
                a = min(first_inside(column, step), some)
                to = ((n * rows + row) * columns + column) * channels + channel
                for s in range(a, end_inside(column, step, columns, some)):
                    add_row(room, source + s * depth, x, to + s * step * channels, grid.group)
            source += some * depth
            t += some
            p, q = p + 1, 0
