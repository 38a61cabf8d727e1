"""How a block of threads computes its tile of a matrix product (see `tile` for the pieces).

The sum over the depth is cut into slices. A slice of A and of B is copied from global to shared
memory, where all threads of the block can read it; each thread then adds the products of its few
rows and columns to sums in its registers. While one slice is multiplied, the next ones are on their
way. How a slice is copied depends on what the factor is: a matrix (`cuda_slices.py`), or windows
of images (`convolution/cuda_windows.py`). Blocks at an edge of a matrix, and slices at the end of
the sum, take a slower way that checks every element; so do blocks whose rows don't begin at
multiples of 16 bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..cuda.device import can_load4, cuda
from ..cuda.half import half_value
from ..cuda.tile import (
    commit_copies,
    computed_here,
    multiply_tile,
    multiply_tile_tf32,
    multiply_tile_tf32x3,
    place_of,
    store_tile,
    wait_copies,
)
from ..declare import ceil_div, helper
from ..recorded import execute
from ..scalar import relu, relu_gradient, sigmoid, sigmoid_gradient, tanh, tanh_gradient
from ..simd import where
from .cuda_joined_sums import joining_columns, joining_groups
from .cuda_slices import Factor as Factor  # others take both from here
from .cuda_slices import Shape, matrix_slices


class Output(NamedTuple):
    """Where a product goes: `rows` x `columns` numbers of `array`, from `at` on, each row `ld`
    numbers after the one before; `ld` is a multiple of `columns`. Of a spread product `at` is an
    array in shared memory: where each row of the block's tile begins."""

    array: Any
    at: Any
    ld: int
    rows: int
    columns: int


class Bias(NamedTuple):
    """What is added to each row of a product; `there`: whether there is any."""

    array: Any
    there: bool


class Extra(NamedTuple):
    """What a product's ending takes or makes: an array, where it begins in it, and the number of
    an activation. With a negative number, and without an ending, it may be any array and is left
    alone."""

    array: Any
    at: int
    activation: int


#: blocks of a grid's second or third dimension, at most
MOST = 65_535


