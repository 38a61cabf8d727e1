"""Simple recurrent nets over whole sequences (Elman 1990), and leaky sums over time.

    h' = f(x W_ih + b_ih + h W_hh + b_hh),  f = tanh (0), relu (1) or sigmoid (2)

See `recurrent` for what letters and *turns* mean.
"""

from ..cpu.parts import add_row, copy_or_zero, copy_run, fill_row, load_part, store_part
from ..cpu.tile_unit import unit_begin, unit_end
from ..declare import helper, kernel
from ..places import Rows
from ..recurrent.cpu import (
    INPUT_STEPS,
    multiply_inputs,
    multiply_state,
    packing_of,
    running,
    sort_by_length,
)
from ..recurrent.shared import Weight, length_of, padded, step_of
from ..simd import fma, lanes
from .shared import activate, activate_gradient


@helper
def rnn_scratch(inputs, hidden):
    """Scratch elements for each sequence: [x, h], sums, bias."""
    return padded(inputs + hidden) + 2 * padded(hidden)


@helper
def rnn_backward_scratch(hidden):
    """Scratch elements for each sequence: gradients of sums and of h."""
    return 2 * padded(hidden)


@helper
def forward_part(s, z, bias, h, y, i, activation, j, n):
    """`n` units from unit j on: from the sums in scratch at z to the new h, in scratch and in y."""
    out = activate(load_part(s, z + j, n) + load_part(s, bias + j, n), activation)
    store_part(s, h + j, out, n)
    store_part(y, i + j, out, n)


@kernel(block=64, tile_unit=True, rounds=("x", "w_ih", "w_hh"))
def rnn_forward(
    x: "in rows f[B,T,I]",
    lengths: "in rows i[B]",  # absent: all T
    w_ih: "in whole f[P,X]",  # [I,H], packed or plain
    w_hh: "in whole f[Q,Y]",  # [H,H], packed or plain
    b_ih: "in whole f[G]",  # may be absent
    b_hh: "in whole f[G]",  # may be absent
    h0: "in rows f[B,H]",  # absent: zeros
    y: "out rows f[B,T,H]",  # h of all steps, 0 past the end
    h_n: "out rows f[B,H]",
    scratch: "scratch rows f[B,S]",
    order: "scratch rows i[B]",
    packed: "int",  # 0 plain, 1 in panels, 1 + P: cut into P parts, IN_PAIRS
    reverse: "int",
    activation: "int",
    lo: "begin",
    hi: "end",
):
    """y and h_n."""
    T, I = x.shape[1], x.shape[2]
    H = y.shape[2]
    count = hi - lo
    wide, deep = padded(I + H), padded(H)
    xs = lo * scratch.shape[1]
    zs = xs + count * wide
    bias = zs + count * deep
    room = bias + deep
    sort_by_length(lengths, order, lo, hi, T)
    copy_or_zero(b_ih, 0, scratch, bias, H)
    add_row(b_hh, 0, scratch, bias, H)
    for r in range(count):
        copy_or_zero(h0, order[lo + r] * H, scratch, xs + r * wide + I, H)
    inputs_weight, state_weight = Weight(w_ih, packed, I), Weight(w_hh, packed, H)
    vector = lanes(x)
    whole = H - H % vector
    rows = count
    if packed > 1:
        unit_begin(scratch)
    for turn in range(T):
        rows = running(lengths, order, lo, rows, turn, T)
        if rows == 0:
            break
        if not packed and turn % INPUT_STEPS == 0:
            multiply_inputs(x, lengths, w_ih, y, T * H, H, turn, lo, hi, reverse)
        for r in range(rows):
            b = order[lo + r]
            t = step_of(turn, length_of(lengths, b, T), reverse)
            if packed:
                copy_run(x, (b * T + t) * I, scratch, xs + r * wide, I)
            else:
                copy_run(y, (b * T + t) * H, scratch, zs + r * deep, H)
        if packed:
            multiply_state(Rows(scratch, xs, wide), inputs_weight, 0, Rows(scratch, zs, deep), I,
                           rows, 0, H, True, room)  # fmt: skip
        multiply_state(Rows(scratch, xs + I, wide), state_weight, 0, Rows(scratch, zs, deep), H,
                       rows, 0, H, False, room)  # fmt: skip
        for r in range(rows):
            b = order[lo + r]
            t = step_of(turn, length_of(lengths, b, T), reverse)
            z, h, i = zs + r * deep, xs + r * wide + I, (b * T + t) * H
            for j in range(0, whole, vector):
                forward_part(scratch, z, bias, h, y, i, activation, j, vector)
            if whole < H:
                forward_part(scratch, z, bias, h, y, i, activation, whole, H - whole)
    if packed > 1:
        unit_end(scratch)
    for r in range(count):
        b = order[lo + r]
        length = length_of(lengths, b, T)
        copy_run(scratch, xs + r * wide + I, h_n, b * H, H)
        fill_row(y, (b * T + length) * H, (T - length) * H, 0.0)


@helper
def backward_part(s, z, dh, y, e, dy, dz, d, dbias, q, activation, j, n):
    """`n` units from unit j on: from the gradient of h to that of the sums, for the step before (in
    scratch at z), for the weights (dz) and for the bias (dbias)."""
    gradient = load_part(s, dh + j, n)
    if dy.size > 0:
        gradient = gradient + load_part(dy, e + j, n)
    gradient = activate_gradient(load_part(y, e + j, n), gradient, activation)
    store_part(s, z + j, gradient, n)
    store_part(dz, d + j, gradient, n)
    store_part(dbias, q + j, load_part(dbias, q + j, n) + gradient, n)


