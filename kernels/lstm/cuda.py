"""The LSTM over whole sequences (Hochreiter and Schmidhuber 1997; peepholes: Gers et al. 2002).

Formulas and order of gates as in `cpu.py`; see `recurrent` for how blocks share the
work. `zx` is x W_ih + b_ih of all steps. A step's saved row is i, f, g, o, c'.
"""

from typing import Any, NamedTuple

import numpy as np

from ..cuda.device import cast, cuda, flat
from ..declare import cuda_kernel, helper
from ..recurrent.cuda import (
    Unit,
    bias_or_zero,
    first_output,
    is_cut,
    output_before,
    row_before,
    rows_of_group,
    running_again,
    still_running,
    team_of,
    value_or_zero,
    whole_tiles,
    word_at,
    zero_past_end,
)
from ..recurrent.cuda_layout import (
    BACKWARD_SPLITS,
    FORWARD_SPLITS,
    TILE,
    backward_elements,
    forward_elements,
    launch_cooperative,
)
from ..recurrent.cuda_products import total
from ..recurrent.cuda_ways import Way, ways
from ..recurrent.shared import step_of
from .shared import lstm_cell, lstm_cell_gradient

SPLITS = FORWARD_SPLITS[4]  # there is room for so many parts


@helper
def forward_unit(zi, zf, zg, zo, pi, pf, po, before):
    """Gates, new cell and output of one unit, from its gates' sums and peepholes (or 0)."""
    return lstm_cell(zi + pi * before, zf + pf * before, zg, zo, po, before)


@helper
def keep_unit(gi, gf, gg, go, after, out, saved, y, row, H, j):
    """Write what one unit's step leaves in row b*T + t of y and saved (both flat)."""
    k = row * 5 * H + j
    saved[k] = gi
    saved[k + H] = gf
    saved[k + 2 * H] = gg
    saved[k + 3 * H] = go
    saved[k + 4 * H] = after
    y[row * H + j] = out


