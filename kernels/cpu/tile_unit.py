"""The CPU's tile unit (Intel's AMX): products of bfloat16 numbers, summed in float32.

A float32 number is the sum of up to three bfloat16 numbers, its *parts*: the nearest one, the
nearest to what is left, and so on. With one part of each factor a product has bfloat16's accuracy,
with two parts and three products about 17 bits, with three parts and six products float32's own
(Henry, Tang and Heinecke 2019, *Leveraging the bfloat16 Artificial Intelligence Datatype For
Higher-Precision Computations*).

The unit multiplies tiles: 16 rows and 32 steps of the depth of A with 32 steps and 16 columns of B.
Both lie in memory in *words* of 32 bits, each with two neighbours along the depth, the first in the
lower half; a tile is 16 lines of 16 words, A's line i is row i, B's line p the steps 2p and 2p+1
of all columns. Words are kept in float32 arrays, as bit patterns that nobody computes with.

**The sum of an element** is, from 0 or what C holds, over the tiles of the depth, over the products
of parts (`PRODUCTS`): plus (the chain of multiply-adds over the even steps + that over the odd
ones). This is what ``tdpbf16ps`` computes, and what the code for CPUs without a tile unit and
plain Python compute too, to the last bit (but for numbers below 1e-30: subnormal ones count as 0
on the unit). It depends neither on how rows and columns are split nor on the place in a tile.

**With AVX-512-BF16 and no tile unit** (`target.host().pairs`) products of one part take another
order, that of ``vdpbf16ps``: one chain of multiply-adds over the whole depth, in each pair the odd
step before the even one (`_add_pair`). Subnormal numbers count as 0 there as well, in factors, sums
and results; plain Python computes the same to the last bit.
"""

from __future__ import annotations

import ctypes
import functools

import numpy as np

from .. import recorded
from . import target

recorded.record()

#: rows of a tile of A, columns of a tile of B, words in a line
SIDE = 16
#: steps of the depth in a tile
STEPS = 32
#: words of a tile
WORDS = SIDE * SIDE
#: (part of A, part of B) of the products that are summed, by the number of parts
PRODUCTS = (
    (),
    ((0, 0),),
    ((0, 0), (0, 1), (1, 0)),
    ((0, 0), (0, 1), (0, 2), (1, 1), (1, 0), (2, 0)),
)
#: the shapes of `unit_multiply`, in tiles: rows, columns
TALL = 0
FLAT = 1
SHAPES = ((2, 2), (1, 4))


@functools.cache
def usable() -> bool:
    """Whether this process may use the tile unit: the CPU has one, and Linux permits it.

    Linux gives a process the unit's registers when it asks for them, for all of its threads and
    the processes that it forks.
    """
    if not target.host().tile_unit:
        return False
    arch_prctl, request, tile_data = 158, 0x1023, 18
    return int(ctypes.CDLL(None).syscall(arch_prctl, request, tile_data)) == 0


def most_parts() -> int:
    """How many parts factors are cut into at most: with AVX-512-BF16 alone more would not pay."""
    if usable():
        return len(PRODUCTS) - 1
    return int(target.host().pairs)


@recorded.plain
def unit_begin(x: np.ndarray) -> None:
    """Prepare the unit for tiles; `x` is any array of the kernel's float type."""


@recorded.plain
def unit_end(x: np.ndarray) -> None:
    """Hand the unit's registers back: they are no part of the thread's state any more."""


@recorded.plain
def _round(x: np.ndarray) -> np.ndarray:
    """The nearest bfloat16 numbers, ties to even, as float32 bit patterns."""
    word = x.view(np.uint32)
    up = (word + (np.uint32(0x7FFF) + (word >> 16 & 1))) & np.uint32(0xFFFF0000)
    quiet = (word | np.uint32(0x400000)) & np.uint32(0xFFFF0000)
    return np.where(np.isnan(x), quiet, up).astype(np.uint32)


@recorded.plain
def unit_pack(
    a: np.ndarray,
    a_at: int,
    a_row: int,
    a_step: int,
    packed: np.ndarray,
    to: int,
    part: int,
    rows: int,
    depth: int,
    parts: int,
    right: bool,
) -> None:
    """Cut a tile into parts: M[i, t] is ``a[a_at + i*a_row + t*a_step]`` (flat indices).

    One of the strides is 1. `i` < `rows` <= 16 is the row of A or, where `right`, the column of B;
    `t` < `depth` <= 32; the rest of a tile is 0 (`rows` and `depth` may be less than 1). Part q
    goes to the 256 words from ``packed[to + q*part]`` on.
    """
    rows, depth = max(0, min(rows, SIDE)), max(0, min(depth, STEPS))
    left = np.zeros((SIDE, STEPS), np.float32)
    i, t = np.arange(rows)[:, None], np.arange(depth)[None, :]
    left[:rows, :depth] = a.reshape(-1)[a_at + i * a_row + t * a_step]
    words = packed.reshape(-1).view(np.uint32)
    for q in range(parts):
        halves = _round(left)
        pairs = halves[:, 0::2] >> 16 | halves[:, 1::2]
        words[to + q * part : to + q * part + WORDS] = (pairs.T if right else pairs).reshape(-1)
        with np.errstate(invalid="ignore"):
            left = left - halves.view(np.float32)


