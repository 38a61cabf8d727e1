"""Products with a factor of which many elements are 0: pixels, words, units that are drawn, what a
ReLU leaves (where the gradient is that factor: `cpu_sparse_gradients`).

For every 64 elements of a row a word says which are not 0, bit by bit, and only their products are
summed: the others would add 0. So each element of the result is the same chain of multiply-adds but
for those, and has the same bits. Where too few elements are 0 the product is that of `cpu`; where
an element of the other factor is infinite or NaN, too, as 0 times that is NaN, and where a sum is
-0, which it gets to be by underflow: adding 0 makes 0 of it.

64 rows of the other factor and `SUMS` vectors of their columns are copied into scratch memory,
where they lie side by side in L1 while all rows pass over them; sums wait in the result meanwhile.
"""

import numpy as np

from ..cpu import target
from ..cpu.tile import tile_lanes, tile_width, transpose_block
from ..declare import helper, kernel
from ..places import Matrix, Place, Rows
from ..simd import (
    copysign,
    count_lanes,
    fill_like,
    fma,
    iota,
    is32,
    lanes,
    ldexp,
    load,
    load_first,
    splat,
    store,
    store_first,
    where,
)
from .cpu import BACKWARD, FORWARD
from .cpu_blocked import blocked_product
from .cpu_panels import product

#: elements that a word has bits for
WORD = 64
#: vectors of sums
SUMS = 8
#: bits of an integer that float32 holds exactly; float64 holds more than twice as many
EXACT = 24
#: ranges of at least so many rows have scratch memory for a block of the other factor
FEWEST = 16
#: The largest share of elements that are not 0, in sixteenths, at which the others are left out. On
#: a Zen 3 256 x 512 x 128 takes 0.18 ms with a quarter of them, 0.28 with half, 0.38 with three
#: quarters, and 0.345 by the product with zeros.
SHARE = 10
#: of three times 64 elements looked at first, how many make a factor pass for full
FULL = 180


def columns_needed(itemsize: int) -> int:
    """Columns that a result has to have."""
    return SUMS * target.host().lanes(itemsize)