def _declare_forward(way: Way) -> None:
    """The kernel of one of the ways."""
    begin, publish, receive, slot_of, place_of, end, *own = way.functions
    room, load_columns, _, hold, multiply = own
    count, splits = way.registers, way.splits(4)
    near_slots = 2 if way.near else 0

    @cuda_kernel(
        launch=launch_cooperative,
        shared=lambda s: forward_elements(s, 4, near_slots, way.half),
        **way.declared(),
        name=f"lstm_{way.how}_forward",
    )
    def lstm_forward(
        zx: "in rows f[B,T,G]",
        lengths: "in rows i[B]",  # absent: all T
        w_hh: "in whole f[H,G]",
        b_hh: "in whole f[G]",  # may be absent
        peephole: "in whole f[R]",  # p_i, p_f, p_o; may be absent
        h0: "in rows f[B,H]",  # absent: zeros
        c0: "in rows f[B,H]",  # absent: zeros
        y: "out rows f[B,T,H]",  # h of all steps, 0 past the end
        h_n: "out rows f[B,H]",
        c_n: "out rows f[B,H]",
        saved: "out* rows f[B,Z]",
        words: "inout whole i[E]",  # 0 before; of a cluster absent
        order: "in whole i[O]",  # O is B, or 0: as long as each other
        reverse: "int",
        groups: "int",
        blocks: "int",
        units: "int",
        is_bf16: "int",  # of kernels called half: bfloat16, else float16
    ):
        """y, h_n and c_n; saved holds the gates and c for the backward pass."""
        T, H = y.shape[1], y.shape[2]
        group, first, row, j, mine, tiles, numbers, known = team_of(y, groups, blocks, units)
        s = cuda.shared.array(0, zx.dtype)
        columns = 4 * units
        size = TILE * H
        weights = place_of(2 * tiles * size)
        inputs = weights + room(H, columns)
        parts = inputs + TILE * H
        state = parts + SPLITS * TILE * columns
        load_columns(s, weights, w_hh, first, units, 0, 4, is_bf16)
        mail = begin(words, cuda.shared.array(0, np.int64), s, 2 * tiles * size, blocks)
        rows = rows_of_group(order, lengths, y.shape[0], T, group, groups, numbers, known)
        registers = cuda.local.array(count, zx.dtype)
        hold(registers, s, weights, columns, H, splits, is_bf16)
        for r in range(row, whole_tiles(rows), TILE):
            if mine:
                h = first_output(h0, h_n, numbers, known, rows, r, j)
                if r < rows:
                    c = value_or_zero(c0, numbers[r], j)
                    s[state + r * units + j - first] = c
                    if known[r] == 0:
                        c_n[numbers[r], j] = c
                publish(
                    mail,
                    word_at(slot_of(0, group, groups, tiles) + r // TILE, size, j, row),
                    h,
                    1,
                    blocks,
                )
        zero_past_end(y, 1, first, units, H, rows, numbers, known)
        bi, bf = bias_or_zero(b_hh, mine, j), bias_or_zero(b_hh, mine, H + j)
        bg, bo = bias_or_zero(b_hh, mine, 2 * H + j), bias_or_zero(b_hh, mine, 3 * H + j)
        pi, pf = bias_or_zero(peephole, mine, j), bias_or_zero(peephole, mine, H + j)
        po = bias_or_zero(peephole, mine, 2 * H + j)
        z, outputs, kept = flat(zx), flat(y), flat(saved)
        zero = cast(zx, 0)
        running = rows
        for turn in range(T):
            running = still_running(known, running, turn)
            if running == 0:
                break
            now = slot_of(turn % 2, group, groups, tiles)
            following = slot_of((turn + 1) % 2, group, groups, tiles)
            live, at, last = False, 0, (running - 1) // TILE
            gi, gf, gg, go, c, h = zero, zero, zero, zero, zero, zero
            for tile in range(last + 1):
                r = tile * TILE + row
                live = mine and r < running
                xi, xf, xg, xo, h = zero, zero, zero, zero, zero
                if live:  # before the wait: these come from far away
                    at = numbers[r] * T + step_of(turn, known[r], reverse)
                    k = at * 4 * H + j
                    xi, xf, xg, xo = z[k], z[k + H], z[k + 2 * H], z[k + 3 * H]
                receive(s, inputs, mail, (now + tile) * size, size, turn + 1)
                multiply(s, registers, weights, columns, inputs, H, parts, splits, is_bf16)
                if live:
                    u = j - first
                    zi = (xi + bi) + total(s, parts, splits, columns, row, u)
                    zf = (xf + bf) + total(s, parts, splits, columns, row, units + u)
                    zg = (xg + bg) + total(s, parts, splits, columns, row, 2 * units + u)
                    zo = (xo + bo) + total(s, parts, splits, columns, row, 3 * units + u)
                    c = s[state + r * units + u]
                    gi, gf, gg, go, c, h = forward_unit(zi, zf, zg, zo, pi, pf, po, c)
                    s[state + r * units + u] = c
                if mine:
                    publish(mail, word_at(following + tile, size, j, row), h, turn + 2, blocks)
                if live:
                    if turn == known[r] - 1:
                        h_n[numbers[r], j] = h
                        c_n[numbers[r], j] = c
                    if tile < last:
                        keep_unit(gi, gf, gg, go, c, h, kept, outputs, at, H, j)
            if live:  # nobody waits for these
                keep_unit(gi, gf, gg, go, c, h, kept, outputs, at, H, j)
        end(blocks)


for _way in ways():
    _declare_forward(_way)


# ---------------------------------------------------------------- backward


@helper
def cell_before(saved, c0, hidden, b, steps, turn, length, reverse, j):
    """The cell that this turn began with; saved is flat."""
    if turn > 0:
        return saved[(row_before(b, steps, turn, length, reverse) * 5 + 4) * hidden + j]
    return value_or_zero(c0, b, j)


@helper
def backward_unit(gi, gf, gg, go, after, old, dh, dc, pi, pf, po):
    """Gradients to one unit's gates, and to the cell before."""
    di, df, dg, do, dold = lstm_cell_gradient(gi, gf, gg, go, po, old, after, dh, dc)
    return di, df, dg, do, dold + di * pi + df * pf


class Slopes(NamedTuple):
    """Gradients to the sums of a unit's gates."""

    i: Any
    f: Any
    g: Any
    o: Any


class Gradients(NamedTuple):
    """What the backward pass leaves: gradients to the gates' sums and the h that each step began
    with, both flat, and the peepholes' gradients, which may be absent."""

    dz: Any
    begun: Any
    dpeephole: Any


@helper
def keep_gradient(slopes: Slopes, old, after, h, out: Gradients, b, unit: Unit):
    """Write what one unit's step leaves, and add to the peepholes' gradients of sequence b."""
    di, df, dg, do = slopes
    dz, begun, dpeephole = out
    row, H, j = unit
    k = row * 4 * H + j
    dz[k] = di
    dz[k + H] = df
    dz[k + 2 * H] = dg
    dz[k + 3 * H] = do
    begun[row * H + j] = h
    if dpeephole.size > 0:
        dpeephole[b, j] += di * old
        dpeephole[b, H + j] += df * old
        dpeephole[b, 2 * H + j] += do * after


def _declare_backward(way: Way) -> None:
    """The kernel of one of the ways."""
    begin, publish, receive, slot_of, place_of, end, *own = way.functions
    room, _, load_rows, hold, multiply = own
    count, backward_splits = way.registers, way.backward_splits
    near_slots = 2 if way.near else 0

    @cuda_kernel(
        launch=launch_cooperative,
        shared=lambda s: backward_elements(s, 4, near_slots, way.half),
        **way.declared(),
        name=f"lstm_{way.how}_backward",
    )
    def lstm_backward(
        lengths: "in rows i[B]",
        w_hh: "in whole f[H,G]",
        peephole: "in whole f[R]",
        h0: "in rows f[B,H]",
        c0: "in rows f[B,H]",
        y: "in rows f[B,T,H]",
        saved: "in* rows f[B,Z]",
        dy: "in rows f[B,T,H]",  # may be absent, as may dh_n and dc_n
        dh_n: "in rows f[B,H]",
        dc_n: "in rows f[B,H]",
        dz: "out rows f[B,T,G]",  # gradients of the gates, 0 past the end
        before: "out rows f[B,T,H]",  # the h that each step began with, 0 past the end
        dpeephole: "out rows f[B,R]",  # sums over the steps of each sequence; may be absent
        dh0: "out rows f[B,H]",
        dc0: "out rows f[B,H]",
        words: "inout whole i[E]",  # 0 before; of a cluster absent
        order: "in whole i[O]",  # O is B, or 0: as long as each other
        reverse: "int",
        bptt: "int",  # gradients stop at turns that are multiples of it; 0: never
        groups: "int",
        blocks: "int",
        units: "int",
        is_bf16: "int",  # of kernels called half: bfloat16, else float16
    ):
        """Backpropagation through time: from the last turn to the first, and once more for dh0."""
        T, H = y.shape[1], y.shape[2]
        group, first, row, j, mine, tiles, numbers, known = team_of(y, groups, blocks, units)
        s = cuda.shared.array(0, y.dtype)
        depth = 4 * H
        size = TILE * depth
        weights = place_of(2 * tiles * size)
        inputs = weights + room(depth, units)
        parts = inputs + TILE * depth
        state = parts + BACKWARD_SPLITS * TILE * units
        load_rows(s, weights, w_hh, first, units, 0, depth, is_bf16)
        mail = begin(words, cuda.shared.array(0, np.int64), s, 2 * tiles * size, blocks)
        rows = rows_of_group(order, lengths, y.shape[0], T, group, groups, numbers, known)
        registers = cuda.local.array(count, y.dtype)
        hold(registers, s, weights, units, depth, backward_splits, is_bf16)
        zero_past_end(dz, 4, first, units, H, rows, numbers, known)
        zero_past_end(before, 1, first, units, H, rows, numbers, known)
        for r in range(row, rows, TILE):
            if mine:
                b = numbers[r]
                dc = value_or_zero(dc_n, b, j)
                s[state + r * units + j - first] = dc
                if dpeephole.size > 0:
                    for k in range(3):
                        dpeephole[b, k * H + j] = cast(y, 0)
                if known[r] == 0:
                    dh0[b, j] = value_or_zero(dh_n, b, j)
                    dc0[b, j] = dc
        outputs, kept, incoming = flat(y), flat(saved), flat(dy)
        out = Gradients(flat(dz), flat(before), dpeephole)
        pi, pf = bias_or_zero(peephole, mine, j), bias_or_zero(peephole, mine, H + j)
        po = bias_or_zero(peephole, mine, 2 * H + j)
        zero = cast(y, 0)
        running, ran, top = 0, 0, known[0] - 1
        for turn in range(top, -2, -1):
            running = running_again(known, running, rows, turn)
            cut = is_cut(turn + 1, bptt)
            now = slot_of((turn + 1) % 2, group, groups, tiles)
            following = slot_of(turn % 2, group, groups, tiles)
            live, at, last = False, 0, (running - 1) // TILE
            after, old = zero, zero
            di, df, dg, do = zero, zero, zero, zero
            for tile in range(last + 1):
                r = tile * TILE + row
                live = mine and r < running
                begins = live and turn == known[r] - 1
                gi, gf, gg, go, dh, given = zero, zero, zero, zero, zero, zero
                di, df, dg, do = zero, zero, zero, zero
                if live:
                    b = numbers[r]
                    if begins:
                        dh = value_or_zero(dh_n, b, j)
                    if turn >= 0:  # before the wait: these come from far away
                        at = b * T + step_of(turn, known[r], reverse)
                        k = at * 5 * H + j
                        gi, gf, gg = kept[k], kept[k + H], kept[k + 2 * H]
                        go, after = kept[k + 3 * H], kept[k + 4 * H]
                        old = cell_before(kept, c0, H, b, T, turn, known[r], reverse, j)
                        if dy.size > 0:
                            given = incoming[at * H + j]
                if tile * TILE < ran:  # also where it is not needed: see `kernels/cuda/exchange.py`
                    receive(s, inputs, mail, (now + tile) * size, size, top - turn)
                    if not cut:
                        multiply(
                            s,
                            registers,
                            weights,
                            units,
                            inputs,
                            depth,
                            parts,
                            backward_splits,
                            is_bf16,
                        )
                if live:
                    u = j - first
                    dc = s[state + r * units + u]
                    if not begins:
                        if cut:
                            dc = zero
                        else:
                            dh = total(s, parts, backward_splits, units, row, u)
                    if turn < 0:
                        dh0[numbers[r], j] = dh
                        dc0[numbers[r], j] = dc
                    else:
                        di, df, dg, do, dc = backward_unit(
                            gi, gf, gg, go, after, old, dh + given, dc, pi, pf, po
                        )
                        s[state + r * units + u] = dc
                if mine and turn >= 0:
                    k, number = word_at(following + tile, size, j, row), top - turn + 1
                    publish(mail, k, di, number, blocks)
                    publish(mail, k + H * TILE, df, number, blocks)
                    publish(mail, k + 2 * H * TILE, dg, number, blocks)
                    publish(mail, k + 3 * H * TILE, do, number, blocks)
                if live and turn >= 0 and tile < last:
                    b = numbers[r]
                    h = output_before(outputs, h0, H, b, T, turn, known[r], reverse, j)
                    keep_gradient(Slopes(di, df, dg, do), old, after, h, out, b, Unit(at, H, j))
            ran = running
            if live and turn >= 0:  # nobody waits for these
                r = last * TILE + row
                b = numbers[r]
                h = output_before(outputs, h0, H, b, T, turn, known[r], reverse, j)
                keep_gradient(Slopes(di, df, dg, do), old, after, h, out, b, Unit(at, H, j))
        end(blocks)


for _way in ways():
    _declare_backward(_way)
