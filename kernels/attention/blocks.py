"""Blocks of scores on the CPU: products, exponentials, dropout of their rows (see `cpu.py`)."""

from ..cpu.parts import keep_part, load_part, store_part
from ..cpu.tile import best_tile, tile_height, tile_width
from ..declare import helper
from ..random.cpu import random_words
from ..random.shared import GROUP, LANES, to_uniform
from ..scalar import exp
from ..simd import fma, is32, lanes, max_lanes, splat, sum_lanes, where
from .shared import KEYS, visible


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
def exp_of(x, value):
    """e to the power of one number of `x`'s element type."""
    return max_lanes(exp(splat(x, value)))


@helper
def strip_visible(causal, query, first, keys, begin, block, height):
    """How many keys of a block, from key `begin` on, the queries of a strip that ends with `query`
    look at: a multiple of a strip's height, or all of the block."""
    count = min(visible(causal, query, first, keys) - begin, block)
    if count <= 0:
        return 0
    return min((count + height - 1) // height * height, block)


@helper
def row_visible(causal, query, r, rows, first, keys, begin, block, height):
    """The same of the strip that row r of the block from `query` on belongs to."""
    last = min(r // height * height + height, rows) - 1
    return strip_visible(causal, query + last, first, keys, begin, block, height)


@helper
def scores(
    a, a_at, a_row, packed, p_at, depth, s, s_at, s_row, query, rows, begin, block, causal, first,
    keys,
):  # fmt: skip
    """s[r, j] = a[r] . b[begin + j] for the rows and the keys of a block, as far as strips look;
    b is packed in panels."""
    height, width = tile_height(a), tile_width(a)
    for left in range(0, block, width):
        panel = p_at + (begin + left) * depth
        for r in range(0, rows, height):
            part = min(height, rows - r)
            seen = strip_visible(causal, query + r + part - 1, first, keys, begin, block, height)
            if seen > left:
                best_tile(a, a_at + r * a_row, a_row, 1, packed, panel, width, s,
                          s_at + r * s_row + left, s_row, a, -1, depth, part,
                          min(width, seen - left), True)  # fmt: skip


@helper
def chunk_of(x, columns):
    """Columns of a tile, so that all tiles that `columns` are cut into are about alike."""
    count = (columns + tile_width(x) - 1) // tile_width(x)
    step = lanes(x)
    return ((columns + count - 1) // count + step - 1) // step * step


@helper
def add_product(
    s, s_at, s_row, b, b_at, b_row, c, c_at, c_row, columns, query, rows, begin, block, causal,
    first, keys, fresh,
):  # fmt: skip
    """c[r] (+)= sum over j of s[r, j] * b[j] for the rows and the keys of a block; `fresh` where
    nothing is in c."""
    height, chunk = tile_height(s), chunk_of(s, columns)
    for left in range(0, columns, chunk):
        for r in range(0, rows, height):
            part = min(height, rows - r)
            seen = strip_visible(causal, query + r + part - 1, first, keys, begin, block, height)
            if seen > 0 or fresh:
                best_tile(s, s_at + r * s_row, s_row, 1, b, b_at + left, b_row, c,
                          c_at + r * c_row + left, c_row, s, -1, seen, part,
                          min(chunk, columns - left), fresh)  # fmt: skip


@helper
def add_product_turned(
    s, s_at, s_row, b, b_at, b_row, c, c_at, c_row, columns, query, rows, begin, block, causal,
    first,
):  # fmt: skip
    """c[j] += sum over r of s[r, j] * b[r] for the keys and the rows of a block."""
    height, chunk = tile_height(s), chunk_of(s, columns)
    for left in range(0, columns, chunk):
        for j in range(0, block, height):
            r = max(0, begin + j - first - query) if causal else 0
            if r < rows:
                best_tile(s, s_at + r * s_row + j, 1, s_row, b, b_at + r * b_row + left, b_row, c,
                          c_at + j * c_row + left, c_row, s, -1, rows - r, min(height, block - j),
                          min(chunk, columns - left), False)  # fmt: skip


@helper
def kept(x, control, stream, keep, row, j, lane):
    """Vectors of factors of dropout for four runs of a row's weights, from j + lane on, 16 apart:
    1/keep where a weight is kept, else 0. `row` is the group of random numbers with key 0."""
    w0, w1, w2, w3 = random_words(x, (row + j // GROUP) * LANES + lane, control, stream)
    none, scale = splat(x, 0.0), splat(x, 1.0) / splat(x, keep)
    return (
        where(to_uniform(w0) < keep, scale, none),
        where(to_uniform(w1) < keep, scale, none),
        where(to_uniform(w2) < keep, scale, none),
        where(to_uniform(w3) < keep, scale, none),
    )


@helper
def times(x, i, factor, n):
    """Multiply the vector at i by a factor, of which only the first `n` lanes exist."""
    if n > 0:
        store_part(x, i, load_part(x, i, n) * factor, n)


@helper
def drop_row(s, at, size, begin, row, control, stream, keep):
    """Dropout of a row of weights with the keys from `begin` on."""
    for j in range(0, size, GROUP):
        for lane in range(0, LANES, lanes(s)):
            z0, z1, z2, z3 = kept(s, control, stream, keep, row, begin + j, lane)
            i, n = at + j + lane, size - j - lane
            times(s, i, z0, n)
            times(s, i + LANES, z1, n - LANES)
            times(s, i + 2 * LANES, z2, n - 2 * LANES)
            times(s, i + 3 * LANES, z3, n - 3 * LANES)


@helper
def scale_row(x, at, size, factor):
    for j in range(0, size, lanes(x)):
        store_part(x, at + j, load_part(x, at + j, size - j) * factor, size - j)


@helper
def weigh_row(s, at, size, scale, shift):
    """s = exp(scale * s - shift) over a row, and its sum."""
    total = splat(s, 0.0)
    for j in range(0, size, lanes(s)):
        e = exp(fma(load_part(s, at + j, size - j), splat(s, scale), splat(s, -shift)))
        e = keep_part(s, e, size - j, 0.0)
        store_part(s, at + j, e, size - j)
        total = total + e
    return sum_lanes(total)
