"""Products of long sums on CUDA: blocks write parts of a sum, the last one of a tile adds them."""

from __future__ import annotations

import numpy as np

from ..cuda.device import cuda, flat, thread_number
from ..declare import cuda_kernel, helper
from ..rnn.shared import activate, activate_gradient
from .cuda import SHAPES, grid_of
from .cuda_product import Bias, Extra, Factor, Output, product_of


@helper
def share_of(total, parts, depth):
    """How much of a sum each part has: whole slices of this depth."""
    slices = (total + depth - 1) // depth
    return (slices + parts - 1) // parts * depth


@helper
def comes_last(counts, parts):
    """Whether this block is the last of its tile's to write its part; then it can read all parts.
    The last one sets the count to 0 again."""
    return comes_last_of(counts, cuda.blockIdx.x + cuda.blockIdx.y * cuda.gridDim.x, parts)


@helper
def comes_last_of(counts, tile, parts):
    """The same of the tile with this number."""
    found = cuda.shared.array(1, np.int64)
    cuda.threadfence()  # what each thread has written is there for all before it counts
    cuda.syncthreads()
    if thread_number() == 0:
        found[0] = cuda.atomic.add(counts, tile, 1)
        if found[0] == parts - 1:
            counts[tile] = 0
    cuda.syncthreads()
    cuda.threadfence()
    return found[0] == parts - 1


@helper
def part_total(parts, i, size, count):
    """The sum of element i of so many parts, in order."""
    total = parts[i]
    for s in range(1, count):
        total += parts[i + s * size]
    return total


@helper
def part_element(e, rows, columns, M, N):
    """Where element e of a block's tile lies in the output, M x N, and its column; -1: beyond."""
    row, column = cuda.blockIdx.x * rows + e // columns, cuda.blockIdx.y * columns + e % columns
    return (row * N + column if row < M and column < N else -1), column


