"""Kernels that rearrange sequences: swapping batch and time, masks and lengths, what has ended.

B sequences of T steps; C numbers a step.
"""

from ..cuda.device import can_load4, divide_index, flat, flat_index, fours_launch, load4, store4
from ..declare import ceil_div, cuda_kernel
from . import cpu
from .shared import goes_on


@cuda_kernel(like=cpu.swap_leading, launch=lambda s: fours_launch(s["B"] * s["T"] * s["C"]))
def swap_leading(x, y):
    B, T, C = x.shape
    i, size = 4 * flat_index(), y.size
    if i >= size:
        return
    row = divide_index(i, C)
    c = i - row * C
    t = divide_index(row, B)
    b = row - t * B
    if C & 3 == 0 and can_load4(x) and can_load4(y):
        v0, v1, v2, v3 = load4(x, (b * T + t) * C + c)
        store4(y, i, v0, v1, v2, v3)
        return
    for k in range(i, min(i + 4, size)):
        flat(y)[k] = x[b, t, c]
        c += 1
        if c == C:
            b, c = b + 1, 0
        if b == B:
            t, b = t + 1, 0


@cuda_kernel(like=cpu.swap_leading_ids, launch=lambda s: fours_launch(s["B"] * s["T"] * s["C"]))
def swap_leading_ids(x, y):
    B, C = x.shape[0], x.shape[2]
    i, size = 4 * flat_index(), y.size
    row = divide_index(i, C)
    c = i - row * C
    t = divide_index(row, B)
    b = row - t * B
    for k in range(i, min(i + 4, size)):
        flat(y)[k] = x[b, t, c]
        c += 1
        if c == C:
            b, c = b + 1, 0
        if b == B:
            t, b = t + 1, 0


@cuda_kernel(like=cpu.length_mask, launch=lambda s: fours_launch(4 * s["B"] * s["T"]))
def length_mask(lengths, y):
    i, T = flat_index(), y.shape[1]
    if i < y.size:
        b = divide_index(i, T)
        flat(y)[i] = 1.0 if i - b * T < lengths[b] else 0.0


@cuda_kernel(like=cpu.mask_length, launch=lambda s: fours_launch(4 * s["B"]))
def mask_length(mask, y):
    b = flat_index()
    if b < y.size:
        count = 0
        for t in range(mask.shape[1]):
            if mask[b, t] != 0.0:
                count += 1
        y[b] = count


@cuda_kernel(like=cpu.clear_ended, launch=lambda s: fours_launch(4 * s["N"] * s["C"]))
def clear_ended(running, y):
    i = flat_index()
    if i < y.size and running[divide_index(i, y.shape[1])] == 0.0:
        flat(y)[i] = 0.0


@cuda_kernel(like=cpu.clear_idle, launch=lambda s: fours_launch(4 * s["T"] * s["C"]))
def clear_idle(running, y):
    i = flat_index()
    if i < y.size:
        t = divide_index(i, y.shape[1])
        for b in range(running.shape[1]):
            if running[t, b] != 0.0:
                return
        flat(y)[i] = 0.0


def put_launch(s):
    """A thread for each number of the tables."""
    return ceil_div(s["B"] * s["K"], 256), 256


def rows_launch(s):
    """A thread for each number of the rows."""
    return ceil_div(s["B"] * s["D"], 256), 256


@cuda_kernel(like=cpu.put_row_forward, launch=put_launch, bounds=256)
def put_row_forward(x, row, at, running, y):
    i = flat_index()
    if i >= x.size:
        return
    K, W = x.shape[1], at.shape[1]
    size, room = row.shape[1] // W, K // W
    b = divide_index(i, K)
    w = (i - b * K) // room
    j = i - b * K - w * room - at[b, w] * size
    inside = 0 <= j < size and goes_on(running, b)
    flat(y)[i] = row[b, w * size + j] if inside else flat(x)[i]


@cuda_kernel(like=cpu.put_row_in_place, launch=rows_launch, bounds=256)
def put_row_in_place(x, row, at, running):
    i = flat_index()
    if i >= row.size:
        return
    K, D, W = x.shape[1], row.shape[1], at.shape[1]
    size, room = D // W, K // W
    b = divide_index(i, D)
    w = (i - b * D) // size
    begin = at[b, w] * size
    if 0 <= begin < room and goes_on(running, b):
        x[b, w * room + begin + i - b * D - w * size] = flat(row)[i]


@cuda_kernel(like=cpu.put_row_backward_row, launch=rows_launch, bounds=256)
def put_row_backward_row(at, running, dy, drow):
    i = flat_index()
    if i >= drow.size:
        return
    K, D, W = dy.shape[1], drow.shape[1], at.shape[1]
    size, room = D // W, K // W
    b = divide_index(i, D)
    w = (i - b * D) // size
    begin = at[b, w] * size
    inside = 0 <= begin < room and goes_on(running, b)
    flat(drow)[i] = dy[b, w * room + begin + i - b * D - w * size] if inside else 0.0
