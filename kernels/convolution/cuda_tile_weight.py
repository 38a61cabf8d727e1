"""The gradient to a convolution's weights on CUDA as a product of windows laid out nowhere::

    dw [depth, outputs] = windows of x, turned [depth, positions] @ dy [positions, outputs]

of each group of channels; see `cuda_tile.py`. Sums over the positions of all samples are long, and
results are few: blocks sum parts of them, whole slices of neighbouring positions, and the last
block of a tile adds the parts in their order. How many parts there are depends on the sizes alone,
so the bits do, too. An integer counts the blocks that have ended; no sums are added in memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..cuda.device import can_load4, cuda, flat, thread_number
from ..declare import cuda_kernel
from ..matmul.cuda_parts import comes_last_of, part_total, share_of
from ..matmul.cuda_product import Bias, Extra, Factor, Output, product_of
from ..matmul.cuda_slices import Shape, matrix_slices
from ..traits import Besides
from .cuda_choice import SHAPES, UNITS
from .cuda_tile import launch_options
from .cuda_windows import OUTSIDE, Digits, Places, Steps, Windows, short, windows


def _options(shape: Shape) -> dict[str, Any]:
    return launch_options(
        shape, lambda s: s["D"], lambda s: s["K"] // s["groups"],
        lambda s: s["groups"] * max(s.get("S", 1), 1),
    )  # fmt: skip


def _declare(suffix: str, shape: Shape) -> None:
    name = f"convolution_backward_weight_tile{suffix}"
    rows, columns, depth, threads = shape.rows, shape.columns, shape.depth, shape.threads
    product = product_of(
        shape, UNITS.get(suffix, ""), "column_sums", slices=(windows(True), matrix_slices)
    )

    @cuda_kernel(
        **_options(shape), name=name, factors=("x", "dy"),
        only_float32=suffix in UNITS, family="convolution",
        besides=(Besides(name, "sum_rows", "dy", "x", "y", "dbias"),),
    )  # fmt: skip
    def convolution_backward_weight(
        x: "in whole f[N,H,W,C]",
        dy: "in whole f[N,P,Q,K]",
        parts: "scratch whole f[S,D,K]",  # absent where there is one part
        bias_parts: "scratch whole f[S,K]",  # likewise
        counts: "inout whole i[T]",  # likewise; 0, and 0 again afterwards
        dw: "out whole f[D,K]",  # D = I*J*G
        dbias: "out whole f[B]",  # B is K, or 0: not wanted
        kernel_w: "int",
        stride_h: "int",
        stride_w: "int",
        dilation_h: "int",
        dilation_w: "int",
        top: "int",
        left: "int",
        groups: "int",
    ):
        """dw[d,k] = sum over positions of element d of x's window times dy[...,k], and dbias[k] =
        sum of dy[...,k], the sums in S parts"""
        at = cuda.shared.array(rows, np.int64)
        line = cuda.shared.array(rows, np.int32)
        place = cuda.shared.array(rows, np.int32)
        (N, H, W, C), (_, P, Q, K), D = x.shape, dy.shape, dw.shape[0]
        group, own, count = C // groups, K // groups, max(parts.shape[0], 1)
        g, part = cuda.blockIdx.z // count, cuda.blockIdx.z % count
        thread = thread_number()
        if thread < rows:
            d = cuda.blockIdx.x * rows + thread
            h = d // (kernel_w * group) * dilation_h - top
            v = d // group % kernel_w * dilation_w - left
            line[thread] = h if d < D else OUTSIDE
            place[thread] = v
            at[thread] = (h * W + v) * C + g * group + d % group
        cuda.syncthreads()
        total = N * P * Q
        share, out, sums, own_part = share_of(total, count, depth), flat(dw), dbias, 0
        if count > 1:
            out, sums, own_part = flat(parts), flat(bias_parts), part
        steps = Steps(H * W * C, stride_h * W * C, stride_w * C, 0, stride_h, 0, stride_w)
        product(
            Windows(flat(x), Places(at, line, place), short(H), short(W),
                    Digits(short(P), short(Q)), steps, group % 4 == 0 and can_load4(x)),
            Factor(flat(dy)[g * own :], K, True),
            Output(out, own_part * D * K + g * own, K, D, own), Bias(out, False),
            min(part * share, total), min((part + 1) * share, total),
            Extra(sums, own_part * K + g * own, 0 if dbias.size > 0 else -1),
        )  # fmt: skip
        if count == 1:
            return
        tile = (g * cuda.gridDim.y + cuda.blockIdx.y) * cuda.gridDim.x + cuda.blockIdx.x
        if comes_last_of(counts, tile, count):
            result, first = flat(dw), cuda.blockIdx.y * columns
            for e in range(thread, rows * columns, threads):
                d, k = cuda.blockIdx.x * rows + e // columns, first + e % columns
                if d < D and k < own:
                    i = d * K + g * own + k
                    result[i] = part_total(out, i, D * K, count)
            k = first + thread
            if dbias.size > 0 and cuda.blockIdx.x == 0 and thread < columns and k < own:
                dbias[g * own + k] = part_total(sums, g * own + k, K, count)


for _suffix, _shape in SHAPES.items():
    _declare(_suffix, _shape)
