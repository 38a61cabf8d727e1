"""Drawing samples from a WaveNet on CUDA: a block for each sequence, a thread for each unit.

What a step computes is exchanged through the sequence's row of scratch memory.
"""

from __future__ import annotations

from typing import Any

from ..control_block import SEED, STEP
from ..cuda.device import block_number, block_threads, cast, cuda, flat, thread_number
from ..declare import cuda_kernel, helper
from ..scalar import exp, relu, sigmoid, tanh
from ..simd import fma
from ..vector_math import INFINITY
from . import cpu
from .shared import chances, dilation, drawn_level, padded, places, span

THREADS = 128


@helper
def add_product(
    w: Any, base: int, depth: int, width: int, s: Any, row: int, x: int, y: int
) -> None:
    """s[row, y:y+width] += s[row, x:x+depth] @ the matrix (depth, width) at w[base]."""
    j = thread_number()
    while j < width:
        total = s[row, y + j]
        for i in range(depth):
            total = fma(s[row, x + i], flat(w)[base + i * width + j], total)
        s[row, y + j] = total
        j += block_threads()


@helper
def set_part(a: Any, i: int, s: Any, row: int, y: int, n: int) -> None:
    """s[row, y:y+n] = a[i:i+n] (flat)."""
    j = thread_number()
    while j < n:
        s[row, y + j] = flat(a)[i + j]
        j += block_threads()


@helper
def add_part(a: Any, i: int, s: Any, row: int, y: int, n: int) -> None:
    """s[row, y:y+n] += a[i:i+n] (flat); nothing where `a` is absent."""
    if a.size > 0:
        j = thread_number()
        while j < n:
            s[row, y + j] += flat(a)[i + j]
            j += block_threads()


@helper
def relu_row(s: Any, row: int, y: int, n: int) -> None:
    """s[row, y:y+n] = max(s[row, y:y+n], 0)."""
    j = thread_number()
    while j < n:
        s[row, y + j] = relu(s[row, y + j])
        j += block_threads()


@helper
def place_input(
    table: Any, level: int, levels: int, mixtures: int, s: Any, row: int, y: int, C: int
) -> None:
    """A sample's vector (see the CPU's)."""
    j = thread_number()
    while j < C:
        if level < 0:
            s[row, y + j] = 0.0
        elif mixtures == 0:
            s[row, y + j] = table[level, j]
        else:
            x = cast(s, 2.0 * level / (levels - 1) - 1.0)
            s[row, y + j] = fma(table[0, j], x, table[1, j])
        j += block_threads()


@helper
def gate_units(s: Any, row: int, z: int, u: int, C: int) -> None:
    """u = tanh(z[:C]) * sigmoid(z[C:])."""
    j = thread_number()
    while j < C:
        s[row, u + j] = tanh(s[row, z + j]) * sigmoid(s[row, z + C + j])
        j += block_threads()


@helper
def place_of(s: Any, row: int, o: int, count: int, u: float, temperature: float) -> int:
    """Which of so many logits is drawn by a number u within (0, 1): -1 where they are no numbers.
    One thread does it."""
    top = s[row, o]
    first = 0
    for k in range(1, count):
        if s[row, o + k] > top:
            top, first = s[row, o + k], k
    if temperature == 0.0:
        return first if top == top else -1
    total = 0.0
    for k in range(count):
        e = exp((s[row, o + k] - top) * cast(s, 1.0 / temperature))
        s[row, o + k] = e
        total += e
    if not total < INFINITY:  # or NaN
        return -1
    wanted, passed, found = cast(s, u) * total, 0.0, -1
    for k in range(count):
        passed += s[row, o + k]
        if s[row, o + k] > 0.0:
            found = k
            if passed > wanted:
                return k
    return found


@cuda_kernel(like=cpu.wavenet_sample, launch=lambda s: (s["N"], THREADS), bounds=THREADS)
def wavenet_sample(
    given, table, gate, gate_bias, each, frames, residual, residual_bias, skip, skip_bias, hidden,
    hidden_bias, last, last_bias, y, room, control, temperature, cycle, levels, mixtures, hop,
    stream,
):  # fmt: skip
    shown = cuda.shared.array(1, control.dtype)
    n, first_thread = block_number(), thread_number() == 0
    C, S, O = table.shape[1], skip_bias.size, last_bias.size
    L, G = gate_bias.shape[0], gate_bias.shape[1]
    P, T, F = given.shape[1], y.shape[1], frames.shape[1]
    taps = gate.shape[0] // (L * C)
    Cp = padded(C)
    x, z, units, first, second, o = places(L, cycle, taps, C, S)
    times = (int(control[STEP]), int(control[SEED]))
    level = -1
    for t in range(P + T - 1):
        if t < P:
            level = int(given[n, t])
        elif level < 0:
            if first_thread:
                y[n, t - P + 1] = -1
            continue
        place_input(table, level, levels, mixtures, room, n, x, C)
        ring = 0
        for layer in range(L):
            far, near = span(layer, cycle, taps), dilation(layer, cycle)
            set_part(gate_bias, layer * G, room, n, z, G)
            add_part(each, n * L * G + layer * G, room, n, z, G)
            if frames.size > 0:
                frame = n * F + min(t // hop, F - 1)
                add_part(frames, (frame * L + layer) * G, room, n, z, G)
            cuda.syncthreads()
            for k in range(taps - 1):
                past = t - (taps - 1 - k) * near
                if past >= 0:
                    add_product(gate, (layer * taps + k) * C * G, C, G, room, n,
                                ring + past % far * Cp, z)  # fmt: skip
            add_product(gate, (layer * taps + taps - 1) * C * G, C, G, room, n, x, z)
            cuda.syncthreads()
            j = thread_number()
            while far > 0 and j < C:
                room[n, ring + t % far * Cp + j] = room[n, x + j]
                j += block_threads()
            u = units + layer * Cp
            gate_units(room, n, z, u, C)
            cuda.syncthreads()
            if layer < L - 1:
                add_part(residual_bias, layer * C, room, n, x, C)
                add_product(residual, layer * C * C, C, C, room, n, u, x)
            ring += far * Cp
        if t < P - 1:
            cuda.syncthreads()
            continue
        set_part(skip_bias, 0, room, n, first, S)
        for layer in range(L):
            add_product(skip, layer * C * S, C, S, room, n, units + layer * Cp, first)
        relu_row(room, n, first, S)
        cuda.syncthreads()
        set_part(hidden_bias, 0, room, n, second, S)
        add_product(hidden, 0, S, S, room, n, first, second)
        relu_row(room, n, second, S)
        cuda.syncthreads()
        set_part(last_bias, 0, room, n, o, O)
        add_product(last, 0, S, O, room, n, second, o)
        cuda.syncthreads()
        if first_thread:
            a, b = chances(n, t, stream, times)
            if mixtures == 0:
                level = place_of(room, n, o, O, a, temperature)
            else:
                k, level = place_of(room, n, o, mixtures, a, temperature), -1
                if k >= 0:
                    mean, scale = room[n, o + mixtures + k], room[n, o + 2 * mixtures + k]
                    level = drawn_level(float(mean), float(scale), b, temperature, levels)
            y[n, t - P + 1] = level
            shown[0] = level
        cuda.syncthreads()
        level = int(shown[0])
