"""Matrix products on CUDA of factors of 16 bits, bfloat16 or float16, summed in float32.

Formulas as in `cuda.py`. They run on tensor cores (`cuda/half.py`) for all sizes, in three shapes.
Each writes float32, 16 bits, or both: what other products take is written as they read it. The
gradients of weights and biases are float32. Long sums with few results are split over blocks, and
products of many matrices are made in one launch (`cuda_half_parts.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..cuda.device import can_load4, cuda, flat
from ..cuda.half import (
    LETTERS,
    PAD,
    copy8,
    half_value,
    half_word,
    multiply_halves,
    of_letter,
    store_halves,
)
from ..cuda.tile import commit_copies, computed_here, place_of, store_tile, wait_copies
from ..declare import ceil_div, cuda_kernel, helper
from .cuda import FOLDING, TILES, Choice, cycles_of_parts
from .cuda_joined_sums import joining_columns, joining_groups
from .cuda_product import MOST, activator, first_column, multiplier, tiles_grid


class HalfShape(NamedTuple):
    """How a block computes its tile of the output."""

    rows: int  # of the tile
    columns: int
    down: int  # pieces of 16 rows of a warp
    across: int  # pieces of 8 columns, even
    groups: int  # of warps, each with all of the tile and a share of the sum
    depth: int  # of a slice in shared memory
    stages: int  # slices in shared memory: one in use, the others on their way

    @property
    def warps(self) -> int:
        """Warps of a group."""
        return self.rows * self.columns // (128 * self.down * self.across)

    @property
    def threads(self) -> int:
        return 32 * self.warps * self.groups

    def stage(self, a_by_depth: bool, b_by_depth: bool) -> int:
        """Words of shared memory of a slice of both factors."""
        return side(self.rows, self.depth, a_by_depth) + side(self.columns, self.depth, b_by_depth)

    @property
    def memory(self) -> int:
        """Float32 numbers of shared memory, at most."""
        return ceil_div(self.stages * max(self.stage(x, y) for x in (0, 1) for y in (0, 1)), 2)


def side(width: int, depth: int, by_depth: bool) -> int:
    """Words of shared memory of a slice of one factor."""
    return depth * (width + PAD) if by_depth else width * (depth + PAD)


#: by what follows the precision in a kernel's name
SHAPES = {
    "": HalfShape(128, 128, 4, 4, groups=1, depth=32, stages=3),
    "_middle": HalfShape(64, 64, 2, 4, groups=2, depth=64, stages=3),
    "_tiny": HalfShape(32, 32, 2, 4, groups=4, depth=128, stages=3),
}
#: multiply-adds a multiprocessor does in a cycle with blocks of a shape: estimates, not measured
RATES = {"": 1000.0, "_middle": 600.0, "_tiny": 250.0}
#: the shape of products in parts
PARTS = "_tiny"
#: the kernels that copy float32 numbers as these types
COPIES = {kind: f"to_{kind}" for kind in LETTERS}


class HalfProduct(NamedTuple):
    """What stands for a product of float32 factors: kernels of this name and a type's."""

    name: str
    factors: tuple[str, ...]  # of 16 bits
    result: str
    half: bool = True  # whether its result may be of 16 bits, too
    batched: bool = False  # of many matrices: in one shape


#: by the product's kernel
PRODUCTS = {
    "linear_forward": HalfProduct("linear_forward", ("x", "w"), "y"),
    "linear_forward_activated": HalfProduct("linear_forward", ("x", "w"), "y"),
    "linear_backward_input_unpacked": HalfProduct("linear_backward_input", ("dy", "w"), "dx"),
    "linear_backward_input_activated": HalfProduct("linear_backward_input", ("dy", "w", "y"), "dx"),
    "linear_backward_weight": HalfProduct("linear_backward_weight", ("x", "dy"), "dw", half=False),
    "linear_backward_weight_bias": HalfProduct(
        "linear_backward_weight", ("x", "dy"), "dw", half=False
    ),
    "matmul_forward": HalfProduct("matmul_forward", ("a", "b"), "y", batched=True),
    "matmul_backward_b": HalfProduct(
        "matmul_backward_b", ("a", "dy"), "db", half=False, batched=True
    ),
}
#: what they take besides, where a call has none
ABSENT = {"y": None, "bias": None, "dbias": None, "y_half": None, "dx_half": None, "activation": -1}


