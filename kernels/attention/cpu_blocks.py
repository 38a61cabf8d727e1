"""Blocks of scores: their sizes, products, exponentials, dropout of their rows (see `cpu.py`)."""

from typing import Any, NamedTuple

from ..cpu.parts import copy_run, keep_part, load_part, store_part
from ..cpu.tile import best_tile, panel_width, tile_height, tile_width
from ..declare import helper
from ..random.cpu import random_words
from ..random.shared import GROUP, LANES, to_uniform
from ..scalar import exp
from ..simd import fma, is32, lanes, load, max_lanes, splat, store, sum_lanes, where
from .shared import Rows, visible

#: queries of a block
QUERIES = 64
#: keys of a block, a multiple of every panel's width and of the random numbers' groups: the scores
#: of a block of queries with them lie in L2. In float64 half as many.
KEYS = 384
#: the same of the backward pass: keys, values and the gradients to both lie in L2 beside two blocks
#: of scores; as many in float64
KEYS_BACK = 192
#: queries that a packed block of keys serves, a multiple of `QUERIES`: a block stays in L2 then,
#: and two workers do not wait for each other at L3
TOGETHER = 1024
#: queries up to which values are read where they lie
FEW = 16
#: what a row of scores is longer than a block: rows a power of two apart would evict each other
MARGIN = 16


