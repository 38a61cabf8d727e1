"""Scaled dot-product attention on CUDA (see `cpu.py`).

A block of threads has `ROWS` queries of a head and passes over its keys, `KEYS` at a time, a thread
for each pair; the scores of one such tile are all that is in memory. In the backward pass blocks
with queries (dq) are followed by others with keys (dk, dv): each makes the weights anew, so nothing
is added up by several blocks, and every sum has one order.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..cuda.device import block_number, cast, cuda, flat, thread_number
from ..declare import ceil_div, cuda_kernel, helper
from ..random.cuda import random_words
from ..random.shared import GROUP, LANES, to_uniform
from ..scalar import exp, log
from ..simd import fma, maximum
from ..vector_math import INFINITY
from . import cpu
from .shared import (
    Drop,
    Heads,
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

ROWS = 8
KEYS = 16
THREADS = ROWS * KEYS


def _tiles(s: dict[str, int], letter: str) -> int:
    """Blocks for the queries or keys of all heads."""
    return s["B"] * s["heads"] * ceil_div(s[letter], ROWS)


def _lengths(s: dict[str, int]) -> dict[str, int]:
    """Queries and keys of a head, beside the sizes."""
    keys = s["N"] // s["heads"] if s["apart"] else s["N"]
    return {**s, "queries": s["Z"] // s["heads"], "keys": keys}


def forward_launch(s: dict[str, int]) -> tuple[int, int]:
    return _tiles(_lengths(s), "queries"), THREADS


def backward_launch(s: dict[str, int]) -> tuple[int, int]:
    sizes = _lengths(s)
    return _tiles(sizes, "queries") + _tiles(sizes, "keys"), THREADS


class Tile(NamedTuple):
    """Where a block's tile is: sample, head, first row."""

    b: int
    head: int
    begin: int


class Outcome(NamedTuple):
    """What the forward pass has found, and the gradient to its output."""

    y: Any
    lse: Any
    dy: Any


