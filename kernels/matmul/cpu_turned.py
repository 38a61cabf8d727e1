"""The gradient to the input for few rows: the weight as it lies, everything else turned.

A tile takes the right factor by rows and the left one anyhow. In ``dx = dy @ w.T`` that makes the
transposed weight the right factor, to be copied first: C x K moves, too many for the few products
that 5 to 63 rows make of each. Here ``dx.T = w @ dy.T`` is computed, with the weight on the left,
and the rows are turned instead: dy before the product, dx after it, strip by strip.

Every element is the same chain of fused multiply-adds, so the bits are those of
`linear_backward_input`.
"""

from ..cpu import target
from ..cpu.tile import (
    MAIN,
    WIDE,
    panel_width,
    shapes,
    tile_lanes,
    tile_width,
    transpose_block,
)
from ..declare import helper, kernel
from ..places import Matrix, Place, Rows
from ..signature import signature_of
from ..simd import load_first, store_first
from .cpu import BACKWARD, FEW
from .cpu_blocked import linear_backward_input_blocked
from .cpu_panels import last_columns, panel

#: rows of the weight in a strip: whole tiles (4 to 12 rows) and whole blocks (8 or 16) that are
#: turned; a strip of 512 columns (98 KB) stays in L2 while all rows pass over it
STRIP = 48
#: rows for which it may pay; above, both ways take equally long (256 rows 0.95 to 1.06)
FEWEST, MOST = 8, 128
#: the same with vectors of 512 bits: above, blocks take 1.02 to 1.06 of the time, but leave zeros
#: out
MOST_WIDE = 63
#: Cycles on a Zen 3 (AVX2): a chain of multiply-adds until its next one; packing a row of a panel;
#: turning as many numbers as such a row has; one call more.
LATENCY, PACK, TURN, CALL = 4, 8, 2, 100
#: Cycles on a Zen 4 (AVX-512), one multiply-add each: packing a vector of a weight, block by block,
#: of one beyond L2, turning a vector.
PACK_WIDE, PACK_FAR, TURN_WIDE, FAR = 5, 10, 5, 1 << 20


