"""Simple recurrent nets over whole sequences (Elman 1990), and leaky sums over time.

Formulas as in `cpu.py`; see `recurrent` for how blocks share the work. `zx` is
x W_ih + b_ih of all steps.
"""

import numpy as np

from ..cuda.device import cast, cuda, divide_index, flat, flat_index
from ..declare import ceil_div, cuda_kernel
from ..recurrent.cuda import (
    bias_or_zero,
    first_output,
    is_cut,
    output_before,
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
    THREADS,
    TILE,
    backward_elements,
    forward_elements,
    launch_cooperative,
)
from ..recurrent.cuda_products import total
from ..recurrent.cuda_ways import Way, ways
from ..recurrent.shared import length_of, step_of
from ..simd import fma
from . import cpu
from .shared import activate, activate_gradient


def _declare(way: Way) -> None:
    """The kernels of one of the ways."""
    begin, publish, receive, slot_of, place_of, end, *own = way.functions
    room, load_columns, load_rows, hold, multiply = own
    count, splits, backward_splits = way.registers, way.splits(1), way.backward_splits
    near_slots = 2 if way.near else 0

    @cuda_kernel(
        launch=launch_cooperative,
        shared=lambda s: forward_elements(s, 1, near_slots, way.half),
        **way.declared(),
        name=f"rnn_{way.how}_forward",
    )
    def rnn_forward(
        zx: "in rows f[B,T,H]",
        lengths: "in rows i[B]",  # absent: all T
        w_hh: "in whole f[H,H]",
        b_hh: "in whole f[H]",  # may be absent
        h0: "in rows f[B,H]",  # absent: zeros
        y: "out rows f[B,T,H]",  # h of all steps, 0 past the end
        h_n: "out rows f[B,H]",
        words: "inout whole i[E]",  # 0 before; of a cluster absent
        order: "in whole i[O]",  # O is B, or 0: as long as each other
        reverse: "int",
        activation: "int",
        groups: "int",
        blocks: "int",
        units: "int",
        is_bf16: "int",  # of kernels called half: bfloat16, else float16
    ):
        """y and h_n."""
        T, H = y.shape[1], y.shape[2]
        group, first, row, j, mine, tiles, numbers, known = team_of(y, groups, blocks, units)
        s = cuda.shared.array(0, zx.dtype)
        size = TILE * H
        weights = place_of(2 * tiles * size)
        inputs = weights + room(H, units)
        parts = inputs + TILE * H
        load_columns(s, weights, w_hh, first, units, 0, 1, is_bf16)
        mail = begin(words, cuda.shared.array(0, np.int64), s, 2 * tiles * size, blocks)
        rows = rows_of_group(order, lengths, y.shape[0], T, group, groups, numbers, known)
        registers = cuda.local.array(count, zx.dtype)
        hold(registers, s, weights, units, H, splits, is_bf16)
        for r in range(row, whole_tiles(rows), TILE):
            if mine:
                h = first_output(h0, h_n, numbers, known, rows, r, j)
                publish(
                    mail,
                    word_at(slot_of(0, group, groups, tiles) + r // TILE, size, j, row),
                    h,
                    1,
                    blocks,
                )
        zero_past_end(y, 1, first, units, H, rows, numbers, known)
        bias = bias_or_zero(b_hh, mine, j)
        sums, outputs, zero = flat(zx), flat(y), cast(zx, 0)
        running = rows
        for turn in range(T):
            running = still_running(known, running, turn)
            if running == 0:
                break
            now = slot_of(turn % 2, group, groups, tiles)
            following = slot_of((turn + 1) % 2, group, groups, tiles)
            live, at, h, last = False, 0, zero, (running - 1) // TILE
            for tile in range(last + 1):
                r = tile * TILE + row
                live = mine and r < running
                x, h = zero, zero
                if live:  # before the wait: this comes from far away
                    at = (numbers[r] * T + step_of(turn, known[r], reverse)) * H + j
                    x = sums[at]
                receive(s, inputs, mail, (now + tile) * size, size, turn + 1)
                multiply(s, registers, weights, units, inputs, H, parts, splits, is_bf16)
                if live:
                    z = (x + bias) + total(s, parts, splits, units, row, j - first)
                    h = activate(z, activation)
                if mine:
                    publish(mail, word_at(following + tile, size, j, row), h, turn + 2, blocks)
                if live:
                    if turn == known[r] - 1:
                        h_n[numbers[r], j] = h
                    if tile < last:
                        outputs[at] = h
            if live:  # nobody waits for this
                outputs[at] = h
        end(blocks)

    @cuda_kernel(
        launch=launch_cooperative,
        shared=lambda s: backward_elements(s, 1, near_slots, way.half),
        **way.declared(),
        name=f"rnn_{way.how}_backward",
    )
    def rnn_backward(
        lengths: "in rows i[B]",
        w_hh: "in whole f[H,H]",
        h0: "in rows f[B,H]",
        y: "in rows f[B,T,H]",
        dy: "in rows f[B,T,H]",  # may be absent, as may dh_n
        dh_n: "in rows f[B,H]",
        dz: "out rows f[B,T,H]",  # gradients of the sums, 0 past the end
        before: "out rows f[B,T,H]",  # the h that each step began with, 0 past the end
        dh0: "out rows f[B,H]",
        words: "inout whole i[E]",  # 0 before; of a cluster absent
        order: "in whole i[O]",  # O is B, or 0: as long as each other
        reverse: "int",
        activation: "int",
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
        size = TILE * H
        weights = place_of(2 * tiles * size)
        inputs = weights + room(H, units)
        parts = inputs + TILE * H
        load_rows(s, weights, w_hh, first, units, 0, H, is_bf16)
        mail = begin(words, cuda.shared.array(0, np.int64), s, 2 * tiles * size, blocks)
        rows = rows_of_group(order, lengths, y.shape[0], T, group, groups, numbers, known)
        registers = cuda.local.array(count, y.dtype)
        hold(registers, s, weights, units, H, backward_splits, is_bf16)
        zero_past_end(dz, 1, first, units, H, rows, numbers, known)
        zero_past_end(before, 1, first, units, H, rows, numbers, known)
        for r in range(row, rows, TILE):
            if mine and known[r] == 0:
                dh0[numbers[r], j] = value_or_zero(dh_n, numbers[r], j)
        outputs, incoming, begun, sums = flat(y), flat(dy), flat(before), flat(dz)
        zero = cast(y, 0)
        running, ran, top = 0, 0, known[0] - 1
        for turn in range(top, -2, -1):
            running = running_again(known, running, rows, turn)
            cut = is_cut(turn + 1, bptt)
            now = slot_of((turn + 1) % 2, group, groups, tiles)
            following = slot_of(turn % 2, group, groups, tiles)
            live, at, last = False, 0, (running - 1) // TILE
            dh, earlier = zero, zero
            for tile in range(last + 1):
                r = tile * TILE + row
                live = mine and r < running
                begins = live and turn == known[r] - 1
                dh, given, h = zero, zero, zero
                if live:
                    b = numbers[r]
                    if begins:
                        dh = value_or_zero(dh_n, b, j)
                    if turn >= 0:  # before the wait: these come from far away
                        at = (b * T + step_of(turn, known[r], reverse)) * H + j
                        h = outputs[at]
                        earlier = output_before(outputs, h0, H, b, T, turn, known[r], reverse, j)
                        if dy.size > 0:
                            given = incoming[at]
                if tile * TILE < ran:  # also where it is not needed: see `kernels/cuda/exchange.py`
                    receive(s, inputs, mail, (now + tile) * size, size, top - turn)
                    if not cut:
                        multiply(
                            s,
                            registers,
                            weights,
                            units,
                            inputs,
                            H,
                            parts,
                            backward_splits,
                            is_bf16,
                        )
                if live:
                    if not (begins or cut):
                        dh = total(s, parts, backward_splits, units, row, j - first)
                    if turn < 0:
                        dh0[numbers[r], j] = dh
                    else:
                        dh = activate_gradient(h, dh + given, activation)
                        if tile < last:
                            sums[at] = dh
                            begun[at] = earlier
                if mine and turn >= 0:
                    k = word_at(following + tile, size, j, row)
                    publish(mail, k, dh, top - turn + 1, blocks)
            ran = running
            if live and turn >= 0:  # nobody waits for these
                sums[at] = dh
                begun[at] = earlier
        end(blocks)


for _way in ways():
    _declare(_way)


# ---------------------------------------------------------------- leaky sums


def launch_leaky(sizes):
    return ceil_div(sizes["B"] * sizes["C"], THREADS), THREADS


@cuda_kernel(like=cpu.leaky_forward, launch=launch_leaky)
def leaky_forward(x, lengths, h0, y, h_n, keep, reverse):
    T, C = x.shape[1], x.shape[2]
    i = flat_index()
    if i >= h_n.size:
        return
    b = divide_index(i, C)
    j = i - b * C
    length = length_of(lengths, b, T)
    h = value_or_zero(h0, b, j)
    for turn in range(length):
        t = step_of(turn, length, reverse)
        h = fma(h, keep, x[b, t, j] * (1.0 - keep))
        y[b, t, j] = h
    h_n[b, j] = h
    for t in range(length, T):
        y[b, t, j] = cast(y, 0)


@cuda_kernel(like=cpu.leaky_backward, launch=launch_leaky)
def leaky_backward(lengths, dy, dh_n, dx, dh0, keep, reverse, bptt):
    T, C = dx.shape[1], dx.shape[2]
    i = flat_index()
    if i >= dh0.size:
        return
    b = divide_index(i, C)
    j = i - b * C
    length = length_of(lengths, b, T)
    g = value_or_zero(dh_n, b, j)
    for turn in range(length - 1, -1, -1):
        t = step_of(turn, length, reverse)
        if dy.size > 0:
            g += dy[b, t, j]
        dx[b, t, j] = g * (1.0 - keep)
        g = g * keep
        if is_cut(turn, bptt):
            g = cast(dx, 0)
    dh0[b, j] = g
    for t in range(length, T):
        dx[b, t, j] = cast(dx, 0)
