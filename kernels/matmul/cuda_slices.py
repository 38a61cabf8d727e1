"""How a block copies a slice of a product's factor to shared memory, where the factor is a matrix.

A product takes its factors through two functions, which `matrix_slices` makes here and
`convolution/cuda_windows.py` for windows of images: ``begin(factor, first, limit, start)`` gives
what is known before the loop over the slices, and ``copy(memory, at, factor, state, first, limit,
t, end)`` copies the slice at `t` and gives what is known for the next one. The tile's rows (or
columns) begin at `first`, the factor ends before `limit`; terms are summed from `start` to `end`.
``memory[at + d*row + i]`` becomes element (first + i, t + d); what is past the factor becomes 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..cuda.device import can_load4, cuda
from ..cuda.tile import computed_here, copy1, copy4
from ..declare import helper


class Shape(NamedTuple):
    """How a block computes its tile of the output."""

    rows: int  # of the tile
    columns: int
    m: int  # rows and columns of a thread
    n: int
    groups: int  # of warps, each with all of the tile and a share of the sum
    depth: int  # of a slice in shared memory
    stages: int  # slices in shared memory: one in use, the others on their way
    pad: int = 4  # unused elements between rows of shared memory, against bank conflicts

    @property
    def warps(self) -> int:
        """Warps of a group."""
        return self.rows * self.columns // (32 * self.m * self.n)

    @property
    def threads(self) -> int:
        return 32 * self.warps * self.groups

    @property
    def memory(self) -> int:
        """Elements of shared memory."""
        return self.stages * self.depth * (self.rows + self.columns + 2 * self.pad)


class Factor(NamedTuple):
    """A factor that is a matrix: A[i, t], or B[t, i], is number ``t*ld + i`` of `array` where it
    lies `by_depth`, else ``i*ld + t``."""

    array: Any
    ld: int
    by_depth: bool


class Turns(NamedTuple):
    """How the threads of a block share out a slice of `width` rows.

    By depth, neighbouring threads copy four elements each of one d: `quads` threads copy a d, all
    of them `quad_depth`. Else eight threads copy 32 bytes of a row, a warp four rows, so that it
    writes to all banks: all threads copy `rows` rows and `row_depth` elements of each.
    """

    quads: int
    quad_depth: int
    rows: int
    row_depth: int


def turns_of(width: int, shape: Shape) -> Turns:
    depth, threads = shape.depth, shape.threads
    quads = width // 4
    quad_depth = threads // quads
    rows = min(width, threads // 8)
    row_depth = 8 * (threads // 8 // rows)
    assert threads == quads * quad_depth == rows * row_depth
    assert depth % quad_depth == depth % row_depth == width % rows == 0
    return Turns(quads, quad_depth, rows, row_depth)


def first_place(width: int, shape: Shape) -> Callable[..., Any]:
    """The function ``(thread, by_depth)``: which d and i the thread copies first."""
    quads, _, rows, _ = turns_of(width, shape)

    @helper
    def first_of(thread, by_depth):
        if by_depth:
            return thread // quads, thread % quads * 4
        return thread % 8 + thread // (8 * rows) * 8, thread // 8 % rows

    return first_of


def matrix_slices(width: int, shape: Shape) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The two functions for `width` rows of a matrix (see the module's text, and `Factor`)."""
    depth, row = shape.depth, width + shape.pad
    _, quad_depth, rows, row_depth = turns_of(width, shape)
    first_of = first_place(width, shape)

    @helper
    def copy_whole(memory, at, x, source, ld, by_depth):
        """The slice lies within A, and by depth its pieces begin at multiples of 16 bytes; `source`
        is the place of the thread's first element in x."""
        d0, i0 = first_of(computed_here(cuda.threadIdx.x), by_depth)
        at += d0 * row + i0
        if by_depth:
            for d in range(0, depth, quad_depth):
                copy4(memory, at + d * row, x, source + d * ld, 4)
        else:
            for i in range(0, width, rows):
                for d in range(0, depth, row_depth):
                    copy1(memory, at + d * row + i, x, source + i * ld + d, True)

    @helper
    def copy_edge(memory, at, x, ld, by_depth, first, limit, t, end):
        """What is past A, from row `limit` and depth `end` on, becomes 0."""
        d0, i0 = first_of(computed_here(cuda.threadIdx.x), by_depth)
        if by_depth:
            for k in range(0, depth, quad_depth):
                d = d0 + k
                place, source = at + d * row + i0, (t + d) * ld + first + i0
                left = limit - first - i0 if t + d < end else 0
                for i in range(4):
                    copy1(memory, place + i, x, source + i, i < left)
        else:
            for m in range(0, width, rows):
                i = i0 + m
                place, source = at + d0 * row + i, (first + i) * ld + t + d0
                left = end - t - d0 if first + i < limit else 0
                for d in range(0, depth, row_depth):
                    copy1(memory, place + d * row, x, source + d, d < left)

    @helper
    def begin(factor, first, limit, start):
        """Whether all rows are there (and pieces begin at multiples of 16 bytes), and where the
        thread's first element lies."""
        x, ld, by_depth = factor
        whole = first + width <= limit and (not by_depth or (ld % 4 == 0 and can_load4(x)))
        d, i = first_of(computed_here(cuda.threadIdx.x), by_depth)
        return whole, (start + d) * ld + first + i if by_depth else (first + i) * ld + start + d

    @helper
    def copy(memory, at, factor, state, first, limit, t, end):
        x, ld, by_depth = factor
        whole, source = state
        if whole and t + depth <= end:
            copy_whole(memory, at, x, source, ld, by_depth)
        else:
            copy_edge(memory, at, x, ld, by_depth, first, limit, t, end)
        return whole, source + (depth * ld if by_depth else depth)

    return begin, copy
