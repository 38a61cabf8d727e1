"""Random numbers made from their place: Philox4x32-10, dropout, uniform and normal numbers.

Philox (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011) turns
a counter of four 32-bit words into four random words. Which number an element gets depends on its
place alone, not on the split of the items, the vector width, the precision or the device:

- element e of the flat array belongs to group g = e // 64, quarter q = e % 64 // 16 and lane
  l = e % 16;
- its word is word q of the block with counter (16 g + l, stream, step low, step high);
- the key is (seed low, seed high); seed and step stand in the control block (`control`), `stream`
  tells the uses within a step apart.

So one block serves four elements 16 apart, and vectors of 16 blocks fill 64 elements in order.
Uniform numbers have the upper 24 bits of the word and are exact in both precisions.
"""

from __future__ import annotations

from typing import Any

from ..control_block import SEED, STEP
from ..declare import helper, kernel
from ..scalar import cos_turns, log, sin_turns, sqrt
from ..simd import (
    Vector,
    fma,
    lanes,
    load,
    load_between,
    splat,
    store,
    store_between,
    where,
    words,
)
from .shared import GROUP, LANES, MASK, larger_share, philox, to_uniform


@helper
def random_words(
    x: Any, block: int, control: Any, stream: int
) -> tuple[Vector, Vector, Vector, Vector]:
    """The words of blocks `block`, `block` + 1, ... for this seed, step and stream, as vectors
    for the array `x`."""
    seed, step = int(control[SEED]), int(control[STEP])
    zero = words(x, 0) & 0
    return philox(
        words(x, block),
        zero ^ (stream & MASK),
        zero ^ (step & MASK),
        zero ^ (step >> 32 & MASK),
        seed & MASK,
        seed >> 32 & MASK,
    )


@helper
def _drop(
    x: Any, y: Any, i: int, word: Vector, begin: int, end: int, keep: Any, scale: Any
) -> None:
    """Dropout of the vector of elements from i on, as far as it lies in begin to end."""
    kept = to_uniform(word) < keep
    if begin <= i and i + lanes(x) <= end:
        store(y, i, where(kept, load(x, i) * scale, 0.0))
        return
    first, last = max(begin - i, 0), min(end - i, lanes(x))
    if first < last:
        value = where(kept, load_between(x, i, first, last) * scale, 0.0)
        store_between(y, i, value, first, last)


