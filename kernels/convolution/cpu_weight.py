"""The gradient to a convolution's weights; see `cpu.py` for letters and for the order of sums.

Each range of rows of the gradient lays out its own columns of the windows. They lie an odd number
of cache lines apart: a tile reads the same few elements of window after window, and where those
are a multiple of 4 KiB apart, all of them share one set of the cache. The gradients that they are
multiplied by are packed into panels, for the same reason. Windows of a single line are runs of the
image and are read where they lie.
"""

from __future__ import annotations

from ..cpu.tile import tile_width
from ..declare import helper, kernel
from ..matmul.cpu_panels import panel
from ..places import Matrix, Place, Rows
from ..simd import is32, lanes
from .borders import take_windows
from .cpu import PRODUCT
from .grid import Grid, Image
from .patches import pad_image, padded_extent, padded_size, short_windows, take_lines
from .rows import copy_row
from .shared import FEW_WINDOWS, PLACES


@helper
def apart(x, size):
    """Numbers from one window to the next: whole cache lines, an odd number of them."""
    line = 16 if is32(x) else 8
    return ((size + line - 1) // line | 1) * line


@helper
def pack_gradients(dy, at, outputs, count, columns, room, to):
    """room[to:] = `count` rows of dy from the flat index `at` on, of each `columns` numbers, in
    panels of a tile's columns."""
    width = tile_width(dy)
    for k in range(0, columns, width):
        some = min(width, columns - k)
        for t in range(count):
            copy_row(dy, at + t * outputs + k, room, to + t * width, some)
        to += count * width


@kernel(grain=8, factors=("x", "dy"), **PRODUCT)
def convolution_backward_weight(
    x: "in whole f[N,H,W,C]",
    dy: "in whole f[N,P,Q,K]",
    dw: "out rows f[D,K]",  # D = I*J*G
    room: "scratch rows f[D,Z]",  # windows at Z positions, of each its elements lo to hi
    kernel_w: "int",
    stride_h: "int",
    stride_w: "int",
    dilation_h: "int",
    dilation_w: "int",
    top: "int",
    left: "int",
    groups: "int",
    lo: "begin",
    hi: "end",
):
    """dw[d,k] = sum over samples and positions of element d of x's window times dy[...,k]."""
    outputs, channels = dw.shape[1], x.shape[3]
    group, own = channels // groups, outputs // groups
    width = dy.shape[2]
    positions = dy.shape[1] * width
    block = room.shape[1]
    at, size = lo * block, hi - lo
    panel_columns, vector = tile_width(dw), lanes(dw)
    grid = Grid(width, dw.shape[0] // (kernel_w * group), kernel_w, group, stride_h, stride_w,
                dilation_h, dilation_w, top, left)  # fmt: skip
    high = padded_extent(dy.shape[1], stride_h, grid.kernel_h, dilation_h)
    wide = padded_extent(width, stride_w, kernel_w, dilation_w)
    image = Image(room, at, wide)
    padded = padded_size(high, wide, channels, vector)
    # numbers beside the padded image, with a vector behind windows
    rest = max(size * block - padded - vector, 0)
    by_lines = channels == 1 and stride_w == 1 and rest >= width * size
    short = groups == 1 and dilation_w == 1 and rest >= size * min(vector, positions)
    windows = at
    if by_lines or short:
        windows = at + padded
    else:
        rest = size * block
    pitch, packed = apart(dw, size), (own + panel_columns - 1) // panel_columns * panel_columns
    in_place = short and not by_lines and dw.shape[0] == kernel_w * group
    if in_place:
        pitch = 0
    packs = not by_lines and rest >= (pitch + packed) * min(FEW_WINDOWS, positions)
    if not packs:
        pitch, packed = 0 if in_place else size, 0
    block = min(rest // max(pitch + packed, 1), PLACES)
    if by_lines:
        block = block // width * width
    for g in range(groups):
        for n in range(x.shape[0]):
            if by_lines or short:
                pad_image(x, n, top, left, high, wide, room, at)
            first = 0
            while first < positions:
                count = min(block, positions - first)
                row, step = 1, pitch
                if in_place:
                    # windows of a line are runs of the image
                    count = min(count, width - first % width)
                    step = stride_w * channels
                    windows = at + (first // width * stride_h * wide * channels
                                    + first % width * step + lo)  # fmt: skip
                elif by_lines:
                    row, step = count, 1
                    take_lines(image, grid, first // width, count // width, lo, hi, windows)
                elif short:
                    short_windows(image, channels, grid, first, count, lo, hi, windows, pitch)
                else:
                    take_windows(x, n, g * group, grid, first, count, lo, hi,
                                 Rows(room, at, pitch))  # fmt: skip
                given = (n * positions + first) * outputs + g * own
                panels = at + padded if in_place else windows + count * pitch
                if packs:
                    pack_gradients(dy, given, outputs, count, own, room, panels)
                for k in range(0, own, panel_columns):
                    some, to = min(panel_columns, own - k), lo * outputs + g * own + k
                    if packs:
                        panel(Matrix(room, windows, row, step),
                              Rows(room, panels + k * count, panel_columns), Rows(dw, to, outputs),
                              Place(room, -1), count, size, some, n == 0 and first == 0,
                              -1)  # fmt: skip
                    else:
                        panel(Matrix(room, windows, row, step), Rows(dy, given + k, outputs),
                              Rows(dw, to, outputs), Place(room, -1), count, size, some,
                              n == 0 and first == 0, -1)  # fmt: skip
                first += count