def choose_shape(
    rows: int, columns: int, depth: int, multiprocessors: int, shared_bytes: int = 232_448
) -> Choice:
    """The fastest way to a product of these sizes, by an estimate that depends on them alone, of
    those that fit into a block's shared memory and take no more tiles across than a grid."""

    def cycles(choice: Choice) -> float:
        shape, parts = SHAPES[choice.suffix], choice.parts
        tiles = ceil_div(rows, shape.rows) * ceil_div(columns, shape.columns) * parts
        work = shape.rows * shape.columns * ceil_div(depth, parts)
        total = ceil_div(tiles, multiprocessors) * work / RATES[choice.suffix]
        return total + (cycles_of_parts(parts, shape, rows, columns, 4) if parts > 1 else 0)

    fitting = [
        Choice(name)
        for name, shape in SHAPES.items()
        if 4 * shape.memory <= shared_bytes
        and (name == FOLDING or ceil_div(columns, shape.columns) <= MOST)
    ]
    few = SHAPES[PARTS]
    if ceil_div(rows, few.rows) * ceil_div(columns, few.columns) <= TILES:
        fitting += [Choice(PARTS, n) for n in (2, 4, 8, 16) if depth >= few.depth * n]
    return min(fitting or [Choice(FOLDING)], key=cycles)


def copier(width: int, shape: HalfShape, by_depth: bool) -> Callable[..., None]:
    """The function that copies a slice of `width` rows of A (or columns of B) to shared memory."""
    depth, threads = shape.depth, shape.threads
    along = (width if by_depth else depth) // 8  # pieces of eight words of a row
    row, count = 8 * along + PAD, width * depth // 8 // threads
    assert count * threads * 8 == width * depth

    @helper
    def copy_slice(memory, at, x, ld, first, limit, t, end, whole):
        """What is past A, from row `limit` and term `end` on, becomes 0. `whole`: pieces of eight
        begin at multiples of 16 bytes."""
        mine = computed_here(cuda.threadIdx.x)
        for k in range(count):
            piece = mine + k * threads
            line, begin = piece // along, piece % along * 8
            if by_depth:
                source, left = (t + line) * ld + first + begin, limit - first - begin
                there = t + line < end
            else:
                source, left = (first + line) * ld + t + begin, end - t - begin
                there = first + line < limit
            left = max(min(left, 8), 0) if there else 0
            place = at + line * row + begin
            if whole:
                copy8(memory, place, x, source, left)
            else:
                for e in range(8):
                    memory[place + e] = x[source + e] if e < left else np.uint16(0)

    return copy_slice