@recorded.plain
def _number(words: np.ndarray, odd: int) -> np.ndarray:
    """The bfloat16 numbers in the upper or lower half of words, as float32."""
    return (words & np.uint32(0xFFFF0000) if odd else words << 16).view(np.float32)


@recorded.plain
def _flushed(x: np.ndarray) -> np.ndarray:
    """`x` with zeros, of the same sign, in place of subnormal numbers."""
    tiny = np.abs(x) < np.finfo(np.float32).tiny
    return np.where(tiny, np.copysign(np.float32(0), x), x)


@recorded.plain
def _multiply_add(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """a * b + c, rounded once to float32, for bfloat16 a and b and float32 c.

    The product is exact in float64. Of the sum's rounding error there only matters whether it is 0:
    the last bit is set if not (rounding to odd), and rounding to float32 then is as if the sum had
    been exact. A result counts as subnormal if it is below the normal numbers when it is rounded to
    24 bits, of any exponent.
    """
    product, c = a.astype(np.float64) * b.astype(np.float64), c.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        total = np.asarray(product + c)
        back = total - product
        error = (product - (total - back)) + (c - back)
        bits = total.view(np.int64)
        outwards = (error > 0) == (total > 0)
        odd = np.where(outwards, bits + 1, bits - 1).view(np.float64)
        fix = (error != 0) & np.isfinite(total) & (bits & 1 == 0)
        total = np.where(fix, odd, total)
        tiny = np.abs(total) < 2.0**-126 - 2.0**-151
        return np.where(tiny, np.copysign(0, total), total).astype(np.float32)


@recorded.plain
def _add_pair(sums: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """What ``vdpbf16ps`` makes of float32 sums and the words of two factors."""
    sums = _flushed(sums)
    for odd in (1, 0):
        sums = _multiply_add(_flushed(_number(a, odd)), _flushed(_number(b, odd)), sums)
    return sums


@recorded.plain
def unit_multiply(
    shape: int,
    a: np.ndarray,
    a_at: int,
    a_step: int,
    a_part: int,
    b: np.ndarray,
    b_at: int,
    b_step: int,
    b_part: int,
    c: np.ndarray,
    c_at: int,
    c_row: int,
    bias: np.ndarray,
    bias_at: int,
    tiles: int,
    parts: int,
    rows: int,
    columns: int,
    begin: bool,
) -> None:
    """C (+)= A @ B for up to 32 rows and 32 columns (`TALL`), or 16 and 64 (`FLAT`); then the bias.

    With `target.host().pairs`, one part is summed as `_add_pair` does.

    `tiles` is the depth in tiles. Tile d of part q of A begins at ``a[a_at + d*a_step + q*a_part]``
    and B's likewise, all flat indices; those of the next 16 rows or columns follow them. C[r, j] is
    ``c[c_at + r*c_row + j]``. Sums start at 0 where `begin`, else at C; ``bias[bias_at + j]`` is
    added at the end unless `bias_at` < 0. Tiles are read as a whole, whatever `rows` and `columns`.
    """
    high, wide = (SIDE * n for n in SHAPES[shape])
    rows, columns = min(rows, high), min(columns, wide)
    r, j = np.arange(rows)[:, None], np.arange(columns)[None, :]
    out, at = c.reshape(-1), c_at + r * c_row + j
    sums = np.zeros((rows, columns), np.float32) if begin else out[at]
    left, right = a.reshape(-1).view(np.uint32), b.reshape(-1).view(np.uint32)

    def words(d: int, p: int, q: int, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The words k of a tile of both factors."""
        return left[a_at + d * a_step + p * a_part + r * SIDE + k], right[
            b_at + d * b_step + q * b_part + j // SIDE * WORDS + k * SIDE + j % SIDE
        ]

    by_pairs = parts == 1 and target.host().pairs
    for d in range(tiles):
        for p, q in PRODUCTS[parts]:
            if by_pairs:
                for k in range(SIDE):
                    sums = _add_pair(sums, *words(d, p, q, k))
                continue
            chains = []
            for odd in (0, 1):
                chain = np.zeros((rows, columns), np.float32)
                for k in range(SIDE):
                    x, y = words(d, p, q, k)
                    chain = _number(x, odd) * _number(y, odd) + chain  # exact, then rounded
                chains.append(chain)
            sums = sums + (chains[0] + chains[1])
    out[at] = sums if bias_at < 0 else sums + bias.reshape(-1)[bias_at + j]
