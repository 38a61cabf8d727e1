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

from typing import Any, NamedTuple

from ..cpu.parts import fill_row, keep_part, load_part, row_max, store_part
from ..cpu.tile import tile_height
from ..declare import helper, kernel
from ..matmul.cpu_blocked import pack_columns
from ..random.shared import GROUP
from ..scalar import exp, log
from ..simd import fma, lanes, load, splat, store, sum_lanes
from .cpu_blocks import (
    FEW,
    KEYS_BACK,
    MARGIN,
    QUERIES,
    TOGETHER,
    Block,
    Panels,
    add_product,
    add_product_transposed,
    block_keys,
    drop_row,
    exp_of,
    first_block,
    in_panels,
    out_of_panels,
    panels_of,
    row_visible,
    rows_together,
    scale_row,
    scores,
    weigh_row,
    zeros_behind,
)
from .shared import (
    Drop,
    Lengths,
    Rows,
    Sight,
    from_row,
    heads_of,
    heads_within,
    key_rows,
    keys_of,
    length_of,
    output_rows,
    query_rows,
    value_rows,
    visible,
)


@helper
def attend(heads, lengths, y, lse, scratch, causal, first, scale, drop, lo, hi):
    """The forward pass: TOGETHER queries at a time meet blocks of keys one after the other.

    The scratch memory of a worker has a block's keys, packed for products; its values, where enough
    queries look at them; `s`, the scores of QUERIES queries with the block; and for each query the
    largest score so far (`tops`) and the sum of exp(score - top) (`sums`).
    """
    queries, keys = lse.shape[1] // heads.count, keys_of(heads)
    size, value_size = heads.size, heads.value_size
    most, height = block_keys(y), tile_height(y)
    held, s_row = min(keys, most), most + MARGIN
    packed, room = Rows(scratch, lo * scratch.shape[1], size), scratch.reshape(-1)
    together = packed.at + panels_of(y, held) * size
    s = Rows(scratch, together + held * value_size, s_row)
    all_tops = s.at + QUERIES * s_row
    all_sums = all_tops + TOGETHER
    groups = (keys + GROUP - 1) // GROUP
    for b in range(lo, hi):
        n, m = length_of(lengths.keys, b, keys), length_of(lengths.queries, b, queries)
        sight = Sight(causal, first, n)
        some = m if n > 0 else 0
        for h in range(heads.count):
            q, k = query_rows(heads.q, heads, b, h, queries), key_rows(heads.k, heads, b, h)
            v, out = value_rows(heads.v, heads, b, h), output_rows(y, heads, b, h, queries)
            l_at = b * lse.shape[1] + h * queries
            for i in range(some, queries):
                fill_row(y, out.at + i * out.step, value_size, 0.0)
            fill_row(lse, l_at + some, queries - some, 0.0)
            for begin in range(0, some, TOGETHER):
                end = min(some, begin + TOGETHER)
                for j in range(0, visible(sight, end - 1), most):
                    count = min(most, n - j)
                    pack_columns(k.x, k.at + j * k.step, k.step, size, count, scratch, packed.at)
                    values = Panels(v.x.reshape(-1), v.at + j * v.step, v.step, 0)
                    if some > FEW:
                        values = in_panels(from_row(v, j), count, value_size, room, together)
                    for i in range(first_block(sight, begin, j), end, QUERIES):
                        rows = min(QUERIES, end - i)
                        block = Block(i, rows, j, count)
                        tops, sums = all_tops + i - begin, all_sums + i - begin
                        scores(from_row(q, i), packed, s, block, sight)
                        for r in range(rows):
                            at, to = s.at + r * s_row, out.at + (i + r) * out.step
                            seen = max(0, min(visible(sight, i + r) - j, count))
                            wide = row_visible(sight, block, r, height)
                            if seen > 0:
                                top = row_max(scratch, at, seen) * scale
                                if j > 0:
                                    before = room[tops + r]
                                    if before > top:
                                        top = before
                                    ratio = exp_of(scratch, before - top)
                                    scale_row(y, to, value_size, ratio)
                                    room[sums + r] *= ratio
                                    room[sums + r] += weigh_row(scratch, at, seen, scale, top)
                                else:
                                    room[sums + r] = weigh_row(scratch, at, seen, scale, top)
                                room[tops + r] = top
                                if drop.control.size > 0:
                                    row = ((b * heads.count + h) * queries + i + r) * groups
                                    drop_row(scratch, at, seen, j, row, drop)
                            zeros_behind(scratch, at, seen, wide)
                        add_product(s, values, from_row(out, i), value_size, block, sight, j == 0)
                for i in range(0, end - begin, lanes(y)):
                    part = end - begin - i
                    total = load_part(scratch, all_sums + i, part)
                    found = load_part(scratch, all_tops + i, part) + log(total)
                    store_part(lse, l_at + begin + i, found, part)
                for i in range(begin, end):
                    scale_row(y, out.at + i * out.step, value_size,
                              1.0 / room[all_sums + i - begin])  # fmt: skip


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
    attend(heads_of(q, k, v, heads, apart), Lengths(key_lengths, query_lengths), y, lse, scratch,
           causal, first, scale, Drop(control, stream, keep), lo, hi)  # fmt: skip


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
    attend(heads_within(x, y.shape[2], heads), Lengths(lengths, lengths), y, lse, scratch, causal,
           0, scale, Drop(control, stream, keep), lo, hi)  # fmt: skip