def product_of(
    shape: HalfShape,
    is_bf16: int,
    a_by_depth: bool,
    b_by_depth: bool,
    ending: str,
    folds: bool = False,
) -> Callable[..., None]:
    """The function with which a block computes its tile of a product.

    `ending`: what else it does with the tile: an "activation" by its number, unless that is
    negative; the product times its "slope", by its outputs `extra`, of 16 bits; the "column_sums"
    of B, into `bias`, where that is there.
    """
    rows, columns, down, across, groups, depth, stages = shape
    threads, count, m, n = shape.threads, 4 * down * across, 2 * down, 2 * across
    copy_a, copy_b = copier(rows, shape, a_by_depth), copier(columns, shape, b_by_depth)
    a_row = (rows if a_by_depth else depth) + PAD
    b_row = (columns if b_by_depth else depth) + PAD
    b_part, stage = side(rows, depth, a_by_depth), shape.stage(a_by_depth, b_by_depth)
    share, behind = depth // groups, stages - 2
    warps_across = columns // (8 * across)  # in a group
    a_transposed, b_transposed = int(a_by_depth), int(b_by_depth)
    activates, slopes, sums_columns = (
        ending == name for name in ("activation", "slope", "column_sums")
    )
    activate_sums = activator(count) if activates else None
    lines = [place_of(i, 1, 8) for i in range(m)], [place_of(j, 2, 8) for j in range(n)]
    multiply_slopes = multiplier(*lines, "half_value(", f", {is_bf16})") if slopes else None
    join_groups = joining_groups(count, threads, groups, rows * columns)
    join_columns = joining_columns(threads, columns)
    sharing = threads // columns  # threads that sum a column
    assert threads == sharing * columns
    assert share % 16 == 0
    assert depth % sharing == 0

    @helper
    def product(a, a_ld, b, b_ld, c, c_half, bias, M, N, end, extra, activation):
        """C[i, j] = sum of A[i, t] * B[t, j] for t < end, + bias[j]; C, M x N."""
        memory = cuda.shared.array(0, np.uint16)
        floats = cuda.shared.array(0, np.float32)
        sums = cuda.local.array(count, np.float32)
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
        a_whole, b_whole = a_ld % 8 == 0 and can_load4(a), b_ld % 8 == 0 and can_load4(b)
        i0, j0 = warp // warps_across * (16 * down), warp % warps_across * (8 * across)
        a_at = group * share * a_row + i0 if a_by_depth else group * share + i0 * a_row
        b_at = group * share * b_row + j0 if b_by_depth else group * share + j0 * b_row
        b_at += b_part
        # memory holds slices in turn: where the slice in use lies, where the next one goes
        use, fill = 0, 0
        for t in range(-(stages - 1) * depth, end, depth):
            if t >= 0:
                wait_copies(behind)
                cuda.syncthreads()
            ahead = t + (stages - 1) * depth
            if ahead < end:
                copy_a(memory, fill, a, a_ld, top, M, ahead, end, a_whole)
                copy_b(memory, fill + b_part, b, b_ld, left, N, ahead, end, b_whole)
            commit_copies()
            fill = fill + stage if fill < (stages - 1) * stage else 0
            if t < 0:
                continue  # the first slices are on their way
            multiply_halves(sums, memory, use + a_at, a_row, a_transposed,
                            use + b_at, b_row, b_transposed, down, across, share, lane,
                            is_bf16)  # fmt: skip
            if sums_columns and cuda.blockIdx.x == 0 and bias.size > 0:
                mine = computed_here(cuda.threadIdx.x)
                at = use + b_part + mine % columns + mine // columns * b_row
                for d in range(0, depth, sharing):
                    column_sum += half_value(memory[at + d * b_row], is_bf16)
            use = use + stage if use < (stages - 1) * stage else 0
        if sums_columns and cuda.blockIdx.x == 0 and bias.size > 0:
            join_columns(floats, column_sum, thread, left, N, bias, 0)
        join_groups(floats, sums, thread, group)
        if group > 0:
            return
        row, column = top + i0 + lane // 4, left + j0 + lane % 4 * 2
        if not sums_columns and bias.size > 0:
            for j in range(n):
                place = column + place_of(j, 2, 8)
                shift = bias[place] if place < N else bias[0]
                for i in range(m):
                    sums[i * n + j] += shift
        if activates and activation >= 0:
            activate_sums(sums, activation)
        if slopes and activation >= 0:
            multiply_slopes(sums, extra, row, column, M, N, activation)
        at = row * N + column
        if c.size > 0:
            store_tile(sums, c, at, N, M - row, N - column, False, m, n, 1, 8, 2, 8)
        if c_half.size > 0:
            store_halves(sums, c_half, at, N, M - row, N - column,
                         N % 2 == 0 and can_load4(c_half), down, across, is_bf16)  # fmt: skip

    return product


