"""Pooling on CUDA: a thread for each element of the result, neighbours are those of channels."""

from __future__ import annotations

from ..convolution.cuda_elements import elements, place_of
from ..convolution.windows import window_of
from ..cuda.device import INFINITY, cast, flat_index
from ..declare import cuda_kernel
from . import cpu
from .shared import Spans, Taps, first_largest, place_in, share, window_begin, window_end


@cuda_kernel(like=cpu.max_pool_forward, launch=elements("NPQC"))
def max_pool_forward(
    x, y, kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, top, left
):
    at = flat_index()
    N, P, Q, C = y.shape
    if at < N * P * Q * C:
        n, p, q, c = place_of(at, P, Q, C)
        best = cast(y, -INFINITY)
        high = Taps(kernel_h, stride_h, dilation_h, top, x.shape[1])
        wide = Taps(kernel_w, stride_w, dilation_w, left, x.shape[2])
        for i in range(kernel_h):
            h = place_in(high, p, i)
            if h < 0:
                continue
            for j in range(kernel_w):
                w = place_in(wide, q, j)
                if w >= 0:
                    v = x[n, h, w, c]
                    if v > best or v != v:
                        best = v
        y[n, p, q, c] = best


@cuda_kernel(like=cpu.max_pool_backward, launch=elements("NHWC"))
def max_pool_backward(
    x, y, dy, dx, kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, top, left
):
    at = flat_index()
    N, H, W, C = dx.shape
    if at < N * H * W * C:
        n, h, w, c = place_of(at, H, W, C)
        high = Taps(kernel_h, stride_h, dilation_h, top, H)
        wide = Taps(kernel_w, stride_w, dilation_w, left, W)
        total = cast(dx, 0)
        for i in range(kernel_h - 1, -1, -1):  # windows in their order
            p = window_of(h, i, stride_h, dilation_h, top, y.shape[1])
            if p < 0:
                continue
            for j in range(kernel_w - 1, -1, -1):
                q = window_of(w, j, stride_w, dilation_w, left, y.shape[2])
                if q < 0:
                    continue
                found = first_largest(x, n, p, q, c, y[n, p, q, c], high, wide)
                if found == h * W + w:
                    total += dy[n, p, q, c]
        dx[n, h, w, c] = total


@cuda_kernel(like=cpu.max_pool_pick, launch=elements("NPQC"))
def max_pool_pick(
    x, best, t, y, kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, top, left
):
    at = flat_index()
    N, P, Q, C = y.shape
    if at < N * P * Q * C:
        n, p, q, c = place_of(at, P, Q, C)
        high = Taps(kernel_h, stride_h, dilation_h, top, x.shape[1])
        wide = Taps(kernel_w, stride_w, dilation_w, left, x.shape[2])
        found = first_largest(x, n, p, q, c, best[n, p, q, c], high, wide)
        value = cast(y, 0)
        if found >= 0:
            h = found // x.shape[2]
            value = t[n, h, found - h * x.shape[2], c]
        y[n, p, q, c] = value


@cuda_kernel(like=cpu.max_pool_places, launch=elements("NPQC"))
def max_pool_places(
    x, best, y, kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, top, left
):
    at = flat_index()
    N, P, Q, C = y.shape
    if at < N * P * Q * C:
        n, p, q, c = place_of(at, P, Q, C)
        high = Taps(kernel_h, stride_h, dilation_h, top, x.shape[1])
        wide = Taps(kernel_w, stride_w, dilation_w, left, x.shape[2])
        y[n, p, q, c] = first_largest(x, n, p, q, c, best[n, p, q, c], high, wide)


@cuda_kernel(like=cpu.avg_pool_forward, launch=elements("NPQC"))
def avg_pool_forward(
    x, y, kernel_h, kernel_w, stride_h, stride_w, top, left, adaptive, padding_counts, divisor
):
    at = flat_index()
    N, P, Q, C = y.shape
    H, W = x.shape[1], x.shape[2]
    if at < N * P * Q * C:
        n, p, q, c = place_of(at, P, Q, C)
        high = Spans(kernel_h, stride_h, top, H, P, adaptive)
        wide = Spans(kernel_w, stride_w, left, W, Q, adaptive)
        total = cast(y, 0)
        for h in range(window_begin(high, p), window_end(high, p)):
            for w in range(window_begin(wide, q), window_end(wide, q)):
                total += x[n, h, w, c]
        y[n, p, q, c] = total / cast(y, share(high, wide, p, q, padding_counts, divisor))


@cuda_kernel(like=cpu.avg_pool_backward, launch=elements("NHWC"))
def avg_pool_backward(
    dy, dx, kernel_h, kernel_w, stride_h, stride_w, top, left, adaptive, padding_counts, divisor
):
    at = flat_index()
    N, H, W, C = dx.shape
    P, Q = dy.shape[1], dy.shape[2]
    if at < N * H * W * C:
        n, h, w, c = place_of(at, H, W, C)
        # the windows that may have the element; those of an adaptive pooling overlap by one at most
        p0, p1 = max((h + top - kernel_h) // stride_h + 1, 0), (h + top) // stride_h + 1
        q0, q1 = max((w + left - kernel_w) // stride_w + 1, 0), (w + left) // stride_w + 1
        if adaptive:
            p0, p1 = h * P // H, (h + 1) * P // H + 1
            q0, q1 = w * Q // W, (w + 1) * Q // W + 1
        high = Spans(kernel_h, stride_h, top, H, P, adaptive)
        wide = Spans(kernel_w, stride_w, left, W, Q, adaptive)
        total = cast(dx, 0)
        for p in range(p0, min(p1, P)):
            if h < window_begin(high, p) or h >= window_end(high, p):
                continue
            for q in range(q0, min(q1, Q)):
                if w < window_begin(wide, q) or w >= window_end(wide, q):
                    continue
                count = share(high, wide, p, q, padding_counts, divisor)
                total += dy[n, p, q, c] / cast(dx, count)
        dx[n, h, w, c] = total
