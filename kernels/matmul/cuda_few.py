"""Products of few rows with a matrix on CUDA: as fast as the weights can be read (or written).

N is at most `FEW`; formulas as in `cuda.py`. A tile of the general kernels would have most of its
rows empty. Here threads read four weights at a time, several of them ahead, and use each for all
rows. Every number has one order of its sum, which the sizes of the matrix alone decide: on the way
forward `GROUPS` chains over c = g, g + GROUPS, ..., added in order; for the input a warp's lanes
have four neighbouring k of every 128, and are added in halves; for the weights one chain over n.
"""

from __future__ import annotations

from ..cuda.device import (
    block_number,
    can_load4,
    cast,
    cuda,
    flat,
    load4,
    store4,
    thread_number,
    warp_sum,
)
from ..declare import ceil_div, cuda_kernel, helper
from ..rnn.shared import activate, activate_gradient
from ..simd import fma
from . import cpu

FEW = 4  # rows
THREADS = 256
AHEAD = 4  # fours of weights that a thread asks for before it uses the first
QUADS = 8  # of a block's columns, on the way forward: 128 bytes of a row of weights
GROUPS = THREADS // QUADS
COLUMNS = 4 * QUADS
WARPS = THREADS // 32
#: rows of the weights that a block has in their gradient, and columns
GRADIENT_ROWS, GRADIENT_COLUMNS = 4 * WARPS, 128
SUMS, KEPT = 4 * FEW, 4 * AHEAD
PARTS = GROUPS * FEW * COLUMNS


@helper
def read_four(to, at, x, i, left, whole):
    """to[at:at+4] = x[i:i+4] (flat), 0 where fewer than four are `left`; `whole`: never fewer, and
    at multiples of 16 bytes."""
    if whole and left > 0:
        to[at], to[at + 1], to[at + 2], to[at + 3] = load4(x, i)
    else:
        for j in range(4):
            to[at + j] = flat(x)[i + j] if j < left else cast(x, 0)


@helper
def few_forward(x, w, bias, y, activation):
    """y = x @ w + bias, and an activation by its number, if that is not negative."""
    (N, C), K = x.shape, w.shape[1]
    parts = cuda.shared.array(PARTS, w.dtype)
    sums = cuda.local.array(SUMS, w.dtype)
    kept = cuda.local.array(KEPT, w.dtype)
    for k in range(SUMS):
        sums[k] = 0.0
    thread = thread_number()
    quad, group, given = thread % QUADS, thread // QUADS, flat(x)
    column = block_number() * COLUMNS + 4 * quad
    whole, left = K % 4 == 0 and can_load4(w), K - column
    last = N - 1
    for c in range(group, C if left > 0 else 0, GROUPS * AHEAD):
        for m in range(AHEAD):
            if c + m * GROUPS < C:
                read_four(kept, 4 * m, w, (c + m * GROUPS) * K + column, left, whole)
        for m in range(AHEAD):
            if c + m * GROUPS < C:
                for n in range(FEW):
                    value = given[min(n, last) * C + c + m * GROUPS]
                    for j in range(4):
                        sums[4 * n + j] = fma(value, kept[4 * m + j], sums[4 * n + j])
    for n in range(FEW):
        for j in range(4):
            parts[(group * FEW + n) * COLUMNS + 4 * quad + j] = sums[4 * n + j]
    cuda.syncthreads()
    n = thread // COLUMNS
    k = block_number() * COLUMNS + thread % COLUMNS
    if n < N and k < K:
        total = parts[thread]
        for g in range(1, GROUPS):
            total += parts[g * FEW * COLUMNS + thread]
        if bias.size > 0:
            total += bias[k]
        if activation >= 0:
            total = activate(total, activation)
        y[n, k] = total


@helper
def few_backward_input(dy, w, y, dx, activation):
    """dx = dy @ w.T, and times the slope of an activation that gave y, if it is not negative."""
    (N, K), C = dy.shape, w.shape[0]
    sums = cuda.local.array(FEW, w.dtype)
    kept = cuda.local.array(KEPT, w.dtype)
    four = cuda.local.array(4, w.dtype)
    for n in range(FEW):
        sums[n] = 0.0
    thread = thread_number()
    c, lane = block_number() * WARPS + thread // 32, thread % 32
    whole, last = K % 4 == 0 and can_load4(w) and can_load4(dy), N - 1
    for k in range(4 * lane, K if c < C else 0, 128 * AHEAD):
        for m in range(AHEAD):
            if k + 128 * m < K:
                read_four(kept, 4 * m, w, c * K + k + 128 * m, K - k - 128 * m, whole)
        for m in range(AHEAD):
            if k + 128 * m < K:
                for n in range(FEW):
                    at = min(n, last) * K + k + 128 * m
                    read_four(four, 0, dy, at, K - k - 128 * m, whole)
                    for j in range(4):
                        sums[n] = fma(four[j], kept[4 * m + j], sums[n])
    for n in range(FEW):
        total = warp_sum(sums[n])
        if lane == 0 and c < C and n < N:
            if activation >= 0:
                total = activate_gradient(y[n, c], total, activation)
            dx[n, c] = total


