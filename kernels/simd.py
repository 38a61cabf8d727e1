"""A SIMD value and its operations, as kernels see them.

Compiled, a vector is one LLVM vector register (`f32x16` on AVX-512) with the operators
``+ - * / < <= > >= == !=`` and unary ``-``; scalars mix in freely and take the vector's element
type. The functions below are the plain-Python twin: here a vector is a small NumPy array, so every
kernel also runs, slowly, without a compiler. `_simd_ir` makes the compiled versions.

A vector covers `lanes(x)` elements; arrays are addressed by flat index, whatever their shape.

On CUDA a vector is one number: the functions that work on values are compiled for it, too
(`kernels.cuda._simd_nvvm`), and their twins here take NumPy's scalars as well as arrays. Those that
the simulator calls most compute with numbers in another way, which takes a fifth of the time.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from . import recorded

recorded.record()

#: what a twin's vector holds; the compiled width comes from the CPU
TWIN_LANES = {4: 16, 8: 8}
#: what a twin multiplies and adds in before it rounds
EXACT = np.longdouble

Vector = Any


@recorded.plain
def lanes(x: np.ndarray) -> int:
    """Number of elements in a vector of `x`'s element type (a constant when compiled).

    They are as many as a register has; in kernels that call `sum_lanes` as many as fit 512 bits, on
    any CPU.
    """
    return TWIN_LANES[x.dtype.itemsize]


@recorded.plain
def load(x: np.ndarray, i: int) -> Vector:
    """The vector of elements i, i+1, ... of `x` (flat index, no alignment needed)."""
    return x.reshape(-1)[i : i + lanes(x)].copy()


@recorded.plain
def store(x: np.ndarray, i: int, v: Vector) -> None:
    """Write the vector `v` to `x` from flat index `i` on."""
    x.reshape(-1)[i : i + lanes(x)] = v


@recorded.plain
def touch(x: np.ndarray, i: int) -> None:
    """Read the vector from flat index `i` on and write it back as it is, while nobody changes it.

    The lines of cache that it lies on are then this core's alone. Who writes them next takes them
    over quickly; to take them back from a core that has only read them costs eight times as much.
    """


@recorded.plain
def load_first(x: np.ndarray, i: int, n: int) -> Vector:
    """Like `load`, but only the first `n` lanes are read; the others are 0. 0 <= n <= lanes."""
    v = np.zeros(lanes(x), x.dtype)
    v[:n] = x.reshape(-1)[i : i + n]
    return v


@recorded.plain
def store_first(x: np.ndarray, i: int, v: Vector, n: int) -> None:
    """Like `store`, but only the first `n` lanes are written."""
    x.reshape(-1)[i : i + n] = np.broadcast_to(v, (lanes(x),))[:n]


@recorded.plain
def load_between(x: np.ndarray, i: int, first: int, last: int) -> Vector:
    """Like `load`, but only the lanes `first` to `last` (exclusive) are read; the others are 0."""
    v = np.zeros(lanes(x), x.dtype)
    v[first:last] = x.reshape(-1)[i + first : i + last]
    return v


@recorded.plain
def store_between(x: np.ndarray, i: int, v: Vector, first: int, last: int) -> None:
    """Like `store`, but only the lanes `first` to `last` (exclusive) are written."""
    x.reshape(-1)[i + first : i + last] = np.broadcast_to(v, (lanes(x),))[first:last]


@recorded.plain
def splat(x: np.ndarray, value: float) -> Vector:
    """A vector of `x`'s element type with `value` in every lane."""
    return np.full(lanes(x), value, x.dtype)


@recorded.plain
def fill_like(v: Vector, value: float) -> Vector:
    """A vector of `v`'s type with `value` in every lane."""
    return np.full_like(v, value) if isinstance(v, np.ndarray) else v.dtype.type(value)


@recorded.plain
def pick(v: Vector, single: float, double: float) -> Vector:
    """A vector of `v`'s type: `single` in every lane where elements have 32 bits, else `double`.

    Chosen when the code is compiled; so one formula serves both precisions.
    """
    return fill_like(v, single if v.dtype.itemsize == 4 else double)


