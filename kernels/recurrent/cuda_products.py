"""A recurrent block's products at a turn: a tile of four sequences by its slice of the weights.

The slice lies in shared memory. Three functions multiply with it: from there; with weights that
threads took into registers once, for all turns; and on tensor cores with factors of 16 bits. See
`cuda.py` for splits and parts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..cuda.device import (
    WARP,
    block_threads,
    cast,
    cuda,
    divide_index,
    flat,
    load4,
    store4,
    thread_number,
)
from ..cuda.half import half_pair, multiply_piece
from ..cuda.tile import commit_copies, copy1
from ..declare import helper
from ..recorded import execute
from .cuda_layout import CHAIN, HELD_TERMS, TILE, packed_elements


@helper
def room(depth, columns):
    """The elements of shared memory that a slice takes."""
    return depth * columns


@helper
def load_columns(s, at, w, first, units, gate, gates, is_bf16):
    """s[at + k*columns + g*units + u] = w[k, (gate + g)*H + first + u] for g < gates, 0 for units
    that don't exist."""
    hidden, total = w.shape[0], w.shape[1]
    columns = gates * units
    for i in range(thread_number(), hidden * columns, block_threads()):
        k = divide_index(i, columns)
        g = divide_index(i - k * columns, units)
        u = first + i - k * columns - g * units
        copy1(s, at + i, w, k * total + (gate + g) * hidden + u, u < hidden)
    commit_copies()


@helper
def load_rows(s, at, w, first, units, begin, depth, is_bf16):
    """s[at + k*units + u] = w[first + u, begin + k] for k < depth, 0 for units that don't exist."""
    hidden, total = w.shape[0], w.shape[1]
    for i in range(thread_number(), depth * units, block_threads()):
        # neighbouring threads read neighbouring k: whole cache lines
        u = divide_index(i, depth)
        k = i - u * depth
        copy1(s, at + k * units + u, w, (first + u) * total + begin + k, first + u < hidden)
    commit_copies()


@helper
def add_product(s, weights, columns, inputs, depth, parts, splits):
    """Parts of the product of a tile with `columns` columns of the weights.

    Weights s[weights + k*columns + c], inputs s[inputs + k*TILE + r] for k < depth; split p's part
    of row r, column c goes to s[parts + (p*TILE + r)*columns + c].
    """
    quads = columns // 4
    zero = cast(s, 0)
    item = thread_number()
    while item < quads * splits:
        split = divide_index(item, quads)
        column = 4 * (item - split * quads)
        a0, a1, a2, a3 = zero, zero, zero, zero
        b0, b1, b2, b3 = zero, zero, zero, zero
        c0, c1, c2, c3 = zero, zero, zero, zero
        d0, d1, d2, d3 = zero, zero, zero, zero
        w = weights + split * columns + column
        x = inputs + split * TILE
        for _ in range(split, depth, splits):
            w0, w1, w2, w3 = load4(s, w)
            x0, x1, x2, x3 = load4(s, x)
            a0, a1, a2, a3 = a0 + x0 * w0, a1 + x0 * w1, a2 + x0 * w2, a3 + x0 * w3
            b0, b1, b2, b3 = b0 + x1 * w0, b1 + x1 * w1, b2 + x1 * w2, b3 + x1 * w3
            c0, c1, c2, c3 = c0 + x2 * w0, c1 + x2 * w1, c2 + x2 * w2, c3 + x2 * w3
            d0, d1, d2, d3 = d0 + x3 * w0, d1 + x3 * w1, d2 + x3 * w2, d3 + x3 * w3
            w += splits * columns
            x += splits * TILE
        to = parts + split * TILE * columns + column
        store4(s, to, a0, a1, a2, a3)
        store4(s, to + columns, b0, b1, b2, b3)
        store4(s, to + 2 * columns, c0, c1, c2, c3)
        store4(s, to + 3 * columns, d0, d1, d2, d3)
        item += block_threads()


