"""Depthwise convolutions on CUDA: a thread for each element, neighbours are those of channels."""

from __future__ import annotations

from ..cuda.device import cast, cuda, flat_index
from ..declare import ceil_div, cuda_kernel
from ..simd import fma
from . import cpu_depthwise as cpu
from .cuda import elements


@cuda_kernel(like=cpu.depthwise_forward, launch=elements("NPQC"))
def depthwise_forward(x, w, bias, y, stride_h, stride_w, dilation_h, dilation_w, top, left):
    at = flat_index()
    N, P, Q, C = y.shape
    if at < N * P * Q * C:
        place = at // C
        c = at - place * C
        q = place % Q
        p = place // Q % P
        n = place // (Q * P)
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
        place = at // C
        c = at - place * C
        column = place % W
        h = place // W % H
        n = place // (W * H)
        total = cast(dx, 0)
        for i in range(w.shape[0]):
            up = h + top - i * dilation_h
            p = up // stride_h
            if up < 0 or p * stride_h != up or p >= dy.shape[1]:
                continue
            for j in range(w.shape[1]):
                across = column + left - j * dilation_w
                q = across // stride_w
                if across >= 0 and q * stride_w == across and q < dy.shape[2]:
                    total = fma(dy[n, p, q, c], w[i, j, 0, c], total)
        dx[n, h, column, c] = total


def weights_launch(s):
    """Blocks of 32 channels of a place of the window, times the rows that share the samples."""
    return (ceil_div(s["C"], 32), s["D"]), (32, 8)


@cuda_kernel(like=cpu.depthwise_backward_weight, launch=weights_launch)
def depthwise_backward_weight(
    x, dy, dw, kernel_w, stride_h, stride_w, dilation_h, dilation_w, top, left
):
    sums = cuda.shared.array((8, 32), dw.dtype)
    lane, part, d = cuda.threadIdx.x, cuda.threadIdx.y, cuda.blockIdx.y
    c = cuda.blockIdx.x * 32 + lane
    C = dw.shape[1]
    i = d // kernel_w
    j = d % kernel_w
    total = cast(dw, 0)
    if c < C:
        for n in range(part, x.shape[0], 8):
            sample = cast(dw, 0)
            for p in range(dy.shape[1]):
                h = p * stride_h + i * dilation_h - top
                if h < 0 or h >= x.shape[1]:
                    continue
                for q in range(dy.shape[2]):
                    v = q * stride_w + j * dilation_w - left
                    if v >= 0 and v < x.shape[2]:
                        sample = fma(x[n, h, v, c], dy[n, p, q, c], sample)
            total += sample
    sums[part, lane] = total
    cuda.syncthreads()
    if part == 0 and c < C:
        total = sums[0, lane]
        for other in range(1, 8):
            total += sums[other, lane]
        dw[d, c] = total
