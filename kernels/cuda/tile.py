"""What matrix products for CUDA are made of: copies into shared memory, products of register tiles.

A block of threads computes a block of C = A @ B. Slices of A and B pass through shared memory,
where both lie *by depth*: row t has the elements (i, t) of A, or (t, j) of B, for all i, or j, of
the block. They are copied asynchronously (``cp.async``), several slices ahead of their use;
elements past an edge become 0.

Each warp has a *warp tile* of 4 x 8 threads. A thread's sums are spread over it in pieces of four
rows and four columns, so that the threads of a warp read shared memory in whole, neighbouring
128-bit words: its row i lies at ``place_of(i, 4, 16)``, its column j at ``place_of(j, 4, 32)``.

The bodies are the plain-Python twins for the simulator; `_tile_nvvm` has the
compiled ones. Numbers that decide what code is made (tile sizes, strides) have to be constants.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from .. import recorded
from ..declare import helper
from .device import running

recorded.record()

# ---------------------------------------------------------------- copies into shared memory


@recorded.plain
def copy4(memory: Any, at: int, x: Any, i: int, count: int) -> None:
    """memory[at:at+4] = x[i:i+4] (flat), the last 4 - `count` elements 0; asynchronous.

    Both places have to be multiples of 16 bytes. Nothing of x is read where `count` is 0.
    """
    value = np.zeros(4, memory.dtype)
    value[:count] = x.reshape(-1)[i : i + count]
    _copies().begin(memory[at : at + 4], value)


@recorded.plain
def copy1(memory: Any, at: int, x: Any, i: int, exists: bool) -> None:
    """memory[at] = x[i] (flat) if that exists, else 0; asynchronous."""
    _copies().begin(memory[at : at + 1], x.reshape(-1)[i] if exists else 0)


@recorded.plain
def commit_copies() -> None:
    """The copies of this thread since the last call become one group."""
    _copies().groups.append([])


@recorded.plain
def wait_copies(groups: int) -> None:
    """Wait until no more than the last `groups` groups of this thread are still on their way.

    Other threads' copies are there after a `syncthreads` that follows.
    """
    _copies().finish(groups)


@recorded.plain
class _Copies:
    """The simulator's copies of one thread that are on their way: the target is NaN meanwhile."""

    def __init__(self) -> None:
        self.groups: list[list[tuple[Any, Any]]] = [[]]  # the last one is not committed yet

    def begin(self, target: Any, value: Any) -> None:
        target[:] = np.nan if target.dtype.kind == "f" else 0xFFFF  # a NaN of 16 bits
        self.groups[-1].append((target, value))

    def finish(self, left: int) -> None:
        while len(self.groups) > left + 1:
            for target, value in self.groups.pop(0):
                target[:] = value


@recorded.plain
def _copies() -> _Copies:
    own = running().own
    if "copies" not in own:
        own["copies"] = _Copies()
    return own["copies"]  # type: ignore[no-any-return]


@recorded.plain
def computed_here(i: int) -> int:
    """`i`, from 0 to 2^31, by an instruction that the compiler does not look into. So it cannot
    compute what follows from the result before a loop, where it would occupy registers."""
    return i


# ---------------------------------------------------------------- products


@helper
def place_of(i: int, piece: int, step: int) -> int:
    """Where a thread's row (or column) `i` lies, relative to its first: `piece` neighbours, then
    the next piece `step` further on."""
    return i // piece * step + i % piece


@recorded.plain
@functools.cache
def _places(count: int, piece: int, step: int) -> np.ndarray:
    """Of the first `count` rows (or columns); for all threads the same array."""
    places = np.array([place_of(i, piece, step) for i in range(count)])
    places.flags.writeable = False
    return places


@recorded.plain
def multiply_tile(
    sums: Any, memory: Any, a_at: int, a_step: int, b_at: int, b_step: int, rows: int, columns: int,
    depth: int,
) -> None:  # fmt: skip
    """sums[i, j] += sum over t of A[t, i] * B[t, j]: fused multiply-adds in the order of t.

    `sums` is the thread's local array of rows x columns (flat). A[t, i] is
    ``memory[a_at + t*a_step + place_of(i, 4, 16)]``, B[t, j] is
    ``memory[b_at + t*b_step + place_of(j, 4, 32)]``, t < `depth`; places are multiples of 16 bytes
    (of 8 for two columns in float32).
    """
    t = np.arange(depth)[:, None]
    a = memory[a_at + t * a_step + _places(rows, 4, 16)].astype(np.longdouble)
    b = memory[b_at + t * b_step + _places(columns, 4, 32)].astype(np.longdouble)
    total = sums.reshape(rows, columns)
    for exact in a[:, :, None] * b[:, None, :]:
        total[...] = exact + total


