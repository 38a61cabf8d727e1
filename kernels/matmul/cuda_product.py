"""How a block of threads computes its tile of a matrix product (see `tile` for the pieces).

The sum over the depth is cut into slices. A slice of A and of B is copied from global to shared
memory, where all threads of the block can read it; each thread then adds the products of its few
rows and columns to sums in its registers. While one slice is multiplied, the next ones are on their
way. Blocks at
an edge of the matrices, and slices at the end of the sum, take a slower way that checks every
element; so do blocks whose rows don't begin at multiples of 16 bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..cuda.device import can_load4, cuda
from ..cuda.half import half_value
from ..cuda.tile import (
    commit_copies,
    computed_here,
    copy1,
    copy4,
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
    """A factor of a product: A[i, t], or B[t, i], is number ``t*ld + i`` of `array` where it lies
    `by_depth`, else ``i*ld + t``."""

    array: Any
    ld: int
    by_depth: bool


class Output(NamedTuple):
    """Where a product goes: `rows` x `columns` numbers of `array`, from `at` on."""

    array: Any
    at: int
    rows: int
    columns: int


class Bias(NamedTuple):
    """What is added to each row of a product; `there`: whether there is any."""

    array: Any
    there: bool


class Extra(NamedTuple):
    """What a product's ending takes or makes: an array, where it begins in it, and the number of
    an activation. Products without an ending have any array here."""

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


def copier(width: int, shape: Shape) -> tuple[Callable[..., Any], ...]:
    """Functions that copy a slice of `width` rows of A (or columns of B) to shared memory.

    A[i, t] is ``x[t*ld + i]`` if `by_depth`, else ``x[i*ld + t]``; memory[at + d*row + i] becomes
    A[first + i, t + d] for the slice at `t`.
    """
    depth, threads, row = shape.depth, shape.threads, width + shape.pad
    # by depth, neighbouring threads copy four elements each of one d
    quads = width // 4
    quad_depth = threads // quads
    # else eight threads copy 32 bytes of a row of x, a warp four rows: it writes to all banks
    rows = min(width, threads // 8)
    row_depth = 8 * (threads // 8 // rows)
    assert threads == quads * quad_depth == rows * row_depth
    assert depth % quad_depth == depth % row_depth == width % rows == 0

    @helper
    def first_of(thread, by_depth):
        """Which d and i the thread copies first."""
        if by_depth:
            return thread // quads, thread % quads * 4
        return thread % 8 + thread // (8 * rows) * 8, thread // 8 % rows

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

    return first_of, copy_whole, copy_edge


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


def _made(name: str, lines: list[str], **scope: Any) -> Callable[..., None]:
    scope["__name__"] = __name__
    execute("\n".join(lines) + "\n", f"<{name} of {len(lines)} lines>", scope)
    return helper(scope[name])


def product_of(
    shape: Shape, unit: str = "", ending: str = "", folds: bool = False
) -> Callable[..., None]:
    """The function with which a block computes its tile of a product.

    `unit`: "" for multiply-adds; on tensor cores "tf32", factors rounded to it, or "tf32x3", three
    such products with float32's accuracy.

    `ending`: what else it does with the tile while it is there, "" for nothing: an "activation",
    that of this number (see `rnn/shared.py`); its "activation_gradient" times the product, by the
    array of its outputs; "column_sums", those of B, into an array (see `Extra`).
    """
    # `folds`: tiles across may go on in the grid's third dimension, which takes registers
    rows, columns, m, n, groups, depth, stages, pad = shape
    threads, count = shape.threads, m * n
    first_a, whole_a, edge_a = copier(rows, shape)
    first_b, whole_b, edge_b = copier(columns, shape)
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
    activates, slopes, sums_columns = (
        ending == name for name in ("activation", "activation_gradient", "column_sums")
    )
    activate_sums = activator(count) if activates else None
    multiply_slopes = (
        multiplier(
            [place_of(i, row_piece, row_step) for i in range(m)],
            [place_of(j, piece, piece_step) for j in range(n)],
        )
        if slopes
        else None
    )
    join_groups = joining_groups(count, threads, groups, rows * columns)
    join_columns = joining_columns(threads, columns)
    sharing = threads // columns  # threads that sum a column
    assert threads == sharing * columns
    assert depth % sharing == 0

    @helper
    def product(left_factor, right_factor, output, shift, begin, end, more):
        """C[i, j] = sum of A[i, t] * B[t, j] for begin <= t < end, + bias[j]."""
        a, a_ld, a_by_depth = left_factor
        b, b_ld, b_by_depth = right_factor
        c, c_at, M, N = output
        bias, biased = shift
        extra, extra_at, activation = more
        memory = cuda.shared.array(0, a.dtype)
        sums = cuda.local.array(count, a.dtype)
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
        a_whole = top + rows <= M and (not a_by_depth or (a_ld % 4 == 0 and can_load4(a)))
        b_whole = left + columns <= N and (not b_by_depth or (b_ld % 4 == 0 and can_load4(b)))
        i0, j0 = warp // across * warp_rows, warp % across * warp_columns
        a_at = group * share * a_row + i0
        b_at = group * share * b_row + j0 + b_part
        if not pieces:
            a_at += lane // 8 * lane_rows
            b_at += lane % 8 * lane_columns
        a_d, a_i = first_a(thread, a_by_depth)
        b_d, b_i = first_b(thread, b_by_depth)
        a_source = (
            (begin + a_d) * a_ld + top + a_i if a_by_depth else (top + a_i) * a_ld + begin + a_d
        )
        b_source = (
            (begin + b_d) * b_ld + left + b_i if b_by_depth else (left + b_i) * b_ld + begin + b_d
        )
        # memory holds slices in turn: where the slice in use lies, where the next one goes
        use, fill = 0, 0
        for t in range(begin - (stages - 1) * depth, end, depth):
            if t >= begin:
                wait_copies(behind)
                cuda.syncthreads()
            ahead = t + (stages - 1) * depth
            if ahead < end:
                if a_whole and ahead + depth <= end:
                    whole_a(memory, fill, a, a_source, a_ld, a_by_depth)
                else:
                    edge_a(memory, fill, a, a_ld, a_by_depth, top, M, ahead, end)
                if b_whole and ahead + depth <= end:
                    whole_b(memory, fill + b_part, b, b_source, b_ld, b_by_depth)
                else:
                    edge_b(memory, fill + b_part, b, b_ld, b_by_depth, left, N, ahead, end)
                a_source += depth * a_ld if a_by_depth else depth
                b_source += depth * b_ld if b_by_depth else depth
            commit_copies()
            fill = fill + stage if fill < (stages - 1) * stage else 0
            if t < begin:
                continue  # the first slices are on their way
            if pieces:
                multiply_pieces(sums, memory, use + a_at, a_row, use + b_at, b_row,
                                pieces_m, pieces_n, share, lane)  # fmt: skip
            else:
                multiply_tile(sums, memory, use + a_at, a_row, use + b_at, b_row, m, n, share)
            if sums_columns and cuda.blockIdx.x == 0:
                mine = computed_here(cuda.threadIdx.x)
                at = use + b_part + mine % columns + mine // columns * b_row
                for d in range(0, depth, sharing):
                    column_sum += memory[at + d * b_row]
            use = use + stage if use < (stages - 1) * stage else 0
        if sums_columns and cuda.blockIdx.x == 0:
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
        if activates:
            activate_sums(sums, activation)
        if slopes:
            multiply_slopes(sums, extra, row, column, M, N, activation)
        vectors = piece == 4 and N % 4 == 0 and can_load4(c)
        store_tile(sums, c, c_at + row * N + column, N, M - row, N - column, vectors,
                   m, n, row_piece, row_step, piece, piece_step)  # fmt: skip

    return product
