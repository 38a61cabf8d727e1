"""Gradients of recurrent nets on the CPU's tile unit: see `cpu.py` and `matmul/cpu_unit.py`.

Sequences follow each other along the depth of a product, each in tiles of its own: where a tile
ends early it is filled up with zeros. So a sum depends on the sequences' lengths alone.
"""

from ..cpu.parts import fill_row
from ..cpu.tile_unit import SIDE, STEPS, WORDS, unit_begin, unit_end, unit_pack
from ..declare import helper, kernel
from ..matmul.cpu_unit import DEEP, PANEL, WIDTH, pack_left, unit_rows
from ..places import Matrix, Place, Rows
from .cpu import GRADIENT_ROWS
from .shared import length_of, step_of

#: rows (steps of a sequence) that are multiplied at once with the transposed weights
INPUT_ROWS = 64
#: scratch words for each row of a weight and part: enough for a tile of the depth of any block
GRADIENT_WORDS = WORDS + PANEL


def input_scratch(gates: int, parts: int) -> int:
    """S of `sequence_backward_input_unit`, for each sequence."""
    return INPUT_ROWS // SIDE * WORDS * -(-gates // STEPS) * parts


@kernel(block=16, tile_unit=True, only_float32=True)
def sequence_backward_input_unit(
    dz: "in* rows f[B,D]",  # gradients of the gates: step t of b at dz[b, t*step], as in w_ih
    lengths: "in rows i[B]",  # absent: all steps
    w_transposed: "in whole f[Q,Z]",  # the transposed w_ih [G,I], cut into parts
    dx: "out rows f[B,T,I]",
    scratch: "scratch rows f[B,S]",  # S by `input_scratch`
    step: "int",
    gates: "int",  # G
    parts: "int",
    lo: "begin",
    hi: "end",
):
    """dx = dz @ w_ih.T for the valid steps, 0 after them."""
    steps, inputs = dx.shape[1], dx.shape[2]
    room, tiles = Place(scratch, lo * scratch.shape[1]), (gates + STEPS - 1) // STEPS
    unit_begin(dx)
    for b in range(lo, hi):
        length = length_of(lengths, b, steps)
        x, z = b * steps * inputs, b * dz.shape[1]
        for t in range(0, length, INPUT_ROWS):
            rows = min(INPUT_ROWS, length - t)
            pack_left(Matrix(dz, z + t * step, step, 1), rows, gates, room, parts)
            unit_rows(room, rows, Rows(w_transposed, 0, w_transposed.shape[1]), inputs,
                      Rows(dx, x + t * inputs, inputs), Place(dx, -1), tiles, parts,
                      True)  # fmt: skip
        fill_row(dx, x + length * inputs, (steps - length) * inputs, 0.0)
    unit_end(dx)


@helper
def add_tile(x, dz, left, right, tile, depth, rows, columns, parts):
    """A tile of the depth of both factors, up to 32 steps of a sequence, goes to the place `left`
    and to the panels `right`."""
    wide = (rows + SIDE - 1) // SIDE * WORDS
    pack_left(Matrix(x.array, x.at, 1, x.stride), rows, depth,
              Place(left.array, left.at + tile * parts * wide), parts)  # fmt: skip
    for j in range(0, columns, WIDTH):
        for k in range(0, WIDTH, SIDE):
            at = right.at + j // WIDTH * right.stride + tile * parts * PANEL + k * SIDE
            unit_pack(dz.array, dz.at + j + k, 1, dz.stride, right.array, at, PANEL,
                      columns - j - k, depth, parts, True)  # fmt: skip


@kernel(
    grain=SIDE, block=GRADIENT_ROWS, tile_unit=True, only_float32=True,
    share=lambda s: (s["column"], s["column"] + s["columns"], s["K"]),
)  # fmt: skip
def sequence_backward_weight_unit(
    x: "in* whole f[B,X]",  # what the weight was multiplied with: step t of b at x[b, t*x_step]
    before: "in whole f[B,C]",  # row of the first turn where `shift` = 1; absent: zeros
    dz: "in* whole f[B,D]",  # gradients of the gates, step t of b at dz[b, t*dz_step + dz_first]
    lengths: "in whole i[B]",  # absent: all steps
    dw: "part rows f[C,K]",  # its columns `column` to `column` + `columns`
    scratch: "scratch rows f[C,S]",  # S = GRADIENT_WORDS * parts
    x_step: "int",
    x_first: "int",
    dz_step: "int",
    dz_first: "int",
    column: "int",
    columns: "int",
    shift: "int",  # 1: turn s is multiplied with x of turn s-1
    reverse: "int",
    steps: "int",
    parts: "int",
    lo: "begin",
    hi: "end",
):
    """dw = sum over the valid steps of x.T @ dz; costs what the lengths add up to."""
    rows, k = hi - lo, dw.shape[1]
    if rows <= 0:
        return
    wide = (rows + SIDE - 1) // SIDE * WORDS
    left, size = Place(scratch, lo * scratch.shape[1]), rows * scratch.shape[1]
    most = min(DEEP // (parts * STEPS), size // ((wide + PANEL) * parts))  # tiles at once
    right = Rows(scratch, left.at + most * parts * wide, most * parts * PANEL)
    some = max(1, (size - most * parts * wide) // right.stride) * WIDTH
    unit_begin(dw)
    for top in range(0, columns, some):
        n = min(some, columns - top)
        filled, begin = 0, True
        c = Rows(dw, lo * k + column + top, k)
        for b in range(x.shape[0]):
            length = length_of(lengths, b, steps)
            a = b * x.shape[1] + x_first + lo
            z = b * dz.shape[1] + dz_first + top
            t = 0
            if shift and length > 0:
                if before.size > 0:
                    t = -1  # the first turn's row comes from `before`
                length -= 1
                if reverse:
                    a += x_step
                else:
                    z += dz_step
            while t < length:
                if t < 0:
                    start = b * dz.shape[1] + dz_first + top
                    start += step_of(0, length + 1, reverse) * dz_step
                    add_tile(Rows(before, b * dw.shape[0] + lo, 1), Rows(dz, start, dz_step), left,
                             right, filled, 1, rows, n, parts)  # fmt: skip
                    t = 0
                else:
                    depth = min(STEPS, length - t)
                    add_tile(Rows(x, a + t * x_step, x_step), Rows(dz, z + t * dz_step, dz_step),
                             left, right, filled, depth, rows, n, parts)  # fmt: skip
                    t += STEPS
                filled += 1
                if filled == most:
                    unit_rows(left, rows, right, n, c, Place(dw, -1), filled, parts, begin)
                    filled, begin = 0, False
        if filled > 0 or begin:
            unit_rows(left, rows, right, n, c, Place(dw, -1), filled, parts, begin)
    unit_end(dw)
