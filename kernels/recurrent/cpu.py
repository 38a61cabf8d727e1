"""What the recurrent kernels share: the order of sequences, products with weights, gradients.

B sequences of T steps, I inputs, H hidden units, G = gates*H. A kernel's items are sequences, so a
worker runs the whole time loop for its own. It walks *turns* s = 0, 1, ...: turn s is step s of a
sequence, or step length-1-s where `reverse` is set. Sequences are sorted by length, longest first,
so those still running at turn s are the first rows of compact scratch matrices, and one product
with the weights serves all of them. Every element of a product is one chain of fused multiply-adds
(see `cpu/tile.py`), so a sequence's numbers depend neither on its neighbours nor on padding.

Weights are [I,G] and [H,G], packed by `pack_panels` (`packed` = 1), plain (`packed` = 0, better for
up to four sequences), for the tile unit cut into P parts by `pack_unit` (`packed` = 1 + P), or, for
one sequence, in pairs of bfloat16 numbers (`packed` = IN_PAIRS; `multiply_pairs`).
Saved and returned per-step rows have a stride of `padded` size.
"""

from ..cpu.parts import copy_run, fill_row, load_part, store_part
from ..cpu.tile import PANEL_BYTES, tile_height, tile_lanes, tile_width, transpose_block
from ..cpu.tile_unit import STEPS, WORDS
from ..declare import helper, kernel
from ..matmul.cpu_panels import PREFETCH_BYTES, panel
from ..matmul.cpu_unit import PANEL, WIDTH, pack_left, unit_rows
from ..places import Matrix, Place, Rows
from ..simd import is32
from .cpu_row import multiply_pairs, multiply_row
from .shared import IN_PAIRS, Weight, length_of, padded, step_of

#: rows and panels of columns of a weight gradient that are summed over all sequences before the
#: next ones, at most: a block of 264 KiB stays in the L2 cache
GRADIENT_ROWS = 128
GRADIENT_COLUMNS = 11
#: steps whose inputs are copied side by side (in the inputs' own array they would share few cache
#: sets where H is a power of two), and the scratch for it: enough for any number of rows from 32 on
GRADIENT_STEPS = 128
GRADIENT_SCRATCH = 224
#: steps whose products with x are computed at once where sequences are few
INPUT_STEPS = 64


# ---------------------------------------------------------------- sequences


@helper
def sort_by_length(lengths, order, lo, hi, steps):
    """order[lo:hi] = lo..hi, longest first, equal ones in their order."""
    for b in range(lo, hi):
        k, length = b, length_of(lengths, b, steps)
        while k > lo and length_of(lengths, order[k - 1], steps) < length:
            order[k] = order[k - 1]
            k -= 1
        order[k] = b


@helper
def running(lengths, order, lo, rows, turn, steps):
    """How many of the first `rows` sorted sequences have a turn of this number."""
    while rows > 0 and length_of(lengths, order[lo + rows - 1], steps) <= turn:
        rows -= 1
    return rows


# ---------------------------------------------------------------- products


@kernel(grain=16, rounds=("w",))
def transpose_weights(
    w: "in whole f[C,K]",
    transposed: "out rows f[K,C]",
    lo: "begin",
    hi: "end",
):
    """The transposed w, for the backward pass of few sequences."""
    c, k = w.shape
    step = tile_lanes(w)
    whole = c // step * step
    for i in range(lo, hi, step):
        if i + step <= hi:
            for j in range(0, whole, step):
                transpose_block(w, j * k + i, k, transposed, i * c + j, c)
        for l in range(i, min(i + step, hi)):
            for j in range(whole if i + step <= hi else 0, c):
                transposed[l, j] = w[j, l]


@helper
def multiply(a, w, skip, c, depth, rows, first, last, begin):
    """C = A @ W[skip:skip+depth, first:last], or C += where not `begin`; W: see `Weight`.

    W is taken a panel (a few columns) at a time, and a panel in blocks of its depth, so that a
    block stays in the L1 cache while the tiles of all rows pass over it; the panel's part of C
    stays there until the whole depth is summed.
    """
    weight = w.array
    itemsize = 4 if is32(weight) else 8
    width = tile_width(weight)
    step = width
    if not w.packed:
        step = weight.shape[1]
        if rows <= 4:  # wide tiles: long stretches of a row of W
            width = tile_lanes(weight) * (8 if rows == 1 else 4 if rows == 2 else 2)
    limit = PANEL_BYTES // (width * itemsize)
    if rows <= tile_height(weight):
        limit = max(depth, 1)  # a panel is used once
    blocks = (depth + limit - 1) // limit
    block = (depth + blocks - 1) // blocks
    # A Zen 3 (256 bits) finds a weight's panels by itself: asking for them cost an LSTM of 256 or
    # 512 units 16 to 19 % of its time at 16 sequences, 7 to 10 % at 32, nothing with 64 of 1024.
    asks = tile_lanes(weight) * itemsize >= 64
    size = depth * (last - first) * itemsize
    ahead = asks and size > PREFETCH_BYTES and rows > 2 * tile_height(weight)
    j = first
    while j < last:
        p = j // width
        inner = j - p * width
        n = min(width - inner, last - j)
        if w.packed:
            z = (p * w.height + skip) * width + inner
            following = z + w.height * width - inner
        else:
            z = skip * step + j
            following = z + n
        for t in range(0, depth, block):
            part = min(block, depth - t)
            more = z + (t + part) * step
            if t + part == depth:
                more = following if j + n < last else -1
            panel(Matrix(a.array, a.at + t, a.stride, 1), Rows(weight, z + t * step, step),
                  Rows(c.array, c.at + j - first, c.stride), Place(c.array, -1), part, rows, n,
                  begin and t == 0, more if ahead else -1)  # fmt: skip
        j += n


