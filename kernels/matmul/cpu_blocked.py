"""Products with large weights: blocks of the weights are packed as they are used.

A weight of several megabytes, packed by a call of its own, goes out to memory and comes back. Here
a block of it (some 500 rows, a few panels of columns) is copied into scratch memory that stays in
the L2 cache, serves all rows of the range there, and is overwritten by the next block. Measured,
256 rows, 2048 x 2048, in a training step on one AVX-512 core: packing and product 16.9 ms as two
calls, 12.6 ms as one.

Scratch memory is a part of a row array: S elements for every row of the batch, so every worker has
its own. Sums are chains of fused multiply-adds in the order of the depth, as in `matmul`.
"""

from ..cpu.tile import panel_width, tile_height, tile_lanes, tile_width, transpose_block
from ..declare import helper, kernel
from ..places import Matrix, Place, Rows
from ..simd import is32, lanes, load, load_first, store, store_first
from .cpu import BACKWARD, FORWARD
from .cpu_panels import last_columns, panel

#: bytes of a block: with what passes by of x and y it stays in L2 (2 MiB)
BLOCK_BYTES = 3 << 18
#: depth of a block: the rows of x that a tile reads stay in L1
BLOCK_DEPTH = 512
#: The same for tiles of two vectors, as CPUs with 16 registers have them: 6 rows of x may fill
#: three quarters of L1, and blocks come from L3, so that x and y are passed over less often. On a
#: Zen 3 2048 x 2048 x 2048 went from 0.84 of the peak to 0.88, 1024 x 1024 x 1024 from 0.857 to
#: 0.869, 256 x 2048 x 2048 from 0.80 to 0.83.
SMALL_TILE_BYTES, SMALL_TILE_DEPTH_BYTES = 1 << 21, 4096
#: workers that a batch is cut for: the share of each has scratch memory for a block
SHARES = 16