def words_needed(depth: int) -> int:
    """S, the words for a row of so many elements."""
    return -(-depth // WORD)


def room_needed(itemsize: int) -> int:
    """P, the elements of scratch memory for each row."""
    return WORD // FEWEST * columns_needed(itemsize)


@helper
def count_bits(word):
    """How many bits of a word are set: sums of 2, 4, 8 and all bits (one instruction, when
    compiled)."""
    x = int(word)
    x = x - ((x >> 1) & 0x5555555555555555)
    x = (x & 0x3333333333333333) + ((x >> 2) & 0x3333333333333333)
    x = (x + (x >> 4)) & 0x0F0F0F0F0F0F0F0F
    return ((x * 0x0101010101010101) >> 56) & 0xFF


@helper
def bits_of(x, at, count, powers):
    """The word whose bit j says that x[at + j] is not 0, for j < count; `powers` has lanes 2^l."""
    n, j, word = lanes(x), 0, np.int64(0)
    if count == WORD:
        span = (EXACT if is32(x) else 2 * EXACT) // n * n
        for start in range(0, WORD, span):
            some, power = splat(x, 0.0), powers
            for l in range(start, min(start + span, WORD), n):
                some = some + where(load(x, at + l) != 0.0, power, 0.0)
                power = power * float(1 << n)
            word |= np.int64(count_lanes(some)) << np.int64(start)
        return word
    while j < count:
        v = load_first(x, at + j, min(n, count - j))
        word |= np.int64(count_lanes(where(v != 0.0, powers, 0.0))) << np.int64(j)
        j += n
    return word


@helper
def powers_of_two(x):
    """A vector of x's type with 2^l in lane l."""
    return ldexp(splat(x, 1.0), iota(x))


@helper
def negative_zeros(s):
    """2 in the lanes that are -0, and 0 in the others."""
    one = fill_like(s, 1.0)
    return where(s == 0.0, one - copysign(one, s), 0.0)


@helper
def add_rows(x, x_at, x_step, word, b, base, y, at, begin, end, bias, bias_at):
    """y[at...] (+)= x[x_at + t*x_step] times row t of what was copied to b[base...], over the bits
    t of a word (x is flat); False at the end of a sum that is -0."""
    n = lanes(b)
    if begin:
        zero = fill_like(load_first(b, 0, 0), 0.0)
        s0, s1, s2, s3, s4, s5, s6, s7 = zero, zero, zero, zero, zero, zero, zero, zero
    else:
        s0, s1, s2, s3 = load(y, at), load(y, at + n), load(y, at + 2 * n), load(y, at + 3 * n)
        s4, s5 = load(y, at + 4 * n), load(y, at + 5 * n)
        s6, s7 = load(y, at + 6 * n), load(y, at + 7 * n)
    rest = int(word)
    for _ in range(count_bits(word)):
        t = count_bits(~rest & (rest - 1))  # the lowest bit that is set
        rest &= rest - 1  # and cleared
        a = splat(b, x[x_at + t * x_step])
        p = base + t * SUMS * n
        s0 = fma(a, load(b, p), s0)
        s1 = fma(a, load(b, p + n), s1)
        s2 = fma(a, load(b, p + 2 * n), s2)
        s3 = fma(a, load(b, p + 3 * n), s3)
        s4 = fma(a, load(b, p + 4 * n), s4)
        s5 = fma(a, load(b, p + 5 * n), s5)
        s6 = fma(a, load(b, p + 6 * n), s6)
        s7 = fma(a, load(b, p + 7 * n), s7)
    done = True
    if end:
        found = negative_zeros(s0) + negative_zeros(s1) + negative_zeros(s2) + negative_zeros(s3)
        more = negative_zeros(s4) + negative_zeros(s5) + negative_zeros(s6) + negative_zeros(s7)
        done = count_lanes(found + more) == 0.0
    if bias_at >= 0:
        s0, s1 = s0 + load(bias, bias_at), s1 + load(bias, bias_at + n)
        s2, s3 = s2 + load(bias, bias_at + 2 * n), s3 + load(bias, bias_at + 3 * n)
        s4, s5 = s4 + load(bias, bias_at + 4 * n), s5 + load(bias, bias_at + 5 * n)
        s6, s7 = s6 + load(bias, bias_at + 6 * n), s7 + load(bias, bias_at + 7 * n)
    store(y, at, s0)
    store(y, at + n, s1)
    store(y, at + 2 * n, s2)
    store(y, at + 3 * n, s3)
    store(y, at + 4 * n, s4)
    store(y, at + 5 * n, s5)
    store(y, at + 6 * n, s6)
    store(y, at + 7 * n, s7)
    return done


@helper
def copy_block(b, transposed, panel, first, depth, j, room):
    """Rows first to first + depth of b, at most `WORD`, and `SUMS` vectors of columns from j on,
    side by side at the place `room`; False if one of the elements is infinite or NaN.

    Where `transposed`, they are those of the transpose of b.
    """
    n, part, zeros = lanes(b.array), tile_width(b.array), splat(b.array, 0.0)
    width, block = SUMS * n, tile_lanes(b.array)
    if transposed:
        whole = depth // block * block
        for v in range(0, width, block):
            at = b.at + (j + v) * b.stride + first
            for t in range(0, whole, block):
                to = room.at + t * width + v
                transpose_block(b.array, at + t, b.stride, room.array, to, width)
            for t in range(whole, depth):
                for l in range(block):
                    one = load_first(b.array, at + l * b.stride + t, 1)
                    store_first(room.array, room.at + t * width + v + l, one, 1)
    for t in range(depth):
        to, at = room.at + t * width, b.at + (first + t) * b.stride
        for v in range(0, width, n):
            if not transposed:
                values = load(b.array, at + (j + v) // part * panel + (j + v) % part)
                store(room.array, to + v, values)
            zeros = fma(load(room.array, to + v), splat(b.array, 0.0), zeros)
    return count_lanes(zeros) == 0.0


@helper
def sums_of_rows(x, words, b, transposed, panel, bias, y, room, rows, depth, columns):
    """y = x @ b + bias, or x @ b.T where `transposed`, for so many rows; False, with y not
    complete, if an element of b is infinite or NaN, or a sum is -0.

    x is a `Matrix`, b and y are `Rows`, and so are the words of x. Panels of b, as wide as a tile,
    are `panel` elements apart. The block of b is copied to the place `room`.
    """
    last, width = (depth + WORD - 1) // WORD - 1, SUMS * lanes(b.array)
    factors, known = x.array.reshape(-1), words.array.reshape(-1)
    for start in range(0, columns, width):
        j = min(start, columns - width)  # the last columns end with the matrix: some come twice
        for q in range(last + 1):
            first = q * WORD
            if not copy_block(b, transposed, panel, first, min(WORD, depth - first), j, room):
                return False
            add = j if bias.size > 0 and q == last else -1
            for i in range(rows):
                word = known[words.at + i * words.stride + q]
                if word != 0 or q == 0 or q == last:
                    done = add_rows(
                        factors, x.at + i * x.row + first * x.step, x.step, word, room.array,
                        room.at, y.array, y.at + i * y.stride + j, q == 0, q == last, bias, add,
                    )  # fmt: skip
                    if not done:
                        return False
    return True


@helper
def are_few(x, words, lo, hi):
    """Whether few elements of rows lo to hi of x are not 0; if so, `words` says which."""
    c, found, powers = x.shape[1], 0, powers_of_two(x)
    middle = words.shape[1] // 2 * WORD if c >= WORD else 0
    for row in (lo, (lo + hi) // 2, hi - 1):
        found += count_bits(bits_of(x, row * c + middle, min(WORD, c - middle), powers))
    if found > FULL:
        return False
    found = 0
    for row in range(lo, hi):
        for q in range(words.shape[1]):
            word = bits_of(x, row * c + q * WORD, min(WORD, c - q * WORD), powers)
            words[row, q] = word
            found += count_bits(word)
    return found * 16 <= SHARE * (hi - lo) * c


@helper
def forward_sums(x, w, bias, y, words, room, lo, hi):
    """y = x @ w + bias for rows lo to hi, if many elements of x are 0; False if there are few, or
    as `sums_of_rows` says."""
    c, k = w.shape
    fits = (hi - lo) * room.shape[1] >= SUMS * lanes(w) * WORD
    done = fits and are_few(x, words, lo, hi)
    return done and sums_of_rows(
        Matrix(x, lo * c, c, 1), Rows(words, lo * words.shape[1], words.shape[1]), Rows(w, 0, k),
        False, tile_width(w), bias, Rows(y, lo * k, k), Place(room, lo * room.shape[1]), hi - lo, c,
        k,
    )  # fmt: skip


@kernel(block=64, **FORWARD, rounds=("x", "w"))
def linear_forward_sparse(
    x: "in rows f[N,C]",
    w: "in whole f[C,K]",
    bias: "in whole f[B]",  # B is K, or 0: no bias
    y: "out rows f[N,K]",
    words: "scratch rows i[N,S]",  # S by `words_needed`
    room: "scratch rows f[N,P]",  # P by `room_needed`
    lo: "begin",
    hi: "end",
):
    """y = x @ w + bias, for K of at least `columns_needed`"""
    c, k = w.shape
    if not forward_sums(x, w, bias, y, words, room, lo, hi):
        product(Matrix(x, lo * c, c, 1), Rows(w, 0, k), tile_width(w), Rows(y, lo * k, k),
                Place(bias, 0 if bias.size else -1), c, hi - lo, k)  # fmt: skip


@kernel(block=64, **FORWARD, rounds=("x", "w"))
def linear_forward_blocked_sparse(
    x: "in rows f[N,C]",
    w: "in whole f[C,K]",
    bias: "in whole f[B]",  # B is K, or 0: no bias
    y: "out rows f[N,K]",
    words: "scratch rows i[N,S]",  # S by `words_needed`
    scratch: "scratch rows f[N,P]",  # P by `scratch_columns`
    lo: "begin",
    hi: "end",
):
    """y = x @ w + bias, for large w with K of at least `columns_needed`"""
    if not forward_sums(x, w, bias, y, words, scratch, lo, hi):
        blocked_product(x, w, False, bias, y, scratch, lo, hi, w.shape[0], w.shape[1])


@helper
def transpose_bits(words, at, stride):
    """Bit c of words[at + r*stride] becomes bit r of words[at + c*stride], for r, c < 64: halves,
    quarters, ... of the matrix of bits change places (Warren, "Hacker's Delight", 7-3)."""
    j, low = 32, 0xFFFFFFFF
    while j > 0:
        r = 0
        while r < WORD:
            one, other = at + r * stride, at + (r + j) * stride
            a, b = words[one], words[other]
            t = ((a >> j) ^ b) & low
            words[one] = a ^ (t << j)
            words[other] = b ^ t
            r = ((r | j) + 1) & ~j
        j >>= 1
        low ^= low << j


@helper
def are_few_columns(x, words, lo, hi):
    """Whether few elements of columns lo to hi of x, 64 at least, are not 0; if so, the `Rows`
    `words` say which, of column lo first."""
    (rows, c), found, middle = x.shape, 0, min((lo + hi) // 2, hi - WORD)
    powers, known = powers_of_two(x), words.array.reshape(-1)
    for row in (0, rows // 2, rows - 1):
        found += count_bits(bits_of(x, row * c + middle, WORD, powers))
    if found > FULL:
        return False
    found = 0
    for start in range(lo, hi, WORD):
        first = min(start, hi - WORD)
        for q in range((rows + WORD - 1) // WORD):
            at = words.at + (first - lo) * words.stride + q
            for r in range(WORD):
                row, word = q * WORD + r, np.int64(0)
                if row < rows:
                    word = bits_of(x, row * c + first, WORD, powers)
                known[at + r * words.stride] = word
                found += count_bits(word)
            transpose_bits(known, at, words.stride)
    return found * 16 <= SHARE * rows * (hi - lo)


@kernel(grain=64, sums_rows=True, factors=("x", "dy"), rounds=("x", "dy"), **BACKWARD)
def linear_backward_weight_sparse(
    x: "in whole f[N,C]",
    dy: "in whole f[N,K]",
    dw: "out rows f[C,K]",
    words: "scratch rows i[C,S]",  # S by `words_needed`
    room: "scratch rows f[C,P]",  # P by `room_needed`
    lo: "begin",
    hi: "end",
):
    """dw = x.T @ dy, for K of at least `columns_needed`"""
    c, k = dw.shape
    known = Rows(words, lo * words.shape[1], words.shape[1])
    done = hi - lo >= WORD and are_few_columns(x, known, lo, hi)
    done = done and sums_of_rows(
        Matrix(x, lo, 1, c), known, Rows(dy, 0, k), False, tile_width(dy), dy[0, :0],
        Rows(dw, lo * k, k), Place(room, lo * room.shape[1]), hi - lo, x.shape[0], k,
    )  # fmt: skip
    if not done:
        product(Matrix(x, lo, 1, c), Rows(dy, 0, k), tile_width(dy), Rows(dw, lo * k, k),
                Place(dy[0], -1), x.shape[0], hi - lo, k)  # fmt: skip
