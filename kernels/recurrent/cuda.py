"""What the recurrent kernels share on a GPU: who computes what, products with weights in shared
memory, the order of sequences.

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
whose threads take their weights from shared memory into registers once.

Rows of sequences are handled four at a time (a *tile*); once the sequences of a tile have ended,
it costs nothing. A product of a tile with the slice [depth, columns] of the weights is split over
its depth: split p takes the terms k = p, p + splits, ... The number of splits belongs to the
kernel, and they are added in one order: so a sequence's numbers depend neither on its neighbours
nor on padding, nor on the number of groups and blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ..cuda.device import (
    block_number,
    block_threads,
    cast,
    cuda,
    divide_index,
    flat,
    flat_index,
    load4,
    store4,
    thread_number,
)
from ..cuda.near import FAR, NEAR
from ..cuda.tile import commit_copies, copy1, wait_copies
from ..declare import ceil_div, cuda_kernel, helper
from ..recorded import execute
from . import cpu
from .cuda_layout import CHAIN, HELD_TERMS, HELD_UNITS, MOST_THREADS, THREADS, TILE
from .shared import length_of, step_of

# ---------------------------------------------------------------- sequences


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


def together(near: bool) -> dict[str, Any]:
    """What is declared of kernels whose blocks work together: as a cluster, or in a cooperative
    launch; and that lower precisions round their weights."""
    if near:
        return {"cluster": lambda sizes: sizes["blocks"], "rounds": ("w_hh",)}
    return {"cooperative": True, "rounds": ("w_hh",)}


def ways(held: bool = True) -> Iterator[tuple[str, bool, bool]]:
    """The ways in which kernels are declared: what names them, whether blocks are near each other,
    and whether threads hold their weights in registers."""
    for how, near in (("persistent", False), ("cluster", True)):
        yield how, near, False
        if held:
            yield f"{how}_held", near, True


def functions_of(near: bool, held: bool) -> tuple[tuple[Callable[..., Any], ...], int]:
    """The functions by which blocks exchange (see `kernels/cuda/near.py`), threads take their
    weights and multiply with them, and how many weights a thread holds."""
    own = (_hold, multiply_held) if held else (hold_nothing, multiply)
    return (*(NEAR if near else FAR), *own), 4 * HELD_TERMS if held else 1


def bounds_of(held: bool) -> dict[str, Any]:
    """The registers that threads may have: as many as there are where they hold weights."""
    if held:
        return {"bounds": 16 * HELD_UNITS, "only_float32": True}
    return {"bounds": MOST_THREADS}


@helper
def tiles_of(batch, groups):
    """The tiles of a group, at most."""
    return divide_index(divide_index(batch + groups - 1, groups) + TILE - 1, TILE)


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


# ---------------------------------------------------------------- products


@helper
def load_columns(s, at, w, first, units, gates):
    """s[at + k*columns + g*units + u] = w[k, g*H + first + u], 0 for units that don't exist."""
    hidden, total = w.shape[0], w.shape[1]
    columns = gates * units
    for i in range(thread_number(), hidden * columns, block_threads()):
        k = divide_index(i, columns)
        g = divide_index(i - k * columns, units)
        u = first + i - k * columns - g * units
        copy1(s, at + i, w, k * total + g * hidden + u, u < hidden)
    commit_copies()


@helper
def load_rows(s, at, w, first, units):
    """s[at + k*units + u] = w[first + u, k], 0 for units that don't exist."""
    hidden, total = w.shape[0], w.shape[1]
    for i in range(thread_number(), total * units, block_threads()):
        # neighbouring threads read neighbouring k: whole cache lines
        u = divide_index(i, total)
        k = i - u * total
        copy1(s, at + k * units + u, w, (first + u) * total + k, first + u < hidden)
    commit_copies()


@helper
def add_product(s, weights, row, columns, inputs, depth, parts, splits):
    """Parts of the product of a tile with `columns` columns of the weights.

    Weights s[weights + k*row + c], inputs s[inputs + k*TILE + r] for k < depth; split p's part of
    row r, column c goes to s[parts + (p*TILE + r)*columns + c].
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
        w = weights + split * row + column
        x = inputs + split * TILE
        for _ in range(split, depth, splits):
            w0, w1, w2, w3 = load4(s, w)
            x0, x1, x2, x3 = load4(s, x)
            a0, a1, a2, a3 = a0 + x0 * w0, a1 + x0 * w1, a2 + x0 * w2, a3 + x0 * w3
            b0, b1, b2, b3 = b0 + x1 * w0, b1 + x1 * w1, b2 + x1 * w2, b3 + x1 * w3
            c0, c1, c2, c3 = c0 + x2 * w0, c1 + x2 * w1, c2 + x2 * w2, c3 + x2 * w3
            d0, d1, d2, d3 = d0 + x3 * w0, d1 + x3 * w1, d2 + x3 * w2, d3 + x3 * w3
            w += splits * row
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
        "def hold(held, s, weights, row, columns, depth, splits):",
        "    split = divide_index(thread_number(), columns // 4)",
        "    at = weights + split * row + 4 * (thread_number() - split * (columns // 4))",
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
        hold += [inside, f"        {', '.join(w)} = load4(s, at + {k} * splits * row)"]
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
def hold_nothing(held, s, weights, row, columns, depth, splits):
    """The weights stay in shared memory."""


@helper
def multiply_held(s, held, weights, row, columns, inputs, depth, parts, splits):
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
def multiply(s, held, weights, row, columns, inputs, depth, parts, splits):
    """The product of a tile with `columns` columns of the weights (see `add_product`); `total` has
    its elements then."""
    add_product(s, weights, row, columns, inputs, depth, parts, splits)
    cuda.syncthreads()
    add_parts(s, parts, splits, columns)
    cuda.syncthreads()


@helper
def total(s, parts, splits, columns, row, column):
    """An element of a product: its one chain, or the sum of four."""
    at, step = parts + row * columns + column, TILE * columns
    if splits == CHAIN:
        return s[at]
    return (s[at] + s[at + step]) + (s[at + 2 * step] + s[at + 3 * step])


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