def scratch_columns(rows: int, itemsize: int) -> int:
    """S, the elements of scratch memory for each row of a batch."""
    return min(max(BLOCK_BYTES // itemsize * SHARES // max(rows, 1), 64), 2048)


def own_columns(rows: int, c: int, k: int, itemsize: int) -> int:
    """S where the weight of c x k numbers is small: the share of each worker holds all of it.

    Half of very few rows have room for a panel of whole depth: 5 x 256 x 256 took 17.3 us on a Zen
    4 where 8 rows took 14.1.
    """
    width = panel_width(itemsize)
    whole = -(-c // width) * width * k * SHARES
    most = max(scratch_columns(rows, itemsize), -(-3 * width * BLOCK_DEPTH // rows))
    return max(min(most, -(-whole // rows)), 64)


@helper
def pack_rows(w, at, step, depth, columns, width, packed, to):
    """Panels of so wide rows of the matrix B[t, j] = w[at + t*step + j], t < depth, j < columns, at
    packed[to]."""
    n = lanes(w)
    for t in range(depth):
        for left in range(0, columns, width):
            valid = min(width, columns - left)
            whole = valid // n * n
            x, y = at + t * step + left, to + left * depth + t * width
            for j in range(0, whole, n):
                store(packed, y + j, load(w, x + j))
            if whole < valid:
                store_first(
                    packed, y + whole, load_first(w, x + whole, valid - whole), valid - whole
                )


@helper
def pack_columns(w, at, step, depth, columns, packed, to):
    """Panels of the matrix B[t, j] = w[at + j*step + t], t < depth, j < columns, at packed[to]."""
    pack_turned(w, at, step, depth, columns, tile_width(w), packed, to)


@helper
def pack_turned(w, at, step, depth, columns, width, packed, to):
    """Panels of so wide rows of the matrix B[t, j] = w[at + j*step + t], t < depth, j < columns, at
    packed[to]."""
    n = tile_lanes(w)
    for left in range(0, columns, width):
        valid = min(width, columns - left)
        for j in range(0, valid, n):
            x, y = at + (left + j) * step, to + left * depth + j
            whole = depth // n * n if j + n <= valid else 0
            for t in range(0, whole, n):
                transpose_block(w, x + t, step, packed, y + t * width, width)
            for t in range(whole, depth):
                for l in range(min(n, valid - j)):
                    one = load_first(w, x + l * step + t, 1)
                    store_first(packed, y + t * width + l, one, 1)


@helper
def blocked_product(x, w, transposed, bias, y, scratch, lo, hi, depth, columns):
    """y = x @ w (+ bias), or x @ w.T where `transposed`, for the rows lo to hi."""
    s = scratch.shape[1]
    by_blocks(Rows(x, lo * depth, depth), Rows(w, 0, w.shape[1]), transposed, bias,
              Rows(y, lo * columns, columns), Place(scratch, lo * s), (hi - lo) * s, hi - lo,
              depth, columns)  # fmt: skip


@helper
def by_blocks(x, w, transposed, bias, y, room, size, rows, depth, columns):
    """y = x @ w (+ bias), or x @ w.T where `transposed`: so many rows and columns of y, with
    `size` numbers of working memory in `room`."""
    b, width, n = w.array, tile_width(w.array), tile_lanes(w.array)
    itemsize, small = 4 if is32(b) else 8, width == 2 * n
    size = min((SMALL_TILE_BYTES if small else BLOCK_BYTES) // itemsize, size)
    limit = SMALL_TILE_DEPTH_BYTES // itemsize if small else BLOCK_DEPTH
    blocks = (depth + limit - 1) // limit
    deep = (depth + blocks - 1) // blocks
    deep = min(deep, max(1, size // width))
    panels = max(1, size // (deep * width))
    step = w.stride
    for left in range(0, columns, panels * width):
        wide = min(panels * width, columns - left)
        inner = wide - last_columns(b, wide)
        for t in range(0, depth, deep):
            part, last = min(deep, depth - t), t + deep >= depth
            # the last columns, where they have tiles of their own, are a panel of their own
            first, end, across, height = 0, inner, width, tile_height(b)
            while first < wide:
                if first == inner:
                    end, height = wide, rows
                    across = 3 * n
                at = room.at + first * part
                if transposed:
                    pack_turned(b, w.at + (left + first) * step + t, step, part, end - first,
                                across, room.array, at)  # fmt: skip
                else:
                    pack_rows(b, w.at + t * step + left + first, step, part, end - first, across,
                              room.array, at)  # fmt: skip
                for i in range(0, rows, height):
                    for j in range(first, end, across):
                        panel(Matrix(x.array, x.at + i * x.stride + t, x.stride, 1),
                              Rows(room.array, room.at + j * part, across),
                              Rows(y.array, y.at + i * y.stride + left + j, y.stride),
                              Place(bias, left + j if last and bias.size > 0 else -1), part,
                              min(height, rows - i), min(across, end - j), t == 0, -1)  # fmt: skip
                first = end


@kernel(block=64, **FORWARD, rounds=("x", "w"), sparse_as="linear_forward_blocked_sparse")
def linear_forward_blocked(
    x: "in rows f[N,C]",
    w: "in whole f[C,K]",
    bias: "in whole f[B]",  # B is K, or 0: no bias
    y: "out rows f[N,K]",
    scratch: "scratch rows f[N,S]",  # S by `scratch_columns`
    lo: "begin",
    hi: "end",
):
    """y = x @ w + bias"""
    c, k = w.shape
    blocked_product(x, w, False, bias, y, scratch, lo, hi, c, k)


@kernel(block=64, **BACKWARD, rounds=("dy", "w"), sparse_as="linear_backward_input_blocked_sparse")
def linear_backward_input_blocked(
    dy: "in rows f[N,K]",
    w: "in whole f[C,K]",
    dx: "out rows f[N,C]",
    scratch: "scratch rows f[N,S]",  # S by `scratch_columns`
    lo: "begin",
    hi: "end",
):
    """dx = dy @ w.T"""
    c, k = w.shape
    blocked_product(dy, w, True, dy[0, :0], dx, scratch, lo, hi, k, c)