@kernel(keeps_zeros=True)
def dropout(
    x: "in rows f[N,C]",
    y: "out rows f[N,C]",
    control: "in whole i[L]",
    keep: "real",
    scale: "real",
    stream: "int",
    lo: "begin",
    hi: "end",
):
    """y = x*scale where the element's uniform number is below `keep`, else 0 (Srivastava et al.
    2014). With dy for x it is its own gradient. y may be x."""
    begin, end = lo * x.shape[1], hi * x.shape[1]
    for start in range(begin // GROUP * GROUP, end, GROUP):
        for lane in range(0, LANES, lanes(x)):
            w0, w1, w2, w3 = random_words(x, start // 4 + lane, control, stream)
            i = start + lane
            _drop(x, y, i, w0, begin, end, keep, scale)
            _drop(x, y, i + LANES, w1, begin, end, keep, scale)
            _drop(x, y, i + 2 * LANES, w2, begin, end, keep, scale)
            _drop(x, y, i + 3 * LANES, w3, begin, end, keep, scale)


@kernel(keeps_zeros=True)
def dropout_at(
    x: "in rows f[N,C]",
    rate: "in whole f[U]",
    y: "out rows f[N,C]",
    control: "in whole i[L]",
    stream: "int",
    lo: "begin",
    hi: "end",
):
    """Dropout with a rate that is a number in memory: y = x/(1 - rate) where the element's uniform
    number is below 1 - rate, else 0."""
    keep = splat(x, 1.0) - splat(x, rate[0])
    scale = splat(x, 0.0)
    if rate[0] < 1.0:
        scale = splat(x, 1.0) / keep
    begin, end = lo * x.shape[1], hi * x.shape[1]
    for start in range(begin // GROUP * GROUP, end, GROUP):
        for lane in range(0, LANES, lanes(x)):
            w0, w1, w2, w3 = random_words(x, start // 4 + lane, control, stream)
            i = start + lane
            _drop(x, y, i, w0, begin, end, keep, scale)
            _drop(x, y, i + LANES, w1, begin, end, keep, scale)
            _drop(x, y, i + 2 * LANES, w2, begin, end, keep, scale)
            _drop(x, y, i + 3 * LANES, w3, begin, end, keep, scale)


@helper
def _put(y: Any, i: int, value: Vector, begin: int, end: int) -> None:
    """Write the vector of elements from i on, as far as it lies in begin to end."""
    if begin <= i and i + lanes(y) <= end:
        store(y, i, value)
        return
    first, last = max(begin - i, 0), min(end - i, lanes(y))
    if first < last:
        store_between(y, i, value, first, last)


@kernel
def uniform(
    y: "out rows f[N,C]",
    control: "in whole i[L]",
    low: "real",
    high: "real",
    stream: "int",
    lo: "begin",
    hi: "end",
):
    """y uniform in [low, high): low + (high - low)*u (may round up to `high`)."""
    begin, end = lo * y.shape[1], hi * y.shape[1]
    a, b = splat(y, low), splat(y, high) - splat(y, low)
    for start in range(begin // GROUP * GROUP, end, GROUP):
        for lane in range(0, LANES, lanes(y)):
            w0, w1, w2, w3 = random_words(y, start // 4 + lane, control, stream)
            i = start + lane
            _put(y, i, fma(to_uniform(w0), b, a), begin, end)
            _put(y, i + LANES, fma(to_uniform(w1), b, a), begin, end)
            _put(y, i + 2 * LANES, fma(to_uniform(w2), b, a), begin, end)
            _put(y, i + 3 * LANES, fma(to_uniform(w3), b, a), begin, end)


@helper
def _radius(word: Vector) -> Vector:
    """sqrt(-2 log u), u in (0, 1]."""
    return sqrt(log(to_uniform(word) + 5.9604644775390625e-08) * -2.0)


@kernel
def normal(
    y: "out rows f[N,C]",
    control: "in whole i[L]",
    mean: "real",
    std: "real",
    stream: "int",
    lo: "begin",
    hi: "end",
):
    """y normal with this mean and standard deviation (Box and Muller 1958): words 0 and 1 of a
    block give radius and angle of quarters 0 (cosine) and 1 (sine), words 2 and 3 those of 2 and 3.
    No number is farther than 5.8 standard deviations from the mean."""
    begin, end = lo * y.shape[1], hi * y.shape[1]
    m, s = splat(y, mean), splat(y, std)
    for start in range(begin // GROUP * GROUP, end, GROUP):
        for lane in range(0, LANES, lanes(y)):
            w0, w1, w2, w3 = random_words(y, start // 4 + lane, control, stream)
            i = start + lane
            radius, angle = _radius(w0) * s, to_uniform(w1)
            _put(y, i, fma(radius, cos_turns(angle), m), begin, end)
            _put(y, i + LANES, fma(radius, sin_turns(angle), m), begin, end)
            radius, angle = _radius(w2) * s, to_uniform(w3)
            _put(y, i + 2 * LANES, fma(radius, cos_turns(angle), m), begin, end)
            _put(y, i + 3 * LANES, fma(radius, sin_turns(angle), m), begin, end)


@kernel
def mixing_share(share: "out whole f[U]", control: "in whole i[L]", alpha: "double", stream: "int"):
    """share = max(s, 1 - s), s of the beta distribution (alpha, alpha): how much of a sample is its
    own in mixup (Zhang et al. 2018)."""
    share[0] = larger_share(alpha, stream, int(control[STEP]), int(control[SEED]))
