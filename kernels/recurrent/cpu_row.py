"""Products of one row with a plain matrix, for single sequences: see `cpu`.

Each element is one chain of fused multiply-adds in the order of the depth, however W is read.
"""

from ..cpu.parts import fill_row, strip_lanes, strip_load, strip_splat, strip_store
from ..declare import helper
from ..matmul.cpu_panels import PREFETCH_BYTES
from ..simd import (
    bits,
    fma,
    from_bits,
    is32,
    lanes,
    load,
    load_first,
    pick,
    shift_left,
    splat,
    store,
    store_first,
)
from .shared import PAIRED


@helper
def strip_product(v, w, z, s):
    """s + v W, of the four vectors of W from flat index z on."""
    k = lanes(w)
    return (
        fma(v, load(w, z), s[0]),
        fma(v, load(w, z + k), s[1]),
        fma(v, load(w, z + 2 * k), s[2]),
        fma(v, load(w, z + 3 * k), s[3]),
    )


@helper
def strip_begin(c, at, n, begin):
    """The sums of a strip of C so far."""
    return strip_splat(c, 0.0) if begin else strip_load(c, at, n)


@helper
def stream_row(a, a_at, w, z, w_row, c, c_at, depth, columns, begin):
    """One row of a product: W passes by four rows at a time, from end to end, as the hardware reads
    ahead; the sums stay in the L1 cache. Each is the same chain as in `multiply_row`."""
    k = lanes(w)
    whole = columns - columns % k
    rest = columns - whole
    if begin:
        fill_row(c, c_at, columns, 0.0)
    four = depth // 4 * 4
    for t in range(0, four, 4):
        v0, v1 = splat(w, a.flat[a_at + t]), splat(w, a.flat[a_at + t + 1])
        v2, v3 = splat(w, a.flat[a_at + t + 2]), splat(w, a.flat[a_at + t + 3])
        z0 = z + t * w_row
        z1, z2, z3 = z0 + w_row, z0 + 2 * w_row, z0 + 3 * w_row
        for j in range(0, whole, k):
            s = fma(v0, load(w, z0 + j), load(c, c_at + j))
            s = fma(v1, load(w, z1 + j), s)
            s = fma(v2, load(w, z2 + j), s)
            store(c, c_at + j, fma(v3, load(w, z3 + j), s))
        if rest > 0:
            s = fma(v0, load_first(w, z0 + whole, rest), load_first(c, c_at + whole, rest))
            s = fma(v1, load_first(w, z1 + whole, rest), s)
            s = fma(v2, load_first(w, z2 + whole, rest), s)
            s = fma(v3, load_first(w, z3 + whole, rest), s)
            store_first(c, c_at + whole, s, rest)
    for t in range(four, depth):
        v, at = splat(w, a.flat[a_at + t]), z + t * w_row
        for j in range(0, whole, k):
            store(c, c_at + j, fma(v, load(w, at + j), load(c, c_at + j)))
        if rest > 0:
            s = fma(v, load_first(w, at + whole, rest), load_first(c, c_at + whole, rest))
            store_first(c, c_at + whole, s, rest)


