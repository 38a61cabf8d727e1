"""The GRU over whole sequences (Cho et al. 2014), gates in PyTorch's order r, z, n.

Formulas as in `cpu.py`, with the reset after or before the product; see `recurrent` for
how blocks share the work. `zx` is x W_ih + b_ih of all steps. A step's saved row is r, z, n and
then h W_hn + b_hn, or r h where the reset comes before: that needs two products a turn, one after
the other, and so two waits; what is exchanged between them has a slot of its own. Its kernels are
called ..._early.
"""

import numpy as np

from ..cuda.device import cast, cuda, flat
from ..declare import cuda_kernel
from ..recurrent.cuda import (
    Unit,
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
    BACKWARD_SPLITS,
    FORWARD_SPLITS,
    MOST_THREADS,
    TILE,
    backward_elements,
    forward_elements,
    launch_cooperative,
)
from ..recurrent.cuda_products import total
from ..recurrent.cuda_ways import Way, ways
from ..recurrent.shared import step_of
from ..scalar import sigmoid
from .cuda_units import Gradients, Slopes, forward_unit, keep_gradient, keep_unit
from .shared import gate_product_gradient, gru_gradient

SPLITS = FORWARD_SPLITS[3]  # there is room for so many parts
EARLY_THREADS = 384  # of a block, at most, where two products take more registers


