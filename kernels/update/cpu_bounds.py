"""What follows an update: weights that are small become 0, rows that are long become shorter; and
what may come before: noise on gradients. A negative limit of clipping (`hyper[2]`) stands for a
step that updates nothing.
"""

import numpy as np

from ..control_block import RUN_STEP, STEP
from ..declare import kernel
from ..simd import fma, lanes, load_first, maximum, minimum, splat, store_first
from .formulas import deviation, factor_of


@kernel(elementwise=True)
def shrink(
    p: "inout rows f[R,C]",
    hyper: "in whole f[H]",
    control: "in whole i[L]",
    schedule: "in whole r[S,G]",
    group: "int",
    l1: "double",
    lo: "begin",
    hi: "end",
):
    """p = sign(p) max(|p| - rate l1, 0), the proximal step of l1 |p| (Daubechies, Defrise & De Mol
    2004; Duchi & Singer 2009)."""
    if hyper[2] < 0:
        return
    w, limit = lanes(p), schedule[control[RUN_STEP], group] * l1
    low, high = splat(p, -limit), splat(p, limit)
    begin, end = lo * p.shape[1], hi * p.shape[1]
    for i in range(begin, end, w):
        m = min(end - i, w)
        old = load_first(p, i, m)
        # a NaN passes (second operand)
        store_first(p, i, old - maximum(low, minimum(high, old)), m)


@kernel
def limit_rows(
    p: "inout rows f[R,C]",
    squares: "in rows r[R]",
    hyper: "in whole f[H]",
    limit: "double",
    lo: "begin",
    hi: "end",
):
    """Rows whose norm (its square in `squares`) is above the limit are scaled down to it."""
    if hyper[2] < 0:
        return
    for i in range(lo, hi):
        factor = factor_of(squares[i], limit)
        if factor != 1.0:
            for j in range(p.shape[1]):
                p[i, j] = p[i, j] * factor


@kernel(grain=16)
def column_factors(
    p: "in cols f[R,C]", factors: "out rows r[C]", limit: "double", lo: "begin", hi: "end"
):
    """What brings the norm of each column down to the limit; 1 where it is not above."""
    for j in range(lo, hi):
        factors[j] = 0.0
    for i in range(p.shape[0]):
        for j in range(lo, hi):
            factors[j] += np.float64(p[i, j]) * np.float64(p[i, j])
    for j in range(lo, hi):
        factors[j] = factor_of(factors[j], limit)


@kernel
def limit_columns(
    p: "inout rows f[R,C]",
    factors: "in whole r[C]",
    hyper: "in whole f[H]",
    lo: "begin",
    hi: "end",
):
    """Each column times its factor."""
    if hyper[2] < 0:
        return
    for i in range(lo, hi):
        for j in range(p.shape[1]):
            p[i, j] = p[i, j] * factors[j]


@kernel(elementwise=True)
def add_noise(
    g: "in rows f[R,C]",
    noise: "in rows f[R,C]",
    y: "out rows f[R,C]",
    scale: "in whole f[U]",
    control: "in whole i[L]",
    eta: "double",
    every: "int",
    lo: "begin",
    hi: "end",
):
    """y = scale g + s noise, s^2 = eta / (1 + t)^0.55 (Neelakantan et al. 2015, equation 1)."""
    w = lanes(g)
    factor = splat(g, scale[0] if scale.size else 1.0)
    size = splat(g, deviation(eta, control[STEP] // every))
    begin, end = lo * g.shape[1], hi * g.shape[1]
    for i in range(begin, end, w):
        m = min(end - i, w)
        store_first(y, i, fma(load_first(noise, i, m), size, load_first(g, i, m) * factor), m)