def tile_cycles(rows: int, columns: int, itemsize: int, joined: bool = False) -> int:
    """The cycles that tiles of so many rows and columns take for each number of the depth, at two
    multiply-adds a cycle. A tile of fewer columns takes as long as a whole one; `joined` as in
    `last_columns`."""
    main = shapes()[MAIN]
    width = panel_width(itemsize)
    panels, rest = divmod(columns, width)
    if joined and panels and main[1] == 2 and 0 < rest <= width // 2:
        return (panels - 1) * _cycles(rows, *main) + _cycles(rows, *shapes()[WIDE])
    return -(-columns // width) * _cycles(rows, *main)


def _cycles(rows: int, height: int, vectors: int) -> int:
    """The cycles for each number of the depth that one panel takes."""
    whole, rest = divmod(rows, height)
    return whole * max(LATENCY, height * vectors // 2) + (
        max(LATENCY, rest * vectors // 2) if rest else 0
    )


def pays(rows: int, c: int, k: int, itemsize: int) -> bool:
    """Whether turning so many rows is the quicker way for a weight of c x k numbers, by estimate.

    Of 594 cases from 8 x 4 x 4 to 128 x 512 x 512, measured on a Zen 3 in both types, choosing by
    it takes 0.6 % more than the quicker way on average, turning always 6. Where the weight is
    packed already, as it is in a loop, the product by it is quicker for most sizes.

    With vectors of 512 bits it is turning or blocks (`blocks_pay`), and rows of dy are columns of
    tiles of one to three vectors: 16, 32 and 48 fill them.
    """
    if target.host().vector_bits > 256:
        return FEW < rows <= MOST_WIDE and _wide_turned(rows, c, k, itemsize)
    if not FEWEST <= rows <= MOST:
        return False
    width = panel_width(itemsize)
    turned = tile_cycles(c, rows, itemsize, True) * k + TURN * rows * (c + k) // width
    packed = tile_cycles(rows, c, itemsize) * k + PACK * -(-c // width) * k + CALL
    return turned < packed


def _wide_turned(rows: int, c: int, k: int, itemsize: int) -> bool:
    """Whether turning is quicker than packing by blocks, with tiles of 8 rows by 1 to 3 vectors."""
    pack = PACK_FAR if c * k * itemsize > FAR else PACK_WIDE
    return turned_cycles(rows, c, k, itemsize) < blocked_cycles(rows, c, k, itemsize, pack)


def turned_cycles(rows: int, c: int, k: int, itemsize: int) -> int:
    """The cycles that a product takes that turns its rows, with vectors of 512 bits."""
    n = target.host().lanes(itemsize)
    return -(-rows // n) * -(-c // 8) * 8 * k + TURN_WIDE * rows * (c + k) // n


def blocked_cycles(rows: int, c: int, k: int, itemsize: int, pack: int = PACK_WIDE) -> int:
    """The cycles of one that packs its weight by blocks, `pack` for each vector."""
    n = target.host().lanes(itemsize)
    whole, rest = divmod(rows, 8)
    return -(-c // n) * k * (8 * whole + (8 if rest > 4 else 4 if rest else 0) + pack)


def blocks_pay(rows: int) -> bool:
    """Whether the weight that no other product reads is packed block by block, by each worker for
    itself, in place of by a call before the product.

    Two workers write each other's cache lines in such a call, and wait: for 256 x 256 it takes 18
    µs on a Zen 4 where one takes 10. Not measured with narrower vectors. A group's block of items
    packs anew, so many rows do better with one copy.
    """
    return FEW < rows <= MOST and target.host().vector_bits > 256


def turned_columns(k: int) -> int:
    """S, the elements of scratch memory for each row of a batch: of dy and of a strip of dx."""
    return k + STRIP


@helper
def turn(a, a_at, a_row, rows, columns, b, b_at, b_row):
    """b[b_at + j*b_row + i] = a[a_at + i*a_row + j] for i < rows, j < columns (flat indices)."""
    n = tile_lanes(a)
    if rows >= n and columns >= n:
        # the last block of each direction overlaps the one before, and writes the same once more
        for i in range(0, rows, n):
            top = min(i, rows - n)
            for j in range(0, columns, n):
                left = min(j, columns - n)
                transpose_block(a, a_at + top * a_row + left, a_row,
                                b, b_at + left * b_row + top, b_row)  # fmt: skip
        return
    for i in range(rows):
        for j in range(columns):
            store_first(b, b_at + j * b_row + i, load_first(a, a_at + i * a_row + j, 1), 1)


@kernel(block=64, **BACKWARD, rounds=("dy", "w"))
@signature_of(linear_backward_input_blocked)
def linear_backward_input_turned(dy, w, dx, scratch, lo, hi):
    """dx = dy @ w.T, by dx.T = w @ dy.T; scratch memory as `turned_columns` says."""
    c, k = w.shape
    width, s = tile_width(w), scratch.shape[1]
    # the last rows, where their tiles are of three vectors, are turned together
    inner = hi - last_columns(w, hi - lo)
    i = lo
    while i < hi:
        rows = hi - i if i == inner else min(width, inner - i)
        turn(dy, i * k, k, rows, k, scratch, i * s, rows)
        i += rows
    for top in range(0, c, STRIP):
        strip = min(STRIP, c - top)
        i = lo
        while i < hi:
            rows = hi - i if i == inner else min(width, inner - i)
            right, out = i * s, i * s + k * rows
            panel(Matrix(w, top * k, k, 1), Rows(scratch, right, rows), Rows(scratch, out, rows),
                  Place(dy[0], -1), k, strip, rows, True, -1)  # fmt: skip
            turn(scratch, out, rows, strip, rows, dx, i * c + top, c)
            i += rows
