"""Matrix products: the linear layer's forward pass and its two gradients.

Weights are stored [C, K] (inputs, outputs). N rows, C inputs, K outputs::

    y[n,k]  = sum over c of x[n,c] * w[c,k]   + bias[k]
    dx[n,c] = sum over k of dy[n,k] * w[c,k]
    dw[c,k] = sum over n of x[n,c] * dy[n,k]

Every element is one chain of fused multiply-adds in the order of the summed index, beginning at 0
(only `linear_backward_input_unpacked` sums in lanes, see there); the bias is added last. So the
bits depend on the numbers alone: not on the split into ranges, nor on packing or blocking.

A packed matrix is cut into panels of `panel_width` columns; a panel holds its columns of row 0,
then of row 1 and so on, zeros past the last column: ``f[Q,Z]`` with Q panels of Z elements.
"""

from __future__ import annotations

from typing import NamedTuple

from ..control_block import WORKERS
from ..cpu import target
from ..cpu.tile import panel_width, tile_lanes, tile_width, transpose_block
from ..declare import kernel
from ..places import Matrix, Place, Rows
from ..simd import fill_like, fma, lanes, load, load_first, splat, store, sum_lanes, touch
from .cpu_panels import product
from .cpu_row import one_row, outer

#: rows from which on the factors of a small weight's gradient are packed, and weights of how many
#: numbers are small
MANY, SMALL = 512, 1 << 16
#: rows up to which one worker does better with all of a product, as it takes the weight from the
#: others' caches
TAKEN_ROWS = 16
#: rows up to which a gradient's sums are those of lanes, in another order than for more rows
FEW = 4