@recorded.plain
def polynomial(v: Vector, single: tuple[float, ...], double: tuple[float, ...]) -> Vector:
    """c[0]*v^n + ... + c[n] by Horner's rule with `fma`; c is `single` for float32, else `double`.

    The coefficients are tuples at module level, the highest power first.
    """
    coefficients = single if v.dtype.itemsize == 4 else double
    result = fill_like(v, coefficients[0])
    if isinstance(v, np.ndarray):
        for c in coefficients[1:]:
            result = fma(result, v, c)
        return result
    kind, exact = type(v), EXACT(v)
    for c in coefficients[1:]:
        result = kind(result * exact + c)
    return result


@recorded.plain
def fma(a: Vector, b: Vector, c: Vector) -> Vector:
    """a*b + c, rounded once (the twin rounds to `EXACT` first)."""
    kind = _number(type(a), type(b), type(c))
    if kind is not None:
        return kind(EXACT(a) * EXACT(b) + EXACT(c))
    return (np.multiply(a, b, dtype=EXACT) + c).astype(_type(a, b, c))


@recorded.plain
def minimum(a: Vector, b: Vector) -> Vector:
    """The smaller of each pair; `b` where `a` is NaN or the two are unordered."""
    kind = _number(type(a), type(b))
    if kind is not None:
        return kind(a if a < b else b)
    return np.where(np.less(a, b), a, b).astype(_type(a, b))


@recorded.plain
def maximum(a: Vector, b: Vector) -> Vector:
    """The larger of each pair; `b` where `a` is NaN or the two are unordered."""
    kind = _number(type(a), type(b))
    if kind is not None:
        return kind(a if a > b else b)
    return np.where(np.greater(a, b), a, b).astype(_type(a, b))


@recorded.plain
def where(mask: Vector, a: Vector, b: Vector) -> Vector:
    """`a` in the lanes where `mask` holds, else `b`."""
    kind = _number(type(a), type(b))
    if kind is not None and not isinstance(mask, np.ndarray):
        return kind(a if mask else b)
    return np.where(mask, a, b).astype(_type(a, b))


@recorded.plain
def absolute(a: Vector) -> Vector:
    return np.abs(a)


@recorded.plain
def sqrt(a: Vector) -> Vector:
    return np.sqrt(a)


@recorded.plain
def twice_sqrt(a: Vector) -> Vector:
    """2 sqrt(a), correctly rounded, for normal a > 0, in formulas that divide, too (optimisers).

    In float32 on Intel's AVX-512 multiply-adds make it from an estimate, elsewhere it is the
    hardware's square root, with the same bits: the hardware has one unit for roots and quotients,
    which is then left to the division. On a Zen 4 that is slower: a step of 784-128-10 with Adam
    and one sample takes 55.5 us by the estimate and 41.8 by the hardware. Infinity stays infinite
    and NaN stays NaN.
    """
    return np.sqrt(a) * np.asarray(a).dtype.type(2)


@recorded.plain
def rint(a: Vector) -> Vector:
    """Round to the nearest whole number, ties to even."""
    return np.rint(a)


@recorded.plain
def floor(a: Vector) -> Vector:
    return np.floor(a)


@recorded.plain
def copysign(a: Vector, b: Vector) -> Vector:
    return np.copysign(a, b)


@recorded.plain
def bits(a: Vector) -> Vector:
    """The bit patterns of a float vector as an integer vector of the same width."""
    return a.view(np.int32 if a.dtype.itemsize == 4 else np.int64)


@recorded.plain
def from_bits(a: Vector) -> Vector:
    """The float vector with these bit patterns."""
    return a.view(np.float32 if a.dtype.itemsize == 4 else np.float64)


@recorded.plain
def to_int(a: Vector) -> Vector:
    """Float vector to integer vector of the same width, toward zero; values must fit."""
    return a.astype(np.int32 if a.dtype.itemsize == 4 else np.int64)


@recorded.plain
def to_float(a: Vector) -> Vector:
    """Integer vector to float vector of the same width."""
    return a.astype(np.float32 if a.dtype.itemsize == 4 else np.float64)


@recorded.plain
def shift_left(a: Vector, n: int | Vector) -> Vector:
    return a << (n.astype(a.dtype) if isinstance(n, np.ndarray) else a.dtype.type(n))


@recorded.plain
def shift_right(a: Vector, n: int | Vector) -> Vector:
    """Arithmetic shift: the sign bit is copied in (take the upper bits off words with ``&``)."""
    return a >> (n.astype(a.dtype) if isinstance(n, np.ndarray) else a.dtype.type(n))