def _grid(shape: HalfShape, rows: str, columns: str) -> dict[str, Any]:
    """Launch geometry: a block for each tile of the output."""

    def launch(s: dict[str, int]) -> tuple[Any, Any]:
        return tiles_grid(s[rows], s[columns], shape), shape.threads

    bounds = (shape.threads, 512 // shape.threads)
    return {"launch": launch, "shared": lambda s: shape.memory, "bounds": bounds}


def _declare(kind: str, letter: str, suffix: str, shape: HalfShape) -> None:
    """The three products of factors of a type in one shape, with what comes after them."""
    is_bf16 = int(kind == "bf16")
    forward, inputs, weights = (_grid(shape, *sides) for sides in ("NK", "NC", "CK"))
    folds = suffix == FOLDING
    product = product_of(shape, is_bf16, False, True, "activation", folds)
    product_sloped = product_of(shape, is_bf16, False, False, "slope", folds)
    product_summed = product_of(shape, is_bf16, True, True, "column_sums", folds)
    typed, only = of_letter(letter), {"only_float32": True}

    @cuda_kernel(**forward, name=f"linear_forward_{kind}{suffix}", **only)
    @typed
    def linear_forward(
        x: "in whole h[N,C]",
        w: "in whole h[C,K]",
        bias: "in whole f[B]",  # B is K, or 0: no bias
        y: "out whole f[N,K]",  # may be absent
        y_half: "out whole h[N,K]",  # likewise
        activation: "int",  # tanh (0), ReLU (1), sigmoid (2) or none (-1)
    ):
        """y = f(x @ w + bias)"""
        (n, c), k = x.shape, w.shape[1]
        a, b, half = flat(x), flat(w), flat(y_half)
        product(a, c, b, k, flat(y), half, bias, n, k, c, half, activation)

    @cuda_kernel(**inputs, name=f"linear_backward_input_{kind}{suffix}", **only)
    @typed
    def linear_backward_input(
        dy: "in whole h[N,K]",
        w: "in whole h[C,K]",
        y: "in whole h[N,C]",  # f's outputs, absent without f
        dx: "out whole f[N,C]",  # may be absent
        dx_half: "out whole h[N,C]",  # likewise
        activation: "int",  # tanh (0), ReLU (1), sigmoid (2) or none (-1)
    ):
        """dx = (dy @ w.T) f', by f's outputs"""
        (n, k), c = dy.shape, w.shape[0]
        out = flat(dx)
        product_sloped(flat(dy), k, flat(w), k, out, flat(dx_half), out[:0], n, c, k, flat(y),
                       activation)  # fmt: skip

    @cuda_kernel(**weights, name=f"linear_backward_weight_{kind}{suffix}", **only)
    @typed
    def linear_backward_weight(
        x: "in whole h[N,C]",
        dy: "in whole h[N,K]",
        dw: "out whole f[C,K]",
        dbias: "out whole f[B]",  # B is K, or 0: not wanted
    ):
        """dw = x.T @ dy, dbias[k] = sum over n of dy[n,k]"""
        (n, c), k = x.shape, dy.shape[1]
        a, b = flat(x), flat(dy)
        product_summed(a, c, b, k, flat(dw), a[:0], dbias, c, k, n, a, 0)


def _declare_copy(kind: str, letter: str) -> None:
    """The copy of float32 numbers as a type of 16 bits."""
    is_bf16 = int(kind == "bf16")

    @cuda_kernel(
        launch=lambda s: (ceil_div(s["N"] * s["K"], 1024), 256), name=f"to_{kind}",
        only_float32=True,
    )  # fmt: skip
    @of_letter(letter)
    def to_half(x: "in whole f[N,K]", y: "out whole h[N,K]"):
        """y = the nearest numbers of 16 bits"""
        start = cuda.blockIdx.x * 1024 + cuda.threadIdx.x
        given, out = flat(x), flat(y)
        for k in range(4):
            i = start + k * 256
            if i < given.size:
                out[i] = half_word(given[i], is_bf16)


for _kind, _letter in LETTERS.items():
    _declare_copy(_kind, _letter)
    for _suffix, _shape in SHAPES.items():
        _declare(_kind, _letter, _suffix, _shape)
