"""Depthwise convolutions on CUDA: a thread for each element, neighbours are those of channels."""

from __future__ import annotations

from ..cuda.device import cast, cuda, flat_index
from ..declare import cuda_kernel
from ..simd import fma
from . import cpu_depthwise as cpu
from . import cpu_depthwise_weight
from .cuda_elements import (
    PARTS,
    add_parts,
    elements,
    place_of,
    sum_of_samples,
    weights_launch,
)
from .grid import Window
from .windows import window_of


@cuda_kernel(like=cpu.depthwise_forward, launch=elements("NPQC"))
def depthwise_forward(x, w, bias, y, stride_h, stride_w, dilation_h, dilation_w, top, left):
    at = flat_index()
    N, P, Q, C = y.shape
    if at < N * P * Q * C:
        n, p, q, c = place_of(at, P, Q, C)
        total = cast(y, 0)
        for i in range(w.shape[0]):
            h = p * stride_h + i * dilation_h - top
            if h < 0 or h >= x.shape[1]:
                continue
            for j in range(w.shape[1]):
                v = q * stride_w + j * dilation_w - left
                if v >= 0 and v < x.shape[2]:
                    total = fma(x[n, h, v, c], w[i, j, 0, c], total)
        if bias.shape[0] > 0:
            total += bias[c]
        y[n, p, q, c] = total


@cuda_kernel(like=cpu.depthwise_backward_input, launch=elements("NHWC"))
def depthwise_backward_input(dy, w, dx, stride_h, stride_w, dilation_h, dilation_w, top, left):
    at = flat_index()
    N, H, W, C = dx.shape
    if at < N * H * W * C:
        n, h, column, c = place_of(at, H, W, C)
        total = cast(dx, 0)
        for i in range(w.shape[0]):
            p = window_of(h, i, stride_h, dilation_h, top, dy.shape[1])
            if p < 0:
                continue
            for j in range(w.shape[1]):
                q = window_of(column, j, stride_w, dilation_w, left, dy.shape[2])
                if q >= 0:
                    total = fma(dy[n, p, q, c], w[i, j, 0, c], total)
        dx[n, h, column, c] = total


@cuda_kernel(like=cpu_depthwise_weight.depthwise_backward_weight, launch=weights_launch("C"))
def depthwise_backward_weight(
    x, dy, dw, kernel_w, stride_h, stride_w, dilation_h, dilation_w, top, left
):
    sums = cuda.shared.array((PARTS, 32), dw.dtype)
    lane, part, d = cuda.threadIdx.x, cuda.threadIdx.y, cuda.blockIdx.x
    c = cuda.blockIdx.y * 32 + lane
    total = cast(dw, 0)
    if c < dw.shape[1]:
        total = sum_of_samples(
            x, dy, c, c, d // kernel_w, d % kernel_w, part,
            Window(stride_h, stride_w, dilation_h, dilation_w, top, left),
        )  # fmt: skip
    total = add_parts(sums, total, lane, part)
    if part == 0 and c < dw.shape[1]:
        dw[d, c] = total