@helper
def multiply_state(a, w, skip, c, depth, rows, first, last, begin, room):
    """`multiply` for the products of a turn, where there may be one row only.

    With `packed` - 1 parts (`packed` > 1) it is computed on the tile unit: a and c are in one
    array, where A's parts go to `room`; `skip` is a multiple of 32, `first` of 64.
    """
    if w.packed > 1:
        parts = w.packed - 1
        packed = Place(a.array, room)
        pack_left(Matrix(a.array, a.at, a.stride, 1), rows, depth, packed, parts)
        at = first // WIDTH * w.array.shape[1] + skip // STEPS * parts * PANEL
        unit_rows(packed, rows, Rows(w.array, at, w.array.shape[1]), last - first, c,
                  Place(c.array, -1), (depth + STEPS - 1) // STEPS, parts, begin)  # fmt: skip
    elif w.packed == IN_PAIRS:  # of one sequence
        width = w.array.shape[1]
        multiply_pairs(a.array, a.at, w.array, skip * width + first // 2, c.array, c.at, depth,
                       last - first, begin)  # fmt: skip
    elif rows == 1 and not w.packed:
        columns = w.array.shape[1]
        multiply_row(a.array, a.at, w.array, skip * columns + first, columns, c.array, c.at, depth,
                     last - first, begin)  # fmt: skip
    else:
        multiply(a, w, skip, c, depth, rows, first, last, begin)


@helper
def packing_of(weight, height, columns):
    """`packed` for a weight of so many rows and columns, by its layout: 0 plain, 1 in panels, 2 and
    more cut into parts for the tile unit. No two of them have rows of one length."""
    if weight.shape[1] == columns:
        return 0
    words = (height + STEPS - 1) // STEPS * PANEL
    return 1 + weight.shape[1] // words if weight.shape[1] % words == 0 else 1


@helper
def unit_scratch(depth, parts):
    """Scratch elements for each sequence for the parts of a left factor: a tile has 16 rows."""
    return (depth + STEPS - 1) // STEPS * WORDS * parts


@helper
def multiply_inputs(x, lengths, weight, out, out_at, out_row, turn, lo, hi, reverse):
    """Products of x with a plain matrix for the `INPUT_STEPS` turns from `turn` on.

    Those of step t of sequence b go to ``out[b*out_at + t*out_row]``. Where sequences are few, a
    turn has too few rows for a whole tile, the steps of a sequence are enough. (One step alone is a
    row: a tile of it would have two sums under way.)
    """
    T, I, columns = x.shape[1], x.shape[2], weight.shape[1]
    width = tile_width(weight)
    for b in range(lo, hi):
        length = length_of(lengths, b, T)
        last = min(length, turn + INPUT_STEPS)
        t = length - last if reverse else turn
        if last - turn == 1:
            multiply_row(x, (b * T + t) * I, weight, 0, columns, out, b * out_at + t * out_row, I,
                         columns, True)  # fmt: skip
            continue
        for j in range(0, columns, width):
            panel(Matrix(x, (b * T + t) * I, I, 1), Rows(weight, j, columns),
                  Rows(out, b * out_at + t * out_row + j, out_row), Place(out, -1), I, last - turn,
                  min(width, columns - j), True, -1)  # fmt: skip


# ---------------------------------------------------------------- gradients


@helper
def load_at(place, j, n):
    """`n` numbers of those at `place`, from number j on."""
    return load_part(place.array, place.at + j, n)


@helper
def store_at(place, j, x, n):
    """Write `n` numbers at `place`, from number j on."""
    store_part(place.array, place.at + j, x, n)


@helper
def add_at(place, j, x, n):
    """Add `n` numbers to those at `place`, from number j on."""
    store_at(place, j, load_at(place, j, n) + x, n)


@kernel(block=64)
def sequence_backward_input(
    dz: "in* rows f[B,D]",  # gradients of the gates: step t of b at dz[b, t*step], as in w_ih
    lengths: "in rows i[B]",  # absent: all steps
    w_transposed: "in whole f[Q,Z]",  # the transposed w_ih [G,I], packed
    dx: "out rows f[B,T,I]",
    step: "int",
    gates: "int",  # G
    lo: "begin",
    hi: "end",
):
    """dx = dz @ w_ih.T for the valid steps, 0 after them."""
    steps, inputs = dx.shape[1], dx.shape[2]
    for b in range(lo, hi):
        length = length_of(lengths, b, steps)
        x = b * steps * inputs
        if length > 0:
            multiply(Rows(dz, b * dz.shape[1], step), Weight(w_transposed, 1, gates), 0,
                     Rows(dx, x, inputs), gates, length, 0, inputs, True)  # fmt: skip
        fill_row(dx, x + length * inputs, (steps - length) * inputs, 0.0)


@helper
def add_products(x, dz, dw, scratch, column, depth, block, begin):
    """A block of dw plus x.T @ dz over the steps of one sequence (from 0 where `begin`)."""
    top, bottom, left, right = block
    k, rows = dw.shape[1], bottom - top
    width = tile_width(dw)
    blocks = (depth + GRADIENT_STEPS - 1) // GRADIENT_STEPS
    steps = (depth + blocks - 1) // blocks
    copied = rows >= 32 and depth > 1
    base, wide = top * scratch.shape[1], padded(rows)
    for t in range(0, depth, steps):
        part = min(steps, depth - t)
        if copied:
            for i in range(part):
                copy_run(x.array, x.at + (t + i) * x.stride, scratch, base + i * wide, rows)
        for j in range(left, right, width):
            n = min(width, right - j)
            at, c = dz.at + t * dz.stride + j, Rows(dw, top * k + column + j, k)
            ahead, factor = at + n if j + n < right else -1, Rows(dz.array, at, dz.stride)
            if copied:
                panel(Matrix(scratch, base, 1, wide), factor, c, Place(dw, -1), part, rows, n,
                      begin and t == 0, ahead)  # fmt: skip
            else:
                panel(Matrix(x.array, x.at + t * x.stride, 1, x.stride), factor, c, Place(dw, -1),
                      part, rows, n, begin and t == 0, ahead)  # fmt: skip


@kernel(
    grain=8, block=GRADIENT_ROWS,
    share=lambda s: (s["column"], s["column"] + s["columns"], s["K"]),
)  # fmt: skip
def sequence_backward_weight(
    x: "in* whole f[B,X]",  # what the weight was multiplied with: step t of b at x[b, t*x_step]
    before: "in whole f[B,C]",  # row of the first turn where `shift` = 1; absent: zeros
    dz: "in* whole f[B,D]",  # gradients of the gates, step t of b at dz[b, t*dz_step + dz_first]
    lengths: "in whole i[B]",  # absent: all steps
    dw: "part rows f[C,K]",  # its columns `column` to `column` + `columns`
    scratch: "scratch rows f[C,S]",  # S = GRADIENT_SCRATCH
    x_step: "int",
    x_first: "int",
    dz_step: "int",
    dz_first: "int",
    column: "int",
    columns: "int",
    shift: "int",  # 1: turn s is multiplied with x of turn s-1
    reverse: "int",
    steps: "int",
    lo: "begin",
    hi: "end",
):
    """dw = sum over the valid steps of x.T @ dz; costs what the lengths add up to."""
    panels = (columns + tile_width(dw) - 1) // tile_width(dw)
    blocks = (panels + GRADIENT_COLUMNS - 1) // GRADIENT_COLUMNS
    wide = (panels + blocks - 1) // max(blocks, 1) * tile_width(dw)  # blocks of equal size
    for top in range(lo, hi, GRADIENT_ROWS):
        bottom = min(top + GRADIENT_ROWS, hi)
        for left in range(0, columns, wide):
            right = min(left + wide, columns)
            begin, block = True, (top, bottom, left, right)
            for b in range(x.shape[0]):
                length = length_of(lengths, b, steps)
                a = b * x.shape[1] + x_first + top
                z = b * dz.shape[1] + dz_first
                if shift and length > 0:
                    if before.size > 0:
                        start = step_of(0, length, reverse) * dz_step
                        add_products(Rows(before, b * dw.shape[0] + top, 1),
                                     Rows(dz, z + start, dz_step), dw, scratch, column, 1, block,
                                     begin)  # fmt: skip
                        begin = False
                    length -= 1
                    if reverse:
                        a += x_step
                    else:
                        z += dz_step
                if length > 0:
                    add_products(Rows(x, a, x_step), Rows(dz, z, dz_step), dw, scratch, column,
                                 length, block, begin)  # fmt: skip
                    begin = False
            if begin:
                for row in range(top, bottom):
                    fill_row(dw, row * dw.shape[1] + column + left, right - left, 0.0)


@kernel(swaps_leading=True)
def swap_time_forward(
    x: "in whole f[T,B,C]",
    y: "out rows f[B,T,C]",
    lo: "begin",
    hi: "end",
):
    """y[b,t] = x[t,b]; its gradient is the same for swapped shapes."""
    T, B, C = x.shape
    for b in range(lo, hi):
        for t in range(T):
            copy_run(x, (t * B + b) * C, y, (b * T + t) * C, C)