def packed_shape(rows: int, columns: int, itemsize: int) -> tuple[int, int]:
    """Shape [Q, Z] of the packed copy of a matrix with these rows and columns."""
    width = panel_width(itemsize)
    return -(-columns // width), rows * width


#: traits of the products, which the sizes choose among (see `choose_linear`)
FORWARD = {"product": ("N", "C", "K"), "family": "linear", "slow_to_compile": True}
BACKWARD = {**FORWARD, "family": "linear_backward"}


class LinearChoice(NamedTuple):
    """Names of the kernels for the three products of a linear layer."""

    forward: str
    backward_input: str
    backward_weight: str


def choose_linear(n: int, c: int, k: int, itemsize: int = 4, workers: int = 1) -> LinearChoice:
    """The fastest kernels for `n` rows, `c` inputs, `k` outputs, packing included in the count.

    ``linear_backward_input`` needs w by `pack_panels_transposed`; those called ``blocked`` are in
    `cpu_blocked`, ``linear_backward_weight_own`` in `cpu_own`.
    """
    size = c * k * itemsize
    forward, backward_input = "linear_forward", "linear_backward_input"
    backward_weight = "linear_backward_weight"
    # Forward, a plain w is as fast while it stays in L2 (512x512: 0.93 of the time with packing, at
    # any n); at 1024x1024 it pays from 64 rows on (1.1 times as fast, 1.6 at 128). Of weight
    # gradients it is the strided x that gains: 1.04 to 1.2 from 1 MiB on, 0.8 to 0.95 below.
    large = n >= 64 and size >= 1 << 21
    # Rows of w that lie multiples of 2 KiB apart share few sets of a cache. With those of a Zen 3
    # (AVX2, L1 32 KiB, L2 512 KiB) packing makes 128 x 512 x 512 1.26 times as fast, 512 x 512 x
    # 512 1.3 to 4.4 times where others use the last cache too; 500 columns gain nothing. (At 1024 x
    # 1024 it is 1.31 for 32 rows, which are split by columns; 1.05 for 16, 0.7 for 8; rows 1 KiB
    # apart gain 1 % at 128 and 256 rows.) Weight gradients of many rows become 1.3
    # (1024 x 128 x 128, packing counted) to 1.9 times as fast (512 x 128 x 512); 1.24 at 256 x 256
    # x 256, 1.49 at 256 x 512 x 256, 0.97 at 256 x 128 x 128. It does not pay for 64 x 64: four of
    # 4000 rows in a step of 14.3 ms take 0.5 ms less as they are.
    small = target.host().vector_bits < 512
    apart = n >= 64 and size >= 1 << 18 and k * itemsize % 2048 == 0
    if large or (apart and small):
        forward = "linear_forward_blocked"
    elif workers > 1 and n < 64 and k >= 64 * workers and size >= 1 << 18:
        forward = "linear_forward_columns"
    if n <= FEW:
        backward_input = "linear_backward_input_unpacked"
    elif large:
        backward_input = "linear_backward_input_blocked"
    pays = min(c, k) >= 64 and c * k >= 1 << 14
    many = n >= MANY or (n >= MANY // 2 and c * k >= SMALL)
    if (n >= 16 and size >= 1 << 20) or (small and many and pays):
        backward_weight = "linear_backward_weight_own"
    return LinearChoice(forward, backward_input, backward_weight)


@kernel(
    **FORWARD,
    rounds=("x", "w"),
    sparse_as="linear_forward_sparse",
    taking_as="linear_forward_taking",
)
def linear_forward(
    x: "in rows f[N,C]",
    w: "in whole f[C,K]",
    bias: "in whole f[B]",  # B is K, or 0: no bias
    y: "out rows f[N,K]",
    lo: "begin",
    hi: "end",
):
    """y = x @ w + bias"""
    c, k = w.shape
    add = 0 if bias.size else -1
    done = one_row(x[lo], 0, w, 0, k, y, lo * k, bias, add, c, k) if hi - lo == 1 else 0
    if done < k:
        product(Matrix(x, lo * c, c, 1), Rows(w, done, k), tile_width(w), Rows(y, lo * k + done, k),
                Place(bias, done if bias.size else -1), c, hi - lo, k - done)  # fmt: skip


@kernel(grain=TAKEN_ROWS, **FORWARD, rounds=("x", "w"))
def linear_forward_taking(
    x: "in rows f[N,C]",
    w: "in whole f[C,K]",
    bias: "in whole f[B]",
    y: "out rows f[N,K]",
    control: "in whole i[L]",
    lo: "begin",
    hi: "end",
):
    """y = x @ w + bias for so few rows that one worker takes them all, where several go on to write
    w: it writes back what it reads, as it is (see `touch`). Nobody else reads w meanwhile."""
    c, k = w.shape
    if control[WORKERS] > 1:
        for i in range(0, c * k - lanes(w) + 1, lanes(w)):
            touch(w, i)
    add = 0 if bias.size else -1
    done = one_row(x[lo], 0, w, 0, k, y, lo * k, bias, add, c, k) if hi - lo == 1 else 0
    if done < k:
        product(Matrix(x, lo * c, c, 1), Rows(w, done, k), tile_width(w), Rows(y, lo * k + done, k),
                Place(bias, done if bias.size else -1), c, hi - lo, k - done)  # fmt: skip


@kernel(
    grain=64,
    **FORWARD,
    rows_apart=("x", "y"),
    rounds=("x", "w"),
    taking_as="linear_forward_taking",
)
def linear_forward_columns(
    x: "in whole f[N,C]",
    w: "in cols f[C,K]",
    bias: "in whole f[B]",  # B is K, or 0: no bias
    y: "out cols f[N,K]",
    lo: "begin",
    hi: "end",
):
    """y = x @ w + bias, split by columns: for batches of few rows"""
    c, k = w.shape
    if x.shape[0] == 1:
        lo += one_row(x[0], 0, w, lo, k, y, lo, bias, lo if bias.size else -1, c, hi - lo)
    if lo < hi:
        product(Matrix(x, 0, c, 1), Rows(w, lo, k), tile_width(w), Rows(y, lo, k),
                Place(bias, lo if bias.size else -1), c, x.shape[0], hi - lo)  # fmt: skip


@kernel(
    **BACKWARD,
    rounds=("dy",),
    turned_as="linear_backward_input_turned",
    blocked_as="linear_backward_input_blocked",
    turned_columns_as="linear_backward_input_turned_columns",
    blocked_columns_as="linear_backward_input_blocked_columns",
    sparse_as="linear_backward_input_sparse",
)
def linear_backward_input(
    dy: "in rows f[N,K]",
    w_packed: "in whole f[Q,Z]",  # the transposed w by `pack_panels_transposed`
    dx: "out rows f[N,C]",
    lo: "begin",
    hi: "end",
):
    """dx = dy @ w.T"""
    k, c = dy.shape[1], dx.shape[1]
    product(Matrix(dy, lo * k, k, 1), Rows(w_packed, 0, tile_width(dy)), w_packed.shape[1],
            Rows(dx, lo * c, c), Place(dy[0], -1), k, hi - lo, c)  # fmt: skip


@kernel(**BACKWARD, rounds=("dy", "w"))
def linear_backward_input_unpacked(
    dy: "in rows f[N,K]",
    w: "in whole f[C,K]",
    dx: "out rows f[N,C]",
    lo: "begin",
    hi: "end",
):
    """dx = dy @ w.T for a few rows, without a packed w

    Lane l sums the products k = l, l + lanes, ... in order; then the lanes are summed in halves.
    """
    c, k = w.shape
    step = lanes(w)
    whole = k // step * step
    zero = fill_like(load_first(w, 0, 0), 0.0)
    for n in range(lo, hi):
        for i in range(0, c, 4):
            second, third, fourth = min(i + 1, c - 1), min(i + 2, c - 1), min(i + 3, c - 1)
            s0, s1, s2, s3 = zero, zero, zero, zero
            for j in range(0, whole, step):
                d = load(dy, n * k + j)
                s0 = fma(d, load(w, i * k + j), s0)
                s1 = fma(d, load(w, second * k + j), s1)
                s2 = fma(d, load(w, third * k + j), s2)
                s3 = fma(d, load(w, fourth * k + j), s3)
            if whole < k:
                d = load_first(dy, n * k + whole, k - whole)
                s0 = fma(d, load_first(w, i * k + whole, k - whole), s0)
                s1 = fma(d, load_first(w, second * k + whole, k - whole), s1)
                s2 = fma(d, load_first(w, third * k + whole, k - whole), s2)
                s3 = fma(d, load_first(w, fourth * k + whole, k - whole), s3)
            dx[n, i] = sum_lanes(s0)
            dx[n, second] = sum_lanes(s1)
            dx[n, third] = sum_lanes(s2)
            dx[n, fourth] = sum_lanes(s3)


@kernel(
    grain=8,
    sums_rows=True,
    factors=("x", "dy"),
    copied_as="linear_backward_weight_own",
    sparse_as="linear_backward_weight_sparse",
    turned_sparse_as="linear_backward_weight_turned_sparse",
    transposed_sparse_as="linear_forward_blocked_sparse",
    rounds=("x", "dy"),
    **BACKWARD,
)
def linear_backward_weight(
    x: "in whole f[N,C]",
    dy: "in whole f[N,K]",
    dw: "out rows f[C,K]",
    lo: "begin",
    hi: "end",
):
    """dw = x.T @ dy"""
    c, k = dw.shape
    if x.shape[0] == 1:
        outer(x[0], lo, dy, 0, dw, lo * k, hi - lo, k)
        return
    product(Matrix(x, lo, 1, c), Rows(dy, 0, k), tile_width(dy), Rows(dw, lo * k, k),
            Place(dy[0], -1), x.shape[0], hi - lo, k)  # fmt: skip


@kernel(family="linear", packs=True, rounds=("w",), slow_to_compile=True)
def pack_panels(
    w: "in whole f[C,K]",
    packed: "out rows f[Q,Z]",
    lo: "begin",
    hi: "end",
):
    """Copy w into panels of columns: packed[q, c*width + j] = w[c, q*width + j]"""
    c, k = w.shape
    width, step = tile_width(w), lanes(w)
    for q in range(lo, hi):
        left = q * width
        valid = min(width, k - left)
        by_vectors = valid // step * step if width % step == 0 else 0
        for i in range(c):
            for j in range(0, by_vectors, step):
                store(packed, q * c * width + i * width + j, load(w, i * k + left + j))
            for j in range(by_vectors, valid):
                packed[q, i * width + j] = w[i, left + j]
            for j in range(valid, width):
                packed[q, i * width + j] = 0.0


@kernel(family="linear", packs=True, rounds=("w",), slow_to_compile=True)
def pack_panels_transposed(
    w: "in whole f[C,K]",
    packed: "out rows f[Q,Z]",
    lo: "begin",
    hi: "end",
):
    """Copy the transposed w into panels of columns: packed[q, k*width + j] = w[q*width + j, k]"""
    c, k = w.shape
    width, step = tile_width(w), tile_lanes(w)
    whole = k // step * step
    for q in range(lo, hi):
        top, at = q * width, q * k * width
        valid = min(width, c - top)
        by_blocks = valid // step * step
        for j in range(0, by_blocks, step):
            for i in range(0, whole, step):
                transpose_block(w, (top + j) * k + i, k, packed, at + i * width + j, width)
            for i in range(whole, k):
                for l in range(j, j + step):
                    packed[q, i * width + l] = w[top + l, i]
        for j in range(by_blocks, valid):
            for i in range(k):
                packed[q, i * width + j] = w[top + j, i]
        if valid < width:
            zero, edge = splat(packed, 0.0), (valid + step - 1) // step * step
            for i in range(k):
                for j in range(valid, edge):
                    packed[q, i * width + j] = 0.0
                for j in range(edge, width, step):
                    store(packed, at + i * width + j, zero)
