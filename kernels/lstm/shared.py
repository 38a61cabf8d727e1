"""The LSTM cell's formulas, on vectors of either precision."""

from __future__ import annotations

from ..declare import helper
from ..scalar import sigmoid, tanh
from ..simd import Vector, fma


@helper
def lstm_state(i: Vector, f: Vector, g: Vector, zo: Vector, po: Vector, c: Vector) -> tuple:
    """Gate o, the new cell c' = f c + i g and the output o tanh(c'); po is the output gate's
    peephole weight, or 0."""
    after = fma(f, c, i * g)
    o = sigmoid(fma(po, after, zo))
    return o, after, o * tanh(after)


@helper
def lstm_cell(zi: Vector, zf: Vector, zg: Vector, zo: Vector, po: Vector, c: Vector) -> tuple:
    """All gates, the new cell and the output, as `lstm_state` has them."""
    i, f, g = sigmoid(zi), sigmoid(zf), tanh(zg)
    o, after, out = lstm_state(i, f, g, zo, po, c)
    return i, f, g, o, after, out


@helper
def lstm_cell_gradient(
    i: Vector, f: Vector, g: Vector, o: Vector, po: Vector, c: Vector, after: Vector, dh: Vector,
    dc: Vector,
) -> tuple:  # fmt: skip
    """Gradients to zi, zf, zg, zo and (less the peepholes' part) to the cell c before."""
    return lstm_gradient(i, f, g, o, po, c, tanh(after), dh, dc)


@helper
def lstm_gradient(
    i: Vector, f: Vector, g: Vector, o: Vector, po: Vector, c: Vector, t: Vector, dh: Vector,
    dc: Vector,
) -> tuple:  # fmt: skip
    """The same where t is the hyperbolic tangent of the new cell."""
    do = dh * t * o * (1.0 - o)
    dc = fma(do, po, fma(dh * o, fma(-t, t, 1.0), dc))
    return dc * g * i * (1.0 - i), dc * c * f * (1.0 - f), dc * i * fma(-g, g, 1.0), do, dc * f
