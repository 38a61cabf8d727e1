"""The LSTM, one turn a launch; see `recurrent/cuda_steps.py`."""

from ..cuda.device import cast, flat, flat_index
from ..declare import cuda_kernel
from ..recurrent.cuda import Unit, bias_or_zero, is_cut, output_before, value_or_zero
from ..recurrent.cuda_steps import launch_units, this_turn, turn_of
from .cuda import (
    Gradients,
    Slopes,
    backward_unit,
    cell_before,
    forward_unit,
    keep_gradient,
    keep_unit,
)


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
    b, j, length, t = turn_of(i, lengths, T, H, turn, reverse)
    if turn >= length:
        y[b, turn, j] = cast(y, 0)
        return
    zi, zf = zx[b, t, j] + zh[b, j], zx[b, t, H + j] + zh[b, H + j]
    zg, zo = zx[b, t, 2 * H + j] + zh[b, 2 * H + j], zx[b, t, 3 * H + j] + zh[b, 3 * H + j]
    pi, pf = bias_or_zero(peephole, True, j), bias_or_zero(peephole, True, H + j)
    po = bias_or_zero(peephole, True, 2 * H + j)
    gi, gf, gg, go, c, h = forward_unit(zi, zf, zg, zo, pi, pf, po, c_n[b, j])
    keep_unit(gi, gf, gg, go, c, h, flat(saved), flat(y), b * T + t, H, j)
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
    b, j, length, t = turn_of(i, lengths, T, H, turn, reverse)
    if turn >= length:
        before[b, turn, j] = cast(y, 0)
        for k in range(4):
            dz[b, turn, k * H + j] = cast(y, 0)
            dz_step[b, k * H + j] = cast(y, 0)
        return
    gradient, later = dh[b, j], dc[b, j]
    if turn == length - 1:
        gradient, later = value_or_zero(dh_n, b, j), value_or_zero(dc_n, b, j)
        if dpeephole.size > 0:
            for k in range(3):
                dpeephole[b, k * H + j] = cast(y, 0)
    elif is_cut(turn + 1, bptt):
        gradient, later = cast(y, 0), cast(y, 0)
    if dy.size > 0:
        gradient += dy[b, t, j]
    k = t * 5 * H + j
    old = cell_before(flat(saved), c0, H, b, T, turn, length, reverse, j)
    pi, pf = bias_or_zero(peephole, True, j), bias_or_zero(peephole, True, H + j)
    po, after = bias_or_zero(peephole, True, 2 * H + j), saved[b, k + 4 * H]
    di, df, dg, do, later = backward_unit(
        saved[b, k], saved[b, k + H], saved[b, k + 2 * H], saved[b, k + 3 * H], after, old,
        gradient, later, pi, pf, po,
    )  # fmt: skip
    h = output_before(flat(y), h0, H, b, T, turn, length, reverse, j)
    keep_gradient(
        Slopes(di, df, dg, do), old, after, h, Gradients(flat(dz), flat(before), dpeephole),
        b, Unit(b * T + t, H, j),
    )  # fmt: skip
    dz_step[b, j] = di
    dz_step[b, H + j] = df
    dz_step[b, 2 * H + j] = dg
    dz_step[b, 3 * H + j] = do
    dc[b, j] = later
