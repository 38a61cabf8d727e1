"""Scaled dot-product attention (Vaswani et al. 2017), block by block (Dao et al. 2022).

    s[i,j] = scale * sum over c of q[i,c] * k[j,c]
    p[i,j] = exp(s[i,j] - lse[i]),  lse[i] = log(sum over j of exp(s[i,j]))
    y[i,c] = sum over j of z[i,j] * p[i,j] * v[j,c]

z is 1, or that of dropout. Of a block of queries the scores with a block of keys are all that is
ever in memory: a row's maximum and sum are carried on from block to block, and what y has by then
is scaled whenever the maximum grows. The backward pass computes p again from lse:

    dv[j] = sum over i of z[i,j] * p[i,j] * dy[i]
    ds[i,j] = p[i,j] * (z[i,j] * dy[i].v[j] - y[i].dy[i]) * scale
    dq[i] = sum over j of ds[i,j] * k[j],  dk[j] = sum over i of ds[i,j] * q[i]

B samples, H heads. M and N are the rows of a sample's queries and keys: its T positions with heads
side by side in X (or Y) columns, or `apart`, H times T. A query past the end of its sequence has an
output of 0, and so has one that looks at no key. Blocks begin at a sequence's first query and key,
so its bits depend on nothing that is beside or behind it. All sums run in one order: those of
products over keys (or queries) one after the other, those over a row of scores in lanes.
"""

from ..cpu.parts import fill_row, keep_part, load_part, row_max, store_part
from ..cpu.tile import best_tile, tile_height, tile_width
from ..declare import helper, kernel
from ..matmul.cpu_blocked import pack_columns
from ..random.cpu import random_words
from ..random.shared import GROUP, LANES, to_uniform
from ..scalar import exp, log
from ..simd import fma, is32, lanes, max_lanes, splat, sum_lanes, where
from .shared import KEYS, MARGIN, QUERIES, head_place, visible


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


@helper
def attend(
    q, k, v, k_from, v_from, size, value_size, key_lengths, query_lengths, y, lse, scratch, control,
    heads, apart, causal, first, scale, keep, stream, lo, hi,
):  # fmt: skip
    """The forward pass; keys and values begin `k_from` and `v_from` columns into their arrays."""
    queries, keys = lse.shape[1] // heads, k.shape[1] // heads if apart else k.shape[1]
    s_row = block_keys(q) + MARGIN
    packed = lo * scratch.shape[1]
    s = packed + panels_of(q, keys) * size
    tops = s + QUERIES * s_row
    sums = tops + QUERIES
    room = scratch.reshape(-1)
    groups = (keys + GROUP - 1) // GROUP
    for b in range(lo, hi):
        n = min(keys, key_lengths[b]) if key_lengths.size > 0 else keys
        m = min(queries, query_lengths[b]) if query_lengths.size > 0 else queries
        for h in range(heads):
            q_at, q_row = head_place(apart, h, queries, q.shape[2], size)
            k_at, k_row = head_place(apart, h, keys, k.shape[2], size)
            v_at, v_row = head_place(apart, h, keys, v.shape[2], value_size)
            y_at, y_row = head_place(apart, h, queries, y.shape[2], value_size)
            q_at += b * q.shape[1] * q.shape[2]
            k_at += k_from + b * k.shape[1] * k.shape[2]
            v_at += v_from + b * v.shape[1] * v.shape[2]
            y_at += b * y.shape[1] * y.shape[2]
            l_at = b * lse.shape[1] + h * queries
            some = m if n > 0 else 0
            for i in range(some, queries):
                fill_row(y, y_at + i * y_row, value_size, 0.0)
            fill_row(lse, l_at + some, queries - some, 0.0)
            if some > 0:
                pack_columns(k, k_at, k_row, size, n, scratch, packed)
            for i in range(0, some, QUERIES):
                rows = min(QUERIES, some - i)
                reach = visible(causal, i + rows - 1, first, n)
                for j in range(0, reach, block_keys(q)):
                    block = min(block_keys(q), n - j)
                    scores(q, q_at + i * q_row, q_row, scratch, packed, size, scratch, s, s_row, i,
                           rows, j, block, causal, first, n)  # fmt: skip
                    for r in range(rows):
                        at = s + r * s_row
                        seen = max(0, min(visible(causal, i + r, first, n) - j, block))
                        wide = row_visible(causal, i, r, rows, first, n, j, block, tile_height(q))
                        if seen > 0:
                            top = row_max(scratch, at, seen) * scale
                            if j > 0:
                                before = room[tops + r]
                                if before > top:
                                    top = before
                                ratio = exp_of(scratch, before - top)
                                scale_row(y, y_at + (i + r) * y_row, value_size, ratio)
                                room[sums + r] *= ratio
                                room[sums + r] += weigh_row(scratch, at, seen, scale, top)
                            else:
                                room[sums + r] = weigh_row(scratch, at, seen, scale, top)
                            room[tops + r] = top
                            if control.size > 0:
                                row = ((b * heads + h) * queries + i + r) * groups
                                drop_row(scratch, at, seen, j, row, control, stream, keep)
                        fill_row(scratch, at + seen, wide - seen, 0.0)
                    add_product(scratch, s, s_row, v, v_at + j * v_row, v_row, y, y_at + i * y_row,
                                y_row, value_size, i, rows, j, block, causal, first, n,
                                j == 0)  # fmt: skip
                for r in range(0, rows, lanes(q)):
                    part = min(lanes(q), rows - r)
                    total = load_part(scratch, sums + r, part)
                    found = load_part(scratch, tops + r, part) + log(total)
                    store_part(lse, l_at + i + r, found, part)
                for r in range(rows):
                    scale_row(y, y_at + (i + r) * y_row, value_size, 1.0 / room[sums + r])


