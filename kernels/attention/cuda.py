"""Scaled dot-product attention on CUDA (see `cpu.py`).

A block of threads has `ROWS` queries of a head and passes over its keys, `KEYS` at a time, a thread
for each pair; the scores of one such tile are all that is in memory. In the backward pass blocks
with queries (dq) are followed by others with keys (dk, dv): each makes the weights anew, so nothing
is added up by several blocks, and every sum has one order.
"""

from __future__ import annotations

from typing import Any

from ..cuda.device import block_number, cast, cuda, flat, thread_number
from ..declare import ceil_div, cuda_kernel, helper
from ..random.cuda import random_words
from ..random.shared import GROUP, LANES, to_uniform
from ..scalar import exp, log
from ..simd import fma, maximum
from ..vector_math import INFINITY
from . import cpu
from .shared import head_place, visible

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


@helper
def block_place(number: int, length: int, heads: int) -> tuple[int, int, int]:
    """Sample, head and first row of a block's tile."""
    tiles = (length + ROWS - 1) // ROWS
    return number // tiles // heads, number // tiles % heads, number % tiles * ROWS


@helper
def row_place(
    x: Any, b: int, apart: int, head: int, length: int, size: int, begin: int
) -> tuple[int, int]:
    """Where a head's rows begin in the flat array, and how far they are apart."""
    at, row = head_place(apart, head, length, x.shape[2], size)
    return at + begin + b * x.shape[1] * x.shape[2], row


@helper
def length_of(lengths: Any, b: int, most: int) -> int:
    return min(most, int(lengths[b])) if lengths.size > 0 else most


@helper
def dot(a: Any, a_at: int, b: Any, b_at: int, size: int) -> Any:
    """The product of two rows."""
    x, y = flat(a), flat(b)
    total = cast(a, 0.0)
    for c in range(size):
        total = fma(x[a_at + c], y[b_at + c], total)
    return total


