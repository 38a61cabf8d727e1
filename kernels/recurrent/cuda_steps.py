"""One turn a launch: for nets whose weights don't fit into the blocks' shared memory.

The recurrent products are made by the kernels of `matmul`, a launch each: on the way forward
zh = h W_hh + b_hh, then a kernel of this file for the rest of the turn; backward first the kernel,
then dh = dz_step W_hh^T for the turn before. Sequences past their end take part with zeros. `h_n`
and `c_n` are the state on the way forward. Formulas and what is saved are those of `rnn`, `lstm`
and `gru`.
"""

from ..cuda.device import cast, divide_index, flat, flat_index
from ..declare import ceil_div, cuda_kernel
from ..gru.cuda import forward_unit as gru_unit
from ..gru.cuda import keep_gradient as keep_gru_gradient
from ..gru.cuda import keep_unit as keep_gru
from ..gru.shared import gate_product_gradient, gru_gradient
from ..lstm.cuda import backward_unit as lstm_unit_backward
from ..lstm.cuda import cell_before
from ..lstm.cuda import forward_unit as lstm_unit
from ..lstm.cuda import keep_gradient as keep_lstm_gradient
from ..lstm.cuda import keep_unit as keep_lstm
from ..rnn.cuda import activate, activate_gradient
from ..scalar import sigmoid
from .cuda import THREADS, bias_or_zero, output_before, value_or_zero
from .shared import length_of, step_of


def launch_units(sizes: dict[str, int]) -> tuple[int, int]:
    """A thread for each unit of each sequence."""
    return ceil_div(sizes["B"] * sizes["H"], THREADS), THREADS


def this_turn(sizes: dict[str, int]) -> tuple[int, int, int]:
    """What a turn writes of (B, T, ...): a step of each sequence, another one in each turn."""
    return sizes["turn"], sizes["turn"] + 1, sizes["T"]


@cuda_kernel(launch=launch_units)
def state_begin(
    given: "in rows f[B,H]",  # absent: zeros
    state: "out rows f[B,H]",
):
    """A cell's state before the first turn."""
    i = flat_index()
    if i < state.size:
        b = divide_index(i, state.shape[1])
        j = i - b * state.shape[1]
        state[b, j] = value_or_zero(given, b, j)


@cuda_kernel(launch=launch_units)
def state_begin_backward(
    lengths: "in rows i[B]",
    carried: "in rows f[B,H]",  # gradient that came through the turns, to the first state
    direct: "in rows f[B,H]",  # another part of it; may be absent
    final: "in rows f[B,H]",  # gradient of the final state; may be absent
    gradient: "out rows f[B,H]",
    steps: "int",
    bptt: "int",
):
    """The gradient of the first state: nothing comes through where it is truncated, and a sequence
    of no steps hands the final state's on."""
    i = flat_index()
    if i < gradient.size:
        b = divide_index(i, gradient.shape[1])
        j = i - b * gradient.shape[1]
        value = cast(gradient, 0)
        if length_of(lengths, b, steps) == 0:
            value = value_or_zero(final, b, j)
        elif bptt == 0:
            value = carried[b, j] + value_or_zero(direct, b, j)
        gradient[b, j] = value


# ---------------------------------------------------------------- simple recurrent nets


@cuda_kernel(launch=launch_units, share=this_turn)
def rnn_step_forward(
    zx: "in rows f[B,T,H]",
    zh: "in rows f[B,H]",  # h W_hh + b_hh
    lengths: "in rows i[B]",
    y: "part rows f[B,T,H]",
    h_n: "inout rows f[B,H]",
    reverse: "int",
    activation: "int",
    turn: "int",
):
    """One turn of `rnn_persistent_forward`; sequences past their end keep their state."""
    T, H = y.shape[1], y.shape[2]
    i = flat_index()
    if i >= h_n.size:
        return
    b = divide_index(i, H)
    j = i - b * H
    length = length_of(lengths, b, T)
    if turn >= length:
        y[b, turn, j] = cast(y, 0)
        return
    t = step_of(turn, length, reverse)
    h = activate(zx[b, t, j] + zh[b, j], activation)
    y[b, t, j] = h
    h_n[b, j] = h


