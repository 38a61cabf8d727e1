"""A sample's image with its padding, from which short windows are copied without asking where they
begin and end.

Runs are copied in whole vectors. The last vector of a run may reach too far; the next run then
overwrites the surplus, and behind the last run (and behind the image) there is room for a vector.
Storing a part of a vector (a masked store) would avoid that, but takes a Zen 3 as long as a dozen
whole ones: runs of 30 numbers took twice as long to lay out as to multiply.
"""

from __future__ import annotations

from ..declare import helper
from ..simd import lanes, load, load_first, store
from .rows import copy_row, zero_row


@helper
def padded_extent(places, stride, kernel, dilation):
    """Places of an axis that windows are in, the padding among them."""
    return (places - 1) * stride + (kernel - 1) * dilation + 1


@helper
def padded_size(high, wide, channels, vector):
    """Numbers of a padded image, with room for a vector behind it."""
    return high * wide * channels + vector


@helper
def pad_image(x, n, top, left, high, wide, room, at):
    """room[at:] = sample n from the place (-top, -left) on, `high` lines of `wide` places."""
    rows, columns, channels = x.shape[1], x.shape[2], x.shape[3]
    first, last = max(left, 0), min(left + columns, wide)
    top_row, end_row = max(top, 0), min(top + rows, high)
    line = wide * channels
    if first > 0 or last < wide or top_row > 0 or end_row < high:
        zero_row(room, at, high * line)
    if first < last:
        for h in range(top_row, end_row):
            source = ((n * rows + h - top) * columns + first - left) * channels
            copy_row(x, source, room, at + h * line + first * channels, (last - first) * channels)


@helper
def unpad_image(room, at, top, left, wide, high, dx, n):
    """The reverse: a sample of dx = what lies inside; 0 where the padded image has nothing."""
    rows, columns, channels = dx.shape[1], dx.shape[2], dx.shape[3]
    first, last = min(max(-left, 0), columns), min(wide - left, columns)
    for row in range(rows):
        h, to = row + top, (n * rows + row) * columns * channels
        if h < 0 or h >= high or first >= last:
            zero_row(dx, to, columns * channels)
            continue
        if first > 0:
            zero_row(dx, to, first * channels)
        source = at + (h * wide + first + left) * channels
        copy_row(room, source, dx, to + first * channels, (last - first) * channels)
        if last < columns:
            zero_row(dx, to + last * channels, (columns - last) * channels)


@helper
def copy_over(room, i, k, size):
    """room[k:k+size] = room[i:i+size], and up to a vector more."""
    for j in range(0, size, lanes(room)):
        store(room, k + j, load(room, i + j))


@helper
def short_windows(image, channels, grid, first, count, lo, hi, at, pitch):
    """Behind the padded image, from `at` on and `pitch` numbers apart: the elements `lo` to `hi`
    of its windows at `count` positions from the position `first` on."""
    room, down = image.array, grid.dilation_h * image.wide * channels
    line = grid.kernel_w * channels
    p, q = first // grid.width, first % grid.width
    begin_line, end_line = lo // line, (hi + line - 1) // line
    for t in range(count):
        to = at + t * pitch
        source = image.at + (p * grid.stride_h * image.wide + q * grid.stride_w) * channels
        for i in range(begin_line, end_line):
            begin, end = max(lo - i * line, 0), min(hi - i * line, line)
            copy_over(room, source + i * down + begin, to, end - begin)
            to += end - begin
        q += 1
        if q == grid.width:
            p, q = p + 1, 0


@helper
def add_windows(image, channels, grid, first, count, at):
    """Add windows to the padded image: the reverse of `short_windows`, of all their elements."""
    room = image.array
    line, step = grid.kernel_w * channels, lanes(room)
    pitch = grid.dilation_h * image.wide * channels
    whole = line - line % step
    p, q = first // grid.width, first % grid.width
    source = at
    for _ in range(count):
        to = image.at + (p * grid.stride_h * image.wide + q * grid.stride_w) * channels
        for _ in range(grid.kernel_h):
            for j in range(0, whole, step):
                store(room, to + j, load(room, to + j) + load(room, source + j))
            if whole < line:
                rest = load_first(room, source + whole, line - whole)
                store(room, to + whole, load(room, to + whole) + rest)
            source += line
            to += pitch
        q += 1
        if q == grid.width:
            p, q = p + 1, 0


@helper
def take_lines(image, grid, p, lines, lo, hi, at):
    """Of a padded image with one channel, whose windows lie side by side: elements `lo` to `hi` of
    the windows at `lines` lines of positions from line p on, one element of all after another.
    They are runs of the image; they go where it lies, from `at` on."""
    for d in range(lo, hi):
        i, j = d // grid.kernel_w, d % grid.kernel_w
        source = image.at + (p * grid.stride_h + i * grid.dilation_h) * image.wide
        source += j * grid.dilation_w
        for _ in range(lines):
            copy_over(image.array, source, at, grid.width)
            source += grid.stride_h * image.wide
            at += grid.width
