"""The LSTM over whole sequences (Hochreiter and Schmidhuber 1997; peepholes: Gers et al. 2002).

    z = x W_ih + b_ih + h W_hh + b_hh, gates in PyTorch's order i, f, g, o
    c' = sigmoid(z_f) c + sigmoid(z_i) tanh(z_g),  h' = sigmoid(z_o) tanh(c')

With peepholes z_i and z_f have p_i c and p_f c added, z_o has p_o c'. See `recurrent` for what
letters and *turns* mean. A step's saved row is i, f, g, o, c'.
"""

from typing import Any, NamedTuple

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
from .shared import lstm_gradient, lstm_state


@helper
def lstm_scratch(inputs, hidden):
    """Scratch elements for each sequence: [x, h], gates, c, bias."""
    return padded(inputs + hidden) + padded(4 * hidden) + padded(hidden) + padded(4 * hidden)


@helper
def lstm_backward_scratch(hidden):
    """Scratch elements for each sequence: gradients of gates, h and c."""
    return padded(4 * hidden) + 2 * padded(hidden)


@helper
def gate_sum(s, z, bias, peephole, c, j, k, n):
    """What a gate's function is taken of: `n` units from number j of z and bias on, k of c on."""
    v = load_part(s, z + j, n) + load_part(s, bias + j, n)
    if peephole.size > 0:
        v = v + load_part(peephole, j, n) * load_part(s, c + k, n)
    return v


@helper
def two_gates(s, z, bias, c, peephole, saved, k, H, j, n):
    """The gates i and f of `n` units from unit j on, to saved."""
    store_part(saved, k + j, sigmoid(gate_sum(s, z, bias, peephole, c, j, j, n)), n)
    store_part(saved, k + H + j, sigmoid(gate_sum(s, z, bias, peephole, c, H + j, j, n)), n)


@helper
def candidate(s, z, bias, saved, k, j, n):
    """The gate g of `n` units from number j of a row on, to saved."""
    v = load_part(s, z + j, n) + load_part(s, bias + j, n)
    store_part(saved, k + j, tanh(v), n)


@helper
def new_state(s, z, bias, c, h, peephole, saved, k, y, i, H, j, n):
    """The gate o and the new c and h of `n` units from unit j on; the other gates are in saved."""
    zo = load_part(s, z + 3 * H + j, n) + load_part(s, bias + 3 * H + j, n)
    po = splat(s, 0.0)
    if peephole.size > 0:
        po = load_part(peephole, 2 * H + j, n)
    gi, gf = load_part(saved, k + j, n), load_part(saved, k + H + j, n)
    gg = load_part(saved, k + 2 * H + j, n)
    go, after, out = lstm_state(gi, gf, gg, zo, po, load_part(s, c + j, n))
    store_part(saved, k + 3 * H + j, go, n)
    store_part(saved, k + 4 * H + j, after, n)
    store_part(s, c + j, after, n)
    store_part(s, h + j, out, n)
    store_part(y, i + j, out, n)


@helper
def forward_row(s, z, bias, c, h, peephole, saved, k, y, i, H):
    """A step of one sequence: gates from scratch at z, new state to c, h, saved and y.

    `s` is the scratch memory; z, bias, c and h are where the arrays of the sequence begin in it. k
    and i are where the step's row begins in `saved` and in y, all as flat indices. Each loop has
    few functions, so what they need stays in the registers.
    """
    vector = lanes(s)
    whole = H - H % vector
    for j in range(0, whole, vector):
        two_gates(s, z, bias, c, peephole, saved, k, H, j, vector)
    for j in range(2 * H, 2 * H + whole, vector):
        candidate(s, z, bias, saved, k, j, vector)
    for j in range(0, whole, vector):
        new_state(s, z, bias, c, h, peephole, saved, k, y, i, H, j, vector)
    if whole < H:
        two_gates(s, z, bias, c, peephole, saved, k, H, whole, H - whole)
        candidate(s, z, bias, saved, k, 2 * H + whole, H - whole)
        new_state(s, z, bias, c, h, peephole, saved, k, y, i, H, whole, H - whole)


