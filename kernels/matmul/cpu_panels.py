"""The loops around the register tile: the panels of a product, and blocks of them.

How many rows and columns a tile has is chosen here (`tile_rows`, `last_columns`), and changes no
bits: every element is one chain of multiply-adds in the order of the depth.
"""

from ..cpu.tile import PANEL_BYTES, best_tile, prefetch, tile_height, tile_lanes, tile_width
from ..declare import helper
from ..places import Matrix, Place, Rows
from ..simd import is32
from .cpu_row import FEW_DEPTH

#: bytes of a row of A in one block of the depth: 8 rows and what passes by of B lie in L1
#: (48 KiB on the CPU measured), and a tile's beginning and end cost 2 % of its time
DEPTH_BYTES = 2048
#: bytes of a block of B, at most: it stays in L2 (2 MiB), with room for the A and C that pass by
BLOCK_BYTES = 5 << 18
#: size of B from which on it is prefetched where a few rows pass over it
PREFETCH_BYTES = 1 << 19
#: bytes of A, at most, that stay in L2 while all rows pass over one panel of B after the other
NEAR_BYTES = 1 << 18


@helper
def prefetch_rows(x, at, step, rows, columns):
    """Prefetch the elements ``x[at + r*step + j]`` for r < rows, j < columns."""
    line = 16 if is32(x) else 8
    for start in range(at, at + rows * step, step):
        for j in range(start, start + columns, line):
            prefetch(x, j)


@helper
def last_columns(b, columns):
    """How many of the columns, at the end, have tiles of three vectors: where they would leave a
    tile of two vectors one of them."""
    one = tile_lanes(b)
    rest = columns % tile_width(b)
    joined = tile_width(b) == 2 * one and 0 < rest <= one and columns > rest
    return rest + 2 * one if joined else 0


@helper
def panel(a, b, c, bias, depth, rows, columns, begin, ahead):
    """C (+)= A @ B (+ bias, unless its place is < 0) for any number of rows and at most a tile's
    columns; of B and C rows are given.

    Before each tile a share of the block of B at `ahead` (unless < 0), which is used after this
    one, is prefetched.
    """
    height = 4 if columns > tile_width(b.array) else tile_height(b.array)
    i = 0
    while i < rows:
        r = min(rows - i, height)
        if ahead >= 0:
            first, last = i * depth // rows, (i + r) * depth // rows
            at = ahead + first * b.stride
            prefetch_rows(b.array, at, b.stride, last - first, columns)
        best_tile(a.array, a.at + i * a.row, a.row, a.step, b.array, b.at, b.stride,
                  c.array, c.at + i * c.stride, c.stride, bias.array, bias.at, depth, r, columns,
                  begin)  # fmt: skip
        i += r


@helper
def product(a, b, b_panel, c, bias, depth, rows, columns):
    """C = A @ B (+ bias): operands as of `panel`, panels of B are `b_panel` elements apart.

    Blocks of columns, of the depth; over a block of B pass tiles from left to right, then the next
    rows: what a tile needs of A stays in L1, the block of B stays in L2 and is read from there a
    few steps ahead of its use (see `_tile_llvm`), and C is reread once for each block of the depth.
    The last columns are a block of their own if they have other tiles.
    """
    itemsize = 4 if is32(b.array) else 8
    width, height = tile_width(b.array), tile_height(b.array)
    plain, large = b_panel == width, depth * columns * itemsize > PREFETCH_BYTES
    few = rows <= 4 and plain and columns >= tile_lanes(b.array)
    ahead = few and large
    limit = DEPTH_BYTES // itemsize
    inner = columns
    if few:
        # wide tiles: rows of B are read in long stretches
        width = tile_lanes(b.array) * (8 if rows == 1 else 4 if rows == 2 else 3)
        b_panel = width
        limit = FEW_DEPTH if large else depth
    elif plain:
        inner -= last_columns(b.array, columns)
    blocks = max(1, (depth + limit - 1) // limit)
    depth_block = (depth + blocks - 1) // blocks
    panels = (inner + width - 1) // width
    blocks = 1 if few else panels * width * depth_block * itemsize // BLOCK_BYTES + 1
    some = (panels + blocks - 1) // blocks * width
    if inner <= width or (not plain and a.step == 1 and rows * depth_block * itemsize <= NEAR_BYTES
                          and depth_block * width * itemsize <= PANEL_BYTES):  # fmt: skip
        height = rows
    left, across = 0, width
    while left < columns:
        right = min(inner, left + some)
        if left == inner:
            right, across, height = columns, columns - left, rows
        t = 0
        while True:
            part = min(depth_block, depth - t)
            add = bias.at if t + part == depth else -1
            for i in range(0, rows, height):
                beside = Matrix(a.array, a.at + i * a.row + t * a.step, a.row, a.step)
                for j in range(left, right, across):
                    z = b.at + j // width * b_panel + t * b.stride
                    panel(beside, Rows(b.array, z, b.stride),
                          Rows(c.array, c.at + i * c.stride + j, c.stride),
                          Place(bias.array, add + j if add >= 0 else -1), part,
                          min(height, rows - i), min(across, right - j), t == 0,
                          z + b_panel if ahead and j + across < right else -1)  # fmt: skip
            t += part
            if t >= depth:
                break
        left = right
