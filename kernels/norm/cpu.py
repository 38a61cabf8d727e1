"""Layer normalisation (over a row).

N rows, C columns; G and B are C, or 0 where there is no gain or no bias. Variances are taken in two
passes (mean first), so that a large mean costs no digits.
Source: Ba, Kiros and Hinton 2016; PyTorch's conventions.
"""

import math

from ..cpu.parts import keep_part, load_part, store_part
from ..declare import helper, kernel
from ..simd import fma, lanes, load, splat, store, sum_lanes
from .cpu_columns import column_totals, each_row, four


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
def gain_term(x, dy, mean, rstd, row, j, at):
    """dy (x - mean) rstd for the layer norm of a row."""
    k = row * x.shape[1] + j
    v, g = four(x, k, at.apart, at.n), four(dy, k, at.apart, at.n)
    m, r = each_row(mean, row, at.down), each_row(rstd, row, at.down)
    return (
        g[0] * ((v[0] - m[0]) * r[0]),
        g[1] * ((v[1] - m[1]) * r[1]),
        g[2] * ((v[2] - m[2]) * r[2]),
        g[3] * ((v[3] - m[3]) * r[3]),
    )


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
    column_totals(gain_term, x, dy, mean, rstd, dgain, lo, hi)
