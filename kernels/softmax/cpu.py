"""Softmax and its logarithm over the last dimension, one row at a time.

N rows, C classes. A row's sums run over its lanes in one fixed order.
"""

from ..cpu.parts import keep_part, load_part, row_max, row_sum, store_part
from ..declare import helper, kernel
from ..scalar import exp, log
from ..simd import fma, lanes, load, max_lanes, splat, store, sum_lanes


@helper
def log_of(x, value):
    """Logarithm of one number of `x`'s element type."""
    return max_lanes(log(splat(x, value)))


@helper
def exp_sum(x, base, C, shift):
    """Sum of exp(x - shift) over a row."""
    step, total = lanes(x), splat(x, 0.0)
    full = C - C % (4 * step)
    for j in range(0, full, 4 * step):  # the constants of `exp` are loaded once for four
        e0, e1 = exp(load(x, base + j) - shift), exp(load(x, base + j + step) - shift)
        e2 = exp(load(x, base + j + 2 * step) - shift)
        e3 = exp(load(x, base + j + 3 * step) - shift)
        total = (((total + e0) + e1) + e2) + e3
    for j in range(full, C, step):
        e = exp(load_part(x, base + j, C - j) - shift)
        total = total + keep_part(x, e, C - j, 0.0)
    return sum_lanes(total)


@helper
def exp_row(x, y, base, C, shift):
    """y = exp(x - shift) over a row, and its sum. `y` may be `x`."""
    step, total = lanes(x), splat(x, 0.0)
    full = C - C % (4 * step)
    for j in range(0, full, 4 * step):
        i = base + j
        e0, e1 = exp(load(x, i) - shift), exp(load(x, i + step) - shift)
        e2, e3 = exp(load(x, i + 2 * step) - shift), exp(load(x, i + 3 * step) - shift)
        store(y, i, e0)
        store(y, i + step, e1)
        store(y, i + 2 * step, e2)
        store(y, i + 3 * step, e3)
        total = (((total + e0) + e1) + e2) + e3
    for j in range(full, C, step):
        e = keep_part(x, exp(load_part(x, base + j, C - j) - shift), C - j, 0.0)
        store_part(y, base + j, e, C - j)
        total = total + e
    return sum_lanes(total)


@kernel
def softmax_forward(
    x: "in rows f[N,C]",
    y: "out rows f[N,C]",  # may be x
    lo: "begin",
    hi: "end",
):
    """y = exp(x - max x) / sum(exp(x - max x))."""
    C = x.shape[1]
    for i in range(lo, hi):
        base = i * C
        scale = 1.0 / exp_row(x, y, base, C, row_max(x, base, C))
        for j in range(0, C, lanes(x)):
            store_part(y, base + j, load_part(y, base + j, C - j) * scale, C - j)


@kernel
def softmax_backward(
    y: "in rows f[N,C]",
    dy: "in rows f[N,C]",
    dx: "out rows f[N,C]",  # may be dy
    lo: "begin",
    hi: "end",
):
    """dx = y (dy - sum(y dy))."""
    C = y.shape[1]
    for i in range(lo, hi):
        base = i * C
        total = splat(y, 0.0)
        for j in range(0, C, lanes(y)):
            a, b = load_part(y, base + j, C - j), load_part(dy, base + j, C - j)
            total = fma(a, b, total)
        s = sum_lanes(total)
        for j in range(0, C, lanes(y)):
            a, b = load_part(y, base + j, C - j), load_part(dy, base + j, C - j)
            store_part(dx, base + j, a * (b - s), C - j)


@kernel
def log_softmax_forward(
    x: "in rows f[N,C]",
    y: "out rows f[N,C]",  # may be x
    lo: "begin",
    hi: "end",
):
    """y = (x - max x) - log(sum(exp(x - max x)))."""
    C = x.shape[1]
    for i in range(lo, hi):
        base = i * C
        shift = row_max(x, base, C)
        log_sum = log_of(x, exp_sum(x, base, C, shift))
        for j in range(0, C, lanes(x)):
            v = load_part(x, base + j, C - j) - shift - log_sum
            store_part(y, base + j, v, C - j)


@kernel
def log_softmax_backward(
    y: "in rows f[N,C]",
    dy: "in rows f[N,C]",
    dx: "out rows f[N,C]",  # may be dy
    lo: "begin",
    hi: "end",
):
    """dx = dy - exp(y) sum(dy)."""
    C = y.shape[1]
    for i in range(lo, hi):
        base = i * C
        s = row_sum(dy, base, C)
        for j in range(0, C, lanes(y)):
            v = load_part(dy, base + j, C - j) - exp(load_part(y, base + j, C - j)) * s
            store_part(dx, base + j, v, C - j)
