"""Convolutions: forward pass and the two gradients, as products with windows of the input.

Memory is channels-last: x [N,H,W,C], y [N,P,Q,K], weights [I,J,G,K] (rows and columns of the
kernel, input channels of a group, output channels); with `groups` groups C = groups*G, and group g
has the output channels from g*K/groups on. One dimension is two with H = P = I = 1. ::

    y[n,p,q,k] = bias[k] + sum over i, j, c of
        x[n, p*stride_h + i*dilation_h - top, q*stride_w + j*dilation_w - left, g*G + c]*w[i,j,c,k]

where x is 0 outside. *Positions* are the places (p, q) of a sample, one after the other; the
*depth* of a window are its i, j, c, in this order, as the rows of the weights lie in memory.
Windows of a few positions are laid out side by side in scratch memory, which stays in the cache;
the rest is the product of matrices. Copying takes one vector of memory where the product takes K
multiply-adds, so it is a few percent of the time; in exchange every tile is full, whatever stride,
dilation and padding. With a single input channel the rows of a window are short, and copying them
would cost more. There the transposed product is computed: of the transposed weights, and of *lines*
that hold one and the same element of all windows along a line of the image. Windows of a single
line (one dimension) are runs of the padded image, `stride_w` places apart: they are read where they
lie.

Each element is one chain of fused multiply-adds in the order of the summed index: of y in that of
the depth, of the weights' gradient in that of samples and positions. The input's gradient adds
windows to it in the order of positions. So bits depend on nothing else.
"""

from __future__ import annotations

from ..cpu.parts import load_part, store_part
from ..cpu.tile import PANEL_BYTES, tile_lanes, tile_width, transpose_block
from ..declare import helper, kernel
from ..matmul.cpu_panels import panel, product
from ..places import Matrix, Place, Rows
from ..simd import is32, lanes, load_first, store_first
from .borders import add_places, take_windows
from .grid import Grid, Image
from .patches import (
    add_windows,
    pad_image,
    padded_extent,
    padded_size,
    short_windows,
    take_lines,
    unpad_image,
)
from .rows import zero_row
from .shared import POSITIONS

#: traits of kernels with products
PRODUCT = {"family": "convolution", "slow_to_compile": True}


