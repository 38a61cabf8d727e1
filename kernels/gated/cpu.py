"""Units with gates: the second half of a row's features decides what passes of the first half.

N rows, G = 2 C features. Gradients are computed from the features, so that nothing is kept.
"""

from ..cpu.parts import load_part, store_part
from ..declare import kernel
from ..scalar import sigmoid, tanh
from ..simd import lanes
from .shared import linear_unit, tanh_unit


@kernel
def glu_forward(x: "in rows f[N,G]", y: "out rows f[N,C]", lo: "begin", hi: "end"):
    """y = a * sigmoid(b) for the halves a and b of x (Dauphin et al. 2017)."""
    C, w = y.shape[1], lanes(x)
    for i in range(lo, hi):
        for j in range(0, C, w):
            a, b = load_part(x, 2 * i * C + j, C - j), load_part(x, 2 * i * C + C + j, C - j)
            store_part(y, i * C + j, a * sigmoid(b), C - j)


@kernel
def glu_backward(
    x: "in rows f[N,G]", dy: "in rows f[N,C]", dx: "out rows f[N,G]", lo: "begin", hi: "end"
):
    """The gradients to both halves."""
    C, w = dy.shape[1], lanes(x)
    for i in range(lo, hi):
        for j in range(0, C, w):
            at, n = 2 * i * C + j, C - j
            a, b, d = load_part(x, at, n), load_part(x, at + C, n), load_part(dy, i * C + j, n)
            da, db = linear_unit(a, b, d)
            store_part(dx, at, da, n)
            store_part(dx, at + C, db, n)


@kernel
def gtu_forward(x: "in rows f[N,G]", y: "out rows f[N,C]", lo: "begin", hi: "end"):
    """y = tanh(a) * sigmoid(b) for the halves a and b of x (van den Oord et al. 2016)."""
    C, w = y.shape[1], lanes(x)
    for i in range(lo, hi):
        for j in range(0, C, w):
            a, b = load_part(x, 2 * i * C + j, C - j), load_part(x, 2 * i * C + C + j, C - j)
            store_part(y, i * C + j, tanh(a) * sigmoid(b), C - j)


@kernel
def gtu_backward(
    x: "in rows f[N,G]", dy: "in rows f[N,C]", dx: "out rows f[N,G]", lo: "begin", hi: "end"
):
    """The gradients to both halves."""
    C, w = dy.shape[1], lanes(x)
    for i in range(lo, hi):
        for j in range(0, C, w):
            at, n = 2 * i * C + j, C - j
            a, b, d = load_part(x, at, n), load_part(x, at + C, n), load_part(dy, i * C + j, n)
            da, db = tanh_unit(a, b, d)
            store_part(dx, at, da, n)
            store_part(dx, at + C, db, n)
