"""What the recurrent kernels share on a GPU: who computes what, and the order of sequences.

B sequences of T steps, H hidden units, G = gates*H. Products over all steps (input projection,
gradients of weights and inputs) are made outside, by the kernels of `matmul`; what is left is the
walk over *turns* s = 0, 1, ...: turn s is step s of a sequence, or step length-1-s where `reverse`
is set. Sequences are sorted by length, longest first (`order`).

One launch walks a whole sequence. The grid is `groups` groups of `blocks` blocks. Group q has the
sequences of rank q, q + groups, ..., so all groups have long and short ones; a block has `units`
hidden units of them, with all their gates, and keeps its slice of the recurrent weights in shared
memory over all turns. At each turn a block reads what its group wrote at the turn before (h, or on
the way back the gradients of all gates; the `words` of the exchange in global memory, which stay in
the L2 cache), and writes its own share. There are two slots, for even and odd turns; each number
carries its turn, so nobody waits for anything else. See `kernels/cuda/exchange.py`. Where a group's
blocks can be a cluster, the words lie in their shared memories (`kernels/cuda/near.py`): the same
kernel, by the name ``..._cluster_...``, with the same bits. So are those called ``..._held_...``,
whose threads take their weights from shared memory into registers once. Kernels called
``..._half_...`` round weights and what they are multiplied with to 16 bits, and multiply on tensor
cores (`cuda_products.py`, `cuda_ways.py`).

Rows of sequences are handled four at a time (a *tile*); once the sequences of a tile have ended,
it costs nothing. A product of a tile with the slice [depth, columns] of the weights is split over
its depth: split p takes the terms k = p, p + splits, ... The number of splits belongs to the
kernel, and they are added in one order: so a sequence's numbers depend neither on its neighbours
nor on padding, nor on the number of groups and blocks.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..cuda.device import (
    block_number,
    block_threads,
    cast,
    cuda,
    divide_index,
    flat,
    flat_index,
    thread_number,
)
from ..cuda.tile import wait_copies
from ..declare import ceil_div, cuda_kernel, helper
from . import cpu
from .cuda_layout import MOST_ROWS, THREADS, TILE
from .shared import length_of, step_of

# ---------------------------------------------------------------- sequences


class Unit(NamedTuple):
    """What a thread computes in a turn: unit j of `hidden`, in row b*T + t of arrays taken as
    flat."""

    row: int
    hidden: int
    j: int


@helper
def value_or_zero(x, b, j):
    """x[b, j], or 0 where x is absent."""
    if x.size > 0:
        return x[b, j]
    return cast(x, 0)


@helper
def bias_or_zero(x, exists, j):
    """x[j], or 0 where x is absent or the unit doesn't exist."""
    if exists and x.size > 0:
        return x[j]
    return cast(x, 0)


@helper
def is_cut(turn, bptt):
    """Whether no gradient comes from this turn to the one before: at multiples of `bptt`, if that
    is not 0."""
    return bptt > 0 and turn % bptt == 0


@helper
def row_before(b, steps, turn, length, reverse):
    """The row b*steps + t of the turn before, if there is one."""
    return b * steps + step_of(turn - 1, length, reverse)


@helper
def output_before(y, h0, hidden, b, steps, turn, length, reverse, j):
    """The output that this turn began with; y is flat."""
    if turn > 0:
        return y[row_before(b, steps, turn, length, reverse) * hidden + j]
    return value_or_zero(h0, b, j)


@cuda_kernel(launch=lambda s: (ceil_div(s["B"], THREADS), THREADS))
def sequence_order(
    lengths: "in whole i[B]",
    order: "out whole i[B]",
    steps: "int",
):
    """order = the sequences, longest first, equal ones as they come."""
    i = flat_index()
    if i < order.size:
        rank = 0
        length = length_of(lengths, i, steps)
        for b in range(lengths.size):
            other = length_of(lengths, b, steps)
            if other > length or (other == length and b < i):
                rank += 1
        order[rank] = i


@cuda_kernel(launch=lambda s: (ceil_div(s["E"], THREADS), THREADS), clears=True)
def clear_words(words: "out whole i[E]"):
    """words = 0: of no turn."""
    i = flat_index()
    if i < words.size:
        words[i] = 0


@helper
def place(blocks, units):
    """This thread's place: group, first unit of the block, row of a tile, unit.

    Threads whose row is TILE or more, or whose unit doesn't exist, only help with products.
    """
    group = divide_index(block_number(), blocks)
    first = (block_number() - group * blocks) * units
    row = divide_index(thread_number(), units)
    return group, first, row, first + thread_number() - row * units


