"""Layer normalisation (over a row) and batch normalisation (over a column).

N rows, C columns; G and B are C, or 0 where there is no gain or no bias. Variances are taken in two
passes (mean first), so that a large mean costs no digits.
Sources: Ba, Kiros and Hinton 2016 (layer), Ioffe and Szegedy 2015 (batch); PyTorch's conventions.
"""

import math

from ..cpu.parts import (
    ROWS,
    keep_part,
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
    strip_total,
)
from ..declare import helper, kernel
from ..simd import fma, lanes, load, splat, sqrt, store, sum_lanes


@helper
def row_total(x, base, C):
    """The sum of a row: four sums side by side, since an addition waits for the one before."""
    step = lanes(x)
    whole = C - C % (4 * step)
    a = b = c = d = splat(x, 0.0)
    for j in range(base, base + whole, 4 * step):
        a = a + load(x, j)
        b = b + load(x, j + step)
        c = c + load(x, j + 2 * step)
        d = d + load(x, j + 3 * step)
    for j in range(whole, C, step):
        a = a + load_part(x, base + j, C - j)
    return sum_lanes((a + b) + (c + d))


@helper
def row_variance(x, base, C, mean):
    """Mean of (x - mean)^2 over a row, likewise."""
    step = lanes(x)
    whole = C - C % (4 * step)
    a = b = c = d = splat(x, 0.0)
    for j in range(base, base + whole, 4 * step):
        p, q = load(x, j) - mean, load(x, j + step) - mean
        r, s = load(x, j + 2 * step) - mean, load(x, j + 3 * step) - mean
        a, b, c, d = fma(p, p, a), fma(q, q, b), fma(r, r, c), fma(s, s, d)
    for j in range(whole, C, step):
        p = keep_part(x, load_part(x, base + j, C - j) - mean, C - j, 0.0)
        a = fma(p, p, a)
    return sum_lanes((a + b) + (c + d)) / C


@helper
def normalised(v, m, r, gain, bias, j, n):
    """(v - m) r, times the gain and plus the bias where there are some."""
    v = (v - m) * r
    if gain.size > 0:
        v = v * load_part(gain, j, n)
    if bias.size > 0:
        v = v + load_part(bias, j, n)
    return v


@kernel(slow_to_compile=True)
def layer_norm_forward(
    x: "in rows f[N,C]",
    gain: "in whole f[G]",
    bias: "in whole f[B]",
    y: "out rows f[N,C]",  # may be x
    mean: "out rows f[N]",
    rstd: "out rows f[N]",
    eps: "real",
    lo: "begin",
    hi: "end",
):
    """y = (x - mean) rstd gain + bias; rstd = 1 / sqrt(variance + eps), the biased variance."""
    C, step = x.shape[1], lanes(x)
    whole = C - C % step
    for i in range(lo, hi):
        base = i * C
        m = row_total(x, base, C) / C
        r = 1.0 / math.sqrt(row_variance(x, base, C, m) + eps)
        mean[i] = m
        rstd[i] = r
        for j in range(0, whole, step):
            store(y, base + j, normalised(load(x, base + j), m, r, gain, bias, j, step))
        if whole < C:
            v, n = load_part(x, base + whole, C - whole), C - whole
            store_part(y, base + whole, normalised(v, m, r, gain, bias, whole, n), n)


@kernel(slow_to_compile=True)
def layer_norm_backward_input(
    x: "in rows f[N,C]",
    gain: "in whole f[G]",
    mean: "in rows f[N]",
    rstd: "in rows f[N]",
    dy: "in rows f[N,C]",
    dx: "out rows f[N,C]",  # may be dy
    lo: "begin",
    hi: "end",
):
    """dx = rstd (g - mean(g) - n mean(g n)), where n = (x - mean) rstd and g = dy gain."""
    C = x.shape[1]
    G = gain.shape[0]
    for i in range(lo, hi):
        base = i * C
        m, r = mean[i], rstd[i]
        sum_g = splat(x, 0.0)
        sum_gn = splat(x, 0.0)
        for j in range(0, C, lanes(x)):
            g = load_part(dy, base + j, C - j)
            if G > 0:
                g = g * load_part(gain, j, C - j)
            sum_g = sum_g + g
            sum_gn = fma(g, (load_part(x, base + j, C - j) - m) * r, sum_gn)
        mean_g = sum_lanes(sum_g) / C
        mean_gn = sum_lanes(sum_gn) / C
        for j in range(0, C, lanes(x)):
            g = load_part(dy, base + j, C - j)
            if G > 0:
                g = g * load_part(gain, j, C - j)
            n = (load_part(x, base + j, C - j) - m) * r
            store_part(dx, base + j, (g - mean_g - n * mean_gn) * r, C - j)