@helper
def kept(x: Any, control: Any, stream: int, keep: Any, row: int, j: int) -> Any:
    """The factor of dropout for the weight of key j: 1/keep where it is kept, else 0. `row` is the
    group of random numbers with key 0."""
    if control.size == 0:
        return cast(x, 1.0)
    block = (row + j // GROUP) * LANES + j % LANES
    w0, w1, w2, w3 = random_words(block, control, stream)
    quarter = j % GROUP // LANES
    random = w0
    if quarter == 1:
        random = w1
    elif quarter == 2:
        random = w2
    elif quarter == 3:
        random = w3
    if cast(x, to_uniform(random)) < keep:
        return cast(x, 1.0) / keep
    return cast(x, 0.0)


@helper
def add_rows(
    s: Any, at: int, count: int, x: Any, x_at: int, x_row: int, y: Any, y_at: int, lane: int,
    size: int, ratio: Any, fresh: bool,
) -> None:  # fmt: skip
    """y = ratio*y + sum over j of s[at + j] * x[j], or without y where `fresh`, for the columns of
    this lane."""
    source, target = flat(x), flat(y)
    for c in range(lane, size, KEYS):
        total = cast(y, 0.0) if fresh else target[y_at + c] * ratio
        for j in range(count):
            total = fma(s[at + j], source[x_at + j * x_row + c], total)
        target[y_at + c] = total


@helper
def fill_lane(y: Any, at: int, lane: int, size: int) -> None:
    """A row of zeros."""
    for c in range(lane, size, KEYS):
        flat(y)[at + c] = 0.0


@helper
def attend(
    q: Any, k: Any, v: Any, k_from: int, v_from: int, size: int, value_size: int, key_lengths: Any,
    query_lengths: Any, y: Any, lse: Any, control: Any, heads: int, apart: int, causal: int,
    first: int, scale: Any, keep: Any, stream: int, weights: Any, dropped: Any,
) -> None:  # fmt: skip
    """The forward pass; see `cpu.attend`."""
    queries, keys = lse.shape[1] // heads, k.shape[1] // heads if apart else k.shape[1]
    b, h, begin = block_place(block_number(), queries, heads)
    q_at, q_row = row_place(q, b, apart, h, queries, size, 0)
    k_at, k_row = row_place(k, b, apart, h, keys, size, k_from)
    v_at, v_row = row_place(v, b, apart, h, keys, value_size, v_from)
    y_at, y_row = row_place(y, b, apart, h, queries, value_size, 0)
    n, m = length_of(key_lengths, b, keys), length_of(query_lengths, b, queries)
    r, lane = thread_number() // KEYS, thread_number() % KEYS
    i = begin + r
    row = ((b * heads + h) * queries + i) * ((keys + GROUP - 1) // GROUP)
    reach = visible(causal, min(begin + ROWS, m) - 1, first, n) if begin < m else 0
    looks = i < m and n > 0
    seen = visible(causal, i, first, n) if looks else 0
    top, total = cast(q, -INFINITY), cast(q, 0.0)
    for j in range(0, reach, KEYS):
        score = cast(q, 0.0)
        if j + lane < seen:
            score = dot(q, q_at + i * q_row, k, k_at + (j + lane) * k_row, size) * scale
        cuda.syncthreads()
        weights[thread_number()] = score
        cuda.syncthreads()
        count, before = max(0, min(seen - j, KEYS)), top
        for other in range(count):
            top = maximum(weights[r * KEYS + other], top)
        cuda.syncthreads()
        weight = cast(q, 0.0)
        if j + lane < seen:
            weight = exp(score - top)
        weights[thread_number()] = weight
        dropped[thread_number()] = weight * kept(q, control, stream, keep, row, j + lane)
        cuda.syncthreads()
        if count > 0:
            ratio = cast(q, 1.0)
            if j > 0:
                ratio = exp(before - top)
                total = total * ratio
            for other in range(count):
                total += weights[r * KEYS + other]
            add_rows(dropped, r * KEYS, count, v, v_at + j * v_row, v_row, y, y_at + i * y_row,
                     lane, value_size, ratio, j == 0)  # fmt: skip
    if i < queries:
        if looks:
            for c in range(lane, value_size, KEYS):
                flat(y)[y_at + i * y_row + c] /= total
        else:
            fill_lane(y, y_at + i * y_row, lane, value_size)
        if lane == 0:
            found = cast(q, 0.0)
            if looks:
                found = top + log(total)
            lse[b, h * queries + i] = found


@cuda_kernel(like=cpu.attention_forward, launch=forward_launch, bounds=THREADS)
def attention_forward(
    q, k, v, key_lengths, query_lengths, y, lse, scratch, control, heads, apart, causal, first,
    scale, keep, stream,
):  # fmt: skip
    size = q.shape[2] if apart else q.shape[2] // heads
    value_size = v.shape[2] if apart else v.shape[2] // heads
    weights = cuda.shared.array(THREADS, q.dtype)
    dropped = cuda.shared.array(THREADS, q.dtype)
    attend(q, k, v, 0, 0, size, value_size, key_lengths, query_lengths, y, lse, control, heads,
           apart, causal, first, scale, keep, stream, weights, dropped)  # fmt: skip


@cuda_kernel(
    like=cpu.self_attention_forward, bounds=THREADS,
    launch=lambda s: forward_launch({**s, "N": s["T"], "apart": 0}),
)  # fmt: skip
def self_attention_forward(
    x, lengths, y, lse, scratch, control, heads, causal, scale, keep, stream
):
    width = y.shape[2]
    weights = cuda.shared.array(THREADS, x.dtype)
    dropped = cuda.shared.array(THREADS, x.dtype)
    attend(x, x, x, width, 2 * width, width // heads, width // heads, lengths, lengths, y, lse,
           control, heads, 0, causal, 0, scale, keep, stream, weights, dropped)  # fmt: skip


@helper
def slope_to_query(
    q, k, v, k_from, v_from, y, lse, dy, dq, control, keys, queries, size, value_size, b, h,
    begin, n, m, heads, apart, causal, first, scale, keep, stream, slopes,
):  # fmt: skip
    """dq for a block's queries."""
    q_at, q_row = row_place(q, b, apart, h, queries, size, 0)
    k_at, k_row = row_place(k, b, apart, h, keys, size, k_from)
    v_at, v_row = row_place(v, b, apart, h, keys, value_size, v_from)
    y_at, y_row = row_place(y, b, apart, h, queries, value_size, 0)
    r, lane = thread_number() // KEYS, thread_number() % KEYS
    i = begin + r
    row = ((b * heads + h) * queries + i) * ((keys + GROUP - 1) // GROUP)
    reach = visible(causal, min(begin + ROWS, m) - 1, first, n) if begin < m else 0
    seen = visible(causal, i, first, n) if i < m else 0
    delta, known = cast(q, 0.0), cast(q, 0.0)
    if i < m:
        delta = dot(y, y_at + i * y_row, dy, y_at + i * y_row, value_size)
        known = lse[b, h * queries + i]
    if i < queries:
        fill_lane(dq, q_at + i * q_row, lane, size)
    for j in range(0, reach, KEYS):
        slope = cast(q, 0.0)
        if j + lane < seen:
            score = dot(q, q_at + i * q_row, k, k_at + (j + lane) * k_row, size) * scale
            d = dot(dy, y_at + i * y_row, v, v_at + (j + lane) * v_row, value_size)
            d = d * kept(q, control, stream, keep, row, j + lane)
            slope = (d - delta) * exp(score - known) * scale
        cuda.syncthreads()
        slopes[thread_number()] = slope
        cuda.syncthreads()
        add_rows(slopes, r * KEYS, max(0, min(seen - j, KEYS)), k, k_at + j * k_row, k_row, dq,
                 q_at + i * q_row if i < queries else 0, lane, size if i < m else 0,
                 cast(q, 1.0), False)  # fmt: skip


@helper
def slope_to_key(
    q, k, v, k_from, v_from, y, lse, dy, dk, dv, control, keys, queries, size, value_size, b, h,
    begin, n, m, heads, apart, causal, first, scale, keep, stream, slopes, weights,
):  # fmt: skip
    """dk and dv for a block's keys."""
    q_at, q_row = row_place(q, b, apart, h, queries, size, 0)
    k_at, k_row = row_place(k, b, apart, h, keys, size, k_from)
    v_at, v_row = row_place(v, b, apart, h, keys, value_size, v_from)
    y_at, y_row = row_place(y, b, apart, h, queries, value_size, 0)
    r, lane = thread_number() // KEYS, thread_number() % KEYS
    j = begin + r
    if j < keys:
        fill_lane(dk, k_at + j * k_row, lane, size)
        fill_lane(dv, v_at + j * v_row, lane, value_size)
    start = max(0, begin - first) if causal else 0
    for i0 in range(start, m if begin < n else 0, KEYS):
        i = i0 + lane
        slope, weight = cast(q, 0.0), cast(q, 0.0)
        if j < n and i < m and j < visible(causal, i, first, n):
            row = ((b * heads + h) * queries + i) * ((keys + GROUP - 1) // GROUP)
            z = kept(q, control, stream, keep, row, j)
            score = dot(q, q_at + i * q_row, k, k_at + j * k_row, size) * scale
            p = exp(score - lse[b, h * queries + i])
            d = dot(dy, y_at + i * y_row, v, v_at + j * v_row, value_size) * z
            delta = dot(y, y_at + i * y_row, dy, y_at + i * y_row, value_size)
            slope, weight = (d - delta) * p * scale, p * z
        cuda.syncthreads()
        slopes[thread_number()] = slope
        weights[thread_number()] = weight
        cuda.syncthreads()
        if j < n:
            count = min(m - i0, KEYS)
            add_rows(slopes, r * KEYS, count, q, q_at + i0 * q_row, q_row, dk, k_at + j * k_row,
                     lane, size, cast(q, 1.0), False)  # fmt: skip
            add_rows(weights, r * KEYS, count, dy, y_at + i0 * y_row, y_row, dv, v_at + j * v_row,
                     lane, value_size, cast(q, 1.0), False)  # fmt: skip


@helper
def attend_backward(
    q: Any, k: Any, v: Any, k_from: int, v_from: int, size: int, value_size: int, key_lengths: Any,
    query_lengths: Any, y: Any, lse: Any, dy: Any, dq: Any, dk: Any, dv: Any, control: Any,
    heads: int, apart: int, causal: int, first: int, scale: Any, keep: Any, stream: int,
    slopes: Any, weights: Any,
) -> None:  # fmt: skip
    """The backward pass; see `cpu.attend_backward`."""
    queries, keys = lse.shape[1] // heads, k.shape[1] // heads if apart else k.shape[1]
    number = block_number()
    with_queries = q.shape[0] * heads * ((queries + ROWS - 1) // ROWS)
    length = queries if number < with_queries else keys
    if number >= with_queries:
        number -= with_queries
    b, h, begin = block_place(number, length, heads)
    n, m = length_of(key_lengths, b, keys), length_of(query_lengths, b, queries)
    if n == 0:
        m = 0
    if block_number() < with_queries:
        slope_to_query(q, k, v, k_from, v_from, y, lse, dy, dq, control, keys, queries, size,
                       value_size, b, h,
                       begin, n, m, heads, apart, causal, first, scale, keep, stream,
                       slopes)  # fmt: skip
    else:
        slope_to_key(q, k, v, k_from, v_from, y, lse, dy, dk, dv, control, keys, queries, size,
                       value_size, b, h,
                     begin, n, m, heads, apart, causal, first, scale, keep, stream, slopes,
                     weights)  # fmt: skip


@cuda_kernel(like=cpu.attention_backward, launch=backward_launch, bounds=THREADS)
def attention_backward(
    q, k, v, key_lengths, query_lengths, y, lse, dy, dq, dk, dv, scratch, control, heads, apart,
    causal, first, scale, keep, stream,
):  # fmt: skip
    size = q.shape[2] if apart else q.shape[2] // heads
    value_size = v.shape[2] if apart else v.shape[2] // heads
    slopes = cuda.shared.array(THREADS, q.dtype)
    weights = cuda.shared.array(THREADS, q.dtype)
    attend_backward(q, k, v, 0, 0, size, value_size, key_lengths, query_lengths, y, lse, dy, dq, dk,
                    dv, control, heads, apart, causal, first, scale, keep, stream, slopes,
                    weights)  # fmt: skip


@cuda_kernel(
    like=cpu.self_attention_backward, bounds=THREADS,
    launch=lambda s: backward_launch({**s, "N": s["T"], "apart": 0}),
)  # fmt: skip
def self_attention_backward(
    x, lengths, y, lse, dy, dx, scratch, control, heads, causal, scale, keep, stream
):
    width = y.shape[2]
    slopes = cuda.shared.array(THREADS, x.dtype)
    weights = cuda.shared.array(THREADS, x.dtype)
    attend_backward(x, x, x, width, 2 * width, width // heads, width // heads, lengths, lengths, y,
                    lse, dy, dx, dx, dx, control, heads, 0, causal, 0, scale, keep, stream, slopes,
                    weights)  # fmt: skip