@helper
def by_panels(a, b, b_panel, c, bias, depth, rows, columns):
    """C = A @ B (+ bias) as `product`, for rows of A that lie in the cache: of a panel of B what
    fits in L1 stays there while all rows pass."""
    width = tile_width(b.array)
    limit = PANEL_BYTES // (width * (4 if is32(b.array) else 8))
    blocks = max(1, (depth + limit - 1) // limit)
    block = (depth + blocks - 1) // blocks
    t = 0
    while True:
        part = min(block, depth - t)
        add = bias.at if t + part == depth else -1
        left = Matrix(a.array, a.at + t, a.stride, 1)
        for j in range(0, columns, width):
            panel(left, Rows(b.array, b.at + j // width * b_panel + t * b.stride, b.stride),
                  Rows(c.array, c.at + j, c.stride), Place(bias.array, add + j if add >= 0 else -1),
                  part, rows, min(width, columns - j), t == 0, -1)  # fmt: skip
        t += part
        if t >= depth:
            break


@helper
def turn_lines(room, at, count, outputs, bias, y, to, end):
    """y[to + t*outputs + k] = room[at + k*count + t] + bias[k] for t < count; `end` is the end of
    what may be written in y."""
    for k in range(outputs if bias.size else 0):
        line = at + k * count
        for t in range(0, count, lanes(y)):
            store_part(room, line + t, load_part(room, line + t, count - t) + bias[k], count - t)
    t, step = 0, tile_lanes(y)
    if outputs < step or outputs % step == 0:
        # where outputs are fewer than a vector has, the rest of each is written over by the next
        while t + step <= count and to + (t + step - 1) * outputs + step <= end:
            for k in range(0, outputs, step):
                transpose_block(room, at + k * count + t, count, y, to + t * outputs + k, outputs)
            t += step
    while t < count:
        for k in range(outputs):
            store_first(y, to + t * outputs + k, load_first(room, at + k * count + t, 1), 1)
        t += 1


@helper
def forward_lines(w, bias, y, n, grid, image, lines, at):
    """A sample's outputs, of one input channel: the product of transposed weights and lines.
    There is room for the lines and the product where the padded image lies, from `at` on."""
    room, outputs, width = image.array, w.shape[3], y.shape[2]
    depth = w.shape[0] * grid.kernel_w
    positions = y.shape[1] * width
    p = 0
    while p < y.shape[1]:
        some = min(lines, y.shape[1] - p)
        count = some * width
        take_lines(image, grid, p, some, 0, depth, at)
        made = at + depth * count
        product(Matrix(w, 0, 1, outputs), Rows(room, at, count), tile_width(w),
                Rows(room, made, count), Place(room, -1), depth, outputs, count)  # fmt: skip
        turn_lines(room, made, count, outputs, bias, y, (n * positions + p * width) * outputs,
                   (n + 1) * positions * outputs)  # fmt: skip
        p += some


@kernel(**PRODUCT)
def convolution_forward(
    x: "in rows f[N,H,W,C]",
    w: "in whole f[I,J,G,K]",
    w_packed: "in whole f[U,Z]",  # w by `pack_panels`, or empty; not on CUDA
    bias: "in whole f[B]",  # B is K, or 0: no bias
    y: "out rows f[N,P,Q,K]",
    room: "scratch rows f[N,S]",  # of windows, at least one; only the range's first row is used
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
    """y = x * w + bias, a cross-correlation (see the module's text)."""
    kernel_w, group, outputs = w.shape[1], w.shape[2], w.shape[3]
    depth = w.shape[0] * kernel_w * group
    width = y.shape[2]
    grid = Grid(width, w.shape[0], kernel_w, group, stride_h, stride_w, dilation_h, dilation_w, top,
                left)  # fmt: skip
    positions = y.shape[1] * width
    own = outputs // groups
    at = lo * room.shape[1]
    vector = tile_lanes(x)
    high = padded_extent(y.shape[1], stride_h, w.shape[0], dilation_h)
    wide = padded_extent(width, stride_w, kernel_w, dilation_w)
    padded = padded_size(high, wide, x.shape[3], lanes(x))
    # a vector behind the windows, too
    rest = room.shape[1] - padded - lanes(x)
    line = (depth + (outputs + vector - 1) // vector * vector) * width
    by_lines = x.shape[3] == 1 and stride_w == 1 and rest >= line
    short = groups == 1 and dilation_w == 1 and rest >= depth
    in_place = short and w.shape[0] == 1
    image = Image(room, at, wide)
    block = (rest if short else room.shape[1]) // depth
    if in_place:
        block = POSITIONS
    for n in range(lo, hi):
        if by_lines or short:
            pad_image(x, n, top, left, high, wide, room, at)
        if by_lines:
            forward_lines(w, bias, y, n, grid, image, rest // line, at + padded)
            continue
        for g in range(groups):
            first = 0
            while first < positions:
                count = min(block, positions - first)
                windows, row = at, depth
                if in_place:
                    # windows of a line are runs of the image
                    count = min(count, width - first % width)
                    row = stride_w * group
                    windows += first // width * stride_h * wide * group + first % width * row
                elif short:
                    windows += padded
                    short_windows(image, group, grid, first, count, 0, depth, windows, depth)
                else:
                    take_windows(x, n, g * group, grid, first, count, 0, depth,
                                 Rows(room, at, depth))  # fmt: skip
                to = Rows(y, (n * positions + first) * outputs + g * own, outputs)
                added = Place(bias, g * own if bias.size else -1)
                if w_packed.size:
                    by_panels(Rows(room, windows, row), Rows(w_packed, 0, tile_width(w)),
                              w_packed.shape[1], to, added, depth, count, own)  # fmt: skip
                else:
                    by_panels(Rows(room, windows, row), Rows(w, g * own, outputs), tile_width(w),
                              to, added, depth, count, own)  # fmt: skip
                first += count


@kernel(**PRODUCT)
def convolution_backward_input(
    dy: "in rows f[N,P,Q,K]",
    w: "in whole f[I,J,G,K]",
    w_packed: "in whole f[U,Z]",  # the transposed w by `pack_panels_transposed`; not on CUDA
    dx: "out rows f[N,H,W,C]",
    room: "scratch rows f[N,S]",  # as in `convolution_forward`
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
    """dx[n,h,w,c] = the sum of dy*w over all windows that this element is in."""
    rows, columns, channels = dx.shape[1], dx.shape[2], dx.shape[3]
    width, outputs = dy.shape[2], dy.shape[3]
    group, own = channels // groups, outputs // groups
    depth = w.shape[0] * w.shape[1] * group
    positions = dy.shape[1] * width
    grid = Grid(width, w.shape[0], w.shape[1], group, stride_h, stride_w, dilation_h, dilation_w,
                top, left)  # fmt: skip
    panel_columns = tile_width(dy)
    at = lo * room.shape[1]
    high = padded_extent(dy.shape[1], stride_h, w.shape[0], dilation_h)
    wide = padded_extent(width, stride_w, w.shape[1], dilation_w)
    padded = padded_size(high, wide, channels, lanes(dy))
    image = Image(room, at, wide)
    short = groups == 1 and dilation_w == 1 and room.shape[1] - padded >= depth
    block = room.shape[1] // depth
    windows = at
    if short:
        block = (room.shape[1] - padded) // depth
        windows = at + padded
    for n in range(lo, hi):
        if short:
            zero_row(room, at, padded)
        else:
            zero_row(dx, n * rows * columns * channels, rows * columns * channels)
        for g in range(groups):
            first = 0
            while first < positions:
                count = min(block, positions - first)
                by_panels(
                    Rows(dy, (n * positions + first) * outputs + g * own, outputs),
                    Rows(w_packed, g * own * panel_columns, panel_columns), w_packed.shape[1],
                    Rows(room, windows, depth), Place(room, -1), own, count, depth,
                )  # fmt: skip
                if short:
                    add_windows(image, channels, grid, first, count, windows)
                else:
                    add_places(Place(room, windows), dx, n, g * group, grid, first, count)
                first += count
        if short:
            unpad_image(room, at, top, left, wide, high, dx, n)


@kernel
def count_windows(
    lengths: "in rows i[B]",
    y: "out rows i[B]",
    span: "int",
    stride: "int",
    both: "int",
    lo: "begin",
    hi: "end",
):
    """y = how many windows of `span` steps lie in a sequence with `both` zeros around it."""
    for b in range(lo, hi):
        rest = lengths[b] + both - span
        y[b] = rest // stride + 1 if rest >= 0 and lengths[b] > 0 else 0
