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
from ..declare import ceil_div, cuda_kernel
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


@cuda_kernel(like=cpu.embedding_backward, launch=_backward_launch)
def embedding_backward(ids, dy, dtable, padding_index):
    """dtable[v] = sum of dy[n] over the n with ids[n] = v, in the order of n.

    A block for each row of the table (and up to 256 columns) reads all ids, as many at a time as it
    has threads, and adds up the rows of dy that are its own: V*N reads of ids, which stay in the L2
    cache, instead of a sort or of additions in no certain order.
    """
    row, t, threads = block_number(), thread_number(), block_threads()
    N, C = dy.shape
    c = cuda.blockIdx.y * threads + t
    found = cuda.shared.array(256, np.int32)
    total = 0.0
    if row != padding_index:
        for first in range(0, N, threads):
            mine = 0
            if first + t < N and ids[first + t] == row:
                mine = 1
            found[t] = mine
            if cuda.syncthreads_or(mine) != 0 and c < C:
                for k in range(min(threads, N - first)):
                    if found[k] != 0:
                        total += dy[first + k, c]
            cuda.syncthreads()
    if c < C:
        dtable[row, c] = total
