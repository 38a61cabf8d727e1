"""Products on the CPU's tile unit: see `cpu/tile_unit.py` for parts, tiles and the order of sums.

`parts` is the number of bfloat16 numbers that a factor is cut into: 1, 2 or 3. Factors are cut
block by block into scratch memory as they are used; only the right factor of a weight's gradient,
which all rows share, is cut by a call of its own.

A packed left factor is, for each tile of the depth, its parts, each the rows (up to a multiple of
16) in lines of 16 words. A packed right factor is cut into panels of 64 columns (`WIDTH`); a panel
is, for each tile of the depth, its parts, each four tiles: ``f[Q,Z]`` with Q panels of Z words.
"""

from __future__ import annotations

from ..cpu.tile_unit import (
    FLAT,
    SIDE,
    STEPS,
    TALL,
    WORDS,
    unit_begin,
    unit_end,
    unit_multiply,
    unit_pack,
)
from ..declare import helper, kernel
from ..places import Matrix, Place, Rows

#: columns of a panel of a packed right factor, and its words for a tile of the depth of one part
WIDTH = 4 * SIDE
PANEL = 4 * WORDS
#: depth of a block, over the parts: 32 rows of A in it (32 KiB) stay in the L1 cache
DEEP = 512
#: panels of B in a block: it stays in L2 (2 MiB) with what passes by of A and C
PANELS = 4
#: words of a packed right factor that stay in L2 while rows pass over them
RIGHT_WORDS = 1 << 17
#: multiply-adds and depth from which on a product is quicker on the unit; rows and columns, for
#: each part: the factors are cut for them
FEWEST = 1 << 17
SHORTEST = 16

#: how many parts the factors of products are cut into, by precision
PARTS = {"bf16": 1, "medium": 2, "high": 3}


