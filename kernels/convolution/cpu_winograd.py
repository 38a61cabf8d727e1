"""Convolutions of 3x3 with fewer multiplications: F(2x2, 3x3) of Winograd (Lavin & Gray 2016).

Outputs are computed in *tiles* of 2x2, of inputs of 4x4. With ::

    B' = [1  0 -1  0]     G = [ 1    0    0 ]     A' = [1  1  1  0]
         [0  1  1  0]         [1/2  1/2  1/2]          [0  1 -1 -1]
         [0 -1  1  0]         [1/2 -1/2  1/2]
         [0  1  0 -1]         [ 0    0    1 ]

a tile of y is A' [(G w G') * (B' x B)] A, where * multiplies element by element: 16 products in the
place of 36. For all tiles and channels these are 16 products of matrices, one for each *plane* (a
place of the 4x4). Of the gradients, that to the input is such a convolution of dy with the turned
weights, and that to the weights is G' [the sum of (B' x B) * (A dy A')] G.

Letters as in `cpu.py`, with a stride and dilation of 1, one group, even P and Q, and C and K
multiples of a vector's lanes; U = 16 planes. Sums differ from those of `cpu.py` by rounding only:
transforms add up to four numbers before a product, and what cancels there costs a bit or two.
"""

from __future__ import annotations

from ..cpu.tile import tile_lanes, tile_width, transpose_block
from ..declare import helper, kernel
from ..matmul.cpu_panels import panel, product
from ..places import Matrix, Place, Rows
from ..simd import lanes, load, splat, store
from .patches import pad_image, padded_size

#: traits of kernels with products
PRODUCT = {"family": "convolution", "slow_to_compile": True}


# ---------------------------------------------------------------- weights


@helper
def weight_transform(a, b, c):
    """G of three vectors."""
    half = (a + c) * 0.5
    return a, half + b * 0.5, half - b * 0.5, c


@helper
def weight_transform_back(a, b, c, d):
    """G' of four vectors."""
    return a + (b + c) * 0.5, (b - c) * 0.5, (b + c) * 0.5 + d


@helper
def weight_column(w, at, line):
    """G of the three elements of a column of w, `line` apart."""
    return weight_transform(load(w, at), load(w, at + line), load(w, at + 2 * line))


@helper
def weight_column_back(du, at, line):
    """G' of the four elements of a column of du, `line` apart."""
    return weight_transform_back(
        load(du, at), load(du, at + line), load(du, at + 2 * line), load(du, at + 3 * line)
    )


@kernel(grain=16)
def winograd_weights(
    w: "in cols f[I,J,C,K]",  # I = J = 3
    u: "out cols f[U,C,K]",
    lo: "begin",
    hi: "end",
):
    """u = G w G', plane by plane."""
    plane = w.shape[2] * w.shape[3]
    for c in range(w.shape[2]):
        for k in range(lo, hi, lanes(w)):
            at = c * w.shape[3] + k
            left = weight_column(w, at, 3 * plane)
            middle = weight_column(w, at + plane, 3 * plane)
            right = weight_column(w, at + 2 * plane, 3 * plane)
            for a in range(4):
                found = weight_transform(left[a], middle[a], right[a])
                for b in range(4):
                    store(u, at + (4 * a + b) * plane, found[b])


@kernel
def winograd_weights_turned(
    u: "in whole f[U,C,K]",
    turned: "out rows f[U,K,C]",
    lo: "begin",
    hi: "end",
):
    """The planes of weights that are turned by 180 degrees, with K and C exchanged: those of the
    weights in another order, as turning exchanges the outer rows of G."""
    channels, outputs = u.shape[1], u.shape[2]
    step = tile_lanes(u)
    for plane in range(lo, hi):
        a, b = plane // 4, plane % 4
        a, b = 3 - a if a % 3 == 0 else a, 3 - b if b % 3 == 0 else b
        source, to = (4 * a + b) * channels * outputs, plane * channels * outputs
        for c in range(0, channels, step):
            for k in range(0, outputs, step):
                transpose_block(
                    u, source + c * outputs + k, outputs, turned, to + k * channels + c, channels
                )