@cuda_kernel(launch=launch_units, share=this_turn)
def rnn_step_backward(
    lengths: "in rows i[B]",
    h0: "in rows f[B,H]",
    y: "in rows f[B,T,H]",
    dy: "in rows f[B,T,H]",
    dh_n: "in rows f[B,H]",
    dh: "in rows f[B,H]",  # from the turn after: dz_step W_hh^T
    dz: "part rows f[B,T,H]",
    dz_step: "out rows f[B,H]",  # this turn's row of dz, 0 where a sequence has none
    before: "part rows f[B,T,H]",
    reverse: "int",
    activation: "int",
    bptt: "int",
    turn: "int",
):
    """One turn of `rnn_persistent_backward`."""
    T, H = y.shape[1], y.shape[2]
    i = flat_index()
    if i >= dz_step.size:
        return
    b = divide_index(i, H)
    j = i - b * H
    length = length_of(lengths, b, T)
    if turn >= length:
        before[b, turn, j] = cast(y, 0)
        dz[b, turn, j] = cast(y, 0)
        dz_step[b, j] = cast(y, 0)
        return
    t = step_of(turn, length, reverse)
    gradient = cast(y, 0)
    if turn == length - 1:
        gradient = value_or_zero(dh_n, b, j)
    elif bptt == 0 or (turn + 1) % bptt != 0:
        gradient = dh[b, j]
    if dy.size > 0:
        gradient += dy[b, t, j]
    gradient = activate_gradient(y[b, t, j], gradient, activation)
    before[b, t, j] = output_before(flat(y), h0, H, b, T, turn, length, reverse, j)
    dz[b, t, j] = gradient
    dz_step[b, j] = gradient


# ---------------------------------------------------------------- LSTM


@cuda_kernel(launch=launch_units, share=this_turn)
def lstm_step_forward(
    zx: "in rows f[B,T,G]",
    zh: "in rows f[B,G]",  # h W_hh + b_hh
    lengths: "in rows i[B]",
    peephole: "in whole f[R]",
    y: "part rows f[B,T,H]",
    h_n: "inout rows f[B,H]",
    c_n: "inout rows f[B,H]",
    saved: "part* rows f[B,Z]",
    reverse: "int",
    turn: "int",
):
    """One turn of `lstm_persistent_forward`; sequences past their end keep their state."""
    T, H = y.shape[1], y.shape[2]
    i = flat_index()
    if i >= h_n.size:
        return
    b = divide_index(i, H)
    j = i - b * H
    length = length_of(lengths, b, T)
    if turn >= length:
        y[b, turn, j] = cast(y, 0)
        return
    t = step_of(turn, length, reverse)
    zi, zf = zx[b, t, j] + zh[b, j], zx[b, t, H + j] + zh[b, H + j]
    zg, zo = zx[b, t, 2 * H + j] + zh[b, 2 * H + j], zx[b, t, 3 * H + j] + zh[b, 3 * H + j]
    pi, pf = bias_or_zero(peephole, True, j), bias_or_zero(peephole, True, H + j)
    po = bias_or_zero(peephole, True, 2 * H + j)
    gi, gf, gg, go, c, h = lstm_unit(zi, zf, zg, zo, pi, pf, po, c_n[b, j])
    keep_lstm(gi, gf, gg, go, c, h, flat(saved), flat(y), b * T + t, H, j)
    h_n[b, j] = h
    c_n[b, j] = c