def pays(rows: int, depth: int, columns: int, parts: int) -> bool:
    """Whether a product of these sizes is quicker on the unit, cutting included."""
    least = min(depth, rows // parts, columns // parts)
    return least >= SHORTEST and rows * depth * columns >= FEWEST


def unit_shape(depth: int, columns: int, parts: int) -> tuple[int, int]:
    """Shape [Q, Z] of a packed right factor."""
    return -(-columns // WIDTH), -(-depth // STEPS) * parts * PANEL


def product_scratch(depth: int, parts: int) -> int:
    """S, the elements of scratch memory for each row of a batch, by the depth of the product."""
    return (max(WORDS, -(-depth // STEPS) * SIDE) + PANEL) * parts


def gradient_scratch(rows: int, parts: int) -> int:
    """S, the elements of scratch memory for each row of a weight, by the rows of the batch."""
    return max(WORDS, -(-rows // STEPS) * SIDE) * parts


@helper
def pack_left(a, rows, depth, to, parts):
    """Cut rows x depth of A into parts from the place `to` on."""
    part = (rows + SIDE - 1) // SIDE * WORDS
    for t in range(0, depth, STEPS):
        for i in range(0, rows, SIDE):
            unit_pack(a.array, a.at + i * a.row + t * a.step, a.row, a.step, to.array,
                      to.at + t // STEPS * parts * part + i * SIDE, part, rows - i, depth - t,
                      parts, False)  # fmt: skip


@helper
def pack_right(b, columns, depth, to, parts):
    """Cut columns of B, of which the transposed matrix is given, into parts: panels as the rows of
    `to`. Memory is read in long stretches."""
    whole = (columns + WIDTH - 1) // WIDTH * WIDTH
    if b.step == 1:
        for j in range(0, whole, SIDE):
            for t in range(0, depth, STEPS):
                pack_tile(b, j, t, columns, depth, to, parts)
    else:
        for t in range(0, depth, STEPS):
            for j in range(0, whole, SIDE):
                pack_tile(b, j, t, columns, depth, to, parts)


@helper
def pack_tile(b, j, t, columns, depth, to, parts):
    """A tile of `pack_right`, from column j and step t on."""
    at = to.at + j // WIDTH * to.stride + t // STEPS * parts * PANEL + j % WIDTH * SIDE
    unit_pack(b.array, b.at + j * b.row + t * b.step, b.row, b.step, to.array, at, PANEL,
              columns - j, depth - t, parts, True)  # fmt: skip


@helper
def unit_rows(a, rows, b, columns, c, bias, tiles, parts, begin):
    """C (+)= A @ B for packed factors, A's from a place on, B's panels as rows; any number of rows
    and any number of panels."""
    part = (rows + SIDE - 1) // SIDE * WORDS
    for i in range(0, rows, 2 * SIDE):
        for j in range(0, columns, WIDTH):
            z, at = b.at + j // WIDTH * b.stride, c.at + i * c.stride + j
            add = bias.at + j if bias.at >= 0 else -1
            if rows - i > SIDE:
                for k in range(0, min(WIDTH, columns - j), 2 * SIDE):
                    unit_multiply(TALL, a.array, a.at + i * SIDE, parts * part, part,
                                  b.array, z + k * SIDE, parts * PANEL, PANEL,
                                  c.array, at + k, c.stride, bias.array,
                                  add + k if add >= 0 else -1, tiles, parts, rows - i,
                                  columns - j - k, begin)  # fmt: skip
            else:
                unit_multiply(FLAT, a.array, a.at + i * SIDE, parts * part, part,
                              b.array, z, parts * PANEL, PANEL, c.array, at, c.stride,
                              bias.array, add, tiles, parts, rows - i, columns - j,
                              begin)  # fmt: skip


@helper
def depth_block(depth, most):
    """Depth of the blocks, a multiple of a tile's: equal ones of at most `most`."""
    most = max(STEPS, most // STEPS * STEPS)
    blocks = max(1, (depth + most - 1) // most)
    tiles = (depth + STEPS - 1) // STEPS
    return max(1, (tiles + blocks - 1) // blocks) * STEPS


@helper
def unit_product(a, b, bias, c, room, size, rows, depth, columns, parts):
    """C = A @ B (+ bias), of B the transposed matrix is given; cut block by block into the `size`
    words from the place `room` on."""
    if rows <= 0:
        return
    wide = (rows + SIDE - 1) // SIDE * WORDS * parts  # words of A for a tile of the depth
    deep = depth_block(depth, min(DEEP // parts, size // (wide + PANEL * parts) * STEPS))
    panel = deep // STEPS * parts * PANEL
    # A is cut once, if there is room for all of it, else block by block
    tiles = (depth + STEPS - 1) // STEPS
    span = max(depth, 1) if tiles * wide + panel <= size else deep
    right = room.at + (span + STEPS - 1) // STEPS * wide
    panels = max(1, min((room.at + size - right) // panel, PANELS))
    unit_begin(c.array)
    for top in range(0, max(depth, 1), span):
        bottom = min(top + span, depth)
        pack_left(Matrix(a.array, a.at + top * a.step, a.row, a.step), rows, bottom - top, room,
                  parts)  # fmt: skip
        for left in range(0, columns, panels * WIDTH):
            some = min(panels * WIDTH, columns - left)
            for t in range(top, max(bottom, 1), deep):
                part = min(deep, bottom - t)
                pack_right(Matrix(b.array, b.at + left * b.row + t * b.step, b.row, b.step), some,
                           part, Rows(room.array, right, panel), parts)  # fmt: skip
                add = bias.at + left if t + part == depth and bias.at >= 0 else -1
                unit_rows(Place(room.array, room.at + (t - top) // STEPS * wide), rows,
                          Rows(room.array, right, panel), some,
                          Rows(c.array, c.at + left, c.stride), Place(bias.array, add),
                          (part + STEPS - 1) // STEPS, parts, t == 0)  # fmt: skip
    unit_end(c.array)


@kernel(
    grain=SIDE, block=256, product=("N", "C", "K"), family="linear_unit", only_float32=True,
    tile_unit=True, slow_to_compile=True,
)  # fmt: skip
def linear_forward_unit(
    x: "in rows f[N,C]",
    w: "in whole f[C,K]",
    bias: "in whole f[B]",  # B is K, or 0: no bias
    y: "out rows f[N,K]",
    scratch: "scratch rows f[N,S]",  # S by `product_scratch`
    parts: "int",
    lo: "begin",
    hi: "end",
):
    """y = x @ w + bias"""
    c, k = w.shape
    unit_product(Matrix(x, lo * c, c, 1), Matrix(w, 0, 1, k),
                 Place(bias, 0 if bias.size > 0 else -1), Rows(y, lo * k, k),
                 Place(scratch, lo * scratch.shape[1]), (hi - lo) * scratch.shape[1], hi - lo, c, k,
                 parts)  # fmt: skip


@kernel(
    grain=SIDE, block=256, product=("N", "C", "K"), family="linear_unit", only_float32=True,
    tile_unit=True, slow_to_compile=True,
)  # fmt: skip
def linear_backward_input_unit(
    dy: "in rows f[N,K]",
    w: "in whole f[C,K]",
    dx: "out rows f[N,C]",
    scratch: "scratch rows f[N,S]",  # S by `product_scratch`
    parts: "int",
    lo: "begin",
    hi: "end",
):
    """dx = dy @ w.T"""
    c, k = w.shape
    unit_product(Matrix(dy, lo * k, k, 1), Matrix(w, 0, k, 1), Place(dy, -1), Rows(dx, lo * c, c),
                 Place(scratch, lo * scratch.shape[1]), (hi - lo) * scratch.shape[1], hi - lo, k, c,
                 parts)  # fmt: skip


@kernel(family="linear_unit", packs=True, only_float32=True, tile_unit=True, slow_to_compile=True)
def pack_unit(
    w: "in whole f[C,K]",
    packed: "out rows f[Q,Z]",  # by `unit_shape`
    parts: "int",
    lo: "begin",
    hi: "end",
):
    """Cut w, the right factor of products that sum over its rows, into parts."""
    c, k = w.shape
    z = packed.shape[1]
    pack_right(Matrix(w, lo * WIDTH, 1, k), min(hi * WIDTH, k) - lo * WIDTH, c,
               Rows(packed, lo * z, z), parts)  # fmt: skip


@kernel(family="linear_unit", packs=True, only_float32=True, tile_unit=True, slow_to_compile=True)
def pack_unit_transposed(
    w: "in whole f[C,K]",
    packed: "out rows f[Q,Z]",  # by `unit_shape`
    parts: "int",
    lo: "begin",
    hi: "end",
):
    """Cut the transposed w, the right factor of products that sum over its columns, into parts."""
    c, k = w.shape
    z = packed.shape[1]
    pack_right(Matrix(w, lo * WIDTH * k, k, 1), min(hi * WIDTH, c) - lo * WIDTH, k,
               Rows(packed, lo * z, z), parts)  # fmt: skip


@kernel(
    grain=SIDE, block=128, factors=("x", "dy_packed"), product=("C", "K"), family="linear_unit",
    only_float32=True, tile_unit=True, slow_to_compile=True,
)  # fmt: skip
def linear_backward_weight_unit(
    x: "in whole f[N,C]",
    dy_packed: "in whole f[Q,Z]",  # dy by `pack_unit`
    dw: "out rows f[C,K]",
    scratch: "scratch rows f[C,S]",  # S by `gradient_scratch`
    parts: "int",
    lo: "begin",
    hi: "end",
):
    """dw = x.T @ dy"""
    n, (c, k) = x.shape[0], dw.shape
    rows, size = hi - lo, (hi - lo) * scratch.shape[1]
    base, z = lo * scratch.shape[1], dy_packed.shape[1]
    if rows <= 0:
        return
    wide = (rows + SIDE - 1) // SIDE * WORDS * parts
    deep = depth_block(n, min(DEEP // parts, size // wide * STEPS))
    some = max(1, RIGHT_WORDS // (deep // STEPS * parts * PANEL)) * WIDTH
    unit_begin(dw)
    for t in range(0, max(n, 1), deep):
        part = min(deep, n - t)
        pack_left(Matrix(x, lo + t * c, 1, c), rows, part, Place(scratch, base), parts)
        for left in range(0, k, some):
            at = left // WIDTH * z + t // STEPS * parts * PANEL
            unit_rows(Place(scratch, base), rows, Rows(dy_packed, at, z), min(some, k - left),
                      Rows(dw, lo * k + left, k), Place(dw, -1), (part + STEPS - 1) // STEPS, parts,
                      t == 0)  # fmt: skip
    unit_end(dw)
