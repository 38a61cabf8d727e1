"""Rows of a table picked by ids. N ids, V rows of the table, C columns."""

import numpy as np

from ..cuda.device import (
    WARP,
    block_number,
    block_threads,
    can_load4,
    cuda,
    divide_index,
    flat,
    flat_index,
    fours_launch,
    load4,
    power_of_2,
    store4,
    thread_number,
)  # fmt: skip
from ..declare import ceil_div, cuda_kernel, helper
from . import cpu

NAN = float("nan")


@cuda_kernel(like=cpu.embedding_forward, launch=lambda s: fours_launch(s["N"] * s["C"]))
def embedding_forward(ids, table, y):
    V, C = table.shape
    i, size = 4 * flat_index(), y.size
    if i >= size:
        return
    n = divide_index(i, C)
    c = i - n * C
    if C & 3 == 0 and can_load4(table) and can_load4(y):
        row = ids[n]
        if row >= 0 and row < V:
            a0, a1, a2, a3 = load4(table, row * C + c)
            store4(y, i, a0, a1, a2, a3)
        else:
            store4(y, i, NAN, NAN, NAN, NAN)
        return
    for k in range(i, min(i + 4, size)):
        row = ids[n]
        flat(y)[k] = table[row, c] if row >= 0 and row < V else NAN
        c += 1
        if c == C:
            n, c = n + 1, 0


def _backward_launch(s: dict[str, int]) -> tuple[tuple[int, int], int]:
    threads = power_of_2(s["C"], WARP, 256)
    return (s["V"], ceil_div(s["C"], threads)), threads


@helper
def sum_of_row(ids, dy, row, begin, c, found):
    """The sum of column c of dy[n] over the n from `begin` on with ids[n] = row, in order. The
    block reads the ids together, as many at a time as it has threads."""
    t, threads = thread_number(), block_threads()
    N, C = dy.shape
    total = 0.0
    for first in range(begin, N, threads):
        mine = 0
        if first + t < N and ids[first + t] == row:
            mine = 1
        found[t] = mine
        if cuda.syncthreads_or(mine) != 0 and c < C:
            for k in range(min(threads, N - first)):
                if found[k] != 0:
                    total += dy[first + k, c]
        cuda.syncthreads()
    return total


@cuda_kernel(like=cpu.embedding_backward, launch=_backward_launch)
def embedding_backward(ids, dy, dtable, padding_index):
    """A block for each row of the table (and up to 256 columns) looks through all ids and adds up
    the rows of dy that are its own, instead of a sort or of additions in no certain order."""
    row = block_number()
    c = cuda.blockIdx.y * block_threads() + thread_number()
    found = cuda.shared.array(256, np.int32)
    total = 0.0
    if row != padding_index:
        total = sum_of_row(ids, dy, row, 0, c, found)
    if c < dy.shape[1]:
        dtable[row, c] = total


def _occurring_launch(s: dict[str, int]) -> tuple[tuple[int, int], int]:
    threads = power_of_2(s["C"], 128, 256)
    return (s["N"], ceil_div(s["C"], threads)), threads


@cuda_kernel(launch=_occurring_launch, occurring_of=cpu.embedding_backward.name)
def embedding_backward_occurring(
    ids: "in whole i[N]",
    dy: "in whole f[N,C]",
    dtable: "inout whole f[V,C]",  # all zeros
    padding_index: "int",
):
    """`embedding_backward` for tables of more rows than there are ids.

    A block for each id: the first of its kind adds up the rows of all of them, the same sums in the
    same order. N*N reads of ids, most of them left out, whatever V is.
    """
    n, t, threads = block_number(), thread_number(), block_threads()
    V, C = dtable.shape
    row = ids[n]
    if row < 0 or row >= V or row == padding_index:
        return
    found = cuda.shared.array(256, np.int32)
    for first in range(0, n, threads):
        mine = 0
        if first + t < n and ids[first + t] == row:
            mine = 1
        if cuda.syncthreads_or(mine) != 0:
            return
    c = cuda.blockIdx.y * threads + t
    total = sum_of_row(ids, dy, row, n, c, found)
    if c < C:
        dtable[row, c] = total
