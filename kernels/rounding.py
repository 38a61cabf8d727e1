"""Rounding to types of 16 bits, which factors of matrix products have at lower precision.

The numbers stay in the program's float type: what lies in memory is the float32 number that the
16-bit one is.
"""

from __future__ import annotations

from .declare import helper
from .simd import Vector, absolute, bits, copysign, from_bits, pick, shift_right, where

INFINITY = float("inf")

#: the kernel that rounds, by precision
KERNELS = {"bf16": "round_bf16", "fp16": "round_fp16"}


@helper
def round_bf16(x: Vector) -> Vector:
    """x with the 8 bits of mantissa that bfloat16 has: the nearest, ties to even (what
    ``vcvtneps2bf16`` and ``cvt.rn.bf16.f32`` give, but for subnormal numbers).

    A double keeps its exponent, too.
    """
    word = bits(x)
    odd = shift_right(word, pick(word, 16, 45)) & pick(word, 1, 1)
    up = word + (odd + pick(word, 0x7FFF, 0xFFFFFFFFFFF))
    return where(x == x, from_bits(up & pick(word, -0x10000, -0x200000000000)), x)


@helper
def round_fp16(x: Vector) -> Vector:
    """x with the 11 bits of mantissa and the range of float16: the nearest, ties to even, infinite
    beyond 65,504 by more than half (what ``cvt.rn.f16.f32`` gives)."""
    word = bits(x)
    odd = shift_right(word, pick(word, 13, 42)) & pick(word, 1, 1)
    up = from_bits(
        (word + (odd + pick(word, 0xFFF, 0x1FFFFFFFFFF))) & pick(word, -0x2000, -0x40000000000)
    )
    # below 2^-14 numbers are multiples of 2^-24: the last bit of what they are added to
    shift = pick(x, 0.75, 1.5 * 2.0**28)
    small = copysign((absolute(x) + shift) - shift, x)
    near = where(absolute(x) < pick(x, 2.0**-14, 2.0**-14), small, up)
    beyond = absolute(near) > pick(x, 65504.0, 65504.0)
    near = where(beyond, copysign(pick(x, INFINITY, INFINITY), x), near)
    return where(x == x, near, x)
