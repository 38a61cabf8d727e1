"""The random numbers of both devices: Philox's rounds, words as numbers, the beta distribution."""

import math

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


@helper
def philox_block(c0: int, c1: int, c2: int, c3: int, k0: int, k1: int) -> tuple:
    """`philox` of a single block, in int64."""
    for _ in range(10):
        p0, p1 = c0 * M0, c2 * M1
        c0, c1, c2, c3 = (
            (p1 >> 32 & MASK) ^ c1 ^ k0, p1 & MASK, (p0 >> 32 & MASK) ^ c3 ^ k1, p0 & MASK,
        )  # fmt: skip
        k0, k1 = (k0 + W0) & MASK, (k1 + W1) & MASK
    return c0, c1, c2, c3


@helper
def between(word: int) -> float:
    """A word as a number within (0, 1)."""
    return ((word >> 8) + 0.5) * 5.9604644775390625e-08


@helper
def log_gamma_number(a: float, which: int, stream: int, step: int, seed: int) -> float:
    """The logarithm of a number of the gamma distribution with shape a (Marsaglia & Tsang 2000;
    their section 6 for a < 1), one of two that a step has."""
    low, high, k0, k1 = step & MASK, step >> 32 & MASK, seed & MASK, seed >> 32 & MASK
    w0, _, _, _ = philox_block(which, stream, low, high, k0, k1)
    boost = 0.0
    if a < 1.0:
        boost = math.log(between(w0)) / a
        a = a + 1.0
    d = a - 1.0 / 3.0
    c, found = 1.0 / math.sqrt(9.0 * d), math.log(d)
    for trial in range(1, 65):
        w0, w1, w2, _ = philox_block(2 * trial + which, stream, low, high, k0, k1)
        x = math.sqrt(-2.0 * math.log(between(w0))) * math.cos(2.0 * math.pi * between(w1))
        v = 1.0 + c * x
        if v > 0.0:
            v = v * v * v
            if math.log(between(w2)) < 0.5 * x * x + d - d * v + d * math.log(v):
                found = math.log(d) + math.log(v)
                break
    return found + boost


@helper
def larger_share(alpha: float, stream: int, step: int, seed: int) -> float:
    """max(s, 1 - s) of a number s of the beta distribution (alpha, alpha)."""
    one = log_gamma_number(alpha, 0, stream, step, seed)
    other = log_gamma_number(alpha, 1, stream, step, seed)
    return 1.0 / (1.0 + math.exp(-abs(one - other)))
