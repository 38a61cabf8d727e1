"""Pooling on CUDA: a thread for each element of the result, neighbours are those of channels."""

from __future__ import annotations

from ..convolution.cuda import elements
from ..cuda.device import INFINITY, cast, flat_index
from ..declare import cuda_kernel, helper
from . import cpu
from .shared import window_begin, window_end, window_size


@cuda_kernel(like=cpu.max_pool_forward, launch=elements("NPQC"))
def max_pool_forward(
    x, y, kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, top, left
):
    at = flat_index()
    N, P, Q, C = y.shape
    if at < N * P * Q * C:
        place = at // C
        c = at - place * C
        q = place % Q
        p = place // Q % P
        n = place // (Q * P)
        best = cast(y, -INFINITY)
        for i in range(kernel_h):
            h = p * stride_h + i * dilation_h - top
            if h < 0 or h >= x.shape[1]:
                continue
            for j in range(kernel_w):
                w = q * stride_w + j * dilation_w - left
                if w >= 0 and w < x.shape[2]:
                    v = x[n, h, w, c]
                    if v > best or v != v:
                        best = v
        y[n, p, q, c] = best


@helper
def first_largest(
    x, n, p, q, c, best, kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, top, left
):
    """The place of a window at which its largest element, `best`, is first; -1: at none."""
    for k in range(kernel_h * kernel_w):
        h = p * stride_h + k // kernel_w * dilation_h - top
        w = q * stride_w + k % kernel_w * dilation_w - left
        if h >= 0 and h < x.shape[1] and w >= 0 and w < x.shape[2]:
            v = x[n, h, w, c]
            if v == best or v != v:
                return h * x.shape[2] + w
    return -1


@cuda_kernel(like=cpu.max_pool_backward, launch=elements("NHWC"))
def max_pool_backward(
    x, y, dy, dx, kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, top, left
):
    at = flat_index()
    N, H, W, C = dx.shape
    if at < N * H * W * C:
        place = at // C
        c = at - place * C
        w = place % W
        h = place // W % H
        n = place // (W * H)
        total = cast(dx, 0)
        for i in range(kernel_h - 1, -1, -1):  # windows in their order
            up = h + top - i * dilation_h
            p = up // stride_h
            if up < 0 or p * stride_h != up or p >= y.shape[1]:
                continue
            for j in range(kernel_w - 1, -1, -1):
                across = w + left - j * dilation_w
                q = across // stride_w
                if across < 0 or q * stride_w != across or q >= y.shape[2]:
                    continue
                found = first_largest(
                    x, n, p, q, c, y[n, p, q, c], kernel_h, kernel_w, stride_h, stride_w,
                    dilation_h, dilation_w, top, left,
                )  # fmt: skip
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
        place = at // C
        c = at - place * C
        q = place % Q
        p = place // Q % P
        n = place // (Q * P)
        found = first_largest(
            x, n, p, q, c, best[n, p, q, c], kernel_h, kernel_w, stride_h, stride_w, dilation_h,
            dilation_w, top, left,
        )  # fmt: skip
        value = cast(y, 0)
        if found >= 0:
            h = found // x.shape[2]
            value = t[n, h, found - h * x.shape[2], c]
        y[n, p, q, c] = value


@helper
def share(p, q, rows, columns, places_h, places_w, kernel_h, kernel_w, stride_h, stride_w, top,
          left, adaptive, padding_counts, divisor):  # fmt: skip
    """How many elements a window's sum is divided by."""
    if divisor > 0:
        return divisor
    high = window_size(p, stride_h, top, kernel_h, rows, places_h, adaptive)
    wide = window_size(q, stride_w, left, kernel_w, columns, places_w, adaptive)
    if not padding_counts:
        high = window_end(p, stride_h, top, kernel_h, rows, places_h, adaptive) - window_begin(
            p, stride_h, top, kernel_h, rows, places_h, adaptive
        )
        wide = window_end(q, stride_w, left, kernel_w, columns, places_w, adaptive) - window_begin(
            q, stride_w, left, kernel_w, columns, places_w, adaptive
        )
    return high * wide


@cuda_kernel(like=cpu.avg_pool_forward, launch=elements("NPQC"))
def avg_pool_forward(
    x, y, kernel_h, kernel_w, stride_h, stride_w, top, left, adaptive, padding_counts, divisor
):
    at = flat_index()
    N, P, Q, C = y.shape
    H, W = x.shape[1], x.shape[2]
    if at < N * P * Q * C:
        place = at // C
        c = at - place * C
        q = place % Q
        p = place // Q % P
        n = place // (Q * P)
        total = cast(y, 0)
        for h in range(
            window_begin(p, stride_h, top, kernel_h, H, P, adaptive),
            window_end(p, stride_h, top, kernel_h, H, P, adaptive),
        ):
            for w in range(
                window_begin(q, stride_w, left, kernel_w, W, Q, adaptive),
                window_end(q, stride_w, left, kernel_w, W, Q, adaptive),
            ):
                total += x[n, h, w, c]
        count = share(p, q, H, W, P, Q, kernel_h, kernel_w, stride_h, stride_w, top, left,
                      adaptive, padding_counts, divisor)  # fmt: skip
        y[n, p, q, c] = total / cast(y, count)


@cuda_kernel(like=cpu.avg_pool_backward, launch=elements("NHWC"))
def avg_pool_backward(
    dy, dx, kernel_h, kernel_w, stride_h, stride_w, top, left, adaptive, padding_counts, divisor
):
    at = flat_index()
    N, H, W, C = dx.shape
    P, Q = dy.shape[1], dy.shape[2]
    if at < N * H * W * C:
        place = at // C
        c = at - place * C
        w = place % W
        h = place // W % H
        n = place // (W * H)
        # the windows that may have the element; those of an adaptive pooling overlap by one at most
        p0, p1 = max((h + top - kernel_h) // stride_h + 1, 0), (h + top) // stride_h + 1
        q0, q1 = max((w + left - kernel_w) // stride_w + 1, 0), (w + left) // stride_w + 1
        if adaptive:
            p0, p1 = h * P // H, (h + 1) * P // H + 1
            q0, q1 = w * Q // W, (w + 1) * Q // W + 1
        total = cast(dx, 0)
        for p in range(p0, min(p1, P)):
            if h < window_begin(p, stride_h, top, kernel_h, H, P, adaptive):
                continue
            if h >= window_end(p, stride_h, top, kernel_h, H, P, adaptive):
                continue
            for q in range(q0, min(q1, Q)):
                if w < window_begin(q, stride_w, left, kernel_w, W, Q, adaptive):
                    continue
                if w >= window_end(q, stride_w, left, kernel_w, W, Q, adaptive):
                    continue
                count = share(p, q, H, W, P, Q, kernel_h, kernel_w, stride_h, stride_w, top, left,
                              adaptive, padding_counts, divisor)  # fmt: skip
                total += dy[n, p, q, c] / cast(dx, count)
        dx[n, h, w, c] = total