@helper
def few_backward_weight(x, dy, dw, dbias):
    """dw = x.T @ dy; dbias = the sums of dy's columns, if it is there."""
    (N, C), K = x.shape, dy.shape[1]
    rows = cuda.local.array(SUMS, dw.dtype)
    sums = cuda.local.array(4, dw.dtype)
    lane, warp = thread_number() % 32, thread_number() // 32
    column, first = cuda.blockIdx.x * GRADIENT_COLUMNS + 4 * lane, cuda.blockIdx.y * GRADIENT_ROWS
    left, last, given = K - column, N - 1, flat(x)
    whole = K % 4 == 0 and can_load4(dy) and can_load4(dw)
    if left <= 0:
        return
    for n in range(FEW):
        read_four(rows, 4 * n, dy, min(n, last) * K + column, left, whole)
    if first == 0 and warp == 0 and dbias.size > 0:
        for j in range(4):
            total = rows[j]
            for n in range(1, FEW):
                if n < N:
                    total += rows[4 * n + j]
            if j < left:
                dbias[column + j] = total
    for m in range(4):
        c = first + warp + m * WARPS
        if c < C:
            for j in range(4):
                sums[j] = 0.0
            for n in range(FEW):
                if n < N:
                    value = given[n * C + c]
                    for j in range(4):
                        sums[j] = fma(value, rows[4 * n + j], sums[j])
            if whole:
                store4(dw, c * K + column, sums[0], sums[1], sums[2], sums[3])
            else:
                for j in range(4):
                    if j < left:
                        dw[c, column + j] = sums[j]


# ---------------------------------------------------------------- kernels


def blocks(
    product: str, rows: int, columns: int, depth: int, multiprocessors: int
) -> tuple[int, int]:
    """How many blocks a multiprocessor has in turn, and how many weights each of them reads or
    writes; 0 where there are too many rows. Sizes as of `choose_product`."""
    if (depth if product == "linear_backward_weight" else rows) > FEW:
        return 0, 0
    if product == "linear_forward":
        count, each = ceil_div(columns, COLUMNS), min(columns, COLUMNS) * depth
    elif product == "linear_backward_weight":
        count = ceil_div(columns, GRADIENT_COLUMNS) * ceil_div(rows, GRADIENT_ROWS)
        each = min(columns, GRADIENT_COLUMNS) * min(rows, GRADIENT_ROWS)
    else:
        count, each = ceil_div(columns, WARPS), min(columns, WARPS) * depth
    return ceil_div(count, multiprocessors), each


def launch_forward(s: dict[str, int]) -> tuple[int, int]:
    return ceil_div(s["K"], COLUMNS), THREADS


def launch_input(s: dict[str, int]) -> tuple[int, int]:
    return ceil_div(s["C"], WARPS), THREADS


def launch_weight(s: dict[str, int]) -> tuple[tuple[int, int], int]:
    return (ceil_div(s["K"], GRADIENT_COLUMNS), ceil_div(s["C"], GRADIENT_ROWS)), THREADS


@cuda_kernel(like=cpu.linear_forward, launch=launch_forward, name="linear_forward_few")
def linear_forward_few(x, w, bias, y):
    few_forward(x, w, bias, y, -1)


@cuda_kernel(launch=launch_forward)
def linear_forward_activated_few(
    x: "in whole f[N,C]",
    w: "in whole f[C,K]",
    bias: "in whole f[B]",  # B is K, or 0: no bias
    y: "out whole f[N,K]",
    activation: "int",  # tanh (0), ReLU (1) or sigmoid (2)
):
    """y = f(x @ w + bias)"""
    few_forward(x, w, bias, y, activation)


@cuda_kernel(
    like=cpu.linear_backward_input_unpacked,
    launch=launch_input,
    name="linear_backward_input_unpacked_few",
)
def linear_backward_input_unpacked_few(dy, w, dx):
    few_backward_input(dy, w, dx, dx, -1)


@cuda_kernel(launch=launch_input)
def linear_backward_input_activated_few(
    dy: "in whole f[N,K]",
    w: "in whole f[C,K]",
    y: "in whole f[N,C]",  # f's outputs
    dx: "out whole f[N,C]",
    activation: "int",  # tanh (0), ReLU (1) or sigmoid (2)
):
    """dx = (dy @ w.T) f', by f's outputs"""
    few_backward_input(dy, w, y, dx, activation)


@cuda_kernel(
    like=cpu.linear_backward_weight, launch=launch_weight, name="linear_backward_weight_few"
)
def linear_backward_weight_few(x, dy, dw):
    few_backward_weight(x, dy, dw, flat(dw)[:0])


@cuda_kernel(launch=launch_weight)
def linear_backward_weight_bias_few(
    x: "in whole f[N,C]",
    dy: "in whole f[N,K]",
    dw: "out whole f[C,K]",
    dbias: "out whole f[K]",
):
    """dw = x.T @ dy, dbias[k] = sum over n of dy[n,k]"""
    few_backward_weight(x, dy, dw, dbias)
