"""How a block puts together what its groups of warps, and its threads, have summed of a product.

The same for factors of all types: `cuda_product.py` and `cuda_half.py` have it in their products.
"""

from __future__ import annotations

from collections.abc import Callable

from ..cuda.device import cuda
from ..declare import helper


def joining_groups(count: int, threads: int, groups: int, size: int) -> Callable[..., None]:
    """The function ``(memory, sums, thread, group)`` by which the first of so many groups gets the
    sums of all, `count` a thread; `size`: elements of a block's tile."""

    @helper
    def join_groups(memory, sums, thread, group):
        """The upper half of the groups hands its sums to the lower, until one group has them
        all."""
        half = groups // 2
        while half > 0:
            place = thread % (threads // groups) + group % half * size
            cuda.syncthreads()
            if half <= group < 2 * half:
                for k in range(count):
                    memory[place + k * (threads // groups)] = sums[k]
            cuda.syncthreads()
            if group < half:
                for k in range(count):
                    sums[k] += memory[place + k * (threads // groups)]
            half //= 2

    return join_groups


def joining_columns(threads: int, columns: int) -> Callable[..., None]:
    """The function ``(memory, column_sum, thread, left, N, target, at)`` by which the sums of a
    tile's columns become whole, of which `threads` / `columns` threads have parts."""
    sharing = threads // columns

    @helper
    def join_columns(memory, column_sum, thread, left, N, target, at):
        """target[at + j] = the sum of column j of N, the tile's first being `left`."""
        cuda.syncthreads()
        memory[thread] = column_sum
        cuda.syncthreads()
        if thread < columns and left + thread < N:
            for k in range(1, sharing):
                column_sum += memory[thread + k * columns]
            target[at + left + thread] = column_sum

    return join_columns
