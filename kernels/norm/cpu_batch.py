"""Batch normalisation (over a column).

N rows, C columns. Variances are taken in two passes (mean first), so that a large mean costs no
digits.
Source: Ioffe and Szegedy 2015; PyTorch's conventions.
"""

from ..cpu.parts import (
    ROWS,
    fill_row,
    load_part,
    store_part,
    strip_add,
    strip_lanes,
    strip_load,
    strip_multiply,
    strip_scale,
    strip_splat,
    strip_store,
    strip_subtract,
)
from ..declare import helper, kernel
from ..simd import lanes, splat, sqrt
from .cpu_columns import (
    Four,
    column_totals,
    columns_at_once,
    four,
    rows_at_once,
    side_by_side,
    store_four,
)


@helper
def strip_rstd(variance, eps):
    """1 / sqrt(variance + eps)."""
    return (
        1.0 / sqrt(variance[0] + eps),
        1.0 / sqrt(variance[1] + eps),
        1.0 / sqrt(variance[2] + eps),
        1.0 / sqrt(variance[3] + eps),
    )


@helper
def value_term(x, y, mean, rstd, row, j, at):
    """Of x itself: the sum gives the mean."""
    return four(x, row * x.shape[1] + j, at.apart, at.n)


@helper
def square_term(x, y, mean, rstd, row, j, at):
    """The squared distances from the mean: their sum gives the variance."""
    v = four(x, row * x.shape[1] + j, at.apart, at.n)
    d = strip_subtract(v, four(mean, j, at.across, at.n))
    return strip_multiply(d, d)


@helper
def gradient_block(x, dy, mean, rstd, first, last, j, at):
    """Sums of dy and of dy (x - mean) rstd from one row to another."""
    m, r = four(mean, j, at.across, at.n), four(rstd, j, at.across, at.n)
    plain = scaled = strip_splat(x, 0.0)
    for row in range(first, last):
        k = row * x.shape[1] + j
        g = four(dy, k, at.apart, at.n)
        d = strip_multiply(strip_subtract(four(x, k, at.apart, at.n), m), r)
        plain = strip_add(plain, g)
        scaled = strip_add(scaled, strip_multiply(g, d))
    return plain, scaled


@helper
def gradient_vector(x, dy, mean, rstd, dgain, dbias, j, n):
    """`gradient_totals` of up to a vector of columns, like `vector_total`."""
    count = x.shape[0]
    whole = count - count % (4 * ROWS)
    plain = scaled = splat(x, 0.0)
    for first in range(0, whole, 4 * ROWS):
        at = Four(ROWS * x.shape[1], 0, ROWS, n)
        a, b = gradient_block(x, dy, mean, rstd, first, first + ROWS, j, at)
        plain = (((plain + a[0]) + a[1]) + a[2]) + a[3]
        scaled = (((scaled + b[0]) + b[1]) + b[2]) + b[3]
    for first in range(whole, count, ROWS):
        last = min(first + ROWS, count)
        a, b = gradient_block(x, dy, mean, rstd, first, last, j, Four(0, 0, 0, n))
        plain, scaled = plain + a[0], scaled + b[0]
    store_part(dbias, j, plain, n)
    store_part(dgain, j, scaled, n)


@helper
def gradient_totals(x, dy, mean, rstd, dgain, dbias, lo, hi):
    """dbias and dgain: sums of dy and of dy (x - mean) rstd, in one pass like `column_totals`'."""
    count, wide = x.shape[0], strip_lanes(x)
    end = hi - (hi - lo) % wide
    fill_row(dgain, lo, end - lo, 0.0)
    fill_row(dbias, lo, end - lo, 0.0)
    for first in range(0, count, ROWS):
        last = min(first + ROWS, count)
        for j in range(lo, end, wide):
            a, b = gradient_block(x, dy, mean, rstd, first, last, j, side_by_side(x))
            strip_store(dbias, j, strip_add(strip_load(dbias, j, wide), a), wide)
            strip_store(dgain, j, strip_add(strip_load(dgain, j, wide), b), wide)
    for j in range(end, hi, lanes(x)):
        gradient_vector(x, dy, mean, rstd, dgain, dbias, j, hi - j)


