"""Kernels that rearrange sequences: swapping batch and time, masks and lengths, what has ended.

B sequences of T steps; C numbers a step.
"""

from ..declare import helper, kernel
from ..simd import lanes, load, load_first, store, store_first
from ..traits import InPlace
from .shared import goes_on


@kernel(swaps_leading=True)
def swap_leading(x: "in whole f[B,T,C]", y: "out rows f[T,B,C]", lo: "begin", hi: "end"):
    """y[t,b] = x[b,t]: batch-first to time-first, and back with the letters exchanged."""
    b_count, t_count, c_count = x.shape
    w = lanes(x)
    for t in range(lo, hi):
        for b in range(b_count):
            source, sink = (b * t_count + t) * c_count, (t * b_count + b) * c_count
            for c in range(0, c_count, w):
                n = min(w, c_count - c)
                if n == w:
                    store(y, sink + c, load(x, source + c))
                else:
                    store_first(y, sink + c, load_first(x, source + c, n), n)


@kernel(swaps_leading=True)
def swap_leading_ids(x: "in whole i[B,T,C]", y: "out rows i[T,B,C]", lo: "begin", hi: "end"):
    """y[t,b] = x[b,t] for integers."""
    for t in range(lo, hi):
        for b in range(x.shape[0]):
            for c in range(x.shape[2]):
                y[t, b, c] = x[b, t, c]


@kernel
def length_mask(lengths: "in rows i[B]", y: "out rows f[B,T]", lo: "begin", hi: "end"):
    """y[b,t] = 1 where t < lengths[b], else 0."""
    for b in range(lo, hi):
        for t in range(y.shape[1]):
            y[b, t] = 1.0 if t < lengths[b] else 0.0


@kernel
def mask_length(mask: "in rows f[B,T]", y: "out rows i[B]", lo: "begin", hi: "end"):
    """y[b] is the number of steps of which mask[b,t] is not 0."""
    for b in range(lo, hi):
        count = 0
        for t in range(mask.shape[1]):
            if mask[b, t] != 0.0:
                count += 1
        y[b] = count


@kernel
def clear_ended(running: "in rows f[N]", y: "inout* rows f[N,C]", lo: "begin", hi: "end"):
    """y[n] = 0 where running[n] is 0, whatever stands there; N counts sequences in steps."""
    for n in range(lo, hi):
        if running[n] == 0.0:
            for c in range(y.shape[1]):
                y[n, c] = 0.0


@kernel
def clear_idle(running: "in whole f[T,B]", y: "inout* rows f[T,C]", lo: "begin", hi: "end"):
    """y[t] = 0 where running[t] is 0 for all sequences, whatever stands there."""
    for t in range(lo, hi):
        goes_on = False
        for b in range(running.shape[1]):
            if running[t, b] != 0.0:
                goes_on = True
                break
        if not goes_on:
            for c in range(y.shape[1]):
                y[t, c] = 0.0


@helper
def copy_row(x, source, y, sink, size):
    """y[sink:] = x[source:], so many numbers."""
    w = lanes(x)
    for j in range(0, size, w):
        n = min(w, size - j)
        if n == w:
            store(y, sink + j, load(x, source + j))
        else:
            store_first(y, sink + j, load_first(x, source + j, n), n)


@helper
def put_rows(tables, row, at, running, b):
    """Row at[b,w] of table w becomes row[b,w], where sequence b goes on and there is such a row."""
    K, W = tables.shape[1], at.shape[1]
    size, room = row.shape[1] // W, K // W
    if goes_on(running, b):
        for w in range(W):
            begin = at[b, w] * size
            if 0 <= begin < room:
                copy_row(row, (b * W + w) * size, tables, b * K + w * room + begin, size)


@kernel(in_place=InPlace("x", "y", "put_row_in_place"))
def put_row_forward(
    x: "in rows f[B,K]",  # W tables of a sequence, each of K/D rows of D/W numbers
    row: "in rows f[B,D]",
    at: "in rows i[B,W]",
    running: "in rows f[B]",  # absent: all 1
    y: "out rows f[B,K]",
    lo: "begin",
    hi: "end",
):
    """y = x, but for row at[b,w] of table w, which is row[b,w]; y = x where running is 0, and where
    there is no such row."""
    K = x.shape[1]
    for b in range(lo, hi):
        copy_row(x, b * K, y, b * K, K)
        put_rows(y, row, at, running, b)


@kernel
def put_row_in_place(
    x: "inout rows f[B,K]",
    row: "in rows f[B,D]",
    at: "in rows i[B,W]",
    running: "in rows f[B]",
    lo: "begin",
    hi: "end",
):
    """`put_row_forward` with x itself as the result: nothing but the rows is written."""
    for b in range(lo, hi):
        put_rows(x, row, at, running, b)


@kernel
def put_row_backward_row(
    at: "in rows i[B,W]",
    running: "in rows f[B]",
    dy: "in rows f[B,K]",
    drow: "out rows f[B,D]",
    lo: "begin",
    hi: "end",
):
    """The gradient at the row that was put; 0 where none was."""
    K, W = dy.shape[1], at.shape[1]
    size, room = drow.shape[1] // W, K // W
    for b in range(lo, hi):
        for w in range(W):
            begin, sink = at[b, w] * size, (b * W + w) * size
            if 0 <= begin < room and goes_on(running, b):
                copy_row(dy, b * K + w * room + begin, drow, sink, size)
            else:
                for j in range(size):
                    drow[b, w * size + j] = 0.0