@kernel(slow_to_compile=True)
def attention_forward(
    q: "in rows f[B,M,X]",
    k: "in rows f[B,N,X]",
    v: "in rows f[B,N,Y]",
    key_lengths: "in rows i[B]",  # absent: all keys
    query_lengths: "in rows i[B]",  # absent: all queries
    y: "out rows f[B,M,Y]",
    lse: "out rows f[B,Z]",  # [B,H,T]; 0 where nothing is looked at
    scratch: "scratch rows f[B,S]",  # S by `forward_scratch`
    control: "in whole i[L]",  # absent without dropout
    heads: "int",
    apart: "int",  # heads lie one after the other
    causal: "int",  # a query looks at keys up to its own place
    first: "int",  # the place of the first query among the keys
    scale: "real",
    keep: "real",  # what is kept by dropout
    stream: "int",
    lo: "begin",
    hi: "end",
):
    """y, and lse for the backward pass."""
    size = q.shape[2] if apart else q.shape[2] // heads
    value_size = v.shape[2] if apart else v.shape[2] // heads
    attend(q, k, v, 0, 0, size, value_size, key_lengths, query_lengths, y, lse, scratch, control,
           heads, apart, causal, first, scale, keep, stream, lo, hi)  # fmt: skip


@kernel(slow_to_compile=True)
def self_attention_forward(
    x: "in rows f[B,T,X]",  # queries, keys and values side by side, each [H,D]
    lengths: "in rows i[B]",  # absent: all T
    y: "out rows f[B,T,Y]",
    lse: "out rows f[B,Z]",  # [B,H,T]
    scratch: "scratch rows f[B,S]",
    control: "in whole i[L]",
    heads: "int",
    causal: "int",
    scale: "real",
    keep: "real",
    stream: "int",
    lo: "begin",
    hi: "end",
):
    """y, and lse for the backward pass, of a sequence that looks at itself."""
    width = y.shape[2]
    attend(x, x, x, width, 2 * width, width // heads, width // heads, lengths, lengths, y, lse,
           scratch, control, heads, 0, causal, 0, scale, keep, stream, lo, hi)  # fmt: skip


@helper
def row_product(x, x_at, y, y_at, size):
    """The sum of x*y over a row."""
    total = splat(x, 0.0)
    for j in range(0, size, lanes(x)):
        total = fma(load_part(x, x_at + j, size - j), load_part(y, y_at + j, size - j), total)
    return sum_lanes(total)


@helper
def slope_row(s, at, t, t_at, size, scale, lse, delta):
    """Where s has scores and t has dy.v: s = p, t = ds, over a row."""
    for j in range(0, size, lanes(s)):
        n = size - j
        p = exp(fma(load_part(s, at + j, n), splat(s, scale), splat(s, -lse)))
        d = (load_part(t, t_at + j, n) - delta) * p * scale
        store_part(s, at + j, p, n)
        store_part(t, t_at + j, d, n)