@helper
def tiles_of(batch, groups):
    """The tiles of a group, at most."""
    return divide_index(divide_index(batch + groups - 1, groups) + TILE - 1, TILE)


class Team(NamedTuple):
    """A thread's part where blocks walk all turns together.

    Attributes:
        group, first, row, unit: its `place`.
        mine: whether it computes a unit.
        tiles: the tiles of its group, at most.
        numbers, known: in shared memory, the group's sequences and their lengths.
    """

    group: int
    first: int
    row: int
    unit: int
    mine: bool
    tiles: int
    numbers: Any
    known: Any


@helper
def team_of(y, groups, blocks, units):
    """This thread's part in a kernel with outputs y [B,T,H]."""
    group, first, row, j = place(blocks, units)
    numbers = cuda.shared.array(MOST_ROWS, np.int64)
    known = cuda.shared.array(MOST_ROWS, np.int64)
    mine = row < TILE and j < y.shape[2]
    return Team(group, first, row, j, mine, tiles_of(y.shape[0], groups), numbers, known)


@helper
def word_at(slot, size, j, row):
    """Where unit j of a tile's row is published, in slots of `size`."""
    return slot * size + j * TILE + row


@helper
def still_running(known, running, turn):
    """How many sequences have this turn, of those that had the one before."""
    while running > 0 and known[running - 1] <= turn:
        running -= 1
    return running


@helper
def running_again(known, running, rows, turn):
    """How many of a group's sequences have this turn, where fewer had the one after; all have the
    one before the first."""
    while running < rows and known[running] > max(turn, 0):
        running += 1
    return running


@helper
def first_output(h0, h_n, numbers, known, rows, r, j):
    """The state that sequence r of the group begins with, and ends with if it has no steps; 0
    where there is no such sequence."""
    h = cast(h_n, 0)
    if r < rows:
        h = value_or_zero(h0, numbers[r], j)
        if known[r] == 0:
            h_n[numbers[r], j] = h
    return h


@helper
def rows_of_group(order, lengths, batch, steps, group, groups, numbers, known):
    """How many sequences the group has; their numbers and lengths go to shared memory. Without an
    `order` they are as long as each other. The weights' slice is there, too, afterwards."""
    rows = divide_index(batch - group + groups - 1, groups)
    for r in range(thread_number(), rows, block_threads()):
        b = group + r * groups
        if order.size > 0:
            b = order[b]
        numbers[r] = b
        known[r] = length_of(lengths, b, steps)
    wait_copies(0)
    cuda.syncthreads()
    return rows


@helper
def whole_tiles(rows):
    """So many rows, filled up to whole tiles: whoever reads a tile waits for all of its rows."""
    return (rows + TILE - 1) // TILE * TILE


@helper
def zero_past_end(x, places, first, units, hidden, rows, numbers, known):
    """Zero this block's units in x[b, t] past the sequences' ends; each has `places` places,
    `hidden` apart."""
    width = places * units
    for r in range(rows):
        for i in range(thread_number(), (x.shape[1] - known[r]) * width, block_threads()):
            t = divide_index(i, width)
            place = divide_index(i - t * width, units)
            j = first + i - t * width - place * units
            if j < hidden:
                x[numbers[r], known[r] + t, place * hidden + j] = cast(x, 0)


# ---------------------------------------------------------------- all steps of all sequences


@cuda_kernel(launch=lambda s: (ceil_div(s["B"] * s["T"] * s["C"], THREADS), THREADS))
def valid_steps(
    x: "in rows f[B,T,C]",
    lengths: "in rows i[B]",
    y: "out rows f[B,T,C]",
):
    """y = x up to the sequences' ends, then 0: whatever stands there (NaN, say) has no part in a
    product over all steps."""
    i = flat_index()
    if i < y.size:
        step = divide_index(i, y.shape[2])
        b = divide_index(step, y.shape[1])
        value = cast(y, 0)
        if step - b * y.shape[1] < lengths[b]:
            value = flat(x)[i]
        flat(y)[i] = value


@cuda_kernel(
    like=cpu.swap_time_forward,
    launch=lambda s: (ceil_div(s["B"] * s["T"] * s["C"], THREADS), THREADS),
)
def swap_time_forward(x, y):
    i = flat_index()
    if i < y.size:
        rest = divide_index(i, y.shape[2])
        c = i - rest * y.shape[2]
        b = divide_index(rest, y.shape[1])
        t = rest - b * y.shape[1]
        y[b, t, c] = x[t, b, c]