@kernel(block=64, tile_unit=True)
def rnn_backward(
    lengths: "in rows i[B]",
    w_transposed: "in whole f[Q,Y]",  # the transposed w_hh [H,H], packed or plain
    y: "in rows f[B,T,H]",
    dy: "in rows f[B,T,H]",  # may be absent, as may dh_n
    dh_n: "in rows f[B,H]",
    dz: "out* rows f[B,D]",  # gradients of the sums, a step's row has stride padded(H)
    dbias: "out rows f[B,H]",  # their sums over the steps of each sequence
    dh0: "out rows f[B,H]",
    scratch: "scratch rows f[B,S]",
    order: "scratch rows i[B]",
    reverse: "int",
    activation: "int",
    bptt: "int",  # gradients stop at turns that are multiples of it; 0: never
    lo: "begin",
    hi: "end",
):
    """Backpropagation through time: from the last turn to the first."""
    T, H = y.shape[1], y.shape[2]
    count = hi - lo
    deep = padded(H)
    zs = lo * scratch.shape[1]
    hs = zs + count * deep
    room = hs + count * deep
    sort_by_length(lengths, order, lo, hi, T)
    fill_row(dbias, lo * H, count * H, 0.0)
    for r in range(count):
        copy_or_zero(dh_n, order[lo + r] * H, scratch, hs + r * deep, H)
    vector = lanes(scratch)
    whole = H - H % vector
    packed = packing_of(w_transposed, H, H)
    weight = Weight(w_transposed, packed, H)
    if packed > 1:
        unit_begin(scratch)
    for turn in range(T - 1, -1, -1):
        rows = running(lengths, order, lo, count, turn, T)
        for r in range(rows):
            b = order[lo + r]
            t = step_of(turn, length_of(lengths, b, T), reverse)
            z, dh, e, d = zs + r * deep, hs + r * deep, (b * T + t) * H, b * dz.shape[1] + t * deep
            for j in range(0, whole, vector):
                backward_part(scratch, z, dh, y, e, dy, dz, d, dbias, b * H, activation, j,
                              vector)  # fmt: skip
            if whole < H:
                backward_part(scratch, z, dh, y, e, dy, dz, d, dbias, b * H, activation, whole,
                              H - whole)  # fmt: skip
        if bptt > 0 and turn % bptt == 0:
            for r in range(rows):
                fill_row(scratch, hs + r * deep, H, 0.0)
        elif rows > 0:
            multiply_state(Rows(scratch, zs, deep), weight, 0, Rows(scratch, hs, deep), H, rows,
                           0, H, True, room)  # fmt: skip
    if packed > 1:
        unit_end(scratch)
    for r in range(count):
        copy_run(scratch, hs + r * deep, dh0, order[lo + r] * H, H)


# ---------------------------------------------------------------- leaky sums


@kernel(block=64)
def leaky_forward(
    x: "in rows f[B,T,C]",
    lengths: "in rows i[B]",  # absent: all T
    h0: "in rows f[B,C]",  # absent: zeros
    y: "out rows f[B,T,C]",  # 0 past the end
    h_n: "out rows f[B,C]",
    keep: "real",
    reverse: "int",
    lo: "begin",
    hi: "end",
):
    """y_t = (1 - keep) x_t + keep y_(t-1), the slow context units of Mikolov et al. (2014)."""
    T, C = x.shape[1], x.shape[2]
    for b in range(lo, hi):
        length = length_of(lengths, b, T)
        copy_or_zero(h0, b * C, h_n, b * C, C)
        for turn in range(length):
            i = (b * T + step_of(turn, length, reverse)) * C
            for j in range(0, C, lanes(x)):
                n = C - j
                v = load_part(x, i + j, n) * (1.0 - keep)
                v = fma(load_part(h_n, b * C + j, n), keep, v)
                store_part(h_n, b * C + j, v, n)
                store_part(y, i + j, v, n)
        fill_row(y, (b * T + length) * C, (T - length) * C, 0.0)


@kernel(block=64)
def leaky_backward(
    lengths: "in rows i[B]",
    dy: "in rows f[B,T,C]",  # may be absent, as may dh_n
    dh_n: "in rows f[B,C]",
    dx: "out rows f[B,T,C]",
    dh0: "out rows f[B,C]",
    keep: "real",
    reverse: "int",
    bptt: "int",  # gradients stop at turns that are multiples of it; 0: never
    lo: "begin",
    hi: "end",
):
    """dx_t = (1 - keep) g_t, where g_t = dy_t + keep g_(t+1)."""
    T, C = dx.shape[1], dx.shape[2]
    for b in range(lo, hi):
        length = length_of(lengths, b, T)
        copy_or_zero(dh_n, b * C, dh0, b * C, C)
        for turn in range(length - 1, -1, -1):
            i = (b * T + step_of(turn, length, reverse)) * C
            add_row(dy, i, dh0, b * C, C)
            stop = bptt > 0 and turn % bptt == 0
            for j in range(0, C, lanes(dx)):
                n = C - j
                g = load_part(dh0, b * C + j, n)
                store_part(dx, i + j, g * (1.0 - keep), n)
                store_part(dh0, b * C + j, g * (keep * 0.0 if stop else keep), n)
        fill_row(dx, (b * T + length) * C, (T - length) * C, 0.0)