@helper
def row_product(x, x_at, y, y_at, size):
    """The sum of x*y over a row."""
    total = splat(x, 0.0)
    for j in range(0, size, lanes(x)):
        total = fma(load_part(x, x_at + j, size - j), load_part(y, y_at + j, size - j), total)
    return sum_lanes(total)


@helper
def slope_at(s, i, t, k, scale, lse, delta):
    """The vectors of p and ds at i and k."""
    p = exp(fma(load(s, i), splat(s, scale), splat(s, -lse)))
    return p, (load(t, k) - delta) * p * scale


@helper
def slope_row(s, at, t, t_at, size, scale, lse, delta):
    """Where s has scores and t has dy.v: s = p, t = ds, over a row; see `weigh_row`."""
    step = lanes(s)
    full = size - size % (4 * step)
    for j in range(0, full, 4 * step):  # the constants of `exp` are loaded once for four
        i, k = at + j, t_at + j
        p0, d0 = slope_at(s, i, t, k, scale, lse, delta)
        p1, d1 = slope_at(s, i + step, t, k + step, scale, lse, delta)
        p2, d2 = slope_at(s, i + 2 * step, t, k + 2 * step, scale, lse, delta)
        p3, d3 = slope_at(s, i + 3 * step, t, k + 3 * step, scale, lse, delta)
        store(s, i, p0)
        store(s, i + step, p1)
        store(s, i + 2 * step, p2)
        store(s, i + 3 * step, p3)
        store(t, k, d0)
        store(t, k + step, d1)
        store(t, k + 2 * step, d2)
        store(t, k + 3 * step, d3)
    for j in range(full, size, step):
        p, d = slope_at(s, at + j, t, t_at + j, scale, lse, delta)
        store(s, at + j, keep_part(s, p, size - j, 0.0))
        store(t, t_at + j, keep_part(t, d, size - j, 0.0))


class Outcome(NamedTuple):
    """What the forward pass left, and the gradient to its output."""

    y: Any
    lse: Any
    dy: Any


class Gradients(NamedTuple):
    """Gradients to queries, keys and values; where heads are within one array, three times that."""

    q: Any
    k: Any
    v: Any