@helper
def multiply_row(a, a_at, w, z, w_row, c, c_at, depth, columns, begin):
    """One row of a product with a plain matrix, W[0, 0] at z; as many sums in flight as it has.

    Twice as fast as a tile where W lies in the L1 cache; from L2 it is bound by what that delivers.
    A W that outgrows L2 is read in sequence (`stream_row`).
    """
    if depth * columns * (4 if is32(w) else 8) > PREFETCH_BYTES:
        stream_row(a, a_at, w, z, w_row, c, c_at, depth, columns, begin)
        return
    wide = strip_lanes(w)
    j = 0
    while columns - j >= 4 * wide:
        first = strip_begin(c, c_at + j, wide, begin)
        second = strip_begin(c, c_at + j + wide, wide, begin)
        third = strip_begin(c, c_at + j + 2 * wide, wide, begin)
        fourth = strip_begin(c, c_at + j + 3 * wide, wide, begin)
        at = z + j
        for t in range(a_at, a_at + depth):
            v = splat(w, a.flat[t])
            first = strip_product(v, w, at, first)
            second = strip_product(v, w, at + wide, second)
            third = strip_product(v, w, at + 2 * wide, third)
            fourth = strip_product(v, w, at + 3 * wide, fourth)
            at += w_row
        strip_store(c, c_at + j, first, wide)
        strip_store(c, c_at + j + wide, second, wide)
        strip_store(c, c_at + j + 2 * wide, third, wide)
        strip_store(c, c_at + j + 3 * wide, fourth, wide)
        j += 4 * wide
    while columns - j >= wide:
        first = strip_begin(c, c_at + j, wide, begin)
        at = z + j
        for t in range(a_at, a_at + depth):
            first = strip_product(splat(w, a.flat[t]), w, at, first)
            at += w_row
        strip_store(c, c_at + j, first, wide)
        j += wide
    n = columns - j
    if n > 0:
        one, two, three, four = strip_begin(c, c_at + j, n, begin)
        at = z + j
        for t in range(a_at, a_at + depth):
            v, (e, f, g, h) = splat(w, a.flat[t]), strip_load(w, at, n)
            one, two = fma(v, e, one), fma(v, f, two)
            three, four = fma(v, g, three), fma(v, h, four)
            at += w_row
        strip_store(c, c_at + j, (one, two, three, four), n)


@helper
def upper(pair):
    """The first numbers of pairs of bfloat16 numbers."""
    word = bits(pair)
    return from_bits(word & pick(word, -0x10000, -0x100000000))


@helper
def lower(pair):
    """The second numbers of pairs of bfloat16 numbers."""
    word = bits(pair)
    return from_bits(shift_left(word, pick(word, 16, 32)))


@helper
def multiply_pairs(a, a_at, w, z, c, c_at, depth, columns, begin):
    """`multiply_row` with a W in pairs, the first one at z; columns are a multiple of `PAIRED`.

    A word of a row holds a column in its upper half and in its lower one that which is half of
    `PAIRED` behind it, so the vectors of both lie in C as they are, however wide vectors are.
    """
    k, half, w_row = lanes(w), PAIRED // 2, w.shape[1]
    if begin:
        fill_row(c, c_at, columns, 0.0)
    four = depth // 4 * 4
    for t in range(0, four, 4):
        v0, v1 = splat(w, a.flat[a_at + t]), splat(w, a.flat[a_at + t + 1])
        v2, v3 = splat(w, a.flat[a_at + t + 2]), splat(w, a.flat[a_at + t + 3])
        for i in range(0, columns // 2, half):
            for l in range(i, i + half, k):
                j, at = z + t * w_row + l, c_at + i + l
                p0, p1 = load(w, j), load(w, j + w_row)
                p2, p3 = load(w, j + 2 * w_row), load(w, j + 3 * w_row)
                s, r = load(c, at), load(c, at + half)
                s, r = fma(v0, upper(p0), s), fma(v0, lower(p0), r)
                s, r = fma(v1, upper(p1), s), fma(v1, lower(p1), r)
                s, r = fma(v2, upper(p2), s), fma(v2, lower(p2), r)
                store(c, at, fma(v3, upper(p3), s))
                store(c, at + half, fma(v3, lower(p3), r))
    for t in range(four, depth):
        v, z0 = splat(w, a.flat[a_at + t]), z + t * w_row
        for i in range(0, columns // 2, half):
            for l in range(i, i + half, k):
                pair, at = load(w, z0 + l), c_at + i + l
                store(c, at, fma(v, upper(pair), load(c, at)))
                store(c, at + half, fma(v, lower(pair), load(c, at + half)))
