"""More products on CUDA of factors of 16 bits: long sums in parts, and products of many matrices.

As the kernels of these names in `cuda.py` and `cuda_batched.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..cuda.device import cuda, flat, thread_number
from ..cuda.half import LETTERS, half_value, half_word, of_letter
from ..declare import cuda_kernel, helper
from ..rnn.shared import activate, activate_gradient
from .cuda_half import PARTS, SHAPES, HalfShape, product_of
from .cuda_parts import comes_last, part_element, part_total, share_of
from .cuda_product import folds_of, tiles_grid

BATCHED = SHAPES["_middle"]


def _grid(shape: HalfShape, rows: str, columns: str, count: str) -> dict[str, Any]:
    """Launch geometry: blocks for each tile of the output, in the third dimension parts, or pairs
    of matrices as far as it goes."""

    def launch(s: dict[str, int]) -> tuple[Any, Any]:
        return tiles_grid(s[rows], s[columns], shape, s[count]), shape.threads

    bounds = (shape.threads, 512 // shape.threads)
    memory = {"launch": launch, "shared": lambda s: shape.memory, "bounds": bounds}
    return {**memory, "only_float32": True}


def _declare_parts(kind: str, letter: str) -> None:
    """The products in parts of their sum: blocks write part s of the output to ``parts[s]``; the
    last one of a tile adds them, in order, and does what follows."""
    shape, is_bf16, typed = SHAPES[PARTS], int(kind == "bf16"), of_letter(letter)
    rows, columns, depth, threads = shape.rows, shape.columns, shape.depth, shape.threads
    forward = product_of(shape, is_bf16, False, True, "")
    inputs = product_of(shape, is_bf16, False, False, "")
    weights = product_of(shape, is_bf16, True, True, "column_sums")

    @helper
    def keep(i, value, out, half):
        """Write element i of the result: as float32, in 16 bits, or both; an array of size 0 is
        absent."""
        if out.size > 0:
            out[i] = value
        if half.size > 0:
            half[i] = half_word(np.float32(value), is_bf16)

    @cuda_kernel(**_grid(shape, "N", "K", "S"), name=f"linear_forward_{kind}_parts")
    @typed
    def linear_forward_parts(
        x: "in whole h[N,C]",
        w: "in whole h[C,K]",
        bias: "in whole f[B]",  # B is K, or 0: no bias
        parts: "scratch whole f[S,N,K]",
        counts: "inout whole i[T]",  # 0, and 0 again afterwards
        y: "out whole f[N,K]",  # may be absent
        y_half: "out whole h[N,K]",  # likewise
        activation: "int",  # tanh (0), ReLU (1), sigmoid (2) or none (-1)
    ):
        """y = f(x @ w + bias), the sum in S parts"""
        (n, c), k, part, count = x.shape, w.shape[1], cuda.blockIdx.z, parts.shape[0]
        share, sums, out, half = share_of(c, count, depth), flat(parts), flat(y), flat(y_half)
        begin = min(part * share, c)
        forward(flat(x)[begin:], c, flat(w)[begin * k :], k, sums[part * n * k :], half[:0],
                sums[:0], n, k, min(share, c - begin), half, -1)  # fmt: skip
        if comes_last(counts, count):
            for e in range(thread_number(), rows * columns, threads):
                i, column = part_element(e, rows, columns, n, k)
                if i >= 0:
                    total = part_total(sums, i, n * k, count)
                    if bias.size > 0:
                        total += bias[column]
                    if activation >= 0:
                        total = activate(total, activation)
                    keep(i, total, out, half)

    @cuda_kernel(**_grid(shape, "N", "C", "S"), name=f"linear_backward_input_{kind}_parts")
    @typed
    def linear_backward_input_parts(
        dy: "in whole h[N,K]",
        w: "in whole h[C,K]",
        y: "in whole h[N,C]",  # f's outputs, absent without f
        parts: "scratch whole f[S,N,C]",
        counts: "inout whole i[T]",  # 0, and 0 again afterwards
        dx: "out whole f[N,C]",  # may be absent
        dx_half: "out whole h[N,C]",  # likewise
        activation: "int",  # tanh (0), ReLU (1), sigmoid (2) or none (-1)
    ):
        """dx = (dy @ w.T) f', by f's outputs, the sum in S parts"""
        (n, k), c, part, count = dy.shape, w.shape[0], cuda.blockIdx.z, parts.shape[0]
        share, sums, out, half = share_of(k, count, depth), flat(parts), flat(dx), flat(dx_half)
        begin, saved = min(part * share, k), flat(y)
        inputs(flat(dy)[begin:], k, flat(w)[begin:], k, sums[part * n * c :], half[:0], sums[:0],
               n, c, min(share, k - begin), half, -1)  # fmt: skip
        if comes_last(counts, count):
            for e in range(thread_number(), rows * columns, threads):
                i, _ = part_element(e, rows, columns, n, c)
                if i >= 0:
                    total = part_total(sums, i, n * c, count)
                    if activation >= 0:
                        total = activate_gradient(half_value(saved[i], is_bf16), total, activation)
                    keep(i, total, out, half)

    @cuda_kernel(**_grid(shape, "C", "K", "S"), name=f"linear_backward_weight_{kind}_parts")
    @typed
    def linear_backward_weight_parts(
        x: "in whole h[N,C]",
        dy: "in whole h[N,K]",
        parts: "scratch whole f[S,C,K]",
        bias_parts: "scratch whole f[S,B]",
        counts: "inout whole i[T]",  # 0, and 0 again afterwards
        dw: "out whole f[C,K]",
        dbias: "out whole f[B]",  # B is K, or 0: not wanted
    ):
        """dw = x.T @ dy, dbias[k] = sum over n of dy[n,k], the sums in S parts"""
        (n, c), k, part, count = x.shape, dy.shape[1], cuda.blockIdx.z, parts.shape[0]
        share, sums, out, a = share_of(n, count, depth), flat(parts), flat(dw), flat(x)
        begin, shifts = min(part * share, n), flat(bias_parts)
        weights(a[begin * c :], c, flat(dy)[begin * k :], k, sums[part * c * k :], a[:0],
                shifts[part * dbias.size :], c, k, min(share, n - begin), a, 0)  # fmt: skip
        if comes_last(counts, count):
            for e in range(thread_number(), rows * columns, threads):
                i, _ = part_element(e, rows, columns, c, k)
                if i >= 0:
                    out[i] = part_total(sums, i, c * k, count)
            column = cuda.blockIdx.y * columns + thread_number()
            if cuda.blockIdx.x == 0 and thread_number() < columns and column < dbias.size:
                dbias[column] = part_total(shifts, column, k, count)


def _declare_batched(kind: str, letter: str) -> None:
    """The products of many matrices: a grid's third dimension counts the P pairs."""
    is_bf16, typed = int(kind == "bf16"), of_letter(letter)
    product = product_of(BATCHED, is_bf16, False, True, "", folds=True)
    turned = product_of(BATCHED, is_bf16, True, True, "", folds=True)
    width = BATCHED.columns

    @cuda_kernel(**_grid(BATCHED, "M", "K", "P"), name=f"matmul_forward_{kind}")
    @typed
    def matmul_forward(
        a: "in whole h[P,M,C]",
        b: "in whole h[P,C,K]",
        y: "out whole f[P,M,K]",  # may be absent
        y_half: "out whole h[P,M,K]",  # likewise
    ):
        """y[p] = a[p] @ b[p]"""
        (_, m, c), k = a.shape, b.shape[2]
        left, right, out, half = flat(a), flat(b), flat(y), flat(y_half)
        folds = folds_of(k, width)
        for p in range(cuda.blockIdx.z // folds, a.shape[0], cuda.gridDim.z // folds):
            cuda.syncthreads()
            product(left[p * m * c :], c, right[p * c * k :], k, out[p * m * k :],
                    half[p * m * k :], out[:0], m, k, c, left, -1)  # fmt: skip

    @cuda_kernel(**_grid(BATCHED, "C", "K", "P"), name=f"matmul_backward_b_{kind}")
    @typed
    def matmul_backward_b(
        a: "in whole h[P,M,C]",
        dy: "in whole h[P,M,K]",
        db: "out whole f[P,C,K]",
    ):
        """db[p] = a[p].T @ dy[p]"""
        (_, m, c), k = a.shape, dy.shape[2]
        left, right, out = flat(a), flat(dy), flat(db)
        folds = folds_of(k, width)
        for p in range(cuda.blockIdx.z // folds, a.shape[0], cuda.gridDim.z // folds):
            cuda.syncthreads()
            turned(left[p * m * c :], c, right[p * m * k :], k, out[p * c * k :], left[:0],
                   out[:0], c, k, m, left, -1)  # fmt: skip


for _kind, _letter in LETTERS.items():
    _declare_parts(_kind, _letter)
    _declare_batched(_kind, _letter)
