"""Depthwise convolutions: each channel on its own, with one kernel. No products of matrices:
vectors of channels, which are neighbours in memory. Shapes as in `cpu.py`, with w [I,J,1,C]."""

from __future__ import annotations

from ..cpu.parts import load_part, store_part
from ..declare import kernel
from ..simd import fma, lanes, splat
from .windows import end_inside, first_inside


@kernel
def depthwise_forward(
    x: "in rows f[N,H,W,C]",
    w: "in whole f[I,J,U,C]",
    bias: "in whole f[B]",  # B is C, or 0: no bias
    y: "out rows f[N,P,Q,C]",
    stride_h: "int",
    stride_w: "int",
    dilation_h: "int",
    dilation_w: "int",
    top: "int",
    left: "int",
    lo: "begin",
    hi: "end",
):
    """y[n,p,q,c] = bias[c] + sum over i, j of x[n, ..., c]*w[i,j,c]"""
    rows, columns, channels = x.shape[1], x.shape[2], x.shape[3]
    kernel_h, kernel_w = w.shape[0], w.shape[1]
    for n in range(lo, hi):
        at = n * y.shape[1] * y.shape[2] * channels
        for p in range(y.shape[1]):
            row = p * stride_h - top
            i0 = first_inside(row, dilation_h)
            i1 = end_inside(row, dilation_h, rows, kernel_h)
            for q in range(y.shape[2]):
                column = q * stride_w - left
                j0 = first_inside(column, dilation_w)
                j1 = end_inside(column, dilation_w, columns, kernel_w)
                for c in range(0, channels, lanes(x)):
                    rest = channels - c
                    total = splat(x, 0.0)
                    for i in range(i0, i1):
                        line = (n * rows + row + i * dilation_h) * columns + column
                        for j in range(j0, j1):
                            source = (line + j * dilation_w) * channels + c
                            factor = load_part(w, (i * kernel_w + j) * channels + c, rest)
                            total = fma(load_part(x, source, rest), factor, total)
                    if bias.size:
                        total = total + load_part(bias, c, rest)
                    store_part(y, at + c, total, rest)
                at += channels


@kernel
def depthwise_backward_input(
    dy: "in rows f[N,P,Q,C]",
    w: "in whole f[I,J,U,C]",
    dx: "out rows f[N,H,W,C]",
    stride_h: "int",
    stride_w: "int",
    dilation_h: "int",
    dilation_w: "int",
    top: "int",
    left: "int",
    lo: "begin",
    hi: "end",
):
    """dx[n,h,w,c] = the sum of dy*w over all windows that this element is in."""
    places_h, places_w, channels = dy.shape[1], dy.shape[2], dy.shape[3]
    kernel_h, kernel_w = w.shape[0], w.shape[1]
    for n in range(lo, hi):
        at = n * dx.shape[1] * dx.shape[2] * channels
        for h in range(dx.shape[1]):
            for column in range(dx.shape[2]):
                for c in range(0, channels, lanes(dx)):
                    rest = channels - c
                    total = splat(dx, 0.0)
                    for i in range(kernel_h):
                        up = h + top - i * dilation_h
                        p = up // stride_h
                        if up < 0 or up != p * stride_h or p >= places_h:
                            continue
                        for j in range(kernel_w):
                            across = column + left - j * dilation_w
                            q = across // stride_w
                            if across < 0 or across != q * stride_w or q >= places_w:
                                continue
                            source = ((n * places_h + p) * places_w + q) * channels + c
                            factor = load_part(w, (i * kernel_w + j) * channels + c, rest)
                            total = fma(load_part(dy, source, rest), factor, total)
                    store_part(dx, at + c, total, rest)
                at += channels


@kernel(grain=16, factors=("x", "dy"))
def depthwise_backward_weight(
    x: "in cols f[N,H,W,C]",
    dy: "in cols f[N,P,Q,C]",
    dw: "out cols f[D,C]",  # D = I*J
    kernel_w: "int",
    stride_h: "int",
    stride_w: "int",
    dilation_h: "int",
    dilation_w: "int",
    top: "int",
    left: "int",
    lo: "begin",
    hi: "end",
):
    """dw[d,c] = sum over samples and positions of x[n, ..., c]*dy[n,p,q,c]: of a row of positions,
    of a sample, then of the samples."""
    rows, columns, channels = x.shape[1], x.shape[2], x.shape[3]
    places_h, places_w = dy.shape[1], dy.shape[2]
    for d in range(dw.shape[0]):
        i, j = d // kernel_w, d % kernel_w
        column = j * dilation_w - left
        q0 = first_inside(column, stride_w)
        q1 = end_inside(column, stride_w, columns, places_w)
        for c in range(lo, hi, lanes(x)):
            rest = hi - c
            total = splat(x, 0.0)
            for n in range(x.shape[0]):
                sample = splat(x, 0.0)
                for p in range(places_h):
                    row = p * stride_h + i * dilation_h - top
                    if row < 0 or row >= rows:
                        continue
                    part = splat(x, 0.0)
                    here = ((n * rows + row) * columns + column) * channels + c
                    there = (n * places_h + p) * places_w * channels + c
                    for q in range(q0, q1):
                        part = fma(load_part(x, here + q * stride_w * channels, rest),
                                   load_part(dy, there + q * channels, rest), part)  # fmt: skip
                    sample = sample + part
                total = total + sample
            store_part(dw, d * channels + c, total, rest)