@kernel(grain=16)
def winograd_weights_gradient(
    du: "in cols f[U,C,K]",
    dw: "out cols f[I,J,C,K]",  # I = J = 3
    lo: "begin",
    hi: "end",
):
    """dw = G' du G: the reverse of `winograd_weights`."""
    plane = dw.shape[2] * dw.shape[3]
    for c in range(dw.shape[2]):
        for k in range(lo, hi, lanes(dw)):
            at = c * dw.shape[3] + k
            one = weight_column_back(du, at, 4 * plane)
            two = weight_column_back(du, at + plane, 4 * plane)
            third = weight_column_back(du, at + 2 * plane, 4 * plane)
            last = weight_column_back(du, at + 3 * plane, 4 * plane)
            for i in range(3):
                found = weight_transform_back(one[i], two[i], third[i], last[i])
                for j in range(3):
                    store(dw, at + (3 * i + j) * plane, found[j])


# ---------------------------------------------------------------- tiles


@helper
def input_transform(a, b, c, d):
    """B' of four vectors."""
    return a - c, b + c, c - b, b - d


@helper
def gradient_transform(a, b):
    """A of two vectors."""
    return a, a + b, a - b, -b


@helper
def output_transform(a, b, c, d):
    """A' of four vectors."""
    return a + b + c, b - c - d


@helper
def input_column(x, at, line):
    """B' of the four elements of a column of x, `line` apart."""
    return input_transform(
        load(x, at), load(x, at + line), load(x, at + 2 * line), load(x, at + 3 * line)
    )


@helper
def output_column(room, at, line):
    """A' of the four elements of a column, `line` apart."""
    return output_transform(
        load(room, at), load(room, at + line), load(room, at + 2 * line), load(room, at + 3 * line)
    )


@helper
def store_planes(room, at, plane, found):
    """Four vectors, each to its plane."""
    store(room, at, found[0])
    store(room, at + plane, found[1])
    store(room, at + 2 * plane, found[2])
    store(room, at + 3 * plane, found[3])


@helper
def transform_tiles(image, source, line, channels, tiles, first, last, room, at, plane):
    """B' x B of `tiles` tiles side by side in the padded image whose first element is at `source`;
    the rows `first` to `last` of the 4x4, planes of `plane` numbers from `at` on."""
    for c in range(0, channels, lanes(room)):
        here, to = source + c, at + c
        p = input_column(image, here, line)
        q = input_column(image, here + channels, line)
        for _ in range(tiles):
            here += 2 * channels
            r = input_column(image, here, line)
            s = input_column(image, here + channels, line)
            for a in range(4):
                if first <= a < last:
                    found = input_transform(p[a], q[a], r[a], s[a])
                    store_planes(room, to + 4 * (a - first) * plane, plane, found)
            p, q = r, s
            to += channels


@helper
def transform_gradients(dy, source, line, outputs, tiles, first, last, room, at, plane):
    """A dy A' of `tiles` tiles side by side, otherwise as `transform_tiles`."""
    for k in range(0, outputs, lanes(room)):
        here, to = source + k, at + k
        for _ in range(tiles):
            a, b = load(dy, here), load(dy, here + outputs)
            c, d = load(dy, here + line), load(dy, here + line + outputs)
            one, two = gradient_transform(a, c), gradient_transform(b, d)
            for row in range(4):
                if first <= row < last:
                    found = gradient_transform(one[row], two[row])
                    store_planes(room, to + 4 * (row - first) * plane, plane, found)
            here += 2 * outputs
            to += outputs


@helper
def transform_back(room, at, plane, outputs, tiles, bias, y, to, line):
    """y = A' m A (+ bias) for `tiles` tiles side by side, of the planes m at `at`."""
    for t in range(tiles):
        for k in range(0, outputs, lanes(room)):
            more = load(bias, k) if bias.size else splat(room, 0.0)
            here, there = at + t * outputs + k, to + 2 * t * outputs + k
            a = output_column(room, here, 4 * plane)
            b = output_column(room, here + plane, 4 * plane)
            c = output_column(room, here + 2 * plane, 4 * plane)
            d = output_column(room, here + 3 * plane, 4 * plane)
            above = output_transform(a[0], b[0], c[0], d[0])
            below = output_transform(a[1], b[1], c[1], d[1])
            store(y, there, above[0] + more)
            store(y, there + outputs, above[1] + more)
            store(y, there + line, below[0] + more)
            store(y, there + line + outputs, below[1] + more)


