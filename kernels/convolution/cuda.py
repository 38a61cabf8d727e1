"""Convolutions on CUDA, without a copy of windows. Formulas and shapes are those of `cpu.py`.

A thread computes one element of the result; neighbours compute neighbouring channels, so that
weights and gradients are read in whole lines, and an element of the image is read by a warp at
once.
"""

from __future__ import annotations

from ..cuda.device import cast, flat_index
from ..declare import cuda_kernel
from ..simd import fma
from . import cpu
from .cuda_elements import elements, place_of
from .windows import window_of


@cuda_kernel(like=cpu.convolution_forward, launch=elements("NPQK"))
def convolution_forward(
    x, w, w_packed, bias, y, room, stride_h, stride_w, dilation_h, dilation_w, top, left, groups
):
    at = flat_index()
    N, P, Q, K = y.shape
    if at < N * P * Q * K:
        n, p, q, k = place_of(at, P, Q, K)
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
        n, h, column, c = place_of(at, H, W, C)
        group, own = w.shape[2], w.shape[3] // groups
        g = c // group
        total = cast(dx, 0)
        for i in range(w.shape[0]):
            p = window_of(h, i, stride_h, dilation_h, top, dy.shape[1])
            if p < 0:
                continue
            for j in range(w.shape[1]):
                q = window_of(column, j, stride_w, dilation_w, left, dy.shape[2])
                if q < 0:
                    continue
                for k in range(g * own, (g + 1) * own):
                    total = fma(dy[n, p, q, k], w[i, j, c - g * group, k], total)
        dx[n, h, column, c] = total


@cuda_kernel(like=cpu.count_windows, launch=elements("B"))
def count_windows(lengths, y, span, stride, both):
    b = flat_index()
    if b < y.shape[0]:
        rest = lengths[b] + both - span
        count = 0
        if rest >= 0 and lengths[b] > 0:
            count = rest // stride + 1
        y[b] = count
