"""Kernels that move columns between matrices, and maxout, which chooses among them."""

from __future__ import annotations

from ..cpu.parts import copy_run
from ..declare import helper, kernel
from ..simd import Vector, lanes, load, load_first, store, store_first, where


@kernel(share=lambda s: (s["offset"], s["offset"] + s["C"], s["K"]))
def insert_columns(
    x: "in rows f[N,C]", y: "part rows f[N,K]", offset: "int", lo: "begin", hi: "end"
):
    """y[n, offset+c] = x[n,c]; the other columns of y stay. No aliases."""
    for row in range(lo, hi):
        copy_run(x, row * x.shape[1], y, row * y.shape[1] + offset, x.shape[1])


@kernel
def extract_columns(
    x: "in rows f[N,K]", y: "out rows f[N,C]", offset: "int", lo: "begin", hi: "end"
):
    """y[n,c] = x[n, offset+c]. No aliases."""
    for row in range(lo, hi):
        copy_run(x, row * x.shape[1] + offset, y, row * y.shape[1], y.shape[1])


@helper
def _larger(a: Vector, b: Vector) -> Vector:
    """The larger of each pair; NaN where one of them is."""
    return where((b > a) | (b != b), b, a)


@kernel
def maxout_forward(x: "in rows f[N,K]", y: "out rows f[N,C]", lo: "begin", hi: "end"):
    """y[n,c] = max over p of x[n, p*C + c], K = pieces*C (Goodfellow et al. 2013). No aliases."""
    n, width = lanes(x), y.shape[1]
    for row in range(lo, hi):
        start, stop = row * x.shape[1], (row + 1) * x.shape[1]
        j = 0
        while j + n <= width:
            value = load(x, start + j)
            for i in range(start + width + j, stop, width):
                value = _larger(value, load(x, i))
            store(y, row * width + j, value)
            j += n
        if j < width:
            m = width - j
            value = load_first(x, start + j, m)
            for i in range(start + width + j, stop, width):
                value = _larger(value, load_first(x, i, m))
            store_first(y, row * width + j, value, m)


@kernel
def maxout_backward(
    x: "in rows f[N,K]",
    y: "in rows f[N,C]",
    dy: "in rows f[N,C]",
    dx: "out rows f[N,K]",
    lo: "begin",
    hi: "end",
):
    """dx[n, p*C + c] = dy[n,c] for the first piece p that attained the maximum y[n,c], else 0.
    dx may be x."""
    n, width = lanes(x), y.shape[1]
    for row in range(lo, hi):
        start, stop = row * x.shape[1], (row + 1) * x.shape[1]
        j = 0
        while j + n <= width:
            top, left = load(y, row * width + j), load(dy, row * width + j)
            for i in range(start + j, stop, width):
                chosen = load(x, i) == top
                store(dx, i, where(chosen, left, 0.0))
                left = where(chosen, 0.0, left)  # spent: later pieces get nothing
            j += n
        if j < width:
            m = width - j
            top = load_first(y, row * width + j, m)
            left = load_first(dy, row * width + j, m)
            for i in range(start + j, stop, width):
                chosen = load_first(x, i, m) == top
                store_first(dx, i, where(chosen, left, 0.0), m)
                left = where(chosen, 0.0, left)
