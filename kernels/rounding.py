"""Rounding to types of 16 bits, which factors of matrix products have at lower precision.

The numbers stay in the program's float type: what lies in memory is the float32 number that the
16-bit one is.
"""

from __future__ import annotations

from .declare import helper
from .simd import Vector, bits, from_bits, pick, shift_right, where

#: the kernel that rounds, by precision
KERNELS = {"bf16": "round_bf16"}


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
