"""Convolutions on CUDA, without a copy of windows. Formulas and shapes are those of `cpu.py`.

A thread computes one element of the result; neighbours compute neighbouring channels, so that
weights and gradients are read in whole lines, and an element of the image is read by a warp at
once. The weights' gradient is a sum over all samples: the rows of a block share them out, and their
parts are added in their order.
"""

from __future__ import annotations

from ..cuda.device import cast, cuda, flat_index
from ..declare import ceil_div, cuda_kernel
from ..simd import fma
from . import cpu

#: threads that share the samples of a weight's gradient
PARTS = 8


def elements(letters: str):
    """A thread for each element of an array with these dimensions."""

    def launch(s):
        count = 1
        for letter in letters:
            count *= s[letter]
        return ceil_div(count, 128), 128

    return launch


def weights_launch(s):
    """Blocks of 32 channels of an element of the window, times `PARTS`."""
    return (ceil_div(s["K"], 32), s["D"]), (32, PARTS)


@cuda_kernel(like=cpu.convolution_forward, launch=elements("NPQK"))
def convolution_forward(
    x, w, bias, y, room, stride_h, stride_w, dilation_h, dilation_w, top, left, groups
):
    at = flat_index()
    N, P, Q, K = y.shape
    if at < N * P * Q * K:
        place = at // K
        k = at - place * K
        q = place % Q
        p = place // Q % P
        n = place // (Q * P)
        group = w.shape[2]
        channel = k // (K // groups) * group
        total = cast(y, 0)
        for i in range(w.shape[0]):
            h = p * stride_h + i * dilation_h - top
            if h < 0 or h >= x.shape[1]:
                continue
            for j in range(w.shape[1]):
                v = q * stride_w + j * dilation_w - left
                if v < 0 or v >= x.shape[2]:
                    continue
                for c in range(group):
                    total = fma(x[n, h, v, channel + c], w[i, j, c, k], total)
        if bias.shape[0] > 0:
            total += bias[k]
        y[n, p, q, k] = total


@cuda_kernel(like=cpu.convolution_backward_input, launch=elements("NHWC"))
def convolution_backward_input(
    dy, w, w_packed, dx, room, stride_h, stride_w, dilation_h, dilation_w, top, left, groups
):
    at = flat_index()
    N, H, W, C = dx.shape
    if at < N * H * W * C:
        place = at // C
        c = at - place * C
        column = place % W
        h = place // W % H
        n = place // (W * H)
        group, own = w.shape[2], w.shape[3] // groups
        g = c // group
        total = cast(dx, 0)
        for i in range(w.shape[0]):
            up = h + top - i * dilation_h
            p = up // stride_h
            if up < 0 or p * stride_h != up or p >= dy.shape[1]:
                continue
            for j in range(w.shape[1]):
                across = column + left - j * dilation_w
                q = across // stride_w
                if across < 0 or q * stride_w != across or q >= dy.shape[2]:
                    continue
                for k in range(g * own, (g + 1) * own):
                    total = fma(dy[n, p, q, k], w[i, j, c - g * group, k], total)
        dx[n, h, column, c] = total


@cuda_kernel(like=cpu.convolution_backward_weight, launch=weights_launch)
def convolution_backward_weight(
    x, dy, dw, room, kernel_w, stride_h, stride_w, dilation_h, dilation_w, top, left, groups
):
    sums = cuda.shared.array((8, 32), dw.dtype)
    lane, part, d = cuda.threadIdx.x, cuda.threadIdx.y, cuda.blockIdx.y
    k = cuda.blockIdx.x * 32 + lane
    K = dw.shape[1]
    group = x.shape[3] // groups
    i = d // (kernel_w * group)
    j = d // group % kernel_w
    total = cast(dw, 0)
    if k < K:
        channel = k // (K // groups) * group + d % group
        for n in range(part, x.shape[0], 8):
            sample = cast(dw, 0)
            for p in range(dy.shape[1]):
                h = p * stride_h + i * dilation_h - top
                if h < 0 or h >= x.shape[1]:
                    continue
                for q in range(dy.shape[2]):
                    v = q * stride_w + j * dilation_w - left
                    if v >= 0 and v < x.shape[2]:
                        sample = fma(x[n, h, v, channel], dy[n, p, q, k], sample)
            total += sample
    sums[part, lane] = total
    cuda.syncthreads()
    if part == 0 and k < K:
        total = sums[0, lane]
        for other in range(1, 8):
            total += sums[other, lane]
        dw[d, k] = total


@cuda_kernel(like=cpu.count_windows, launch=elements("B"))
def count_windows(lengths, y, span, stride, both):
    b = flat_index()
    if b < y.shape[0]:
        rest = lengths[b] + both - span
        count = 0
        if rest >= 0 and lengths[b] > 0:
            count = rest // stride + 1
        y[b] = count