@kernel(block=64, rounds=("x", "w_ih", "w_hh"), tile_unit=True)
def lstm_forward(
    x: "in rows f[B,T,I]",
    lengths: "in rows i[B]",  # absent: all T
    w_ih: "in whole f[P,X]",  # [I,4H], packed or plain
    w_hh: "in whole f[Q,Y]",  # [H,4H], packed or plain
    b_ih: "in whole f[G]",  # may be absent
    b_hh: "in whole f[G]",  # may be absent
    peephole: "in whole f[R]",  # p_i, p_f, p_o; may be absent
    h0: "in rows f[B,H]",  # absent: zeros
    c0: "in rows f[B,H]",  # absent: zeros
    y: "out rows f[B,T,H]",  # h of all steps, 0 past the end
    h_n: "out rows f[B,H]",
    c_n: "out rows f[B,H]",
    saved: "out* rows f[B,Z]",
    scratch: "scratch rows f[B,S]",
    order: "scratch rows i[B]",
    packed: "int",  # 0 plain, 1 in panels, 1 + P: cut into P parts, IN_PAIRS
    reverse: "int",
    lo: "begin",
    hi: "end",
):
    """y, h_n and c_n; saved holds the gates and c for the backward pass."""
    T, I = x.shape[1], x.shape[2]
    H = y.shape[2]
    count = hi - lo
    wide, deep, cell = padded(I + H), padded(4 * H), padded(H)
    stride = padded(5 * H)
    xs = lo * scratch.shape[1]
    zs = xs + count * wide
    cs = zs + count * deep
    bias = cs + count * cell
    room = bias + deep
    sort_by_length(lengths, order, lo, hi, T)
    copy_or_zero(b_ih, 0, scratch, bias, 4 * H)
    add_row(b_hh, 0, scratch, bias, 4 * H)
    for r in range(count):
        b = order[lo + r]
        copy_or_zero(h0, b * H, scratch, xs + r * wide + I, H)
        copy_or_zero(c0, b * H, scratch, cs + r * cell, H)
    inputs_weight, state_weight = Weight(w_ih, packed, I), Weight(w_hh, packed, H)
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
                copy_run(saved, b * saved.shape[1] + t * stride, scratch, zs + r * deep, 4 * H)
        if packed:
            multiply_state(Rows(scratch, xs, wide), inputs_weight, 0, Rows(scratch, zs, deep), I,
                           rows, 0, 4 * H, True, room)  # fmt: skip
        multiply_state(Rows(scratch, xs + I, wide), state_weight, 0, Rows(scratch, zs, deep), H,
                       rows, 0, 4 * H, False, room)  # fmt: skip
        for r in range(rows):
            b = order[lo + r]
            t = step_of(turn, length_of(lengths, b, T), reverse)
            z, c, h = zs + r * deep, cs + r * cell, xs + r * wide + I
            k, i = b * saved.shape[1] + t * stride, (b * T + t) * H
            forward_row(scratch, z, bias, c, h, peephole, saved, k, y, i, H)
    if packed > 1:
        unit_end(scratch)
    for r in range(count):
        b = order[lo + r]
        length = length_of(lengths, b, T)
        copy_run(scratch, xs + r * wide + I, h_n, b * H, H)
        copy_run(scratch, cs + r * cell, c_n, b * H, H)
        fill_row(y, (b * T + length) * H, (T - length) * H, 0.0)


class Step(NamedTuple):
    """What a step of a sequence has for its gradient, and where its gradients go."""

    kept: Place  # gates and c'
    before: Place  # c; its array may be absent
    dy: Place  # its array may be absent
    peephole: Any
    dz: Place
    dbias: Place
    dpeephole: Place


@helper
def backward_part(s, z, dh, dc, step, H, j, n):
    """`n` units from unit j on: gradients of the gates to scratch at z and to the step's. At z are
    the hyperbolic tangents of c'."""
    kept, before, dy, peephole = step.kept, step.before, step.dy, step.peephole
    dz, dbias, dpeephole = step.dz, step.dbias, step.dpeephole
    gi, gf = load_at(kept, j, n), load_at(kept, H + j, n)
    gg, go = load_at(kept, 2 * H + j, n), load_at(kept, 3 * H + j, n)
    old = splat(s, 0.0)
    if before.array.size > 0:
        old = load_at(before, j, n)
    gradient = load_part(s, dh + j, n)
    if dy.array.size > 0:
        gradient = gradient + load_at(dy, j, n)
    po = splat(s, 0.0)
    if peephole.size > 0:
        po = load_part(peephole, 2 * H + j, n)
    di, df, dg, do, dold = lstm_gradient(
        gi, gf, gg, go, po, old, load_part(s, z + j, n), gradient, load_part(s, dc + j, n)
    )
    if peephole.size > 0:
        dold = dold + di * load_part(peephole, j, n) + df * load_part(peephole, H + j, n)
        add_at(dpeephole, j, di * old, n)
        add_at(dpeephole, H + j, df * old, n)
        add_at(dpeephole, 2 * H + j, do * load_at(kept, 4 * H + j, n), n)
    store_part(s, dc + j, dold, n)
    store_part(s, z + j, di, n)
    store_part(s, z + H + j, df, n)
    store_part(s, z + 2 * H + j, dg, n)
    store_part(s, z + 3 * H + j, do, n)
    store_at(dz, j, di, n)
    store_at(dz, H + j, df, n)
    store_at(dz, 2 * H + j, dg, n)
    store_at(dz, 3 * H + j, do, n)
    add_at(dbias, j, di, n)
    add_at(dbias, H + j, df, n)
    add_at(dbias, 2 * H + j, dg, n)
    add_at(dbias, 3 * H + j, do, n)


