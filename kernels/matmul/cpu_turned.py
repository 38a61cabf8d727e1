"""The gradient to the input for few rows: the weight as it lies, everything else turned.

A tile takes the right factor by rows and the left one anyhow. In ``dx = dy @ w.T`` that makes the
transposed weight the right factor, to be copied first: C x K moves, too many for the few products
that 5 to 63 rows make of each. Here ``dx.T = w @ dy.T`` is computed, with the weight on the left,
and the rows are turned instead: dy before the product, dx after it, strip by strip.

Every element is the same chain of fused multiply-adds, so the bits are those of
`linear_backward_input`.
"""

from ..cpu import target
from ..cpu.tile import best_tile, tile_height, tile_lanes, tile_width, transpose_block
from ..declare import helper, kernel
from ..simd import load_first, store_first
from .cpu import BACKWARD

#: rows of the weight in a strip: whole tiles (6 or 8 rows) and whole blocks (8 or 16) that are
#: turned; a strip of 512 columns (98 KB) stays in L2 while all rows pass over it
STRIP = 48
#: Rows for which it pays. On a Zen 3 (AVX2, float32), for weights from 64x64 to 2048x1024 and
#: 256x10000, of the time that packing and product take as two calls: 8 rows 0.48 to 0.80, 16 rows
#: 0.50 to 0.74, 24 rows 0.79 to 0.98, 32 rows 0.58 to 0.83, 63 rows 0.72 to 0.96, 128 rows 0.86 to
#: 1.0, 256 rows 0.95 to 1.06; 5 rows 0.61 to 1.07. Where the weight is packed already, as it is in
#: a loop, the product by it is the quicker one for most sizes.
FEWEST, MOST = 8, 128


def pays(rows: int) -> bool:
    """Whether it is the quicker way for so many rows. Not measured with vectors of 512 bits, whose
    tiles of 48 columns few rows fill."""
    return FEWEST <= rows <= MOST and target.host().vector_bits <= 256


def turned_columns(k: int) -> int:
    """S, the elements of scratch memory for each row of a batch: of dy and of a strip of dx."""
    return k + STRIP


@helper
def turn(a, a_at, a_row, rows, columns, b, b_at, b_row):
    """b[b_at + j*b_row + i] = a[a_at + i*a_row + j] for i < rows, j < columns (flat indices)."""
    n = tile_lanes(a)
    top = rows // n * n
    whole = columns // n * n
    for i in range(0, top, n):
        for j in range(0, whole, n):
            transpose_block(a, a_at + i * a_row + j, a_row, b, b_at + j * b_row + i, b_row)
    for i in range(rows):
        for j in range(whole if i < top else 0, columns):
            store_first(b, b_at + j * b_row + i, load_first(a, a_at + i * a_row + j, 1), 1)


@kernel(block=64, **BACKWARD, rounds=("dy", "w"))
def linear_backward_input_turned(
    dy: "in rows f[N,K]",
    w: "in whole f[C,K]",
    dx: "out rows f[N,C]",
    scratch: "scratch rows f[N,S]",  # S by `turned_columns`
    lo: "begin",
    hi: "end",
):
    """dx = dy @ w.T, by dx.T = w @ dy.T"""
    c, k = w.shape
    width, height, s = tile_width(w), tile_height(w), scratch.shape[1]
    for i in range(lo, hi, width):
        rows = min(width, hi - i)
        turn(dy, i * k, k, rows, k, scratch, i * s, rows)
    for top in range(0, c, STRIP):
        strip = min(STRIP, c - top)
        for i in range(lo, hi, width):
            rows = min(width, hi - i)
            right, out = i * s, i * s + k * rows
            for j in range(0, strip, height):
                best_tile(w, (top + j) * k, k, 1, scratch, right, rows, scratch, out + j * rows,
                          rows, dy, -1, k, min(height, strip - j), rows, True)  # fmt: skip
            turn(scratch, out, rows, strip, rows, dx, i * c + top, c)
