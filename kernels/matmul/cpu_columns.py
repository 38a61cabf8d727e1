"""The gradient to the input for few rows, split by its columns: rows of the weight.

Split by rows, each worker would pack the whole weight, or pass over it with half of a few rows. A
column of dx is made by one row of the weight alone, so each worker takes its own rows of it, and
turns or packs nothing that others do, too (`cpu_turned`, `cpu_blocked`). It reads all of dy.

Every element is the same chain of fused multiply-adds, so the bits are those of
`linear_backward_input`.
"""

from ..cpu import target
from ..cpu.tile import panel_width, tile_width
from ..declare import kernel
from ..places import Matrix, Place, Rows
from ..signature import signature_of
from .cpu import BACKWARD, FEW
from .cpu_blocked import by_blocks
from .cpu_panels import last_columns, panel
from .cpu_turned import (
    FEWEST,
    MOST_WIDE,
    PACK,
    STRIP,
    TURN,
    blocked_cycles,
    tile_cycles,
    turn,
    turned_cycles,
)

#: columns of dx whose scratch memory is enough for all that a call turns; a range of fewer turns a
#: part of the depth at a time. Blocks of items have as many: turning is 4 % of their time, then.
SHARE = 128
#: elements of scratch memory for each column of dx, to pack blocks of the weight: 8 x 1024 x 1024
#: takes 128 us with 64 or 128, 131 with 256 to 768 (two workers of a Zen 4)
BLOCK_COLUMNS = 128
#: cycles that the split by columns is to save at least: before it and after it is a barrier, and
#: what one worker has written of dy and dx the other reads
BARRIERS = 8000
#: numbers that a weight has at least: whole steps gain most by each worker reading the rows that it
#: has updated, as products of few rows forward do (`SHARED` in `plan/lower/products.py`); those
#: with weights of 256 x 256 took 0.92 to 1.16 of the time
LARGE = 3 << 15


def pays_by_columns(rows: int, c: int, k: int, itemsize: int) -> bool:
    """Whether two workers are quicker with half of the columns each than with half of the rows.

    One worker takes as long by either. Half of the rows seldom fill the tiles that all of them do,
    and each half packs all of the weight.
    """
    if c * k < LARGE or not FEW < rows <= MOST_WIDE:
        return False
    half = (rows + 1) // 2
    by_rows = min(_turned(half, c, k, itemsize), _blocked(half, c, k, itemsize))
    if target.host().vector_bits <= 256 and rows < FEWEST:
        by_rows = _blocked(half, c, k, itemsize)
    by_columns = min(_turned(rows, c, k, itemsize), _blocked(rows, c, k, itemsize))
    return bool(2 * by_rows - by_columns > 2 * BARRIERS)


def columns_turned(rows: int, c: int, k: int, itemsize: int) -> bool:
    """Whether, split by columns, turning the rows is quicker than packing the weight."""
    return bool(_turned(rows, c, k, itemsize) < _blocked(rows, c, k, itemsize))


def _turned(rows: int, c: int, k: int, itemsize: int) -> int:
    if target.host().vector_bits > 256:
        return turned_cycles(rows, c, k, itemsize)
    turning = TURN * rows * (c + k) // panel_width(itemsize)
    return tile_cycles(c, rows, itemsize, True) * k + turning


def _blocked(rows: int, c: int, k: int, itemsize: int) -> int:
    if target.host().vector_bits > 256:
        return blocked_cycles(rows, c, k, itemsize)
    return tile_cycles(rows, c, itemsize) * k + PACK * -(-c // panel_width(itemsize)) * k


def columns_scratch(rows: int, k: int) -> int:
    """S, the elements of scratch memory for each column of dx, to turn all rows of dy."""
    return max(-(-rows * (k + STRIP) // SHARE), 2 * rows)


@kernel(grain=16, block=SHARE, **BACKWARD, rounds=("dy", "w"))
def linear_backward_input_turned_columns(
    dy: "in whole f[N,K]",
    w: "in rows f[C,K]",
    dx: "out cols f[N,C]",
    scratch: "scratch rows f[C,S]",  # S by `columns_scratch`
    lo: "begin",
    hi: "end",
):
    """dx = dy @ w.T, by dx.T = w @ dy.T"""
    (n, k), c, width = dy.shape, dx.shape[1], tile_width(w)
    # the last rows, where their tiles are of three vectors, are turned together
    inner = n - last_columns(w, n)
    high = min(STRIP, hi - lo)
    out = lo * scratch.shape[1]
    right = out + high * n
    deep = min(k, (hi - lo) * scratch.shape[1] // n - high)
    for top in range(lo, hi, high):
        strip = min(high, hi - top)
        for t in range(0, k, deep):
            part, i = min(deep, k - t), 0
            while i < n:
                rows = n - i if i == inner else min(width, inner - i)
                some = right + i * deep
                if top == lo or deep < k:
                    turn(dy, i * k + t, k, rows, part, scratch, some, rows)
                panel(Matrix(w, top * k + t, k, 1), Rows(scratch, some, rows),
                      Rows(scratch, out + i * strip, rows), Place(dy[0], -1), part, strip, rows,
                      t == 0, -1)  # fmt: skip
                if t + part == k:
                    turn(scratch, out + i * strip, rows, strip, rows, dx, i * c + top, c)
                i += rows


@kernel(grain=16, block=SHARE, **BACKWARD, rounds=("dy", "w"))
@signature_of(linear_backward_input_turned_columns)
def linear_backward_input_blocked_columns(dy, w, dx, scratch, lo, hi):
    """dx = dy @ w.T; S of scratch memory is `BLOCK_COLUMNS`, or less for a small weight"""
    (n, k), c, s = dy.shape, dx.shape[1], scratch.shape[1]
    by_blocks(Rows(dy, 0, k), Rows(w, lo * k, k), True, dy[0, :0], Rows(dx, lo, c),
              Place(scratch, lo * s), (hi - lo) * s, n, k, hi - lo)  # fmt: skip