@helper
def attend_backward(
    heads, lengths, outcome: Outcome, gradients: Gradients, scratch, causal, first, scale, drop, lo,
    hi,
):  # fmt: skip
    """The backward pass: blocks of keys one after the other, and of each the blocks of queries that
    look at it; see `attend`."""
    y, lse, dy = outcome
    dq, dk, dv = gradients
    queries, keys = lse.shape[1] // heads.count, keys_of(heads)
    size, value_size = heads.size, heads.value_size
    most, height = KEYS_BACK, tile_height(y)
    held, s_row = min(keys, most), most + MARGIN
    packed = Rows(scratch, lo * scratch.shape[1], size)
    packed_v = Rows(scratch, packed.at + panels_of(y, held) * size, value_size)
    room, known = scratch.reshape(-1), lse.reshape(-1)
    together = packed_v.at + panels_of(y, held) * value_size
    sums_k = together + held * size
    sums_v = sums_k + held * size
    some_q = sums_v + held * value_size
    some_dy = some_q + QUERIES * size
    s = Rows(scratch, some_dy + QUERIES * value_size, s_row)
    t = from_row(s, QUERIES)
    deltas = t.at + QUERIES * s_row
    groups = (keys + GROUP - 1) // GROUP
    for b in range(lo, hi):
        n, m = length_of(lengths.keys, b, keys), length_of(lengths.queries, b, queries)
        sight = Sight(causal, first, n)
        some = m if n > 0 else 0
        looked_at = n if some > 0 else 0
        for h in range(heads.count):
            q, k = query_rows(heads.q, heads, b, h, queries), key_rows(heads.k, heads, b, h)
            v, out = value_rows(heads.v, heads, b, h), output_rows(y, heads, b, h, queries)
            to_q, to_k = Rows(dq, q.at, q.step), Rows(dk, k.at, k.step)
            to_v, slope = Rows(dv, v.at, v.step), Rows(dy, out.at, out.step)
            l_at = b * lse.shape[1] + h * queries
            for i in range(some, queries):
                fill_row(dq, to_q.at + i * to_q.step, size, 0.0)
            for j in range(looked_at, keys):
                fill_row(dk, to_k.at + j * to_k.step, size, 0.0)
                fill_row(dv, to_v.at + j * to_v.step, value_size, 0.0)
            for j in range(0, looked_at, most):
                count = min(most, n - j)
                pack_columns(k.x, k.at + j * k.step, k.step, size, count, scratch, packed.at)
                pack_columns(v.x, v.at + j * v.step, v.step, value_size, count, scratch,
                             packed_v.at)  # fmt: skip
                own = in_panels(from_row(k, j), count, size, room, together)
                sum_k = Panels(room, sums_k, size, count)
                sum_v = Panels(room, sums_v, value_size, count)
                fill_row(room, sums_k, count * size, 0.0)
                fill_row(room, sums_v, count * value_size, 0.0)
                for i in range(first_block(sight, 0, j), some, QUERIES):
                    rows = min(QUERIES, some - i)
                    block = Block(i, rows, j, count)
                    asked = rows_together(from_row(q, i), rows, size, room, some_q)
                    wanted = rows_together(from_row(slope, i), rows, value_size, room, some_dy)
                    for r in range(rows):
                        place = out.at + (i + r) * out.step
                        room[deltas + r] = row_product(y, place, dy, place, value_size)
                    scores(asked, packed, s, block, sight)
                    scores(wanted, packed_v, t, block, sight)
                    for r in range(rows):
                        at, t_at = s.at + r * s_row, t.at + r * s_row
                        seen = max(0, min(visible(sight, i + r) - j, count))
                        wide = row_visible(sight, block, r, height)
                        row = ((b * heads.count + h) * queries + i + r) * groups
                        if drop.control.size > 0:
                            drop_row(scratch, t_at, seen, j, row, drop)
                        slope_row(scratch, at, scratch, t_at, seen, scale, known[l_at + i + r],
                                  room[deltas + r])  # fmt: skip
                        if drop.control.size > 0:
                            drop_row(scratch, at, seen, j, row, drop)
                        zeros_behind(scratch, at, seen, wide)
                        zeros_behind(scratch, t_at, seen, wide)
                    add_product(t, own, from_row(to_q, i), size, block, sight, j == 0)
                    add_product_transposed(t, asked, sum_k, size, block, sight)
                    add_product_transposed(s, wanted, sum_v, value_size, block, sight)
                out_of_panels(sum_k, size, from_row(to_k, j))
                out_of_panels(sum_v, value_size, from_row(to_v, j))


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
    attend_backward(heads_of(q, k, v, heads, apart), Lengths(key_lengths, query_lengths),
                    Outcome(y, lse, dy), Gradients(dq, dk, dv), scratch, causal, first, scale,
                    Drop(control, stream, keep), lo, hi)  # fmt: skip


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
    attend_backward(heads_within(x, y.shape[2], heads), Lengths(lengths, lengths),
                    Outcome(y, lse, dy), Gradients(dx, dx, dx), scratch, causal, 0, scale,
                    Drop(control, stream, keep), lo, hi)  # fmt: skip