@helper
def follow(running, j, n, value, momentum):
    """running = (1 - momentum) running + momentum value."""
    old = load_part(running, j, n) * (1.0 - momentum)
    store_part(running, j, old + value * momentum, n)


@helper
def normalise(x, y, gain, bias, mean, rstd, first, last, by, j, at):
    """y = (x - mean) rstd gain + bias from one row to another, every `by` rows."""
    m, shift = four(mean, j, at.across, at.n), four(bias, j, at.across, at.n)
    scale = strip_multiply(four(rstd, j, at.across, at.n), four(gain, j, at.across, at.n))
    for row in range(first, last, by):
        k = row * x.shape[1] + j
        d = strip_subtract(four(x, k, at.apart, at.n), m)
        store_four(y, k, at.apart, strip_add(strip_multiply(d, scale), shift), at.n)


@helper
def normalise_columns(x, y, gain, bias, mean, rstd, lo, hi):
    """The same for all rows."""
    (N, C), wide, rows = x.shape, strip_lanes(x), rows_at_once(x)
    end, fours = hi - (hi - lo) % wide, N - N % 4
    for first in range(0, N, rows):
        last = min(first + rows, N)
        for j in range(lo, end, wide):
            normalise(x, y, gain, bias, mean, rstd, first, last, 1, j, side_by_side(x))
    for j in range(end, hi, lanes(x)):
        at = Four(C, 0, 1, hi - j)
        normalise(x, y, gain, bias, mean, rstd, 0, fours, 4, j, at)
        normalise(x, y, gain, bias, mean, rstd, fours, N, 1, j, Four(0, 0, 0, hi - j))


@kernel(grain=16, slow_to_compile=True, by_statistics=("x", "y"))
def batch_norm_forward(
    x: "in cols f[N,C]",
    gain: "in rows f[C]",
    bias: "in rows f[C]",
    running_mean: "inout rows f[C]",
    running_var: "inout rows f[C]",
    y: "out cols f[N,C]",  # may be x
    mean: "out rows f[C]",
    rstd: "out rows f[C]",
    eps: "real",
    momentum: "real",
    lo: "begin",
    hi: "end",
):
    """y = (x - mean) rstd gain + bias over each column, in training.

    The biased variance normalises, the unbiased one (the biased one where N = 1) goes into
    running_var.
    """
    N, step = x.shape[0], columns_at_once(x)
    for begin in range(lo, hi, step):
        end = min(begin + step, hi)
        column_totals(value_term, x, x, mean, rstd, mean, begin, end)
        for j in range(begin, end, lanes(x)):
            store_part(mean, j, load_part(mean, j, end - j) * (1.0 / N), end - j)
        column_totals(square_term, x, x, mean, rstd, rstd, begin, end)
        for j in range(begin, end, lanes(x)):
            n, squares = end - j, load_part(rstd, j, end - j)
            follow(running_mean, j, n, load_part(mean, j, n), momentum)
            follow(running_var, j, n, squares * (1.0 / max(N - 1, 1)), momentum)
            store_part(rstd, j, 1.0 / sqrt(squares * (1.0 / N) + eps), n)
        normalise_columns(x, y, gain, bias, mean, rstd, begin, end)