@kernel(block=64, tile_unit=True)
def lstm_backward(
    lengths: "in rows i[B]",
    w_transposed: "in whole f[Q,Y]",  # the transposed w_hh [4H,H], packed or plain
    peephole: "in whole f[R]",
    c0: "in rows f[B,H]",
    saved: "in* rows f[B,Z]",
    dy: "in rows f[B,T,H]",  # may be absent, as may dh_n and dc_n
    dh_n: "in rows f[B,H]",
    dc_n: "in rows f[B,H]",
    dz: "out* rows f[B,D]",  # gradients of the gates, a step's row has stride padded(4H)
    dbias: "out rows f[B,G]",  # their sums over the steps of each sequence
    dpeephole: "out rows f[B,R]",  # likewise; may be absent
    dh0: "out rows f[B,H]",
    dc0: "out rows f[B,H]",
    scratch: "scratch rows f[B,S]",
    order: "scratch rows i[B]",
    reverse: "int",
    steps: "int",  # T
    bptt: "int",  # gradients stop at turns that are multiples of it; 0: never
    lo: "begin",
    hi: "end",
):
    """Backpropagation through time: from the last turn to the first."""
    H, T = dh0.shape[1], steps
    count = hi - lo
    deep, cell = padded(4 * H), padded(H)
    stride = padded(5 * H)
    zs = lo * scratch.shape[1]
    hs = zs + count * deep
    cs = hs + count * cell
    room = cs + count * cell
    sort_by_length(lengths, order, lo, hi, T)
    for b in range(lo, hi):
        fill_row(dbias, b * 4 * H, 4 * H, 0.0)
        fill_row(dpeephole, b * peephole.size, peephole.size, 0.0)
    for r in range(count):
        b = order[lo + r]
        copy_or_zero(dh_n, b * H, scratch, hs + r * cell, H)
        copy_or_zero(dc_n, b * H, scratch, cs + r * cell, H)
    vector = lanes(scratch)
    whole = H - H % vector
    packed = packing_of(w_transposed, 4 * H, H)
    weight = Weight(w_transposed, packed, 4 * H)
    if packed > 1:
        unit_begin(scratch)
    for turn in range(T - 1, -1, -1):
        rows = running(lengths, order, lo, count, turn, T)
        for r in range(rows):
            b = order[lo + r]
            length = length_of(lengths, b, T)
            t = step_of(turn, length, reverse)
            z, dh, dc = zs + r * deep, hs + r * cell, cs + r * cell
            k, e, d = b * saved.shape[1] + t * stride, (b * T + t) * H, b * dz.shape[1] + t * deep
            kept, sums = Place(saved, k), Place(dbias, b * 4 * H)
            out, gates = Place(dy, e), Place(dz, d)
            peepholes = Place(dpeephole, b * peephole.size)
            for j in range(0, whole, vector):
                store_part(scratch, z + j, tanh(load_at(kept, 4 * H + j, vector)), vector)
            if whole < H:
                after = load_at(kept, 4 * H + whole, H - whole)
                store_part(scratch, z + whole, tanh(after), H - whole)
            if turn > 0:
                i = b * saved.shape[1] + step_of(turn - 1, length, reverse) * stride + 4 * H
                step = Step(kept, Place(saved, i), out, peephole, gates, sums, peepholes)
                for j in range(0, whole, vector):
                    backward_part(scratch, z, dh, dc, step, H, j, vector)
                if whole < H:
                    backward_part(scratch, z, dh, dc, step, H, whole, H - whole)
            else:
                first = Step(kept, Place(c0, b * H), out, peephole, gates, sums, peepholes)
                for j in range(0, H, vector):
                    backward_part(scratch, z, dh, dc, first, H, j, H - j)
        if bptt > 0 and turn % bptt == 0:
            for r in range(rows):
                fill_row(scratch, hs + r * cell, H, 0.0)
                fill_row(scratch, cs + r * cell, H, 0.0)
        elif rows > 0:
            multiply_state(Rows(scratch, zs, deep), weight, 0, Rows(scratch, hs, cell), 4 * H,
                           rows, 0, H, True, room)  # fmt: skip
    if packed > 1:
        unit_end(scratch)
    for r in range(count):
        b = order[lo + r]
        copy_run(scratch, hs + r * cell, dh0, b * H, H)
        copy_run(scratch, cs + r * cell, dc0, b * H, H)
