"""The GRU over whole sequences (Cho et al. 2014), gates in PyTorch's order r, z, n.

    r = sigmoid(x W_ir + b_ir + h W_hr + b_hr),  z likewise
    n = tanh(x W_in + b_in + r (h W_hn + b_hn))     reset after the product (PyTorch, cuDNN)
    n = tanh(x W_in + b_in + (r h) W_hn + b_hn)     reset `before` it (as in the paper)
    h' = (1 - z) n + z h

See `recurrent` for what letters and *turns* mean. A step's saved row is r, z, n and then
h W_hn + b_hn, or r h where the reset comes before.
"""

from typing import NamedTuple

from ..cpu.parts import add_row, copy_or_zero, copy_run, fill_row, load_part, store_part
from ..cpu.tile_unit import unit_begin, unit_end
from ..declare import helper, kernel
from ..places import Place, Rows
from ..recurrent.cpu import (
    INPUT_STEPS,
    add_at,
    load_at,
    multiply_inputs,
    multiply_state,
    packing_of,
    running,
    sort_by_length,
    store_at,
)
from ..recurrent.shared import Weight, length_of, padded, step_of
from ..scalar import sigmoid, tanh
from ..simd import lanes, splat
from .shared import gate_product_gradient, gru_gradient, gru_output


@helper
def gru_scratch(inputs, hidden):
    """Scratch elements for each sequence: [x, h]; sums of r, z, n and of h's part of n; r h;
    biases."""
    return padded(inputs + hidden) + 2 * padded(4 * hidden) + padded(hidden)


@helper
def gru_backward_scratch(hidden):
    """Scratch elements for each sequence: gradients of gates, of h, of r h."""
    return padded(3 * hidden) + 2 * padded(hidden)


@helper
def gate(s, z, bias, H, place, j, n):
    """sigmoid of a gate's sum and bias."""
    return sigmoid(load_part(s, z + place * H + j, n) + load_part(s, bias + place * H + j, n))


@helper
def reset_part(s, z, bias, h, rh, saved, k, H, j, n):
    """r and r h, for the product that follows."""
    r = gate(s, z, bias, H, 0, j, n)
    product = r * load_part(s, h + j, n)
    store_part(s, rh + j, product, n)
    store_part(saved, k + j, r, n)
    store_part(saved, k + 3 * H + j, product, n)


@helper
def gates_part(s, z, bias, reset_before, saved, k, H, j, n):
    """The gates z and (reset after the product) r of `n` units from unit j on, to saved."""
    store_part(saved, k + H + j, gate(s, z, bias, H, 1, j, n), n)
    if not reset_before:
        store_part(saved, k + j, gate(s, z, bias, H, 0, j, n), n)


@helper
def new_state(s, z, bias, h, reset_before, saved, k, y, i, H, j, n):
    """`n` units from unit j on: n to saved, the new state to h and y; gates are in saved."""
    v = load_part(s, z + 2 * H + j, n) + load_part(s, bias + 2 * H + j, n)
    if not reset_before:
        hn = load_part(s, z + 3 * H + j, n) + load_part(s, bias + 3 * H + j, n)
        store_part(saved, k + 3 * H + j, hn, n)
        v = v + load_part(saved, k + j, n) * hn
    new = tanh(v)
    out = gru_output(load_part(saved, k + H + j, n), new, load_part(s, h + j, n))
    store_part(saved, k + 2 * H + j, new, n)
    store_part(s, h + j, out, n)
    store_part(y, i + j, out, n)


@helper
def forward_row(s, z, bias, h, reset_before, saved, k, y, i, H):
    """A step of one sequence: the new state to h and y, gates to saved. Each loop has few
    functions, so what they need stays in the registers."""
    vector = lanes(s)
    whole = H - H % vector
    for j in range(0, whole, vector):
        gates_part(s, z, bias, reset_before, saved, k, H, j, vector)
    for j in range(0, whole, vector):
        new_state(s, z, bias, h, reset_before, saved, k, y, i, H, j, vector)
    if whole < H:
        gates_part(s, z, bias, reset_before, saved, k, H, whole, H - whole)
        new_state(s, z, bias, h, reset_before, saved, k, y, i, H, whole, H - whole)