@helper
def input_gradient(x, gain, mean, rstd, dy, dx, dgain, dbias, first, last, by, j, at):
    """dx from one row to another, every `by` rows."""
    m, r = four(mean, j, at.across, at.n), four(rstd, j, at.across, at.n)
    mean_dy = strip_scale(four(dbias, j, at.across, at.n), 1.0 / x.shape[0])
    slope = strip_scale(four(dgain, j, at.across, at.n), 1.0 / x.shape[0])
    slope, scale = strip_multiply(slope, r), strip_multiply(r, four(gain, j, at.across, at.n))
    for row in range(first, last, by):
        k = row * x.shape[1] + j
        d = strip_multiply(strip_subtract(four(x, k, at.apart, at.n), m), slope)
        g = strip_subtract(strip_subtract(four(dy, k, at.apart, at.n), mean_dy), d)
        store_four(dx, k, at.apart, strip_multiply(g, scale), at.n)


@kernel(grain=16, slow_to_compile=True)
def batch_norm_backward(
    x: "in cols f[N,C]",
    gain: "in rows f[C]",
    mean: "in rows f[C]",
    rstd: "in rows f[C]",
    dy: "in cols f[N,C]",
    dx: "out cols f[N,C]",  # may be dy
    dgain: "out rows f[C]",
    dbias: "out rows f[C]",
    lo: "begin",
    hi: "end",
):
    """dbias = sum(dy), dgain = sum(dy n), dx = gain rstd (dy - dbias / N - n dgain / N), where
    n = (x - mean) rstd and sums are over rows."""
    (N, C), wide, rows = x.shape, strip_lanes(x), rows_at_once(x)
    step, fours = columns_at_once(x), N - N % 4
    for begin in range(lo, hi, step):
        end = min(begin + step, hi)
        gradient_totals(x, dy, mean, rstd, dgain, dbias, begin, end)
        whole = end - (end - begin) % wide
        for first in range(0, N, rows):
            last = min(first + rows, N)
            for j in range(begin, whole, wide):
                at = side_by_side(x)
                input_gradient(
                    x, gain, mean, rstd, dy, dx, dgain, dbias, first, last, 1, j, at
                )  # fmt: skip
        for j in range(whole, end, lanes(x)):
            at = Four(C, 0, 1, end - j)
            input_gradient(x, gain, mean, rstd, dy, dx, dgain, dbias, 0, fours, 4, j, at)
            at = Four(0, 0, 0, end - j)
            input_gradient(x, gain, mean, rstd, dy, dx, dgain, dbias, fours, N, 1, j, at)


@kernel(slow_to_compile=True)
def batch_norm_inference(
    x: "in rows f[N,C]",
    gain: "in whole f[C]",
    bias: "in whole f[C]",
    running_mean: "in whole f[C]",
    running_var: "in whole f[C]",
    y: "out rows f[N,C]",  # may be x
    eps: "real",
    lo: "begin",
    hi: "end",
):
    """y = (x - running_mean) gain / sqrt(running_var + eps) + bias."""
    C = x.shape[1]
    for j in range(0, C, strip_lanes(x)):
        n = C - j
        m, b = strip_load(running_mean, j, n), strip_load(bias, j, n)
        r = strip_rstd(strip_load(running_var, j, n), eps)
        scale = strip_multiply(r, strip_load(gain, j, n))
        for i in range(lo, hi):
            k = i * C + j
            d = strip_subtract(strip_load(x, k, n), m)
            strip_store(y, k, strip_add(strip_multiply(d, scale), b), n)


@kernel(slow_to_compile=True)
def batch_norm_inference_backward(
    gain: "in whole f[C]",
    running_var: "in whole f[C]",
    dy: "in rows f[N,C]",
    dx: "out rows f[N,C]",  # may be dy
    eps: "real",
    lo: "begin",
    hi: "end",
):
    """dx = dy gain / sqrt(running_var + eps): statistics that don't depend on x."""
    C = dy.shape[1]
    for j in range(0, C, strip_lanes(dy)):
        n = C - j
        r = strip_rstd(strip_load(running_var, j, n), eps)
        scale = strip_multiply(r, strip_load(gain, j, n))
        for i in range(lo, hi):
            strip_store(dx, i * C + j, strip_multiply(strip_load(dy, i * C + j, n), scale), n)