def tiles_grid(rows: int, columns: int, shape: Any, others: int = 1) -> tuple[int, int, int]:
    """A grid with a block for each tile of a product, times what else its third dimension counts
    (parts of a sum, or as many pairs of matrices as fit). Where there are more tiles across than
    its second dimension takes, they go on in the third."""
    across = ceil_div(columns, shape.columns)
    folds = max(ceil_div(across, MOST), 1)
    return (
        ceil_div(rows, shape.rows), ceil_div(across, folds),
        folds * max(min(others, MOST // folds), 1),
    )  # fmt: skip


@helper
def folds_of(N, columns):
    """How often the tiles across go on in a grid's third dimension."""
    across = (N + columns - 1) // columns
    if across <= cuda.gridDim.y:
        return 1
    return (across + cuda.gridDim.y - 1) // cuda.gridDim.y


@helper
def first_column(N, columns):
    """Where a block's tile begins in a row of the product; it may be beyond the last column."""
    folds = folds_of(N, columns)
    if folds == 1:
        return cuda.blockIdx.y * columns
    return (cuda.blockIdx.y + cuda.blockIdx.z % folds * cuda.gridDim.y) * columns


def activator(count: int) -> Callable[..., None]:
    """The function ``(sums, activation)`` that applies an activation to so many sums. They stand
    there one by one: a loop that is not unrolled would keep the sums in memory."""
    lines = ["def activate_sums(sums, activation):"]
    for begin, function in (
        ("if activation == 0", "tanh"), ("elif activation == 1", "relu"), ("else", "sigmoid"),
    ):  # fmt: skip
        lines.append(f"    {begin}:")
        lines += [f"        sums[{k}] = {function}(sums[{k}])" for k in range(count)]
    return _made("activate_sums", lines, tanh=tanh, relu=relu, sigmoid=sigmoid)


def multiplier(
    rows: Sequence[int], columns: Sequence[int], before: str = "", after: str = ""
) -> Callable[..., None]:
    """The function ``(sums, outputs, row, column, M, N, activation)`` that multiplies sums, which
    lie at these rows and columns from `row` and `column` on, by the slopes of an activation with
    such outputs, M x N. `before` and `after` an output stands what makes it a number."""
    lines = [
        "def multiply_slopes(sums, outputs, row, column, M, N, activation):",
        "    is_tanh, is_relu = activation == 0, activation == 1",
    ]
    for i, down in enumerate(rows):
        for j, right in enumerate(columns):
            k = i * len(columns) + j
            lines += [
                f"    if row + {down} < M and column + {right} < N:",
                f"        y = {before}outputs[(row + {down}) * N + column + {right}]{after}",
                f"        sums[{k}] = chosen_slope(y, sums[{k}], is_tanh, is_relu)",
            ]
    return _made("multiply_slopes", lines, chosen_slope=chosen_slope, half_value=half_value)


@helper
def chosen_slope(y, dy, is_tanh, is_relu):
    """dy times the slope of tanh, ReLU or the sigmoid: all are computed, without branches."""
    other = where(is_relu, relu_gradient(y, dy), sigmoid_gradient(y, dy))
    return where(is_tanh, tanh_gradient(y, dy), other)


def spreader(rows: Sequence[int], columns: Sequence[int]) -> Callable[..., None]:
    """The function ``(sums, c, begins, row, column, M, N, outputs, activation)`` that stores sums,
    which lie at these rows and columns from `row` (of the tile) and `column` on; row i begins at
    ``begins[i]``. If `activation` is not negative they are first multiplied by its slopes, whose
    outputs lie in `outputs` as the sums do in c."""
    lines = [
        "def spread_sums(sums, c, begins, row, column, M, N, outputs, activation):",
        "    is_tanh, is_relu = activation == 0, activation == 1",
    ]
    for i, down in enumerate(rows):
        lines += [f"    if row + {down} < M:", f"        at = begins[row + {down}] + column"]
        for j, right in enumerate(columns):
            k = i * len(columns) + j
            lines += [
                f"        if column + {right} < N:",
                "            if activation >= 0:",
                f"                y = outputs[at + {right}]",
                f"                sums[{k}] = chosen_slope(y, sums[{k}], is_tanh, is_relu)",
                f"            c[at + {right}] = sums[{k}]",
            ]
    return _made("spread_sums", lines, chosen_slope=chosen_slope)


def _made(name: str, lines: list[str], **scope: Any) -> Callable[..., None]:
    scope["__name__"] = __name__
    execute("\n".join(lines) + "\n", f"<{name} of {len(lines)} lines>", scope)
    return helper(scope[name])


def product_of(
    shape: Shape, unit: str = "", ending: str = "", folds: bool = False,
    slices: tuple[Callable[..., Any], Callable[..., Any]] = (matrix_slices, matrix_slices),
) -> Callable[..., None]:  # fmt: skip
    """The function with which a block computes its tile of a product.

    `unit`: "" for multiply-adds; on tensor cores "tf32", factors rounded to it, or "tf32x3", three
    such products with float32's accuracy.

    `ending`: what else it does with the tile while it is there, "" for nothing: an "activation",
    that of this number (see `rnn/shared.py`); its "activation_gradient" times the product, by the
    array of its outputs; "column_sums", those of B, into an array (see `Extra`). "spread" stores
    each row at a place of its own, times the gradient of an activation if there is one.

    `slices`: what makes the functions by which slices of A and of B are copied.
    """
    # `folds`: tiles across may go on in the grid's third dimension, which takes registers
    rows, columns, m, n, groups, depth, stages, pad = shape
    threads, count = shape.threads, m * n
    begin_a, copy_a = slices[0](rows, shape)
    begin_b, copy_b = slices[1](columns, shape)
    a_row, b_row = rows + pad, columns + pad
    b_part = depth * a_row  # where B's slice begins
    stage = depth * (a_row + b_row)
    share, behind = depth // groups, stages - 2
    # a warp's tile, in pieces of four rows and `piece` columns
    warp_rows, warp_columns = 4 * m, 8 * n
    row_piece, row_step, piece, piece_step = 4, 16, min(n, 4), 32
    lane_rows, lane_columns = row_piece, piece
    pieces_m, pieces_n = m // 2, n // 2
    pieces = unit != ""  # of 16 rows and 8 columns, on tensor cores
    multiply_pieces = multiply_tile_tf32x3 if unit == "tf32x3" else multiply_tile_tf32
    if pieces:
        warp_rows, warp_columns = 8 * m, 4 * n
        row_piece, row_step, piece, piece_step = 1, 8, 2, 8
    across = columns // warp_columns
    activates, slopes, sums_columns, spreads = (
        ending == name for name in ("activation", "activation_gradient", "column_sums", "spread")
    )
    activate_sums = activator(count) if activates else None
    places = (
        [place_of(i, row_piece, row_step) for i in range(m)],
        [place_of(j, piece, piece_step) for j in range(n)],
    )
    multiply_slopes = multiplier(*places) if slopes else None
    spread_sums = spreader(*places) if spreads else None
    join_groups = joining_groups(count, threads, groups, rows * columns)
    join_columns = joining_columns(threads, columns)
    sharing = threads // columns  # threads that sum a column
    assert threads == sharing * columns
    assert depth % sharing == 0

    @helper
    def product(left_factor, right_factor, output, shift, begin, end, more):
        """C[i, j] = sum of A[i, t] * B[t, j] for begin <= t < end, + bias[j]."""
        c, c_at, c_ld, M, N = output
        bias, biased = shift
        extra, extra_at, activation = more
        memory = cuda.shared.array(0, c.dtype)
        sums = cuda.local.array(count, c.dtype)
        for k in range(count):
            sums[k] = 0.0
        column_sum = sums[0]
        thread = cuda.threadIdx.x
        warp, lane = thread // 32 % (threads // 32 // groups), thread % 32
        group = thread // (threads // groups)
        top, left = cuda.blockIdx.x * rows, cuda.blockIdx.y * columns
        if folds:
            left = first_column(N, columns)
            if left >= N:
                return
        i0, j0 = warp // across * warp_rows, warp % across * warp_columns
        a_at = group * share * a_row + i0
        b_at = group * share * b_row + j0 + b_part
        if not pieces:
            a_at += lane // 8 * lane_rows
            b_at += lane % 8 * lane_columns
        a_state = begin_a(left_factor, top, M, begin)
        b_state = begin_b(right_factor, left, N, begin)
        # memory holds slices in turn: where the slice in use lies, where the next one goes
        use, fill = 0, 0
        for t in range(begin - (stages - 1) * depth, end, depth):
            if t >= begin:
                wait_copies(behind)
                cuda.syncthreads()
            ahead = t + (stages - 1) * depth
            if ahead < end:
                a_state = copy_a(memory, fill, left_factor, a_state, top, M, ahead, end)
                b_state = copy_b(memory, fill + b_part, right_factor, b_state, left, N, ahead, end)
            commit_copies()
            fill = fill + stage if fill < (stages - 1) * stage else 0
            if t < begin:
                continue  # the first slices are on their way
            if pieces:
                multiply_pieces(sums, memory, use + a_at, a_row, use + b_at, b_row,
                                pieces_m, pieces_n, share, lane)  # fmt: skip
            else:
                multiply_tile(sums, memory, use + a_at, a_row, use + b_at, b_row, m, n, share)
            if sums_columns and cuda.blockIdx.x == 0 and activation >= 0:
                mine = computed_here(cuda.threadIdx.x)
                at = use + b_part + mine % columns + mine // columns * b_row
                for d in range(0, depth, sharing):
                    column_sum += memory[at + d * b_row]
            use = use + stage if use < (stages - 1) * stage else 0
        if sums_columns and cuda.blockIdx.x == 0 and activation >= 0:
            join_columns(memory, column_sum, thread, left, N, extra, extra_at)
        join_groups(memory, sums, thread, group)
        if group > 0:
            return
        if pieces:
            row, column = top + i0 + lane // 4, left + j0 + lane % 4 * 2
        else:
            row, column = top + i0 + lane // 8 * lane_rows, left + j0 + lane % 8 * lane_columns
        if biased:
            for j in range(n):
                place = column + place_of(j, piece, piece_step)
                shift = bias[place] if place < N else bias[0]
                for i in range(m):
                    sums[i * n + j] += shift
        if activates and activation >= 0:
            activate_sums(sums, activation)
        if slopes:
            multiply_slopes(sums, extra, row, column, M, N, activation)
        if spreads:
            spread_sums(sums, c, c_at, row - top, column, M - top, N, extra, activation)
        else:
            vectors = piece == 4 and N % 4 == 0 and can_load4(c)
            store_tile(sums, c, c_at + row * c_ld + column, c_ld, M - row, N - column, vectors,
                       m, n, row_piece, row_step, piece, piece_step)  # fmt: skip

    return product