@recorded.plain
def ldexp(a: Vector, n: Vector) -> Vector:
    """a * 2^n, rounded once, for a vector `n` of whole floats with |n| below twice the exponent
    range (AVX-512 has an instruction, elsewhere two multiplications)."""
    if isinstance(a, np.ndarray) or isinstance(n, np.ndarray):
        return np.ldexp(a, np.nan_to_num(n).astype(np.int32)).astype(a.dtype)
    return np.ldexp(a, int(n) if math.isfinite(n) else 0)


@recorded.plain
def words(x: np.ndarray, start: int) -> Vector:
    """The unsigned 32-bit numbers start, start + 1, ... (mod 2^32), one for each lane of `x`.

    Words lie in integer lanes as wide as `x`'s elements, so that what is made of them fits `x`.
    Only ``^``, ``&``, `multiply_low`, `multiply_high` and `to_float` (below 2^31) mean what they
    should on words.
    """
    kind = {4: np.uint32, 8: np.uint64}[x.dtype.itemsize]
    return ((np.arange(lanes(x)) + int(start)) & 0xFFFFFFFF).astype(kind)


@recorded.plain
def multiply_low(a: Vector, m: int) -> Vector:
    """Low 32 bits of the product of words and a constant below 2^32."""
    if isinstance(a, np.unsignedinteger):
        return type(a)(int(a) * int(m) & 0xFFFFFFFF)
    a = np.asarray(a)
    return (a.astype(np.uint64) * np.uint64(m) & np.uint64(0xFFFFFFFF)).astype(a.dtype)[()]


@recorded.plain
def multiply_high(a: Vector, m: int) -> Vector:
    """High 32 bits of the product of words and a constant below 2^32."""
    if isinstance(a, np.unsignedinteger):
        return type(a)(int(a) * int(m) >> 32)
    a = np.asarray(a)
    return (a.astype(np.uint64) * np.uint64(m) >> np.uint64(32)).astype(a.dtype)[()]


@recorded.plain
def iota(x: np.ndarray) -> Vector:
    """The vector 0, 1, 2, ... of `x`'s element type."""
    return np.arange(lanes(x)).astype(x.dtype)


@recorded.plain
def after_last(before: Vector, v: Vector) -> Vector:
    """The last lane of `before`, and behind it all lanes of `v` but the last."""
    return np.concatenate([before[-1:], v[:-1]])


@recorded.plain
def until_first(v: Vector, behind: Vector) -> Vector:
    """All lanes of `v` but the first, and the first lane of `behind`."""
    return np.concatenate([v[1:], behind[:1]])


@recorded.plain
def sum_lanes(a: Vector) -> float:
    """Sum of all lanes: the upper half added to the lower, again and again (a fixed order)."""
    while a.size > 1:
        a = a[: a.size // 2] + a[a.size // 2 :]
    return a[0]


@recorded.plain
def count_lanes(a: Vector) -> float:
    """The same for whole numbers, or to see whether all lanes are 0: no order matters.

    A kernel that calls `sum_lanes` has vectors of 512 bits on every CPU, so that the order is the
    same; one that calls only this has the CPU's.
    """
    return sum_lanes(a)


@recorded.plain
def max_lanes(a: Vector) -> float:
    """The largest lane (no NaN expected)."""
    return a.max()


@recorded.plain
def is32(v: Vector) -> bool:
    """Whether `v` (a vector or an array) holds float32 (a constant when compiled)."""
    return v.dtype.itemsize == 4


@recorded.plain
def _type(*values: Any) -> Any:
    """The element type of a result: arrays' before NumPy scalars' before Python numbers'."""
    for kind in (np.ndarray, np.generic):
        types = [x.dtype for x in values if isinstance(x, kind) and x.dtype != np.bool_]
        floats = [t for t in types if t.kind == "f"]
        if types:
            return min(floats or types, key=lambda t: t.itemsize)
    return np.result_type(*values)


@recorded.plain
@functools.cache
def _number(*kinds: type) -> Any:
    """The type of what is computed of values of these types: NumPy's scalars and Python's numbers;
    None if one of them is an array."""
    return None if np.ndarray in kinds else _type(*(kind() for kind in kinds)).type