@cuda_kernel(launch=launch_units, share=this_turn)
def lstm_step_backward(
    lengths: "in rows i[B]",
    peephole: "in whole f[R]",
    h0: "in rows f[B,H]",
    c0: "in rows f[B,H]",
    y: "in rows f[B,T,H]",
    saved: "in* rows f[B,Z]",
    dy: "in rows f[B,T,H]",
    dh_n: "in rows f[B,H]",
    dc_n: "in rows f[B,H]",
    dh: "in rows f[B,H]",  # from the turn after: dz_step W_hh^T
    dc: "inout rows f[B,H]",
    dz: "part rows f[B,T,G]",
    dz_step: "out rows f[B,G]",  # this turn's row of dz, 0 where a sequence has none
    before: "part rows f[B,T,H]",
    dpeephole: "inout rows f[B,R]",
    reverse: "int",
    bptt: "int",
    turn: "int",
):
    """One turn of `lstm_persistent_backward`; dc is 0 before the first."""
    T, H = y.shape[1], y.shape[2]
    i = flat_index()
    if i >= dc.size:
        return
    b = divide_index(i, H)
    j = i - b * H
    length = length_of(lengths, b, T)
    if turn >= length:
        before[b, turn, j] = cast(y, 0)
        for k in range(4):
            dz[b, turn, k * H + j] = cast(y, 0)
            dz_step[b, k * H + j] = cast(y, 0)
        return
    t = step_of(turn, length, reverse)
    gradient, later = dh[b, j], dc[b, j]
    if turn == length - 1:
        gradient, later = value_or_zero(dh_n, b, j), value_or_zero(dc_n, b, j)
        if dpeephole.size > 0:
            for k in range(3):
                dpeephole[b, k * H + j] = cast(y, 0)
    elif bptt > 0 and (turn + 1) % bptt == 0:
        gradient, later = cast(y, 0), cast(y, 0)
    if dy.size > 0:
        gradient += dy[b, t, j]
    k = t * 5 * H + j
    old = cell_before(flat(saved), c0, H, b, T, turn, length, reverse, j)
    pi, pf = bias_or_zero(peephole, True, j), bias_or_zero(peephole, True, H + j)
    po, after = bias_or_zero(peephole, True, 2 * H + j), saved[b, k + 4 * H]
    di, df, dg, do, later = lstm_unit_backward(
        saved[b, k], saved[b, k + H], saved[b, k + 2 * H], saved[b, k + 3 * H], after, old,
        gradient, later, pi, pf, po,
    )  # fmt: skip
    h = output_before(flat(y), h0, H, b, T, turn, length, reverse, j)
    keep_lstm_gradient(
        di, df, dg, do, old, after, h, flat(dz), flat(before), dpeephole, b, b * T + t, H, j
    )
    dz_step[b, j] = di
    dz_step[b, H + j] = df
    dz_step[b, 2 * H + j] = dg
    dz_step[b, 3 * H + j] = do
    dc[b, j] = later


# ---------------------------------------------------------------- GRU


@cuda_kernel(launch=launch_units)
def gru_step_reset(
    zx: "in rows f[B,T,G]",
    zh: "in rows f[B,G]",  # h W_hh + b_hh
    lengths: "in rows i[B]",
    h_n: "in rows f[B,H]",
    rh: "out rows f[B,H]",  # r h, where the reset comes before the product
    reverse: "int",
    turn: "int",
):
    """What one turn with the reset before multiplies with W_hn."""
    T, H = zx.shape[1], h_n.shape[1]
    i = flat_index()
    if i >= h_n.size:
        return
    b = divide_index(i, H)
    j = i - b * H
    length = length_of(lengths, b, T)
    value = cast(h_n, 0)
    if turn < length:
        t = step_of(turn, length, reverse)
        value = sigmoid(zx[b, t, j] + zh[b, j]) * h_n[b, j]
    rh[b, j] = value


@cuda_kernel(launch=launch_units, share=this_turn)
def gru_step_forward(
    zx: "in rows f[B,T,G]",
    zh: "in rows f[B,G]",  # h W_hh + b_hh
    zn: "in rows f[B,G]",  # (r h) W_hh + b_hh where the reset comes before; absent: after
    lengths: "in rows i[B]",
    y: "part rows f[B,T,H]",
    h_n: "inout rows f[B,H]",
    saved: "part* rows f[B,Z]",
    reverse: "int",
    turn: "int",
):
    """One turn of `gru_persistent_forward`; sequences past their end keep their state."""
    T, H = y.shape[1], y.shape[2]
    i = flat_index()
    if i >= h_n.size:
        return
    b = divide_index(i, H)
    j = i - b * H
    length = length_of(lengths, b, T)
    if turn >= length:
        y[b, turn, j] = cast(y, 0)
        return
    t = step_of(turn, length, reverse)
    gr = sigmoid(zx[b, t, j] + zh[b, j])
    gz = sigmoid(zx[b, t, H + j] + zh[b, H + j])
    h, xn = h_n[b, j], zx[b, t, 2 * H + j]
    hn, fourth = gr * zh[b, 2 * H + j], zh[b, 2 * H + j]
    if zn.size > 0:
        hn, fourth = zn[b, 2 * H + j], gr * h
    gn, h = gru_unit(gz, xn, hn, h)
    keep_gru(gr, gz, gn, fourth, h, flat(saved), flat(y), b * T + t, H, j)
    h_n[b, j] = h


