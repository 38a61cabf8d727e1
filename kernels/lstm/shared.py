"""The LSTM cell's formulas, on vectors of either precision."""

from __future__ import annotations

from ..declare import helper
from ..scalar import sigmoid, tanh
from ..simd import Vector, fma


@helper
def lstm_cell(zi: Vector, zf: Vector, zg: Vector, zo: Vector, po: Vector, c: Vector) -> tuple:
    """Gates i, f, g, o, the new cell c' = f c + i g and the output o tanh(c'); po is the output
    gate's peephole weight, or 0."""
    i, f, g = sigmoid(zi), sigmoid(zf), tanh(zg)
    after = fma(f, c, i * g)
    o = sigmoid(fma(po, after, zo))
    return i, f, g, o, after, o * tanh(after)


@helper
def lstm_cell_gradient(
    i: Vector, f: Vector, g: Vector, o: Vector, po: Vector, c: Vector, after: Vector, dh: Vector,
    dc: Vector,
) -> tuple:  # fmt: skip
    """Gradients to zi, zf, zg, zo and (less the peepholes' part) to the cell c before."""
    t = tanh(after)
    do = dh * t * o * (1.0 - o)
    dc = fma(do, po, fma(dh * o, fma(-t, t, 1.0), dc))
    return dc * g * i * (1.0 - i), dc * c * f * (1.0 - f), dc * i * fma(-g, g, 1.0), do, dc * f