@recorded.plain
def store_tile(
    sums: Any, c: Any, at: int, step: int, rows_left: int, columns_left: int, vectors: bool,
    rows: int, columns: int, row_piece: int, row_step: int, column_piece: int, column_step: int,
) -> None:  # fmt: skip
    """c[at + row*step + column] = sums[i, j] (flat) for the row of each i, the column of each j.

    Rows and columns lie as `place_of` says; what is not below `rows_left` and `columns_left` is
    left out. `vectors`: pieces of four columns begin at multiples of 16 bytes and are never cut.
    """
    row = _places(rows, row_piece, row_step)
    column = _places(columns, column_piece, column_step)
    store_within(
        c.reshape(-1), at, step, row, column, rows_left, columns_left, sums.reshape(rows, columns)
    )


@recorded.plain
def store_within(
    out: Any, at: int, step: int, row: Any, column: Any, rows_left: int, columns_left: int,
    values: Any,
) -> None:  # fmt: skip
    """out[at + row[i]*step + column[j]] = values[i, j] where rows and columns, which ascend, are
    below what is left (for twins)."""
    m, n = np.count_nonzero(row < rows_left), np.count_nonzero(column < columns_left)
    out[at + row[:m, None] * step + column[:n]] = values[:m, :n]


# ---------------------------------------------------------------- tensor cores


@recorded.plain
def round_tf32(x: Any) -> Any:
    """Float32 numbers with 10 bits of mantissa: the nearest, ties away from 0 (cvt.rna.tf32)."""
    words = np.ascontiguousarray(x, np.float32).view(np.uint32)
    rounded = ((words + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)
    return np.where(np.isfinite(x), rounded, x)


@recorded.plain
def places_of_pieces(rows: int, columns: int, lane: int) -> tuple[np.ndarray, np.ndarray]:
    """Which rows of `rows` pieces of 16 and which columns of `columns` of 8 a thread has numbers
    of."""
    i, j = np.arange(2 * rows), np.arange(2 * columns)
    return 16 * (i // 2) + 8 * (i % 2) + lane // 4, 8 * (j // 2) + 2 * (lane % 4) + j % 2


@recorded.plain
def multiply_tile_tf32(
    sums: Any, memory: Any, a_at: int, a_step: int, b_at: int, b_step: int, rows: int, columns: int,
    depth: int, lane: int,
) -> None:  # fmt: skip
    """`multiply_tile` on tensor cores: operands rounded to TF32, products summed in float32.

    The warp computes `rows` x `columns` pieces of 16 x 8 (``mma.sync.m16n8k8``); `a_at` and `b_at`
    are its first row's and column's place. With g = lane // 4 and q = lane % 4, the four numbers of
    piece (p, n) are rows 16 p + g and 16 p + g + 8 of columns 8 n + 2 q and 8 n + 2 q + 1, at
    ``sums[((2 p + h) * columns + n) * 2 + e]`` for row half h and column e.
    """
    at_i, at_j = places_of_pieces(rows, columns, lane)
    t = np.arange(depth)[:, None]
    a = round_tf32(memory[a_at + at_i + t * a_step]).astype(np.float64)
    b = round_tf32(memory[b_at + at_j + t * b_step]).astype(np.float64)
    total = sums.reshape(2 * rows, 2 * columns).astype(np.float64)
    for product in a[:, :, None] * b[:, None, :]:
        total += product
    sums[:] = total.reshape(-1)


@recorded.plain
def multiply_tile_tf32x3(
    sums: Any, memory: Any, a_at: int, a_step: int, b_at: int, b_step: int, rows: int, columns: int,
    depth: int, lane: int,
) -> None:  # fmt: skip
    """`multiply_tile_tf32` with float32's accuracy: three products on tensor cores.

    A factor is split into two TF32 numbers, the nearest one and what is left. The product of the
    two rests is left out: 2^-22 of the whole. Tensor cores cut sums off instead of rounding them
    (Ootomo and Yokota 2022, *Recovering single precision accuracy from Tensor Cores*), so they sum
    only eight terms from 0, which are added to `sums` by rounded additions.
    """
    at_i, at_j = places_of_pieces(rows, columns, lane)
    t = np.arange(depth)[:, None]
    a, b = memory[a_at + at_i + t * a_step], memory[b_at + at_j + t * b_step]
    big_a, big_b = round_tf32(a), round_tf32(b)
    rest_a = round_tf32(a - big_a).astype(np.float64)[:, :, None]
    rest_b = round_tf32(b - big_b).astype(np.float64)[:, None, :]
    big_a, big_b = big_a.astype(np.float64)[:, :, None], big_b.astype(np.float64)[:, None, :]
    products = rest_a * big_b + big_a * rest_b + big_a * big_b
    total = sums.reshape(2 * rows, 2 * columns).copy()
    for begin in range(0, depth, 8):
        part = np.zeros(total.shape)
        for product in products[begin : begin + 8]:
            part += product
        total += part.astype(np.float32)
    sums[:] = total.reshape(-1)