@kernel(block=64, rounds=("x", "w_ih", "w_hh"), tile_unit=True)
def gru_forward(
    x: "in rows f[B,T,I]",
    lengths: "in rows i[B]",  # absent: all T
    w_ih: "in whole f[P,X]",  # [I,3H], packed or plain
    w_hh: "in whole f[Q,Y]",  # [H,3H], packed or plain
    b_ih: "in whole f[G]",  # may be absent
    b_hh: "in whole f[G]",  # may be absent
    h0: "in rows f[B,H]",  # absent: zeros
    y: "out rows f[B,T,H]",  # h of all steps, 0 past the end
    h_n: "out rows f[B,H]",
    saved: "out* rows f[B,Z]",
    scratch: "scratch rows f[B,S]",
    order: "scratch rows i[B]",
    packed: "int",  # 0 plain, 1 in panels, 1 + P: cut into P parts, IN_PAIRS
    reverse: "int",
    reset_before: "int",  # whether the reset comes before the product
    lo: "begin",
    hi: "end",
):
    """y and h_n; saved holds the gates for the backward pass."""
    T, I = x.shape[1], x.shape[2]
    H = y.shape[2]
    count = hi - lo
    wide, deep, cell = padded(I + H), padded(4 * H), padded(H)
    stride = padded(4 * H)
    xs = lo * scratch.shape[1]
    zs = xs + count * wide
    rs = zs + count * deep
    bias = rs + count * cell
    room = bias + deep
    sort_by_length(lengths, order, lo, hi, T)
    copy_or_zero(b_ih, 0, scratch, bias, 3 * H)
    if reset_before:
        add_row(b_hh, 0, scratch, bias, 3 * H)
    else:
        add_row(b_hh, 0, scratch, bias, 2 * H)
        copy_or_zero(b_hh, 2 * H, scratch, bias + 3 * H, H)
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
            multiply_inputs(x, lengths, w_ih, saved, saved.shape[1], stride, turn, lo, hi, reverse)
        for r in range(rows):
            b = order[lo + r]
            t = step_of(turn, length_of(lengths, b, T), reverse)
            if packed:
                copy_run(x, (b * T + t) * I, scratch, xs + r * wide, I)
            else:
                copy_run(saved, b * saved.shape[1] + t * stride, scratch, zs + r * deep, 3 * H)
        if packed:
            multiply_state(Rows(scratch, xs, wide), inputs_weight, 0, Rows(scratch, zs, deep), I,
                           rows, 0, 3 * H, True, room)  # fmt: skip
        multiply_state(Rows(scratch, xs + I, wide), state_weight, 0, Rows(scratch, zs, deep), H,
                       rows, 0, 2 * H, False, room)  # fmt: skip
        if not reset_before:
            multiply_state(Rows(scratch, xs + I, wide), state_weight, 0,
                           Rows(scratch, zs + 3 * H, deep), H, rows, 2 * H, 3 * H, True,
                           room)  # fmt: skip
        if reset_before:
            for r in range(rows):
                b = order[lo + r]
                t = step_of(turn, length_of(lengths, b, T), reverse)
                z, h, rh = zs + r * deep, xs + r * wide + I, rs + r * cell
                k = b * saved.shape[1] + t * stride
                for j in range(0, whole, vector):
                    reset_part(scratch, z, bias, h, rh, saved, k, H, j, vector)
                if whole < H:
                    reset_part(scratch, z, bias, h, rh, saved, k, H, whole, H - whole)
            multiply_state(Rows(scratch, rs, cell), state_weight, 0,
                           Rows(scratch, zs + 2 * H, deep), H, rows, 2 * H, 3 * H, False,
                           room)  # fmt: skip
        for r in range(rows):
            b = order[lo + r]
            t = step_of(turn, length_of(lengths, b, T), reverse)
            z, h = zs + r * deep, xs + r * wide + I
            k, i = b * saved.shape[1] + t * stride, (b * T + t) * H
            forward_row(scratch, z, bias, h, reset_before, saved, k, y, i, H)
    if packed > 1:
        unit_end(scratch)
    for r in range(count):
        b = order[lo + r]
        length = length_of(lengths, b, T)
        copy_run(scratch, xs + r * wide + I, h_n, b * H, H)
        fill_row(y, (b * T + length) * H, (T - length) * H, 0.0)