# ---------------------------------------------------------------- convolutions


@kernel(**PRODUCT)
def winograd_forward(
    x: "in rows f[N,H,W,C]",
    u: "in whole f[U,C,K]",  # by `winograd_weights`
    bias: "in whole f[B]",  # B is K, or 0: no bias
    y: "out rows f[N,P,Q,K]",
    room: "scratch rows f[N,S]",  # `tile_room` numbers; only the range's first row is used
    top: "int",
    left: "int",
    lines: "int",  # rows of tiles that are computed at a time
    lo: "begin",
    hi: "end",
):
    """y = x * w + bias, as `convolution_forward`."""
    channels, outputs = x.shape[3], y.shape[3]
    high, wide = y.shape[1], y.shape[2]
    across = wide // 2
    line, tiles = (wide + 2) * channels, lines * across
    at = lo * room.shape[1]
    taken = at + padded_size(high + 2, wide + 2, channels, lanes(x))
    made = taken + 16 * tiles * channels
    for n in range(lo, hi):
        pad_image(x, n, top, left, high + 2, wide + 2, room, at)
        p = 0
        while p < high // 2:
            some = min(lines, high // 2 - p)
            for r in range(some):
                transform_tiles(
                    room, at + 2 * (p + r) * line, line, channels, across, 0, 4, room,
                    taken + r * across * channels, tiles * channels,
                )  # fmt: skip
            for plane in range(16):
                product(
                    Matrix(room, taken + plane * tiles * channels, channels, 1),
                    Rows(u, plane * channels * outputs, outputs), tile_width(u),
                    Rows(room, made + plane * tiles * outputs, outputs), Place(room, -1), channels,
                    some * across, outputs,
                )  # fmt: skip
            for r in range(some):
                transform_back(
                    room, made + r * across * outputs, tiles * outputs, outputs, across, bias, y,
                    (n * high + 2 * (p + r)) * wide * outputs, wide * outputs,
                )  # fmt: skip
            p += some


@kernel(grain=4, factors=("x", "dy"), **PRODUCT)
def winograd_backward_weight(
    x: "in whole f[N,H,W,C]",
    dy: "in whole f[N,P,Q,K]",
    du: "out rows f[U,C,K]",
    room: "scratch rows f[U,S]",  # of a sample's tiles, and a quarter of it with its padding
    top: "int",
    left: "int",
    lo: "begin",
    hi: "end",
):
    """du = the sum over samples and tiles of (B' x B) (A dy A'), of which a range of planes begins
    and ends with a row of the 4x4."""
    channels, outputs = x.shape[3], dy.shape[3]
    high, wide = dy.shape[1], dy.shape[2]
    across = wide // 2
    tiles, line = high // 2 * across, (wide + 2) * channels
    first, last = lo // 4, hi // 4
    at = lo * room.shape[1]
    taken = at + padded_size(high + 2, wide + 2, channels, lanes(x))
    given = taken + (hi - lo) * tiles * channels
    width = tile_width(du)
    for n in range(x.shape[0]):
        pad_image(x, n, top, left, high + 2, wide + 2, room, at)
        for r in range(high // 2):
            transform_tiles(
                room, at + 2 * r * line, line, channels, across, first, last, room,
                taken + r * across * channels, tiles * channels,
            )  # fmt: skip
            transform_gradients(
                dy, (n * high + 2 * r) * wide * outputs, wide * outputs, outputs, across, first,
                last, room, given + r * across * outputs, tiles * outputs,
            )  # fmt: skip
        for plane in range(hi - lo):
            for k in range(0, outputs, width):
                panel(
                    Matrix(room, taken + plane * tiles * channels, 1, channels),
                    Rows(room, given + plane * tiles * outputs + k, outputs),
                    Rows(du, (lo + plane) * channels * outputs + k, outputs), Place(room, -1),
                    tiles, channels, min(width, outputs - k), n == 0, -1,
                )  # fmt: skip
