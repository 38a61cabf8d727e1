"""Rows and the threads that share them: for softmax, losses and layer normalisation.

A row of few columns belongs to a warp, eight rows to a block; a longer one has a block for itself.
A thread computes every `step`-th column from `first` on, and nobody else does: what it keeps of
them in shared memory it can read back without waiting for others.
"""

from __future__ import annotations

from typing import Any

from ..declare import ceil_div, helper
from .device import (
    block_max,
    block_number,
    block_sum,
    block_threads,
    power_of_2,
    thread_number,
    warp_max,
    warp_sum,
)

NARROW = 512  # columns of a row that is shared by a warp, at most
ROWS = 8  # narrow rows of a block
#: columns of a row that is kept in shared memory, at most: two such blocks share a multiprocessor
#: in float32 (227 KiB on sm_90), in float64 one fits (163 KiB on sm_80); a block that may have less
#: keeps shorter rows. Kernels ask the shared memory for its size.
KEPT = 20000


def rows_launch(s: dict[str, int]) -> tuple[int, int]:
    """Blocks and threads for N rows of C columns."""
    if s["C"] <= NARROW:
        return ceil_div(s["N"], ROWS), ROWS * 32
    return s["N"], power_of_2(ceil_div(s["C"], 16), 128, 1024)


def rows_shared(s: dict[str, int]) -> int:
    """Elements of shared memory that keep a block's rows, where they fit."""
    if s["C"] <= NARROW:
        return ROWS * s["C"]
    return s["C"] if s["C"] <= min(KEPT, s["shared_limit"]) else 0


@helper
def row_place(N: int, C: int) -> tuple:
    """(narrow, row, first, step, size, kept): which row the thread works on, its first column and
    the distance to its next, the row's columns (0 where there is no such row), and where in shared
    memory the row is kept."""
    thread = thread_number()
    if C <= NARROW:
        row = block_number() * ROWS + thread // 32
        return True, row, thread % 32, 32, C if row < N else 0, thread // 32 * C
    return False, block_number(), thread, block_threads(), C, 0


@helper
def row_sum(value: Any, narrow: bool) -> Any:
    """The sum of the values of all threads of the row, for each of them."""
    if narrow:
        return warp_sum(value)
    return block_sum(value)


@helper
def row_max(value: Any, narrow: bool) -> Any:
    """The largest of the values of all threads of the row, for each of them."""
    if narrow:
        return warp_max(value)
    return block_max(value)