class Step(NamedTuple):
    """What a step of a sequence has for its gradient, and where its gradients go."""

    kept: Place  # the saved row
    before: Place  # h; its array may be absent
    dy: Place  # its array may be absent
    dz: Place
    dbias_ih: Place
    dbias_hh: Place


@helper
def backward_part(s, z, dh, step, reset_before, H, j, n):
    """`n` units from unit j on: gradients of z, n and (reset after the product) r."""
    kept, old, dy, dz = step.kept, step.before, step.dy, step.dz
    dbias_ih, dbias_hh = step.dbias_ih, step.dbias_hh
    zg, new = load_at(kept, H + j, n), load_at(kept, 2 * H + j, n)
    gradient = load_part(s, dh + j, n)
    state = splat(s, 0.0)
    if old.array.size > 0:
        state = load_at(old, j, n)
    if dy.array.size > 0:
        gradient = gradient + load_at(dy, j, n)
    dzg, dn, direct = gru_gradient(zg, new, state, gradient)
    store_part(s, dh + j, direct, n)
    store_part(s, z + H + j, dzg, n)
    store_at(dz, H + j, dzg, n)
    store_at(dz, 2 * H + j, dn, n)
    add_at(dbias_ih, H + j, dzg, n)
    add_at(dbias_ih, 2 * H + j, dn, n)
    dnh = dn
    if not reset_before:
        r = load_at(kept, j, n)
        dr = gate_product_gradient(r, load_at(kept, 3 * H + j, n), dn)
        dnh = dn * r
        store_part(s, z + j, dr, n)
        store_at(dz, j, dr, n)
        store_at(dz, 3 * H + j, dnh, n)
        add_at(dbias_ih, j, dr, n)
    store_part(s, z + 2 * H + j, dnh, n)
    add_at(dbias_hh, 2 * H + j, dnh, n)


@helper
def reset_backward_part(s, z, dh, drh, step, H, j, n):
    """Gradient of r and what comes to h through r h."""
    old, dz = step.before, step.dz
    r, g = load_at(step.kept, j, n), load_part(s, drh + j, n)
    state = splat(s, 0.0)
    if old.array.size > 0:
        state = load_at(old, j, n)
    dr = gate_product_gradient(r, state, g)
    store_part(s, dh + j, load_part(s, dh + j, n) + g * r, n)
    store_part(s, z + j, dr, n)
    store_at(dz, j, dr, n)
    add_at(step.dbias_ih, j, dr, n)


