"""Formulas of several operands, each once: arithmetic, comparisons, choices and powers.

They are written and marked like those in `scalar`, on vectors of either precision; here the ending
of a gradient's name says which operand it is of.
"""

from __future__ import annotations

from .declare import helper
from .elementwise.table import gradient_of
from .simd import Vector, absolute, copysign, fill_like, floor, fma, pick, where
from .vector_math import INFINITY, NAN, exp, log


@helper
def add(a: Vector, b: Vector) -> Vector:
    """a + b."""
    return a + b


@helper
def subtract(a: Vector, b: Vector) -> Vector:
    """a - b."""
    return a - b


@helper
def multiply(a: Vector, b: Vector) -> Vector:
    """a*b."""
    return a * b


@helper
def divide(a: Vector, b: Vector) -> Vector:
    """a/b."""
    return a / b


@helper
def divide_gradient_b(b: Vector, y: Vector, dy: Vector) -> Vector:
    """-dy*y/b with y = a/b."""
    return -(dy * y) / b


@helper
def negate(x: Vector) -> Vector:
    """-x."""
    return -x


@helper
def affine(x: Vector, scale: float, shift: float) -> Vector:
    """scale*x + shift."""
    return fma(x, scale, shift)


# ---------------------------------------------------------------- choices and powers


@helper
def larger(a: Vector, b: Vector) -> Vector:
    """The larger of a and b; NaN where one of them is."""
    return where((b > a) | (b != b), b, a)


@helper
def smaller(a: Vector, b: Vector) -> Vector:
    """The smaller of a and b; NaN where one of them is."""
    return where((b < a) | (b != b), b, a)


@gradient_of(larger, "a", name="maximum")
def larger_gradient(a: Vector, b: Vector, dy: Vector) -> Vector:
    """The gradient of the larger of a and b to a: dy where a > b, half of it where a = b."""
    return where(a > b, dy, where(a == b, dy * 0.5, 0.0))


@gradient_of(larger, "b", name="maximum")
def larger_gradient_b(a: Vector, b: Vector, dy: Vector) -> Vector:
    """The gradient of the larger of a and b to b."""
    return larger_gradient(b, a, dy)


@gradient_of(smaller, "a", name="minimum")
def smaller_gradient(a: Vector, b: Vector, dy: Vector) -> Vector:
    """The gradient of the smaller of a and b to a: dy where a < b, half of it where a = b."""
    return where(a < b, dy, where(a == b, dy * 0.5, 0.0))


@gradient_of(smaller, "b", name="minimum")
def smaller_gradient_b(a: Vector, b: Vector, dy: Vector) -> Vector:
    """The gradient of the smaller of a and b to b."""
    return smaller_gradient(b, a, dy)


@helper
def clip(x: Vector, low: float, high: float) -> Vector:
    """min(max(x, low), high); NaN stays."""
    bounded = where(x < low, fill_like(x, low), x)
    return where(bounded > high, fill_like(x, high), bounded)


@gradient_of(clip)
def clip_gradient(x: Vector, dy: Vector, low: float, high: float) -> Vector:
    """dy where low <= x <= high, else 0 (NaN counts as within: its gradient is not hidden)."""
    return where((x < low) | (x > high), 0.0, dy)


@helper
def select(mask: Vector, a: Vector, b: Vector) -> Vector:
    """a where the mask is not 0, else b."""
    return where(mask != 0.0, a, b)


@gradient_of(select, "a", name="where")
def select_gradient_a(mask: Vector, dy: Vector) -> Vector:
    """dy where the mask is not 0, else 0."""
    return where(mask != 0.0, dy, 0.0)


@gradient_of(select, "b", name="where")
def select_gradient_b(mask: Vector, dy: Vector) -> Vector:
    """0 where the mask is not 0, else dy."""
    return where(mask != 0.0, 0.0, dy)


@helper
def less(a: Vector, b: Vector) -> Vector:
    """1 where a < b, else 0."""
    return where(a < b, fill_like(a, 1.0), 0.0)


@helper
def less_equal(a: Vector, b: Vector) -> Vector:
    """1 where a <= b, else 0."""
    return where(a <= b, fill_like(a, 1.0), 0.0)


@helper
def equal(a: Vector, b: Vector) -> Vector:
    """1 where a = b, else 0."""
    return where(a == b, fill_like(a, 1.0), 0.0)


@helper
def not_equal(a: Vector, b: Vector) -> Vector:
    """1 where a and b differ (NaN differs from all), else 0."""
    return where(a != b, fill_like(a, 1.0), 0.0)


@helper
def power(a: Vector, b: Vector) -> Vector:
    """a^b as e^(b log|a|), with the cases of IEEE 754 (`pow`): NaN for a < 0 unless b is whole.

    The product is kept exactly, the logarithm is not: the relative error is about |b log a| ULP.
    """
    size = absolute(a)
    logarithm = log(size)
    product = logarithm * b
    y = exp(product)
    rest = fma(logarithm, b, -product)
    y = where(absolute(product) < pick(y, 80.0, 700.0), fma(y, rest, y), y)
    y = where((size == 1.0) | (b == 0.0), fill_like(y, 1.0), y)
    half = b * 0.5
    whole = floor(b) == b
    y = where(whole & (floor(half) != half), copysign(y, a), y)
    invalid = (a < 0.0) & (a > -INFINITY) & (b != floor(b))
    return where(invalid, fill_like(y, NAN), y)


@gradient_of(power, "a")
def power_gradient_a(a: Vector, b: Vector, dy: Vector) -> Vector:
    """b a^(b-1)*dy; 0 where b = 0."""
    return where(b == 0.0, 0.0, power(a, b - 1.0) * b * dy)


@gradient_of(power, "b")
def power_gradient_b(a: Vector, b: Vector, y: Vector, dy: Vector) -> Vector:
    """y log(a)*dy; 0 where a = 0 and b >= 0."""
    return where((a == 0.0) & (b >= 0.0), 0.0, y * log(a) * dy)
