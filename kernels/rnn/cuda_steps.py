"""Simple recurrent nets, one turn a launch; see `recurrent/cuda_steps.py`."""

from ..cuda.device import cast, flat, flat_index
from ..declare import cuda_kernel
from ..recurrent.cuda import is_cut, output_before, value_or_zero
from ..recurrent.cuda_steps import launch_units, this_turn, turn_of
from .shared import activate, activate_gradient


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
    b, j, length, t = turn_of(i, lengths, T, H, turn, reverse)
    if turn >= length:
        y[b, turn, j] = cast(y, 0)
        return
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
    b, j, length, t = turn_of(i, lengths, T, H, turn, reverse)
    if turn >= length:
        before[b, turn, j] = cast(y, 0)
        dz[b, turn, j] = cast(y, 0)
        dz_step[b, j] = cast(y, 0)
        return
    gradient = cast(y, 0)
    if turn == length - 1:
        gradient = value_or_zero(dh_n, b, j)
    elif not is_cut(turn + 1, bptt):
        gradient = dh[b, j]
    if dy.size > 0:
        gradient += dy[b, t, j]
    gradient = activate_gradient(y[b, t, j], gradient, activation)
    before[b, t, j] = output_before(flat(y), h0, H, b, T, turn, length, reverse, j)
    dz[b, t, j] = gradient
    dz_step[b, j] = gradient
