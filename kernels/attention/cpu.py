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

from ..cpu.parts import fill_row, load_part, row_max, store_part
from ..cpu.tile import tile_height
from ..declare import helper, kernel
from ..matmul.cpu_blocked import pack_columns
from ..random.shared import GROUP
from ..scalar import exp, log
from ..simd import fma, lanes, splat, sum_lanes
from .blocks import (
    add_product,
    add_product_turned,
    block_keys,
    drop_row,
    exp_of,
    panels_of,
    row_visible,
    scale_row,
    scores,
    weigh_row,
)
from .shared import MARGIN, QUERIES, head_place, visible


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