@helper
def gain_term(x, dy, mean, rstd, row, j, n):
    """dy (x - mean) rstd for the layer norm of one row."""
    k = row * x.shape[1] + j
    d = strip_subtract(strip_load(x, k, n), strip_splat(x, mean[row]))
    return strip_multiply(strip_load(dy, k, n), strip_scale(d, rstd[row]))


@kernel(grain=16, sums_rows=True, slow_to_compile=True)
def layer_norm_backward_gain(
    x: "in cols f[N,C]",
    mean: "in whole f[N]",
    rstd: "in whole f[N]",
    dy: "in cols f[N,C]",
    dgain: "out rows f[C]",
    lo: "begin",
    hi: "end",
):
    """dgain[c] = sum over rows of dy (x - mean) rstd."""
    for j in range(lo, hi, strip_lanes(x)):
        n = hi - j
        strip_store(dgain, j, strip_total(gain_term, x, dy, mean, rstd, j, n), n)


# ---------------------------------------------------------------- batch normalisation


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
def value_term(x, y, mean, rstd, row, j, n):
    """A strip of row `row` of y: its sum over the rows gives the mean."""
    return strip_load(y, row * y.shape[1] + j, n)


@helper
def square_term(x, y, mean, rstd, row, j, n):
    """The squared distances of a strip of x from the mean: their sum gives the variance."""
    d = strip_subtract(strip_load(x, row * x.shape[1] + j, n), mean)
    return strip_multiply(d, d)


@helper
def gradient_sums(x, dy, mean, rstd, j, n):
    """Sums of dy and of dy (x - mean) rstd over the rows, in one pass like `strip_total`'s."""
    count, C = x.shape
    plain = scaled = strip_splat(x, 0.0)
    for first in range(0, count, ROWS):
        a = b = strip_splat(x, 0.0)
        for row in range(first, min(first + ROWS, count)):
            g = strip_load(dy, row * C + j, n)
            d = strip_multiply(strip_subtract(strip_load(x, row * C + j, n), mean), rstd)
            a = strip_add(a, g)
            b = strip_add(b, strip_multiply(g, d))
        plain = strip_add(plain, a)
        scaled = strip_add(scaled, b)
    return plain, scaled


@helper
def strip_follow(running, j, n, value, momentum):
    """running = (1 - momentum) running + momentum value."""
    old = strip_scale(strip_load(running, j, n), 1.0 - momentum)
    strip_store(running, j, strip_add(old, strip_scale(value, momentum)), n)


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
    N, C = x.shape
    for j in range(lo, hi, strip_lanes(x)):
        n = hi - j
        zero = strip_splat(x, 0.0)
        m = strip_scale(strip_total(value_term, x, x, zero, zero, j, n), 1.0 / N)
        squares = strip_total(square_term, x, x, m, zero, j, n)
        r = strip_rstd(strip_scale(squares, 1.0 / N), eps)
        strip_store(mean, j, m, n)
        strip_store(rstd, j, r, n)
        strip_follow(running_mean, j, n, m, momentum)
        strip_follow(running_var, j, n, strip_scale(squares, 1.0 / max(N - 1, 1)), momentum)
        scale = strip_multiply(r, strip_load(gain, j, n))
        shift = strip_load(bias, j, n)
        for row in range(N):
            d = strip_subtract(strip_load(x, row * C + j, n), m)
            strip_store(y, row * C + j, strip_add(strip_multiply(d, scale), shift), n)


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
    N, C = x.shape
    for j in range(lo, hi, strip_lanes(x)):
        count = hi - j
        m, r = strip_load(mean, j, count), strip_load(rstd, j, count)
        sum_dy, sum_dyn = gradient_sums(x, dy, m, r, j, count)
        strip_store(dbias, j, sum_dy, count)
        strip_store(dgain, j, sum_dyn, count)
        mean_dy = strip_scale(sum_dy, 1.0 / N)
        slope = strip_multiply(strip_scale(sum_dyn, 1.0 / N), r)
        scale = strip_multiply(r, strip_load(gain, j, count))
        for row in range(N):
            k = row * C + j
            d = strip_multiply(strip_subtract(strip_load(x, k, count), m), slope)
            g = strip_subtract(strip_subtract(strip_load(dy, k, count), mean_dy), d)
            strip_store(dx, k, strip_multiply(g, scale), count)


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