def _declare_parts() -> None:
    """The products in parts of their sum: blocks write part s of the output to ``parts[s]``; the
    last one of a tile adds them, in order, and does what follows."""
    few, many = SHAPES["_tiny"], SHAPES["_middle"]
    few_product, many_product = product_of(few), product_of(many)
    many_summed = product_of(many, ending="column_sums")
    few_depth, many_depth = few.depth, many.depth
    few_rows, few_columns, few_threads = few.rows, few.columns, few.threads
    many_rows, many_columns, many_threads = many.rows, many.columns, many.threads

    @cuda_kernel(**grid_of(few, "N", "K"))
    def linear_forward_parts(
        x: "in whole f[N,C]",
        w: "in whole f[C,K]",
        bias: "in whole f[B]",  # B is K, or 0: no bias
        parts: "scratch whole f[S,N,K]",
        counts: "inout whole i[T]",  # 0, and 0 again afterwards
        y: "out whole f[N,K]",
        activation: "int",  # tanh (0), ReLU (1), sigmoid (2) or none (-1)
    ):
        """y = f(x @ w + bias), the sum in S parts"""
        (n, c), k, part, count = x.shape, w.shape[1], cuda.blockIdx.z, parts.shape[0]
        share, out, result = share_of(c, count, few_depth), flat(parts), flat(y)
        few_product(Factor(x, c, False), Factor(w, k, True), Output(parts, part * n * k, k, n, k),
                    Bias(out, False), min(part * share, c), min((part + 1) * share, c),
                    Extra(out, 0, 0))  # fmt: skip
        if comes_last(counts, count):
            for e in range(thread_number(), few_rows * few_columns, few_threads):
                i, column = part_element(e, few_rows, few_columns, n, k)
                if i >= 0:
                    total = part_total(out, i, n * k, count)
                    if bias.size > 0:
                        total += bias[column]
                    if activation >= 0:
                        total = activate(total, activation)
                    result[i] = total

    @cuda_kernel(**grid_of(few, "N", "C"))
    def linear_backward_input_parts(
        dy: "in whole f[N,K]",
        w: "in whole f[C,K]",
        y: "in whole f[N,C]",  # f's outputs, absent without f
        parts: "scratch whole f[S,N,C]",
        counts: "inout whole i[T]",  # 0, and 0 again afterwards
        dx: "out whole f[N,C]",
        activation: "int",  # tanh (0), ReLU (1), sigmoid (2) or none (-1)
    ):
        """dx = (dy @ w.T) f', by f's outputs, the sum in S parts"""
        (n, k), c, part, count = dy.shape, w.shape[0], cuda.blockIdx.z, parts.shape[0]
        share, out, saved = share_of(k, count, few_depth), flat(parts), flat(y)
        result = flat(dx)
        few_product(Factor(dy, k, False), Factor(w, k, False), Output(parts, part * n * c, c, n, c),
                    Bias(out, False), min(part * share, k), min((part + 1) * share, k),
                    Extra(out, 0, 0))  # fmt: skip
        if comes_last(counts, count):
            for e in range(thread_number(), few_rows * few_columns, few_threads):
                i, _ = part_element(e, few_rows, few_columns, n, c)
                if i >= 0:
                    total = part_total(out, i, n * c, count)
                    if activation >= 0:
                        total = activate_gradient(saved[i], total, activation)
                    result[i] = total

    @cuda_kernel(**grid_of(many, "C", "K"))
    def linear_backward_weight_parts(
        x: "in whole f[N,C]",
        dy: "in whole f[N,K]",
        parts: "scratch whole f[S,C,K]",
        counts: "inout whole i[T]",  # 0, and 0 again afterwards
        dw: "out whole f[C,K]",
    ):
        """dw = x.T @ dy, the sum in S parts"""
        (n, c), k, part, count = x.shape, dy.shape[1], cuda.blockIdx.z, parts.shape[0]
        share, out, result = share_of(n, count, many_depth), flat(parts), flat(dw)
        many_product(Factor(x, c, True), Factor(dy, k, True), Output(parts, part * c * k, k, c, k),
                     Bias(out, False), min(part * share, n), min((part + 1) * share, n),
                     Extra(out, 0, 0))  # fmt: skip
        if comes_last(counts, count):
            for e in range(thread_number(), many_rows * many_columns, many_threads):
                i, _ = part_element(e, many_rows, many_columns, c, k)
                if i >= 0:
                    result[i] = part_total(out, i, c * k, count)

    @cuda_kernel(**grid_of(many, "C", "K"))
    def linear_backward_weight_bias_parts(
        x: "in whole f[N,C]",
        dy: "in whole f[N,K]",
        parts: "scratch whole f[S,C,K]",
        bias_parts: "scratch whole f[S,K]",
        counts: "inout whole i[T]",  # 0, and 0 again afterwards
        dw: "out whole f[C,K]",
        dbias: "out whole f[K]",
    ):
        """dw = x.T @ dy, dbias[k] = sum over n of dy[n,k], the sums in S parts"""
        (n, c), k, part, count = x.shape, dy.shape[1], cuda.blockIdx.z, parts.shape[0]
        share, out, result = share_of(n, count, many_depth), flat(parts), flat(dw)
        sums = flat(bias_parts)
        many_summed(Factor(x, c, True), Factor(dy, k, True), Output(parts, part * c * k, k, c, k),
                    Bias(out, False), min(part * share, n), min((part + 1) * share, n),
                    Extra(sums, part * k, 0))  # fmt: skip
        if comes_last(counts, count):
            for e in range(thread_number(), many_rows * many_columns, many_threads):
                i, _ = part_element(e, many_rows, many_columns, c, k)
                if i >= 0:
                    result[i] = part_total(out, i, c * k, count)
            column = cuda.blockIdx.y * many_columns + thread_number()
            if cuda.blockIdx.x == 0 and thread_number() < many_columns and column < k:
                dbias[column] = part_total(sums, column, k, count)


_declare_parts()
