"""Sums down the columns, and the order in which columns are gone through.

Of each column the rows are added up in order, in blocks of `ROWS`, and these sums in order. Four
chains of sums go side by side: of four neighbouring vectors, or in a last vector of four blocks.
"""

from typing import NamedTuple

from ..cpu.parts import (
    ROWS,
    fill_row,
    load_part,
    store_part,
    strip_add,
    strip_lanes,
    strip_load,
    strip_splat,
    strip_store,
)
from ..declare import helper
from ..simd import is32, lanes, splat

#: numbers of an array whose rows are gone through at once
ROOM = 65536


class Four(NamedTuple):
    """Four vectors: `apart` numbers lie between them in rows, `across` in what has one number for
    each column, and they are `down` rows after each other; `n` lanes of each exist."""

    apart: int
    across: int
    down: int
    n: int


@helper
def side_by_side(x):
    """Four neighbouring vectors."""
    return Four(lanes(x), lanes(x), 0, lanes(x))


@helper
def four(x, i, apart, n):
    """Four vectors of `x` from flat index `i`, `apart` numbers after each other."""
    return (
        load_part(x, i, n),
        load_part(x, i + apart, n),
        load_part(x, i + 2 * apart, n),
        load_part(x, i + 3 * apart, n),
    )


@helper
def store_four(y, i, apart, v, n):
    """Write four vectors to `y` from flat index `i`, `apart` numbers after each other."""
    store_part(y, i, v[0], n)
    store_part(y, i + apart, v[1], n)
    store_part(y, i + 2 * apart, v[2], n)
    store_part(y, i + 3 * apart, v[3], n)


@helper
def each_row(v, row, down):
    """The numbers that `v` has for four rows."""
    return v[row], v[row + down], v[row + 2 * down], v[row + 3 * down]


@helper
def block_sum(term, x, y, a, b, first, last, j, at):
    """Sums of `term` from one row to another."""
    part = strip_splat(x, 0.0)
    for row in range(first, last):
        part = strip_add(part, term(x, y, a, b, row, j, at))
    return part


@helper
def vector_total(term, x, y, a, b, j, n):
    """Sums over all rows, of up to a vector of columns from `j` on."""
    count = x.shape[0]
    whole, total = count - count % (4 * ROWS), splat(x, 0.0)
    for first in range(0, whole, 4 * ROWS):
        at = Four(ROWS * x.shape[1], 0, ROWS, n)
        p, q, r, s = block_sum(term, x, y, a, b, first, first + ROWS, j, at)
        total = (((total + p) + q) + r) + s
    for first in range(whole, count, ROWS):
        last = min(first + ROWS, count)
        part = block_sum(term, x, y, a, b, first, last, j, Four(0, 0, 0, n))
        total = total + part[0]
    return total


@helper
def add_strip(total, j, part, wide):
    """total += a strip, from column j on."""
    strip_store(total, j, strip_add(strip_load(total, j, wide), part), wide)


@helper
def add_four_strips(term, x, y, a, b, total, first, last, j):
    """`total` of four neighbouring strips plus the sums of `term` from one row to another: so long
    a run of each row that the CPU sees what will be read next."""
    at, wide = side_by_side(x), strip_lanes(x)
    p = q = r = s = strip_splat(x, 0.0)
    for row in range(first, last):
        p = strip_add(p, term(x, y, a, b, row, j, at))
        q = strip_add(q, term(x, y, a, b, row, j + wide, at))
        r = strip_add(r, term(x, y, a, b, row, j + 2 * wide, at))
        s = strip_add(s, term(x, y, a, b, row, j + 3 * wide, at))
    add_strip(total, j, p, wide)
    add_strip(total, j + wide, q, wide)
    add_strip(total, j + 2 * wide, r, wide)
    add_strip(total, j + 3 * wide, s, wide)


@helper
def column_totals(term, x, y, a, b, total, lo, hi):
    """total = sums of `term(x, y, a, b, row, j, at)` over all rows, of columns `lo` to `hi`.

    Each block of rows goes through all columns before the next, so that rows are read along: where
    they lie 4 KiB apart, all of a column would share a few places of the caches.
    """
    count, wide = x.shape[0], strip_lanes(x)
    end, fours = hi - (hi - lo) % wide, hi - (hi - lo) % (4 * wide)
    fill_row(total, lo, end - lo, 0.0)
    for first in range(0, count, ROWS):
        last = min(first + ROWS, count)
        for j in range(lo, fours, 4 * wide):
            add_four_strips(term, x, y, a, b, total, first, last, j)
        for j in range(fours, end, wide):
            part = block_sum(term, x, y, a, b, first, last, j, side_by_side(x))
            add_strip(total, j, part, wide)
    for j in range(end, hi, lanes(x)):
        store_part(total, j, vector_total(term, x, y, a, b, j, hi - j), hi - j)


@helper
def pages_apart(x):
    """Whether rows are whole pages apart: then all of a column lies in a few places of the caches,
    and a number may have to wait for the one written a row before."""
    return x.shape[1] % (1024 if is32(x) else 512) == 0


@helper
def columns_at_once(x):
    """So many columns, whole strips, that all their rows stay in the caches, where they can."""
    wide = strip_lanes(x)
    return x.shape[1] if pages_apart(x) else max(ROOM // (x.shape[0] * wide), 1) * wide


@helper
def rows_at_once(x):
    """How many rows of a strip are written before those of the next."""
    return 1 if pages_apart(x) else ROWS