@helper
def attend_backward(
    q, k, v, k_from, v_from, size, value_size, key_lengths, query_lengths, y, lse, dy, dq, dk, dv,
    scratch, control, heads, apart, causal, first, scale, keep, stream, lo, hi,
):  # fmt: skip
    """The backward pass; see `attend`."""
    queries, keys = lse.shape[1] // heads, k.shape[1] // heads if apart else k.shape[1]
    s_row = block_keys(q) + MARGIN
    packed = lo * scratch.shape[1]
    packed_v = packed + panels_of(q, keys) * size
    s = packed_v + panels_of(q, keys) * value_size
    t = s + QUERIES * s_row
    deltas = t + QUERIES * s_row
    room, known = scratch.reshape(-1), lse.reshape(-1)
    groups = (keys + GROUP - 1) // GROUP
    for b in range(lo, hi):
        n = min(keys, key_lengths[b]) if key_lengths.size > 0 else keys
        m = min(queries, query_lengths[b]) if query_lengths.size > 0 else queries
        fill_row(dq, b * q.shape[1] * q.shape[2], q.shape[1] * q.shape[2], 0.0)
        if v_from == 0:  # else they are one array
            fill_row(dk, b * k.shape[1] * k.shape[2], k.shape[1] * k.shape[2], 0.0)
            fill_row(dv, b * v.shape[1] * v.shape[2], v.shape[1] * v.shape[2], 0.0)
        some = m if n > 0 else 0
        for h in range(heads):
            q_at, q_row = head_place(apart, h, queries, q.shape[2], size)
            k_at, k_row = head_place(apart, h, keys, k.shape[2], size)
            v_at, v_row = head_place(apart, h, keys, v.shape[2], value_size)
            y_at, y_row = head_place(apart, h, queries, y.shape[2], value_size)
            q_at += b * q.shape[1] * q.shape[2]
            k_at += k_from + b * k.shape[1] * k.shape[2]
            v_at += v_from + b * v.shape[1] * v.shape[2]
            y_at += b * y.shape[1] * y.shape[2]
            l_at = b * lse.shape[1] + h * queries
            if some > 0:
                pack_columns(k, k_at, k_row, size, n, scratch, packed)
                pack_columns(v, v_at, v_row, value_size, n, scratch, packed_v)
            for i in range(0, some, QUERIES):
                rows = min(QUERIES, some - i)
                for r in range(rows):
                    place = y_at + (i + r) * y_row
                    room[deltas + r] = row_product(y, place, dy, place, value_size)
                reach = visible(causal, i + rows - 1, first, n)
                for j in range(0, reach, block_keys(q)):
                    block = min(block_keys(q), n - j)
                    scores(q, q_at + i * q_row, q_row, scratch, packed, size, scratch, s, s_row, i,
                           rows, j, block, causal, first, n)  # fmt: skip
                    scores(dy, y_at + i * y_row, y_row, scratch, packed_v, value_size, scratch, t,
                           s_row, i, rows, j, block, causal, first, n)  # fmt: skip
                    for r in range(rows):
                        at, t_at = s + r * s_row, t + r * s_row
                        seen = max(0, min(visible(causal, i + r, first, n) - j, block))
                        wide = row_visible(causal, i, r, rows, first, n, j, block, tile_height(q))
                        row = ((b * heads + h) * queries + i + r) * groups
                        if control.size > 0:
                            drop_row(scratch, t_at, seen, j, row, control, stream, keep)
                        slope_row(scratch, at, scratch, t_at, seen, scale, known[l_at + i + r],
                                  room[deltas + r])  # fmt: skip
                        if control.size > 0:
                            drop_row(scratch, at, seen, j, row, control, stream, keep)
                        fill_row(scratch, at + seen, wide - seen, 0.0)
                        fill_row(scratch, t_at + seen, wide - seen, 0.0)
                    add_product(scratch, t, s_row, k, k_at + j * k_row, k_row, dq,
                                q_at + i * q_row, q_row, size, i, rows, j, block, causal, first, n,
                                False)  # fmt: skip
                    add_product_turned(scratch, t, s_row, q, q_at + i * q_row, q_row, dk,
                                       k_at + j * k_row, k_row, size, i, rows, j, block, causal,
                                       first)  # fmt: skip
                    add_product_turned(scratch, s, s_row, dy, y_at + i * y_row, y_row, dv,
                                       v_at + j * v_row, v_row, value_size, i, rows, j, block,
                                       causal, first)  # fmt: skip


@kernel(slow_to_compile=True)
def attention_backward(
    q: "in rows f[B,M,X]",
    k: "in rows f[B,N,X]",
    v: "in rows f[B,N,Y]",
    key_lengths: "in rows i[B]",
    query_lengths: "in rows i[B]",
    y: "in rows f[B,M,Y]",
    lse: "in rows f[B,Z]",
    dy: "in rows f[B,M,Y]",
    dq: "out rows f[B,M,X]",
    dk: "out rows f[B,N,X]",
    dv: "out rows f[B,N,Y]",
    scratch: "scratch rows f[B,S]",  # S by `backward_scratch`
    control: "in whole i[L]",
    heads: "int",
    apart: "int",
    causal: "int",
    first: "int",
    scale: "real",
    keep: "real",
    stream: "int",
    lo: "begin",
    hi: "end",
):
    """dq, dk and dv."""
    size = q.shape[2] if apart else q.shape[2] // heads
    value_size = v.shape[2] if apart else v.shape[2] // heads
    attend_backward(q, k, v, 0, 0, size, value_size, key_lengths, query_lengths, y, lse, dy, dq, dk,
                    dv, scratch, control, heads, apart, causal, first, scale, keep, stream, lo,
                    hi)  # fmt: skip


@kernel(slow_to_compile=True)
def self_attention_backward(
    x: "in rows f[B,T,X]",
    lengths: "in rows i[B]",
    y: "in rows f[B,T,Y]",
    lse: "in rows f[B,Z]",
    dy: "in rows f[B,T,Y]",
    dx: "out rows f[B,T,X]",
    scratch: "scratch rows f[B,S]",
    control: "in whole i[L]",
    heads: "int",
    causal: "int",
    scale: "real",
    keep: "real",
    stream: "int",
    lo: "begin",
    hi: "end",
):
    """dx of a sequence that looks at itself."""
    width = y.shape[2]
    attend_backward(x, x, x, width, 2 * width, width // heads, width // heads, lengths, lengths, y,
                    lse, dy, dx, dx, dx, scratch, control, heads, 0, causal, 0, scale, keep, stream,
                    lo, hi)  # fmt: skip