@cuda_kernel(launch=launch_units, share=this_turn)
def gru_step_backward(
    lengths: "in rows i[B]",
    h0: "in rows f[B,H]",
    y: "in rows f[B,T,H]",
    saved: "in* rows f[B,Z]",
    dy: "in rows f[B,T,H]",
    dh_n: "in rows f[B,H]",
    dh: "in rows f[B,H]",  # from the turn after: dz_step W_hh^T
    direct: "inout rows f[B,H]",  # the other part of it, through z h (and r h)
    dz: "part rows f[B,T,G]",  # to the sums of x: r, z, n
    dz_h: "part rows f[B,T,W]",  # to those of h: r, z, n, or r, z where the reset comes before
    dz_step: "out rows f[B,G]",  # n alone where the reset comes before
    before: "part rows f[B,T,H]",
    reset: "part rows f[B,T,H]",  # r h; absent: the reset comes after the product
    dn: "part rows f[B,T,H]",  # gradient of n; likewise
    dz_late: "out rows f[B,H]",  # gradient of z's sum, for the second half; likewise
    reverse: "int",
    bptt: "int",
    turn: "int",
):
    """One turn of `gru_persistent_backward`, or its first half where the reset comes before."""
    T, H = y.shape[1], y.shape[2]
    i = flat_index()
    if i >= direct.size:
        return
    b = divide_index(i, H)
    j = i - b * H
    length = length_of(lengths, b, T)
    if turn >= length:
        before[b, turn, j] = cast(y, 0)
        direct[b, j] = cast(y, 0)
        for k in range(3):
            dz[b, turn, k * H + j] = cast(y, 0)
            dz_step[b, k * H + j] = cast(y, 0)
        for k in range(dz_h.shape[2] // H):
            dz_h[b, turn, k * H + j] = cast(y, 0)
        if reset.size > 0:
            reset[b, turn, j] = cast(y, 0)
            dn[b, turn, j] = cast(y, 0)
            dz_late[b, j] = cast(y, 0)
        return
    t = step_of(turn, length, reverse)
    gradient = cast(y, 0)
    if turn == length - 1:
        gradient = value_or_zero(dh_n, b, j)
    elif bptt == 0 or (turn + 1) % bptt != 0:
        gradient = dh[b, j] + direct[b, j]
    if dy.size > 0:
        gradient += dy[b, t, j]
    h = output_before(flat(y), h0, H, b, T, turn, length, reverse, j)
    k = t * 4 * H + j
    dzg, dng, later = gru_gradient(saved[b, k + H], saved[b, k + 2 * H], h, gradient)
    direct[b, j] = later
    r, fourth = saved[b, k], saved[b, k + 3 * H]
    dr, dnh = cast(y, 0), dng
    if reset.size == 0:
        dr, dnh = gate_product_gradient(r, fourth, dng), dng * r
    dz_step[b, j] = dr
    dz_step[b, H + j] = dzg if reset.size == 0 else cast(y, 0)
    dz_step[b, 2 * H + j] = dnh
    keep_gru_gradient(
        dr, dzg, dng, dnh, h, fourth, flat(dz), flat(dz_h), flat(before), flat(reset), flat(dn),
        reset.size > 0,
        b * T + t, H, j,
    )  # fmt: skip
    if reset.size > 0:  # r's own gradient follows in the second half
        dz[b, t, j] = dr
        dz_h[b, t, j] = dr
        dz_late[b, j] = dzg


@cuda_kernel(launch=launch_units, share=this_turn)
def gru_step_backward_reset(
    lengths: "in rows i[B]",
    h0: "in rows f[B,H]",
    y: "in rows f[B,T,H]",
    saved: "in* rows f[B,Z]",
    drh: "in rows f[B,H]",  # dz_step W_hh^T, with dz_step of n alone
    dz_late: "in rows f[B,H]",
    direct: "inout rows f[B,H]",
    dz: "part* rows f[B,T,G]",  # r alone
    dz_h: "part* rows f[B,T,W]",  # likewise
    dz_step: "out rows f[B,G]",  # r and z
    reverse: "int",
    turn: "int",
):
    """The second half of a turn with the reset before: what comes through r h."""
    T, H = y.shape[1], y.shape[2]
    i = flat_index()
    if i >= direct.size:
        return
    b = divide_index(i, H)
    j = i - b * H
    length = length_of(lengths, b, T)
    dr = cast(drh, 0)
    if turn < length:
        t = step_of(turn, length, reverse)
        r = saved[b, t * 4 * H + j]
        h = output_before(flat(y), h0, H, b, T, turn, length, reverse, j)
        dr = gate_product_gradient(r, h, drh[b, j])
        direct[b, j] += drh[b, j] * r
        dz[b, t, j] = dr
        dz_h[b, t, j] = dr
    dz_step[b, j] = dr
    dz_step[b, H + j] = dz_late[b, j]
    dz_step[b, 2 * H + j] = cast(drh, 0)