@helper
def tile_of(number: int, length: int, heads: int) -> Tile:
    """The tile of the block with this number, where a head has `length` rows."""
    tiles = (length + ROWS - 1) // ROWS
    return Tile(number // tiles // heads, number // tiles % heads, number % tiles * ROWS)


@helper
def dot(a: Any, a_at: int, b: Any, b_at: int, size: int) -> Any:
    """The product of two rows."""
    x, y = flat(a), flat(b)
    total = cast(a, 0.0)
    for c in range(size):
        total = fma(x[a_at + c], y[b_at + c], total)
    return total


@helper
def kept(x: Any, drop: Drop, row: int, j: int) -> Any:
    """The factor of dropout for the weight of key j: 1/keep where it is kept, else 0. `row` is the
    group of random numbers with key 0."""
    if drop.control.size == 0:
        return cast(x, 1.0)
    block = (row + j // GROUP) * LANES + j % LANES
    w0, w1, w2, w3 = random_words(block, drop.control, drop.stream)
    quarter = j % GROUP // LANES
    random = w0
    if quarter == 1:
        random = w1
    elif quarter == 2:
        random = w2
    elif quarter == 3:
        random = w3
    if cast(x, to_uniform(random)) < drop.keep:
        return cast(x, 1.0) / drop.keep
    return cast(x, 0.0)


@helper
def add_rows(
    s: Any, at: int, count: int, x: Rows, y: Any, y_at: int, lane: int, size: int, ratio: Any,
    fresh: bool,
) -> None:  # fmt: skip
    """y = ratio*y + sum over j of s[at + j] * x[j], or without y where `fresh`, for the columns of
    this lane."""
    source, target = flat(x.x), flat(y)
    for c in range(lane, size, KEYS):
        total = cast(y, 0.0) if fresh else target[y_at + c] * ratio
        for j in range(count):
            total = fma(s[at + j], source[x.at + j * x.step + c], total)
        target[y_at + c] = total


@helper
def fill_lane(y: Any, at: int, lane: int, size: int) -> None:
    """A row of zeros."""
    for c in range(lane, size, KEYS):
        flat(y)[at + c] = 0.0


@helper
def attend(
    heads: Heads, lengths: Lengths, y: Any, lse: Any, causal: int, first: int, scale: Any,
    drop: Drop, weights: Any, dropped: Any,
) -> None:  # fmt: skip
    """The forward pass; see `cpu.attend`."""
    queries, keys = lse.shape[1] // heads.count, keys_of(heads)
    b, h, begin = tile_of(block_number(), queries, heads.count)
    q, k = query_rows(heads.q, heads, b, h, queries), key_rows(heads.k, heads, b, h)
    v, out = value_rows(heads.v, heads, b, h), output_rows(y, heads, b, h, queries)
    n, m = length_of(lengths.keys, b, keys), length_of(lengths.queries, b, queries)
    sight = Sight(causal, first, n)
    r, lane = thread_number() // KEYS, thread_number() % KEYS
    i = begin + r
    row = ((b * heads.count + h) * queries + i) * ((keys + GROUP - 1) // GROUP)
    reach = visible(sight, min(begin + ROWS, m) - 1) if begin < m else 0
    looks = i < m and n > 0
    seen = visible(sight, i) if looks else 0
    top, total = cast(y, -INFINITY), cast(y, 0.0)
    for j in range(0, reach, KEYS):
        score = cast(y, 0.0)
        if j + lane < seen:
            score = dot(q.x, q.at + i * q.step, k.x, k.at + (j + lane) * k.step, heads.size) * scale
        cuda.syncthreads()
        weights[thread_number()] = score
        cuda.syncthreads()
        count, before = max(0, min(seen - j, KEYS)), top
        for other in range(count):
            top = maximum(weights[r * KEYS + other], top)
        cuda.syncthreads()
        weight = cast(y, 0.0)
        if j + lane < seen:
            weight = exp(score - top)
        weights[thread_number()] = weight
        dropped[thread_number()] = weight * kept(y, drop, row, j + lane)
        cuda.syncthreads()
        if count > 0:
            ratio = cast(y, 1.0)
            if j > 0:
                ratio = exp(before - top)
                total = total * ratio
            for other in range(count):
                total += weights[r * KEYS + other]
            add_rows(dropped, r * KEYS, count, from_row(v, j), y, out.at + i * out.step, lane,
                     heads.value_size, ratio, j == 0)  # fmt: skip
    if i < queries:
        if looks:
            for c in range(lane, heads.value_size, KEYS):
                flat(y)[out.at + i * out.step + c] /= total
        else:
            fill_lane(y, out.at + i * out.step, lane, heads.value_size)
        if lane == 0:
            found = cast(y, 0.0)
            if looks:
                found = top + log(total)
            lse[b, h * queries + i] = found


@cuda_kernel(like=cpu.attention_forward, launch=forward_launch, bounds=THREADS)
def attention_forward(
    q, k, v, key_lengths, query_lengths, y, lse, scratch, control, heads, apart, causal, first,
    scale, keep, stream,
):  # fmt: skip
    weights = cuda.shared.array(THREADS, q.dtype)
    dropped = cuda.shared.array(THREADS, q.dtype)
    attend(heads_of(q, k, v, heads, apart), Lengths(key_lengths, query_lengths), y, lse, causal,
           first, scale, Drop(control, stream, keep), weights, dropped)  # fmt: skip


@cuda_kernel(
    like=cpu.self_attention_forward, bounds=THREADS,
    launch=lambda s: forward_launch({**s, "N": s["T"], "apart": 0}),
)  # fmt: skip
def self_attention_forward(
    x, lengths, y, lse, scratch, control, heads, causal, scale, keep, stream
):
    weights = cuda.shared.array(THREADS, x.dtype)
    dropped = cuda.shared.array(THREADS, x.dtype)
    attend(heads_within(x, y.shape[2], heads), Lengths(lengths, lengths), y, lse, causal, 0, scale,
           Drop(control, stream, keep), weights, dropped)  # fmt: skip


@helper
def slope_to_query(
    heads: Heads, known: Outcome, dq: Any, m: int, sight: Sight, scale: Any, drop: Drop, tile: Tile,
    slopes: Any,
) -> None:  # fmt: skip
    """dq for a block's queries, of the m that there are."""
    b, h, begin = tile
    y, lse, dy = known
    queries, size, value_size = lse.shape[1] // heads.count, heads.size, heads.value_size
    q, k = query_rows(heads.q, heads, b, h, queries), key_rows(heads.k, heads, b, h)
    v, out = value_rows(heads.v, heads, b, h), output_rows(y, heads, b, h, queries)
    r, lane = thread_number() // KEYS, thread_number() % KEYS
    i = begin + r
    row = ((b * heads.count + h) * queries + i) * ((keys_of(heads) + GROUP - 1) // GROUP)
    reach = visible(sight, min(begin + ROWS, m) - 1) if begin < m else 0
    seen = visible(sight, i) if i < m else 0
    q_at, out_at = q.at + i * q.step, out.at + i * out.step
    delta, total = cast(y, 0.0), cast(y, 0.0)
    if i < m:
        delta = dot(y, out_at, dy, out_at, value_size)
        total = lse[b, h * queries + i]
    if i < queries:
        fill_lane(dq, q_at, lane, size)
    for j in range(0, reach, KEYS):
        slope = cast(y, 0.0)
        if j + lane < seen:
            score = dot(q.x, q_at, k.x, k.at + (j + lane) * k.step, size) * scale
            d = dot(dy, out_at, v.x, v.at + (j + lane) * v.step, value_size)
            d = d * kept(y, drop, row, j + lane)
            slope = (d - delta) * exp(score - total) * scale
        cuda.syncthreads()
        slopes[thread_number()] = slope
        cuda.syncthreads()
        add_rows(slopes, r * KEYS, max(0, min(seen - j, KEYS)), from_row(k, j), dq,
                 q_at if i < queries else 0, lane, size if i < m else 0, cast(y, 1.0),
                 False)  # fmt: skip


@helper
def slope_to_key(
    heads: Heads, known: Outcome, dk: Any, dv: Any, m: int, sight: Sight, scale: Any, drop: Drop,
    tile: Tile, slopes: Any, weights: Any,
) -> None:  # fmt: skip
    """dk and dv for a block's keys, which m queries look at."""
    b, h, begin = tile
    y, lse, dy = known
    queries, keys, n = lse.shape[1] // heads.count, keys_of(heads), sight.keys
    size, value_size = heads.size, heads.value_size
    q, k = query_rows(heads.q, heads, b, h, queries), key_rows(heads.k, heads, b, h)
    v, out = value_rows(heads.v, heads, b, h), output_rows(y, heads, b, h, queries)
    to_out = Rows(dy, out.at, out.step)
    r, lane = thread_number() // KEYS, thread_number() % KEYS
    j = begin + r
    k_at, v_at = k.at + j * k.step, v.at + j * v.step
    if j < keys:
        fill_lane(dk, k_at, lane, size)
        fill_lane(dv, v_at, lane, value_size)
    start = max(0, begin - sight.first) if sight.causal else 0
    for i0 in range(start, m if begin < n else 0, KEYS):
        i = i0 + lane
        slope, weight = cast(y, 0.0), cast(y, 0.0)
        if j < n and i < m and j < visible(sight, i):
            row = ((b * heads.count + h) * queries + i) * ((keys + GROUP - 1) // GROUP)
            z = kept(y, drop, row, j)
            score = dot(q.x, q.at + i * q.step, k.x, k_at, size) * scale
            p = exp(score - lse[b, h * queries + i])
            out_at = out.at + i * out.step
            d = dot(dy, out_at, v.x, v_at, value_size) * z
            delta = dot(y, out_at, dy, out_at, value_size)
            slope, weight = (d - delta) * p * scale, p * z
        cuda.syncthreads()
        slopes[thread_number()] = slope
        weights[thread_number()] = weight
        cuda.syncthreads()
        if j < n:
            count = min(m - i0, KEYS)
            add_rows(slopes, r * KEYS, count, from_row(q, i0), dk, k_at, lane, size, cast(y, 1.0),
                     False)  # fmt: skip
            add_rows(weights, r * KEYS, count, from_row(to_out, i0), dv, v_at, lane, value_size,
                     cast(y, 1.0), False)  # fmt: skip


@helper
def attend_backward(
    heads: Heads, lengths: Lengths, known: Outcome, dq: Any, dk: Any, dv: Any, causal: int,
    first: int, scale: Any, drop: Drop, slopes: Any, weights: Any,
) -> None:  # fmt: skip
    """The backward pass; see `cpu.attend_backward`."""
    queries, keys = known.lse.shape[1] // heads.count, keys_of(heads)
    number = block_number()
    with_queries = heads.q.shape[0] * heads.count * ((queries + ROWS - 1) // ROWS)
    length = queries if number < with_queries else keys
    if number >= with_queries:
        number -= with_queries
    tile = tile_of(number, length, heads.count)
    n, m = length_of(lengths.keys, tile.b, keys), length_of(lengths.queries, tile.b, queries)
    if n == 0:
        m = 0
    sight = Sight(causal, first, n)
    if block_number() < with_queries:
        slope_to_query(heads, known, dq, m, sight, scale, drop, tile, slopes)
    else:
        slope_to_key(heads, known, dk, dv, m, sight, scale, drop, tile, slopes, weights)


@cuda_kernel(like=cpu.attention_backward, launch=backward_launch, bounds=THREADS)
def attention_backward(
    q, k, v, key_lengths, query_lengths, y, lse, dy, dq, dk, dv, scratch, control, heads, apart,
    causal, first, scale, keep, stream,
):  # fmt: skip
    slopes = cuda.shared.array(THREADS, q.dtype)
    weights = cuda.shared.array(THREADS, q.dtype)
    attend_backward(heads_of(q, k, v, heads, apart), Lengths(key_lengths, query_lengths),
                    Outcome(y, lse, dy), dq, dk, dv, causal, first, scale,
                    Drop(control, stream, keep), slopes, weights)  # fmt: skip


@cuda_kernel(
    like=cpu.self_attention_backward, bounds=THREADS,
    launch=lambda s: backward_launch({**s, "N": s["T"], "apart": 0}),
)  # fmt: skip
def self_attention_backward(
    x, lengths, y, lse, dy, dx, scratch, control, heads, causal, scale, keep, stream
):
    slopes = cuda.shared.array(THREADS, x.dtype)
    weights = cuda.shared.array(THREADS, x.dtype)
    attend_backward(heads_within(x, y.shape[2], heads), Lengths(lengths, lengths),
                    Outcome(y, lse, dy), dx, dx, dx, causal, 0, scale,
                    Drop(control, stream, keep), slopes, weights)  # fmt: skip
