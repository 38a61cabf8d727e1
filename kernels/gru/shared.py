"""The GRU cell's formulas, on vectors of either precision."""

from __future__ import annotations

from ..declare import helper
from ..simd import Vector, fma


@helper
def gru_output(z: Vector, n: Vector, h: Vector) -> Vector:
    """(1 - z) n + z h."""
    return fma(z, h - n, n)


@helper
def gru_gradient(z: Vector, n: Vector, h: Vector, dh: Vector) -> tuple:
    """Gradients to the inputs of z and n, and the direct one to the state h before."""
    return dh * (h - n) * z * (1.0 - z), dh * (1.0 - z) * fma(-n, n, 1.0), dh * z


@helper
def gate_product_gradient(gate: Vector, other: Vector, dy: Vector) -> Vector:
    """Gradient to the input of a sigmoid gate with y = gate other."""
    return dy * other * gate * (1.0 - gate)
