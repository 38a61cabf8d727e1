"""The register tile: a small block of a matrix product held in vector registers.

``C[r, j] (+)= sum over t of A[r, t] * B[t, j]`` for a few rows and columns, then a bias is added.
A number of A is copied into all lanes of a vector and multiplied with a vector of a row of B. So A
may lie anyhow (it has two strides, in elements), while rows of B and C are contiguous. Every
element is one chain of fused multiply-adds in the order of `t`, beginning at 0 or at what C holds,
so its bits depend neither on the shape of the tile nor on its place in it.

Compiled (`_tile_llvm`), a shape keeps its rows x vectors of sums in registers. Fewer rows than the
shape has are computed by repeating the last row, fewer columns by moving vectors to the left until
they end at the last column: repeated elements get the same bits, and nothing outside is touched.
Only `NARROW`, for fewer columns than a vector has, masks its lanes.
"""

from __future__ import annotations

import functools

import numpy as np

from .. import recorded
from . import target

recorded.record()

# Shapes, as `shape` of `tile` (rows x vectors on AVX-512 / on CPUs with 16 vector registers).
# A multiply-add takes some four cycles, and a core begins two in each: it is busy only with eight
# or more sums that do not wait for each other. FOUR, TWO and ONE have just these eight; WIDE has
# twelve, for columns that would leave a tile of two vectors with one.
MAIN = 0  # 8x3 / 6x2
MIDDLE = 1  # 8x2 / 6x2
NARROW = 2  # 8x1 / 6x1, masked
FOUR = 3  # 4x2
TWO = 4  # 2x4
ONE = 5  # 1x8
WIDE = 6  # 4x3

#: bytes of a panel of B that stay in the L1 cache (32 KiB or more) while tiles pass over it
PANEL_BYTES = 24576


@functools.cache
def shapes() -> tuple[tuple[int, int], ...]:
    """(rows, vectors) of every shape on this CPU."""
    if target.host().registers >= 32:
        return (8, 3), (8, 2), (8, 1), (4, 2), (2, 4), (1, 8), (4, 3)
    return (6, 2), (6, 2), (6, 1), (4, 2), (2, 4), (1, 8), (4, 3)


def panel_width(itemsize: int) -> int:
    """Columns of the main tile, and so of a panel of a packed matrix, for elements of this size."""
    return shapes()[MAIN][1] * target.host().lanes(itemsize)


@recorded.plain
def tile_height(x: np.ndarray) -> int:
    """Rows of the main tile (a constant when compiled)."""
    return shapes()[MAIN][0]


@recorded.plain
def tile_width(x: np.ndarray) -> int:
    """Columns of the main tile for `x`'s element type (a constant when compiled)."""
    return panel_width(x.dtype.itemsize)


@recorded.plain
def tile_lanes(x: np.ndarray) -> int:
    """Elements in a vector of `x`'s element type on this CPU (a constant when compiled)."""
    return target.host().lanes(x.dtype.itemsize)


@recorded.plain
def tile(
    shape: int,
    a: np.ndarray,
    a_at: int,
    a_row: int,
    a_step: int,
    b: np.ndarray,
    b_at: int,
    b_step: int,
    c: np.ndarray,
    c_at: int,
    c_row: int,
    bias: np.ndarray,
    bias_at: int,
    depth: int,
    rows: int,
    columns: int,
    begin: bool,
) -> None:
    """Compute one tile; `shape` is one of the constants above.

    A[r, t] is ``a[a_at + r*a_row + t*a_step]``, B[t, j] is ``b[b_at + t*b_step + j]``, C[r, j] is
    ``c[c_at + r*c_row + j]`` (flat indices), for t < `depth`, 1 <= `rows` <= the shape's rows and
    `columns` up to the shape's (at least a vector's, and for `NARROW` at most). Sums start
    at 0 where `begin`, else at C; ``bias[bias_at + j]`` is added at the end unless `bias_at` < 0.
    """
    a, b, bias = a.reshape(-1), b.reshape(-1), bias.reshape(-1)
    r, j = np.arange(rows)[:, None], np.arange(columns)[None, :]
    out = c.reshape(-1)
    at = c_at + r * c_row + j
    sums = np.zeros((rows, columns), c.dtype) if begin else out[at]
    for t in range(depth):
        product = np.multiply(a[a_at + r * a_row + t * a_step], b[b_at + t * b_step + j],
                              dtype=np.longdouble)  # fmt: skip
        sums = (product + sums).astype(c.dtype)
    out[at] = sums if bias_at < 0 else sums + bias[bias_at + j]


@recorded.plain
def best_tile(
    a: np.ndarray,
    a_at: int,
    a_row: int,
    a_step: int,
    b: np.ndarray,
    b_at: int,
    b_step: int,
    c: np.ndarray,
    c_at: int,
    c_row: int,
    bias: np.ndarray,
    bias_at: int,
    depth: int,
    rows: int,
    columns: int,
    begin: bool,
) -> None:
    """`tile` by the shape that is fastest for these rows and columns, of which there may be as many
    as the main tile has, or `WIDE`.

    Compiled, the choice is one more LLVM function: kernels with a branch for each shape took 0.3 s
    longer to compile, each.
    """
    tile(MAIN, a, a_at, a_row, a_step, b, b_at, b_step, c, c_at, c_row, bias, bias_at, depth,
         rows, columns, begin)  # fmt: skip


@recorded.plain
def transpose_block(
    a: np.ndarray, a_at: int, a_row: int, b: np.ndarray, b_at: int, b_row: int
) -> None:
    """b[b_at + j*b_row + i] = a[a_at + i*a_row + j] for i, j < tile_lanes(a) (flat indices).

    All of `a` is read before anything is written; rows of b are written in the order of j, so that
    of those that overlap the last one stays.
    """
    n = tile_lanes(a)
    i, j = np.arange(n)[:, None], np.arange(n)[None, :]
    block, out = a.reshape(-1)[a_at + i * a_row + j], b.reshape(-1)
    for k in range(n):
        out[b_at + k * b_row : b_at + k * b_row + n] = block[:, k]


@recorded.plain
def prefetch(x: np.ndarray, at: int) -> None:
    """Bring the cache line of the element with flat index `at`, if there is one, into L2."""
