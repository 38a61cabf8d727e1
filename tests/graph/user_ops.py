"""An op of a user's, for tests."""

from __future__ import annotations

import math

import numpy as np

import fastnn as fnn
from fastnn import nn

X = np.random.default_rng(0).normal(size=(9, 5))


@fnn.helper
def squared_sine(x, a):
    s = math.sin(a * x)
    return s * s / a


@fnn.kernel
def snake_forward(x: "in rows f[N,C]", y: "out rows f[N,C]", a: "real", lo: "begin", hi: "end"):
    for i in range(lo, hi):
        for j in range(x.shape[1]):
            y[i, j] = x[i, j] + squared_sine(x[i, j], a)


@fnn.kernel
def snake_backward(
    x: "in rows f[N,C]", dy: "in rows f[N,C]", dx: "out rows f[N,C]", a: "real",
    lo: "begin", hi: "end",
):  # fmt: skip
    for i in range(lo, hi):
        for j in range(x.shape[1]):
            dx[i, j] = dy[i, j] * (1.0 + math.sin(2.0 * a * x[i, j]))


snake = fnn.define_op("test_snake", snake_forward, snake_backward, defaults={"a": 1.0})


class Snake(nn.Module):
    def __init__(self, a=1.0):
        self.a = a

    def forward(self, x):
        return snake(x, a=self.a)


# ---------------------------------------------------------------- several inputs, integers, shapes


@fnn.kernel
def pick_forward(
    ids: "in rows i[N]", x: "in rows f[N,C]", w: "in whole f[C,K]", y: "out rows f[N,K]",
    chosen: "out rows f[N]", lo: "begin", hi: "end",
):  # fmt: skip
    """A product and one column of it."""
    for n in range(lo, hi):
        for k in range(w.shape[1]):
            total = 0.0
            for c in range(w.shape[0]):
                total += x[n, c] * w[c, k]
            y[n, k] = total
        chosen[n] = y[n, ids[n]]


@fnn.kernel
def pick_dx(
    ids: "in rows i[N]", w: "in whole f[C,K]", dy: "in rows f[N,K]", dchosen: "in rows f[N]",
    dx: "out rows f[N,C]", lo: "begin", hi: "end",
):  # fmt: skip
    for n in range(lo, hi):
        for c in range(w.shape[0]):
            total = dchosen[n] * w[c, ids[n]]
            for k in range(w.shape[1]):
                total += dy[n, k] * w[c, k]
            dx[n, c] = total


@fnn.kernel
def pick_dw(
    ids: "in whole i[N]", x: "in whole f[N,C]", dy: "in whole f[N,K]", dchosen: "in whole f[N]",
    dw: "out rows f[C,K]", lo: "begin", hi: "end",
):  # fmt: skip
    for c in range(lo, hi):
        for k in range(dy.shape[1]):
            dw[c, k] = 0.0
        for n in range(x.shape[0]):
            for k in range(dy.shape[1]):
                dw[c, k] += x[n, c] * dy[n, k]
            dw[c, ids[n]] += x[n, c] * dchosen[n]


pick = fnn.define_op("test_pick", pick_forward, [pick_dx, pick_dw])