def forward_scratch(keys: int, size: int, value_size: int, itemsize: int) -> int:
    """Elements of scratch memory of the forward pass, for `keys` keys of `size` numbers and values
    of `value_size`: of a block of keys these and the values in panels, a block of scores, and of
    TOGETHER queries the maximum and the sum."""
    block = min(keys, KEYS * 4 // itemsize)
    packed = _packed(block, size, itemsize) + block * value_size
    return packed + _scores(KEYS * 4 // itemsize) + 2 * TOGETHER


def backward_scratch(keys: int, size: int, value_size: int, itemsize: int) -> int:
    """The same of the backward pass, for a block of keys: the keys in panels of both kinds, the
    values in panels, the gradients to both; and of a block of queries these, the gradients to the
    output, two blocks of scores, a number for each row."""
    block = min(keys, KEYS_BACK)
    packed = _packed(block, size, itemsize) + _packed(block, value_size, itemsize)
    sums = block * (2 * size + value_size)
    some = QUERIES * (size + value_size + 1)
    return packed + sums + some + 2 * _scores(KEYS_BACK)


def _packed(keys: int, size: int, itemsize: int) -> int:
    width = panel_width(itemsize)
    return -(-keys // width) * width * size


def _scores(keys: int) -> int:
    return QUERIES * (keys + MARGIN)


@helper
def block_keys(x):
    """Keys of a block."""
    return KEYS if is32(x) else KEYS // 2


@helper
def panels_of(x, keys):
    """Elements of a packed row of keys."""
    width = tile_width(x)
    return (keys + width - 1) // width * width


@helper
def rows_together(rows, count, size, room, at):
    """Copies of `count` rows, `size` numbers each, one after the other in `room` from `at` on: rows
    a power of two apart would evict each other from L1 while tiles pass over them."""
    for r in range(count):
        copy_run(rows.x, rows.at + r * rows.step, room, at + r * size, size)
    return Rows(room, at, size)


class Panels(NamedTuple):
    """Rows that are cut into panels of as many columns as a tile of a product has: a panel's rows
    lie one after the other, `count` of them, and so in L1 while tiles pass over them (of whole rows
    a panel's parts would evict each other). With a count of 0 they lie as `Rows` do."""

    x: Any
    at: int
    step: int
    count: int


@helper
def in_panels(rows, count, size, room, at):
    """Copies of `count` rows of `size` numbers each as `Panels` in `room` from `at` on."""
    chunk = chunk_of(rows.x, size)
    for left in range(0, size, chunk):
        width = min(chunk, size - left)
        for r in range(count):
            copy_run(rows.x, rows.at + r * rows.step + left, room, at + left * count + r * width,
                     width)  # fmt: skip
    return Panels(room, at, size, count)


@helper
def out_of_panels(panels, size, rows):
    """The rows of panels, copied to where they belong."""
    chunk = chunk_of(panels.x, size)
    for left in range(0, size, chunk):
        width, at = min(chunk, size - left), panels.at + left * panels.count
        for r in range(panels.count):
            copy_run(panels.x, at + r * width, rows.x, rows.at + r * rows.step + left, width)


@helper
def panel_at(panels, left, width):
    """Where the panel with the columns from `left` on begins, and from row to row how far."""
    if panels.count > 0:
        return panels.at + left * panels.count, width
    return panels.at + left, panels.step


@helper
def exp_of(x, value):
    """e to the power of one number of `x`'s element type."""
    return max_lanes(exp(splat(x, value)))


class Block(NamedTuple):
    """A block of scores: `rows` queries from `query` on, and `keys` keys from `key` on."""

    query: int
    rows: int
    key: int
    keys: int


@helper
def first_block(sight, begin, key):
    """The first query of the first block, from query `begin` on, that looks at a key."""
    if not sight.causal:
        return begin
    return max(begin, (key - sight.first) // QUERIES * QUERIES)


@helper
def strip_visible(sight, block, last, height):
    """How many of a block's keys the queries of a strip, whose last row is `last`, look at: a
    multiple of a strip's height, or all of them."""
    count = min(visible(sight, block.query + last) - block.key, block.keys)
    if count <= 0:
        return 0
    return min((count + height - 1) // height * height, block.keys)


@helper
def row_visible(sight, block, r, height):
    """The same of the strip that row r of the block belongs to."""
    return strip_visible(sight, block, min(r // height * height + height, block.rows) - 1, height)


@helper
def scores(a, packed, s, block, sight):
    """s[r, j] = a[r] . b[j] for the rows and the keys of a block, as far as strips look, and
    anything up to the end of the last panel; b is packed in panels."""
    height, width, depth = tile_height(a.x), tile_width(a.x), packed.step
    for left in range(0, block.keys, width):
        panel = packed.at + left * depth
        for r in range(0, block.rows, height):
            part = min(height, block.rows - r)
            seen = strip_visible(sight, block, r + part - 1, height)
            if seen > left:
                best_tile(a.x, a.at + r * a.step, a.step, 1, packed.x, panel, width, s.x,
                          s.at + r * s.step + left, s.step, a.x, -1, depth, part, width,
                          True)  # fmt: skip


@helper
def chunk_of(x, columns):
    """Columns of a tile, so that all tiles that `columns` are cut into are about alike."""
    count = (columns + tile_width(x) - 1) // tile_width(x)
    step = lanes(x)
    return ((columns + count - 1) // count + step - 1) // step * step


@helper
def add_product(s, b, c, columns, block, sight, fresh):
    """c[r] (+)= sum over j of s[r, j] * b[j] for the rows and the keys of a block, b in panels;
    `fresh` where nothing is in c."""
    height, chunk = tile_height(s.x), chunk_of(s.x, columns)
    for left in range(0, columns, chunk):
        width = min(chunk, columns - left)
        at, step = panel_at(b, left, width)
        for r in range(0, block.rows, height):
            part = min(height, block.rows - r)
            seen = strip_visible(sight, block, r + part - 1, height)
            if seen > 0 or fresh:
                best_tile(s.x, s.at + r * s.step, s.step, 1, b.x, at, step, c.x,
                          c.at + r * c.step + left, c.step, s.x, -1, seen, part, width,
                          fresh)  # fmt: skip


@helper
def add_product_transposed(s, b, c, columns, block, sight):
    """c[j] += sum over r of s[r, j] * b[r] for the keys and the rows of a block, c in panels."""
    height, chunk = tile_height(s.x), chunk_of(s.x, columns)
    for left in range(0, columns, chunk):
        width = min(chunk, columns - left)
        at, step = panel_at(c, left, width)
        for j in range(0, block.keys, height):
            r = max(0, block.key + j - sight.first - block.query) if sight.causal else 0
            if r < block.rows:
                best_tile(s.x, s.at + r * s.step + j, 1, s.step, b.x, b.at + r * b.step + left,
                          b.step, c.x, at + j * step, step, s.x, -1, block.rows - r,
                          min(height, block.keys - j), width, False)  # fmt: skip


@helper
def kept(x, drop, row, j, lane):
    """Vectors of factors of dropout for four runs of a row's weights, from j + lane on, 16 apart:
    1/keep where a weight is kept, else 0. `row` is the group of random numbers with key 0."""
    w0, w1, w2, w3 = random_words(x, (row + j // GROUP) * LANES + lane, drop.control, drop.stream)
    none, scale = splat(x, 0.0), splat(x, 1.0) / splat(x, drop.keep)
    return (
        where(to_uniform(w0) < drop.keep, scale, none),
        where(to_uniform(w1) < drop.keep, scale, none),
        where(to_uniform(w2) < drop.keep, scale, none),
        where(to_uniform(w3) < drop.keep, scale, none),
    )


@helper
def times(x, i, factor, n):
    """Multiply the vector at i by a factor, if any of it exists."""
    if n > 0:
        store(x, i, load(x, i) * factor)


@helper
def drop_row(s, at, size, begin, row, drop):
    """Dropout of a row of weights with the keys from `begin` on."""
    for j in range(0, size, GROUP):
        for lane in range(0, LANES, lanes(s)):
            z0, z1, z2, z3 = kept(s, drop, row, begin + j, lane)
            i, n = at + j + lane, size - j - lane
            times(s, i, z0, n)
            times(s, i + LANES, z1, n - LANES)
            times(s, i + 2 * LANES, z2, n - 2 * LANES)
            times(s, i + 3 * LANES, z3, n - 3 * LANES)


@helper
def scale_row(x, at, size, factor):
    """x[at:at+size] *= factor (flat)."""
    for j in range(0, size, lanes(x)):
        store_part(x, at + j, load_part(x, at + j, size - j) * factor, size - j)


@helper
def weight_at(s, i, scale, shift):
    """exp(scale * s - shift) of the vector at i."""
    return exp(fma(load(s, i), splat(s, scale), splat(s, -shift)))


@helper
def weigh_row(s, at, size, scale, shift):
    """s = exp(scale * s - shift) over a row, and its sum; 0 up to the end of the last vector (a
    row has room for it, and to write a part of a vector takes many times as long)."""
    step, total = lanes(s), splat(s, 0.0)
    full = size - size % (4 * step)
    for j in range(0, full, 4 * step):  # the constants of `exp` are loaded once for four
        i = at + j
        e0, e1 = weight_at(s, i, scale, shift), weight_at(s, i + step, scale, shift)
        e2 = weight_at(s, i + 2 * step, scale, shift)
        e3 = weight_at(s, i + 3 * step, scale, shift)
        store(s, i, e0)
        store(s, i + step, e1)
        store(s, i + 2 * step, e2)
        store(s, i + 3 * step, e3)
        total = (((total + e0) + e1) + e2) + e3
    for j in range(full, size, step):
        e = keep_part(s, weight_at(s, at + j, scale, shift), size - j, 0.0)
        store(s, at + j, e)
        total = total + e
    return sum_lanes(total)


@helper
def zeros_behind(s, at, size, wide):
    """0 in a row from its last whole vector's end on, as far as products read it."""
    step = lanes(s)
    for j in range((size + step - 1) // step * step, wide, step):
        store(s, at + j, splat(s, 0.0))
