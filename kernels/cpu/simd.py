"""A SIMD value and its operations, as kernels see them.

Compiled, a vector is one LLVM vector register (`f32x16` on AVX-512) with the operators
``+ - * / < <= > >= == !=`` and unary ``-``; scalars mix in freely and take the vector's element
type. The functions below are the plain-Python twin: here a vector is a small NumPy array, so every
kernel also runs, slowly, without a compiler. `_simd_llvm` registers the compiled versions.

A vector covers `lanes(x)` elements; arrays are addressed by flat index, whatever their shape.
"""

from __future__ import annotations

from typing import Any

import numpy as np

#: what a twin's vector holds; the compiled width comes from the CPU
TWIN_LANES = {4: 16, 8: 8}

Vector = Any


def lanes(x: np.ndarray) -> int:
    """Number of elements in a vector of `x`'s element type (a constant when compiled)."""
    return TWIN_LANES[x.dtype.itemsize]


def load(x: np.ndarray, i: int) -> Vector:
    """The vector of elements i, i+1, ... of `x` (flat index, no alignment needed)."""
    return x.reshape(-1)[i : i + lanes(x)].copy()


def store(x: np.ndarray, i: int, v: Vector) -> None:
    """Write the vector `v` to `x` from flat index `i` on."""
    x.reshape(-1)[i : i + lanes(x)] = v


def load_first(x: np.ndarray, i: int, n: int) -> Vector:
    """Like `load`, but only the first `n` lanes are read; the others are 0. 0 <= n <= lanes."""
    v = np.zeros(lanes(x), x.dtype)
    v[:n] = x.reshape(-1)[i : i + n]
    return v


def store_first(x: np.ndarray, i: int, v: Vector, n: int) -> None:
    """Like `store`, but only the first `n` lanes are written."""
    x.reshape(-1)[i : i + n] = np.broadcast_to(v, (lanes(x),))[:n]


def splat(x: np.ndarray, value: float) -> Vector:
    """A vector of `x`'s element type with `value` in every lane."""
    return np.full(lanes(x), value, x.dtype)


def fill_like(v: Vector, value: float) -> Vector:
    """A vector of `v`'s type with `value` in every lane."""
    return np.full_like(v, value)


def fma(a: Vector, b: Vector, c: Vector) -> Vector:
    """a*b + c, rounded once (the twin rounds the product to float64 first)."""
    dtype = np.result_type(*(x for x in (a, b, c) if isinstance(x, np.ndarray)))
    return (np.multiply(a, b, dtype=np.longdouble) + c).astype(dtype)


def minimum(a: Vector, b: Vector) -> Vector:
    """The smaller of each pair; `b` where `a` is NaN or the two are unordered."""
    return np.where(np.less(a, b), a, b).astype(_type(a, b))


def maximum(a: Vector, b: Vector) -> Vector:
    """The larger of each pair; `b` where `a` is NaN or the two are unordered."""
    return np.where(np.greater(a, b), a, b).astype(_type(a, b))


def where(mask: Vector, a: Vector, b: Vector) -> Vector:
    """`a` in the lanes where `mask` holds, else `b`."""
    return np.where(mask, a, b).astype(_type(a, b))


def absolute(a: Vector) -> Vector:
    return np.abs(a)


def sqrt(a: Vector) -> Vector:
    return np.sqrt(a)


def rint(a: Vector) -> Vector:
    """Round to the nearest whole number, ties to even."""
    return np.rint(a)


def floor(a: Vector) -> Vector:
    return np.floor(a)


def copysign(a: Vector, b: Vector) -> Vector:
    return np.copysign(a, b)


def bits(a: Vector) -> Vector:
    """The bit patterns of a float vector as an integer vector of the same width."""
    return np.asarray(a).view({4: np.int32, 8: np.int64}[np.asarray(a).dtype.itemsize])


def from_bits(a: Vector) -> Vector:
    """The float vector with these bit patterns."""
    return np.asarray(a).view({4: np.float32, 8: np.float64}[np.asarray(a).dtype.itemsize])


def to_int(a: Vector) -> Vector:
    """Float vector to integer vector of the same width, toward zero; values must fit."""
    return a.astype({4: np.int32, 8: np.int64}[a.dtype.itemsize])


def to_float(a: Vector) -> Vector:
    """Integer vector to float vector of the same width."""
    return a.astype({4: np.float32, 8: np.float64}[a.dtype.itemsize])


def shift_left(a: Vector, n: int) -> Vector:
    return a << a.dtype.type(n)


def shift_right(a: Vector, n: int) -> Vector:
    """Arithmetic shift: the sign bit is copied in."""
    return a >> a.dtype.type(n)


def iota(x: np.ndarray) -> Vector:
    """The vector 0, 1, 2, ... of `x`'s element type."""
    return np.arange(lanes(x)).astype(x.dtype)


def sum_lanes(a: Vector) -> float:
    """Sum of all lanes: the upper half added to the lower, again and again (a fixed order)."""
    while a.size > 1:
        a = a[: a.size // 2] + a[a.size // 2 :]
    return a[0]


def max_lanes(a: Vector) -> float:
    """The largest lane (no NaN expected)."""
    return a.max()


def is32(v: Vector) -> bool:
    """Whether `v` (a vector or an array) holds float32 (a constant when compiled)."""
    return v.dtype.itemsize == 4


def _type(a: Any, b: Any) -> Any:
    for x in (a, b):
        if isinstance(x, np.ndarray):
            return x.dtype
    return np.result_type(a, b)
