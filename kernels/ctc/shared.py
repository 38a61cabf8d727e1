"""What both devices share: which labels and frames count, and numbers with exponents of their own.

A path through 200 frames has a probability of 1e-300 or far less, which float32 does not hold, and
logarithms of such numbers have lost most of their digits. So probabilities are pairs (m, e) for
m 2^e: m is between 1 and 2, e a whole number, in a float of its own. Sums cost no exp and no log,
and their rounding errors are those of the precision, however long the path is. Nothing is
(m, ZERO).

Labels stand in columns 1 to L of "label" arrays, and column 0 belongs to nobody; column k of
"blank" arrays is the blank after k labels.
"""

from __future__ import annotations

from typing import Any

from ..declare import helper
from ..simd import (
    bits,
    fma,
    from_bits,
    ldexp,
    maximum,
    minimum,
    pick,
    rint,
    shift_right,
    to_float,
)
from ..vector_math import exp

#: the exponent of nothing, and that below which a number is nothing
ZERO = -1e30
NEVER = -1e29
#: in the first share of a sequence: its gradient is 0
NO_GRADIENT = -1.0
#: columns of an array are a multiple of it, whatever the width of vectors is
COLUMNS = 16
#: up to so many classes the CPU's kernel takes the softmax of many frames at once
CLASSES = 128
#: arrays of the columns that CUDA's kernel works in for each frame: `alpha` and `beta`
ROOM_ON_CUDA = 8


def columns_for(labels: int) -> int:
    """Columns for the states of so many labels."""
    return (labels // COLUMNS + 1) * COLUMNS


def room_for(columns: int) -> tuple[int, int]:
    """Words for each frame and for each sequence that the CPU's kernel works in."""
    return 6 * columns, 5 * columns + COLUMNS + (CLASSES + columns + 3) * COLUMNS


@helper
def frame_count(lengths: Any, b: int, T: int) -> int:
    """Frames of a sequence; -1 where there are not so many."""
    if lengths.shape[0] == 0:
        return T
    n = lengths[b]
    return n if n >= 0 and n <= T else -1


@helper
def label_count(target: Any, lengths: Any, b: int, C: int, blank: int) -> int:
    """Labels of a sequence: `lengths[b]`, or where that is absent those before the first negative
    number; -1 where one of them is no class, or the blank."""
    L = target.shape[1]
    n = L
    if lengths.shape[0] > 0:
        n = lengths[b]
        if n < 0 or n > L:
            return -1
    for k in range(n):
        label = target[b, k]
        if label < 0 and lengths.shape[0] == 0:
            return k
        if label < 0 or label >= C or label == blank:
            return -1
    return n


@helper
def probability(distance: Any) -> tuple:
    """(m, e) of e^distance; m is between 0.7 and 1.5. NaN is taken for nothing."""
    e = rint(maximum(distance * pick(distance, 1.44269504, 1.4426950408889634), ZERO))
    r = fma(e, pick(distance, -0.693145752, -0.69314718036912382), distance)
    r = fma(e, pick(distance, -1.42860677e-06, -1.9082149292705877e-10), r)
    return exp(minimum(maximum(r, -1.0), 1.0)), e


@helper
def lowered(m: Any, e: Any, top: Any) -> Any:
    """m 2^(e - top), where e - top is no more than a few.

    What is too small to matter stays a normal number: processors take a hundred times as long for
    those that are not."""
    return ldexp(m, maximum(e - top, pick(m, -100.0, -900.0)))


@helper
def in_place(m: Any, e: Any) -> tuple:
    """The same number m 2^e with m between 1 and 2."""
    found = bits(m)
    whole = to_float(shift_right(found, pick(found, 23, 52)))
    fraction = found & pick(found, 0x007FFFFF, 0x000FFFFFFFFFFFFF)
    one = pick(found, 0x3F800000, 0x3FF0000000000000)
    return from_bits(fraction + one), e + (whole - pick(whole, 127.0, 1023.0))


@helper
def either(m: Any, e: Any, m1: Any, e1: Any) -> tuple:
    """The sum of two numbers; m need not be in place."""
    top = maximum(e, e1)
    return lowered(m, e, top) + lowered(m1, e1, top), top


@helper
def any_of(m: Any, e: Any, m1: Any, e1: Any, m2: Any, e2: Any) -> tuple:
    """The sum of three numbers; m need not be in place."""
    top = maximum(maximum(e, e1), e2)
    return lowered(m, e, top) + lowered(m1, e1, top) + lowered(m2, e2, top), top