def _declare(suffix: str, early: bool, way: Way) -> None:
    """The kernels with the reset after the product, or (`early`) before it."""
    begin, publish, receive, slot_of, place_of, end, *own = way.functions
    room, load_columns, load_rows, hold, multiply = own
    count, splits, backward_splits = way.registers, way.splits(3), way.backward_splits
    threads = EARLY_THREADS if early else MOST_THREADS
    # two more registers than 512 threads may have
    back = EARLY_THREADS if early or way == Way("cluster", near=True) else MOST_THREADS
    slots = 3 if early else 2
    near_slots = slots if way.near else 0

    @cuda_kernel(
        launch=lambda s: launch_cooperative(s, threads),
        shared=lambda s: forward_elements(s, 3, near_slots, way.half),
        **way.declared(threads),
        name=f"gru_{way.how}_forward{suffix}",
    )
    def gru_forward(
        zx: "in rows f[B,T,G]",
        lengths: "in rows i[B]",  # absent: all T
        w_hh: "in whole f[H,G]",
        b_hh: "in whole f[G]",  # may be absent
        h0: "in rows f[B,H]",  # absent: zeros
        y: "out rows f[B,T,H]",  # h of all steps, 0 past the end
        h_n: "out rows f[B,H]",
        saved: "out* rows f[B,Z]",
        words: "inout whole i[E]",  # 0 before; of a cluster absent
        order: "in whole i[O]",  # O is B, or 0: as long as each other
        reverse: "int",
        groups: "int",
        blocks: "int",
        units: "int",
        is_bf16: "int",  # of kernels called half: bfloat16, else float16
    ):
        """y and h_n; saved holds the gates for the backward pass."""
        T, H = y.shape[1], y.shape[2]
        group, first, row, j, mine, tiles, numbers, known = team_of(y, groups, blocks, units)
        u = j - first
        s = cuda.shared.array(0, zx.dtype)
        columns = 3 * units
        size = TILE * H
        weights = place_of(slots * tiles * size)
        # the slice is of all gates, or a second one of n's
        gates = 2 if early else 3
        some = gates * units
        second = weights + room(H, some)
        inputs = second
        if early:
            inputs += room(H, units)
        parts = inputs + TILE * H
        state = parts + SPLITS * TILE * columns
        load_columns(s, weights, w_hh, first, units, 0, gates, is_bf16)
        if early:
            load_columns(s, second, w_hh, first, units, 2, 1, is_bf16)
        mail = begin(words, cuda.shared.array(0, np.int64), s, slots * tiles * size, blocks)
        rows = rows_of_group(order, lengths, y.shape[0], T, group, groups, numbers, known)
        registers, late = cuda.local.array(count, zx.dtype), cuda.local.array(count, zx.dtype)
        hold(registers, s, weights, some, H, splits, is_bf16)
        if early:
            hold(late, s, second, units, H, splits, is_bf16)
        for r in range(row, whole_tiles(rows), TILE):
            if mine:
                h = first_output(h0, h_n, numbers, known, rows, r, j)
                if r < rows:
                    s[state + r * units + u] = h
                publish(
                    mail,
                    word_at(slot_of(0, group, groups, tiles) + r // TILE, size, j, row),
                    h,
                    1,
                    blocks,
                )
        zero_past_end(y, 1, first, units, H, rows, numbers, known)
        br, bz = bias_or_zero(b_hh, mine, j), bias_or_zero(b_hh, mine, H + j)
        bn = bias_or_zero(b_hh, mine, 2 * H + j)
        reset = slot_of(2, group, groups, tiles)  # the slot of r h
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
            gr, gz, gn, hn, h = zero, zero, zero, zero, zero
            for tile in range(last + 1):
                r = tile * TILE + row
                live = mine and r < running
                xr, xz, xn, h, rh = zero, zero, zero, zero, zero
                if live:  # before the wait: these come from far away
                    at = numbers[r] * T + step_of(turn, known[r], reverse)
                    k = at * 3 * H + j
                    xr, xz, xn = z[k], z[k + H], z[k + 2 * H]
                receive(s, inputs, mail, (now + tile) * size, size, turn + 1)
                multiply(s, registers, weights, some, inputs, H, parts, splits, is_bf16)
                if live:
                    gr = sigmoid((xr + br) + total(s, parts, splits, some, row, u))
                    gz = sigmoid((xz + bz) + total(s, parts, splits, some, row, units + u))
                    h = s[state + r * units + u]
                    if early:  # the rest needs r h of all units
                        k = at * 4 * H + j
                        kept[k] = gr
                        kept[k + H] = gz
                        rh = gr * h
                    else:
                        hn = bn + total(s, parts, splits, some, row, 2 * units + u)
                        gn, h = forward_unit(gz, xn, gr * hn, h)
                        s[state + r * units + u] = h
                if mine:
                    if early:
                        publish(mail, word_at(reset + tile, size, j, row), rh, turn + 1, blocks)
                    else:
                        publish(mail, word_at(following + tile, size, j, row), h, turn + 2, blocks)
                if live and not early:
                    if turn == known[r] - 1:
                        h_n[numbers[r], j] = h
                    if tile < last:
                        keep_unit(gr, gz, gn, hn, h, kept, outputs, at, H, j)
            if live and not early:  # nobody waits for these
                keep_unit(gr, gz, gn, hn, h, kept, outputs, at, H, j)
            if early:
                for tile in range(last + 1):
                    r = tile * TILE + row
                    h = zero
                    receive(s, inputs, mail, (reset + tile) * size, size, turn + 1)
                    multiply(
                        s,
                        late,
                        second,
                        units,
                        inputs,
                        H,
                        parts,
                        splits,
                        is_bf16,
                    )
                    if mine and r < running:
                        at = numbers[r] * T + step_of(turn, known[r], reverse)
                        gr, gz = kept[at * 4 * H + j], kept[at * 4 * H + H + j]
                        xn = z[at * 3 * H + 2 * H + j]
                        hn = bn + total(s, parts, splits, units, row, u)
                        rh = gr * s[state + r * units + u]
                        gn, h = forward_unit(gz, xn, hn, s[state + r * units + u])
                        s[state + r * units + u] = h
                        keep_unit(gr, gz, gn, rh, h, kept, outputs, at, H, j)
                        if turn == known[r] - 1:
                            h_n[numbers[r], j] = h
                    if mine:
                        publish(mail, word_at(following + tile, size, j, row), h, turn + 2, blocks)
        end(blocks)

    @cuda_kernel(
        launch=lambda s: launch_cooperative(s, back),
        shared=lambda s: backward_elements(s, 3, near_slots, way.half),
        **way.declared(back),
        name=f"gru_{way.how}_backward{suffix}",
    )
    def gru_backward(
        lengths: "in rows i[B]",
        w_hh: "in whole f[H,G]",
        h0: "in rows f[B,H]",
        y: "in rows f[B,T,H]",
        saved: "in* rows f[B,Z]",
        dy: "in rows f[B,T,H]",  # may be absent, as may dh_n
        dh_n: "in rows f[B,H]",
        dz: "out rows f[B,T,G]",  # gradients to the sums of x: r, z, n; all are 0 past the end
        dz_h: "out rows f[B,T,W]",  # to those of h: r, z, n, or r, z where the reset comes before
        before: "out rows f[B,T,H]",  # the h that each step began with
        reset: "out rows f[B,T,H]",  # r h; absent where the reset comes after the product
        dn: "out rows f[B,T,H]",  # gradient of n; likewise
        dh0: "out rows f[B,H]",
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
        u = j - first
        s = cuda.shared.array(0, y.dtype)
        size = TILE * 3 * H
        weights = place_of(slots * tiles * size)
        # the slice is of all gates, or a second one of n's
        depth = 2 * H if early else 3 * H  # of the product that leads to the turn before
        second = weights + room(depth, units)
        inputs = second
        if early:
            inputs += room(H, units)
        parts = inputs + TILE * 3 * H
        state = parts + BACKWARD_SPLITS * TILE * units
        load_rows(s, weights, w_hh, first, units, 0, depth, is_bf16)
        if early:
            load_rows(s, second, w_hh, first, units, 2 * H, H, is_bf16)
        mail = begin(words, cuda.shared.array(0, np.int64), s, slots * tiles * size, blocks)
        rows = rows_of_group(order, lengths, y.shape[0], T, group, groups, numbers, known)
        registers, late = cuda.local.array(count, y.dtype), cuda.local.array(count, y.dtype)
        hold(registers, s, weights, units, depth, backward_splits, is_bf16)
        if early:
            hold(late, s, second, units, H, backward_splits, is_bf16)
        zero_past_end(dz, 3, first, units, H, rows, numbers, known)
        zero_past_end(dz_h, 2 if early else 3, first, units, H, rows, numbers, known)
        zero_past_end(before, 1, first, units, H, rows, numbers, known)
        zero_past_end(reset, 1, first, units, H, rows, numbers, known)
        zero_past_end(dn, 1, first, units, H, rows, numbers, known)
        for r in range(row, rows, TILE):
            if mine and known[r] == 0:
                dh0[numbers[r], j] = value_or_zero(dh_n, numbers[r], j)
        slot = slot_of(
            2, group, groups, tiles
        )  # of the gradient of n, where the reset comes before
        outputs, kept, incoming, begun = flat(y), flat(saved), flat(dy), flat(before)
        sums, sums_h = flat(dz), flat(dz_h)
        out = Gradients(sums, sums_h, begun, flat(reset), flat(dn))
        zero = cast(y, 0)
        running, ran, top = 0, 0, known[0] - 1
        for turn in range(top, -2, -1):
            running = running_again(known, running, rows, turn)
            cut = is_cut(turn + 1, bptt)
            now = slot_of((turn + 1) % 2, group, groups, tiles)
            following = slot_of(turn % 2, group, groups, tiles)
            live, at, last, number = False, 0, (running - 1) // TILE, top - turn + 1
            dr, dzg, dng, dnh, h, fourth = zero, zero, zero, zero, zero, zero
            for tile in range(last + 1):
                r = tile * TILE + row
                live = mine and r < running
                begins = live and turn == known[r] - 1
                gr, gz, gn, dh, given = zero, zero, zero, zero, zero
                dr, dzg, dng, dnh = zero, zero, zero, zero
                if live:
                    b = numbers[r]
                    if begins:
                        dh = value_or_zero(dh_n, b, j)
                    if turn >= 0:  # before the wait: these come from far away
                        at = b * T + step_of(turn, known[r], reverse)
                        k = at * 4 * H + j
                        gr, gz, gn, fourth = kept[k], kept[k + H], kept[k + 2 * H], kept[k + 3 * H]
                        h = output_before(outputs, h0, H, b, T, turn, known[r], reverse, j)
                        if dy.size > 0:
                            given = incoming[at * H + j]
                if tile * TILE < ran:  # also where it is not needed: see `kernels/cuda/exchange.py`
                    receive(s, inputs, mail, (now + tile) * size, TILE * depth, number - 1)
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
                    if not (begins or cut):
                        dh = s[state + r * units + u]
                        dh += total(s, parts, backward_splits, units, row, u)
                    if turn < 0:
                        dh0[numbers[r], j] = dh
                    else:
                        dzg, dng, direct = gru_gradient(gz, gn, h, dh + given)
                        s[state + r * units + u] = direct
                        if not early:  # else it needs the gradient of n of all units
                            dr, dnh = gate_product_gradient(gr, fourth, dng), dng * gr
                if mine and turn >= 0:
                    k = word_at(following + tile, size, j, row)
                    publish(mail, k + H * TILE, dzg, number, blocks)
                    if early:
                        publish(mail, word_at(slot + tile, size, j, row), dng, number, blocks)
                    else:
                        publish(mail, k, dr, number, blocks)
                        publish(mail, k + 2 * H * TILE, dnh, number, blocks)
                if live and turn >= 0 and tile < last:
                    keep_gradient(Slopes(dr, dzg, dng, dnh), h, fourth, out, early, Unit(at, H, j))
            ran = running
            if live and turn >= 0:  # nobody waits for these
                keep_gradient(Slopes(dr, dzg, dng, dnh), h, fourth, out, early, Unit(at, H, j))
            if early and turn >= 0:
                for tile in range(last + 1):
                    r = tile * TILE + row
                    dr = zero
                    receive(s, inputs, mail, (slot + tile) * size, TILE * H, number)
                    multiply(
                        s,
                        late,
                        second,
                        units,
                        inputs,
                        H,
                        parts,
                        backward_splits,
                        is_bf16,
                    )
                    if mine and r < running:
                        at = numbers[r] * T + step_of(turn, known[r], reverse)
                        gr = kept[at * 4 * H + j]
                        drh = total(s, parts, backward_splits, units, row, u)
                        dr = gate_product_gradient(gr, begun[at * H + j], drh)
                        s[state + r * units + u] += drh * gr
                        sums[at * 3 * H + j] = dr
                        sums_h[at * depth + j] = dr
                    if mine:
                        publish(mail, word_at(following + tile, size, j, row), dr, number, blocks)
        end(blocks)


for _way in ways():
    _declare("", False, _way)
    _declare("_early", True, _way)
