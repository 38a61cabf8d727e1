"""The GRU, one turn a launch; see `recurrent/cuda_steps.py`."""

from ..cuda.device import cast, flat, flat_index
from ..declare import cuda_kernel
from ..recurrent.cuda import Unit, is_cut, output_before, value_or_zero
from ..recurrent.cuda_steps import launch_units, this_turn, turn_of
from ..scalar import sigmoid
from .cuda_units import Gradients, Slopes, forward_unit, keep_gradient, keep_unit
from .shared import gate_product_gradient, gru_gradient


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
    b, j, length, t = turn_of(i, lengths, T, H, turn, reverse)
    value = cast(h_n, 0)
    if turn < length:
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
    b, j, length, t = turn_of(i, lengths, T, H, turn, reverse)
    if turn >= length:
        y[b, turn, j] = cast(y, 0)
        return
    gr = sigmoid(zx[b, t, j] + zh[b, j])
    gz = sigmoid(zx[b, t, H + j] + zh[b, H + j])
    h, xn = h_n[b, j], zx[b, t, 2 * H + j]
    hn, fourth = gr * zh[b, 2 * H + j], zh[b, 2 * H + j]
    if zn.size > 0:
        hn, fourth = zn[b, 2 * H + j], gr * h
    gn, h = forward_unit(gz, xn, hn, h)
    keep_unit(gr, gz, gn, fourth, h, flat(saved), flat(y), b * T + t, H, j)
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
    b, j, length, t = turn_of(i, lengths, T, H, turn, reverse)
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
    gradient = cast(y, 0)
    if turn == length - 1:
        gradient = value_or_zero(dh_n, b, j)
    elif not is_cut(turn + 1, bptt):
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
    out = Gradients(flat(dz), flat(dz_h), flat(before), flat(reset), flat(dn))
    keep_gradient(Slopes(dr, dzg, dng, dnh), h, fourth, out, reset.size > 0, Unit(b * T + t, H, j))
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
    b, j, length, t = turn_of(i, lengths, T, H, turn, reverse)
    dr = cast(drh, 0)
    if turn < length:
        r = saved[b, t * 4 * H + j]
        h = output_before(flat(y), h0, H, b, T, turn, length, reverse, j)
        dr = gate_product_gradient(r, h, drh[b, j])
        direct[b, j] += drh[b, j] * r
        dz[b, t, j] = dr
        dz_h[b, t, j] = dr
    dz_step[b, j] = dr
    dz_step[b, H + j] = dz_late[b, j]
    dz_step[b, 2 * H + j] = cast(drh, 0)
