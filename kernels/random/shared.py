"""The random numbers of both devices: Philox's rounds, and words as numbers."""

from ..declare import helper
from ..simd import Vector, multiply_high, multiply_low, shift_right, to_float

GROUP = 64  # elements served by 16 blocks
LANES = 16
MASK = 0xFFFFFFFF
# the constants of Philox4x32: multipliers and the steps of the key (Weyl sequences)
M0, M1 = 0xD2511F53, 0xCD9E8D57
W0, W1 = 0x9E3779B9, 0xBB67AE85


@helper
def philox(
    c0: Vector, c1: Vector, c2: Vector, c3: Vector, k0: int, k1: int
) -> tuple[Vector, Vector, Vector, Vector]:
    """The four random words of the blocks with counter (c0, c1, c2, c3) under the key (k0, k1)."""
    for _ in range(10):
        low0, high0 = multiply_low(c0, M0), multiply_high(c0, M0)
        low1, high1 = multiply_low(c2, M1), multiply_high(c2, M1)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + W0) & MASK, (k1 + W1) & MASK
    return c0, c1, c2, c3


@helper
def to_uniform(word: Vector) -> Vector:
    """The upper 24 bits of words as numbers in [0, 1)."""
    return to_float(shift_right(word, 8) & 0xFFFFFF) * 5.9604644775390625e-08