def _holding(terms: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The functions by which a thread keeps its weights of a product, `terms` times four of them,
    in registers for all turns, and multiplies with them: the sums of `add_product`, term by term.
    They stand there one by one: a loop that is not unrolled would keep them in memory."""
    hold = [
        "def hold(held, s, weights, columns, depth, splits, is_bf16):",
        "    split = divide_index(thread_number(), columns // 4)",
        "    at = weights + split * columns + 4 * (thread_number() - split * (columns // 4))",
    ]
    add = [
        "def add_held(s, held, columns, inputs, depth, parts, splits):",
        "    quads, zero = columns // 4, cast(s, 0)",
        "    split = divide_index(thread_number(), quads)",
        "    if split >= splits:",
        "        return",
    ]
    add += [
        f"    {', '.join(f'{c}{i}' for i in range(4))} = zero, zero, zero, zero" for c in "abcd"
    ]
    add.append("    x = inputs + split * TILE")
    for k in range(terms):
        w = [f"held[{4 * k + i}]" for i in range(4)]
        inside = f"    if split < splits and split + {k} * splits < depth:"
        hold += [inside, f"        {', '.join(w)} = load4(s, at + {k} * splits * columns)"]
        add += [
            f"    if split + {k} * splits < depth:",
            f"        x0, x1, x2, x3 = load4(s, x + {k} * splits * TILE)",
        ]
        add += [
            f"        {c}{i} = {c}{i} + x{r} * {w[i]}"
            for r, c in enumerate("abcd")
            for i in range(4)
        ]
    add.append("    to = parts + split * TILE * columns + 4 * (thread_number() - split * quads)")
    add += [
        f"    store4(s, to + {r} * columns, {c}0, {c}1, {c}2, {c}3)" for r, c in enumerate("abcd")
    ]
    scope: dict[str, Any] = {
        "__name__": __name__, "cast": cast, "divide_index": divide_index, "load4": load4,
        "store4": store4, "thread_number": thread_number, "TILE": TILE,
    }  # fmt: skip
    for lines in (hold, add):
        execute("\n".join(lines) + "\n", f"<weights in registers, {terms} terms>", scope)
    return helper(scope["hold"]), helper(scope["add_held"])


_hold, _add_held = _holding(HELD_TERMS)


@helper
def hold_nothing(held, s, weights, columns, depth, splits, is_bf16):
    """The weights stay in shared memory."""


@helper
def multiply_held(s, held, weights, columns, inputs, depth, parts, splits, is_bf16):
    """As `multiply`, with the weights that the threads hold."""
    _add_held(s, held, columns, inputs, depth, parts, splits)
    cuda.syncthreads()
    add_parts(s, parts, splits, columns)
    cuda.syncthreads()


@helper
def add_parts(s, parts, splits, columns):
    """Sixteen parts each become one, which takes the first one's place: chain q of `splits` / 16
    adds the splits q, q + splits / 16, ... in this order."""
    count = TILE * columns * (splits // CHAIN)
    i = parts + thread_number()
    while i < parts + count:
        value, at = s[i], i
        for _ in range(CHAIN - 1):
            at += count
            value += s[at]
        s[i] = value
        i += block_threads()


@helper
def multiply(s, held, weights, columns, inputs, depth, parts, splits, is_bf16):
    """The product of a tile with `columns` columns of the weights (see `add_product`); `total` has
    its elements then."""
    add_product(s, weights, columns, inputs, depth, parts, splits)
    cuda.syncthreads()
    add_parts(s, parts, splits, columns)
    cuda.syncthreads()


@helper
def total(s, parts, splits, columns, row, column):
    """An element of a product: its one chain, or the sum of four, or of eight."""
    at, step = parts + row * columns + column, TILE * columns
    if splits == CHAIN:
        return s[at]
    value = (s[at] + s[at + step]) + (s[at + 2 * step] + s[at + 3 * step])
    if splits == 8:
        at += 4 * step
        value += (s[at] + s[at + step]) + (s[at + 2 * step] + s[at + 3 * step])
    return value


# ---------------------------------------------------------------- on tensor cores

#: the elements (words of two) of a slice of 16 bits: pieces of 16 terms by 16 columns
half_room = helper(packed_elements)


@helper
def pair(low, high, is_bf16):
    """Two numbers as a word."""
    if is_bf16:
        return half_pair(low, high, 1)
    return half_pair(low, high, 0)


@helper
def place_in_piece(i, pieces):
    """The column and the first of the two terms of a slice's word, where its depth is so many
    pieces; a thread's four words of a piece, as `multiply_piece` takes them, lie side by side."""
    piece, lane, k = i // 128, i // 4 % WARP, i % 4
    across = divide_index(piece, pieces)
    column = 16 * across + lane // 4 + k % 2 * 8
    return column, 16 * (piece - across * pieces) + lane % 4 * 2 + k // 2 * 8


@helper
def load_half_columns(s, at, w, first, units, gate, gates, is_bf16):
    """As `load_columns`, in pieces of 16 bits."""
    words = cuda.shared.array(0, np.uint32)
    hidden, total, values = w.shape[0], w.shape[1], flat(w)
    pieces = (hidden + 15) // 16
    for i in range(thread_number(), half_room(hidden, gates * units), block_threads()):
        column, k = place_in_piece(i, pieces)
        g = divide_index(column, units)
        u = first + column - g * units
        low, high = cast(s, 0), cast(s, 0)
        if g < gates and u < hidden:
            source = k * total + (gate + g) * hidden + u
            if k < hidden:
                low = values[source]
            if k + 1 < hidden:
                high = values[source + total]
        words[at + i] = pair(low, high, is_bf16)


@helper
def load_half_rows(s, at, w, first, units, begin, depth, is_bf16):
    """As `load_rows`, in pieces of 16 bits."""
    words = cuda.shared.array(0, np.uint32)
    hidden, total, values = w.shape[0], w.shape[1], flat(w)
    pieces = (depth + 15) // 16
    for i in range(thread_number(), half_room(depth, units), block_threads()):
        u, k = place_in_piece(i, pieces)
        low, high = cast(s, 0), cast(s, 0)
        if u < units and first + u < hidden:
            source = (first + u) * total + begin + k
            if k < depth:
                low = values[source]
            if k + 1 < depth:
                high = values[source + 1]
        words[at + i] = pair(low, high, is_bf16)


@helper
def multiply_half(s, held, weights, columns, inputs, depth, parts, splits, is_bf16):
    """As `multiply`, on tensor cores. A warp takes pieces of 16 columns, of mma's rows, and a
    split's terms; of mma's eight columns four are sequences, which are rounded here."""
    words = cuda.shared.array(0, np.uint32)
    warp = divide_index(thread_number(), WARP)
    lane = thread_number() - warp * WARP
    j, q, zero = lane // 4, lane % 4 * 2, cast(s, 0)
    pieces, across = (depth + 15) // 16, (columns + 15) // 16
    item = warp
    while item < across * splits:
        piece = divide_index(item, splits)
        split = item - piece * splits
        i = 16 * piece + j
        c0, c1, c2, c3 = zero, zero, zero, zero
        at = weights + 128 * (piece * pieces + split) + 4 * lane
        k = 16 * split + q
        for _ in range(split, pieces, splits):
            w0, w1, w2, w3 = load4(words, at)
            x0, x1, x2, x3 = zero, zero, zero, zero
            x = inputs + k * TILE + j
            if j < TILE:
                if k < depth:
                    x0 = s[x]
                if k + 1 < depth:
                    x1 = s[x + TILE]
                if k + 8 < depth:
                    x2 = s[x + 8 * TILE]
                if k + 9 < depth:
                    x3 = s[x + 9 * TILE]
            low, high = pair(x0, x1, is_bf16), pair(x2, x3, is_bf16)
            if is_bf16:
                c0, c1, c2, c3 = multiply_piece(w0, w1, w2, w3, low, high, c0, c1, c2, c3, 1)
            else:
                c0, c1, c2, c3 = multiply_piece(w0, w1, w2, w3, low, high, c0, c1, c2, c3, 0)
            at += 128 * splits
            k += 16 * splits
        if q < TILE:
            to = parts + (split * TILE + q) * columns + i
            if i < columns:
                s[to] = c0
                s[to + columns] = c1
            if i + 8 < columns:
                s[to + 8] = c2
                s[to + columns + 8] = c3
        item += divide_index(block_threads(), WARP)
    cuda.syncthreads()


#: what a slice takes, how it is loaded, threads take their weights of it, and multiply with it
IN_SHARED_MEMORY = (room, load_columns, load_rows, hold_nothing, multiply)
HOLDING = (room, load_columns, load_rows, _hold, multiply_held)
IN_HALVES = (half_room, load_half_columns, load_half_rows, hold_nothing, multiply_half)