@kernel(block=64, tile_unit=True)
def gru_backward(
    lengths: "in rows i[B]",
    w_transposed: "in whole f[Q,Y]",  # the transposed w_hh [3H,H], packed or plain
    h0: "in rows f[B,H]",
    y: "in rows f[B,T,H]",
    saved: "in* rows f[B,Z]",
    dy: "in rows f[B,T,H]",  # may be absent, as may dh_n
    dh_n: "in rows f[B,H]",
    dz: "out* rows f[B,D]",  # to r, z, n (x's part), n (h's part); a step has stride padded(4H)
    dbias_ih: "out rows f[B,G]",  # sums over the steps of each sequence
    dbias_hh: "out rows f[B,G]",
    dh0: "out rows f[B,H]",
    scratch: "scratch rows f[B,S]",
    order: "scratch rows i[B]",
    reverse: "int",
    reset_before: "int",
    bptt: "int",  # gradients stop at turns that are multiples of it; 0: never
    lo: "begin",
    hi: "end",
):
    """Backpropagation through time: from the last turn to the first."""
    T, H = y.shape[1], y.shape[2]
    count = hi - lo
    deep, cell, stride = padded(3 * H), padded(H), padded(4 * H)
    zs = lo * scratch.shape[1]
    hs = zs + count * deep
    rs = hs + count * cell
    room = rs + count * cell
    sort_by_length(lengths, order, lo, hi, T)
    fill_row(dbias_ih, lo * 3 * H, count * 3 * H, 0.0)
    fill_row(dbias_hh, lo * 3 * H, count * 3 * H, 0.0)
    for r in range(count):
        copy_or_zero(dh_n, order[lo + r] * H, scratch, hs + r * cell, H)
    vector = lanes(scratch)
    whole = H - H % vector
    packed = packing_of(w_transposed, 3 * H, H)
    weight = Weight(w_transposed, packed, 3 * H)
    if packed > 1:
        unit_begin(scratch)
    for turn in range(T - 1, -1, -1):
        rows = running(lengths, order, lo, count, turn, T)
        for r in range(rows):
            b = order[lo + r]
            length = length_of(lengths, b, T)
            t = step_of(turn, length, reverse)
            z, dh = zs + r * deep, hs + r * cell
            k, e, d = b * saved.shape[1] + t * stride, (b * T + t) * H, b * dz.shape[1] + t * stride
            kept, out, gates = Place(saved, k), Place(dy, e), Place(dz, d)
            sums_ih, sums_hh = Place(dbias_ih, b * 3 * H), Place(dbias_hh, b * 3 * H)
            if turn > 0:
                i = (b * T + step_of(turn - 1, length, reverse)) * H
                step = Step(kept, Place(y, i), out, gates, sums_ih, sums_hh)
                for j in range(0, whole, vector):
                    backward_part(scratch, z, dh, step, reset_before, H, j, vector)
                if whole < H:
                    backward_part(scratch, z, dh, step, reset_before, H, whole, H - whole)
            else:
                first = Step(kept, Place(h0, b * H), out, gates, sums_ih, sums_hh)
                for j in range(0, H, lanes(y)):
                    backward_part(scratch, z, dh, first, reset_before, H, j, H - j)
        if reset_before and rows > 0:
            multiply_state(Rows(scratch, zs + 2 * H, deep), weight, 2 * H,
                           Rows(scratch, rs, cell), H, rows, 0, H, True, room)  # fmt: skip
            for r in range(rows):
                b = order[lo + r]
                length = length_of(lengths, b, T)
                t = step_of(turn, length, reverse)
                k, d = b * saved.shape[1] + t * stride, b * dz.shape[1] + t * stride
                z, dh, drh = zs + r * deep, hs + r * cell, rs + r * cell
                kept, out, gates = Place(saved, k), Place(dy, 0), Place(dz, d)
                sums_ih, sums_hh = Place(dbias_ih, b * 3 * H), Place(dbias_hh, b * 3 * H)
                if turn > 0:
                    i = (b * T + step_of(turn - 1, length, reverse)) * H
                    step = Step(kept, Place(y, i), out, gates, sums_ih, sums_hh)
                    for j in range(0, H, lanes(y)):
                        reset_backward_part(scratch, z, dh, drh, step, H, j, H - j)
                else:
                    first = Step(kept, Place(h0, b * H), out, gates, sums_ih, sums_hh)
                    for j in range(0, H, lanes(y)):
                        reset_backward_part(scratch, z, dh, drh, first, H, j, H - j)
        if bptt > 0 and turn % bptt == 0:
            for r in range(rows):
                fill_row(scratch, hs + r * cell, H, 0.0)
        elif rows > 0:
            multiply_state(Rows(scratch, zs, deep), weight, 0, Rows(scratch, hs, cell),
                           2 * H if reset_before else 3 * H, rows, 0, H, False,
                           room)  # fmt: skip
    if packed > 1:
        unit_end(scratch)
    for r in range(count):
        b = order[lo + r]
        copy_run(scratch, hs + r * cell, dh0, b * H, H)
        copy_run(dbias_ih, b * 3 * H, dbias_hh, b * 3 * H, 2 * H)
