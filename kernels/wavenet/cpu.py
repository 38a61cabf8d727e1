"""Drawing samples from a WaveNet (van den Oord et al. 2016), one after the other.

A layer's past inputs are kept, so that a sample costs one step of each layer, not as many as the
net looks back (Paine et al. 2016). N sequences; C channels, S of the hidden layers, O numbers that
say how a sample is distributed; a layer's window has so many taps.
"""

from ..control_block import SEED, STEP
from ..cpu.parts import copy_run, fill_row, keep_part, load_part, row_max, store_part
from ..declare import helper, kernel
from ..scalar import exp, relu, sigmoid, tanh
from ..simd import fma, lanes, splat, sum_lanes
from ..vector_math import INFINITY
from .shared import chances, dilation, drawn_level, padded, places, span


@helper
def add_product(w, base, depth, width, s, row, x, y):
    """s[row, y:y+width] += s[row, x:x+depth] @ the matrix (depth, width) at w[base].

    Four vectors of columns at a time, and for each of them one sum of the even rows of the matrix
    and one of the odd rows: eight independent chains, which keep a core busy. What is left of the
    columns goes by two vectors and by four chains.
    """
    n, at = lanes(s), row * s.shape[1] + y
    whole = width // (4 * n) * (4 * n)
    for j in range(0, whole, 4 * n):
        e0, e1 = load_part(s, at + j, n), load_part(s, at + j + n, n)
        e2, e3 = load_part(s, at + j + 2 * n, n), load_part(s, at + j + 3 * n, n)
        zero = splat(s, 0.0)
        o0, o1, o2, o3 = zero, zero, zero, zero
        k = base + j
        for i in range(0, depth - 1, 2):
            a, b = splat(s, s[row, x + i]), splat(s, s[row, x + i + 1])
            e0, e1 = fma(a, load_part(w, k, n), e0), fma(a, load_part(w, k + n, n), e1)
            e2 = fma(a, load_part(w, k + 2 * n, n), e2)
            e3 = fma(a, load_part(w, k + 3 * n, n), e3)
            k += width
            o0, o1 = fma(b, load_part(w, k, n), o0), fma(b, load_part(w, k + n, n), o1)
            o2 = fma(b, load_part(w, k + 2 * n, n), o2)
            o3 = fma(b, load_part(w, k + 3 * n, n), o3)
            k += width
        if depth % 2 == 1:
            a = splat(s, s[row, x + depth - 1])
            e0, e1 = fma(a, load_part(w, k, n), e0), fma(a, load_part(w, k + n, n), e1)
            e2 = fma(a, load_part(w, k + 2 * n, n), e2)
            e3 = fma(a, load_part(w, k + 3 * n, n), e3)
        store_part(s, at + j, e0 + o0, n)
        store_part(s, at + j + n, e1 + o1, n)
        store_part(s, at + j + 2 * n, e2 + o2, n)
        store_part(s, at + j + 3 * n, e3 + o3, n)
    for j in range(whole, width, 2 * n):
        left, right = width - j, width - j - n
        even, second = load_part(s, at + j, left), splat(s, 0.0)
        odd, fourth = splat(s, 0.0), splat(s, 0.0)
        if right > 0:
            second = load_part(s, at + j + n, right)
        k = base + j
        i = 0
        if right >= n:
            while i + 1 < depth:
                a, b = splat(s, s[row, x + i]), splat(s, s[row, x + i + 1])
                even, second = (
                    fma(a, load_part(w, k, n), even),
                    fma(a, load_part(w, k + n, n), second),
                )
                k += width
                odd, fourth = (
                    fma(b, load_part(w, k, n), odd),
                    fma(b, load_part(w, k + n, n), fourth),
                )
                k += width
                i += 2
        while i < depth:
            a = splat(s, s[row, x + i])
            even = fma(a, load_part(w, k, left), even)
            if right > 0:
                second = fma(a, load_part(w, k + n, right), second)
            k += width
            i += 1
        store_part(s, at + j, even + odd, left)
        if right > 0:
            store_part(s, at + j + n, second + fourth, right)


@helper
def set_part(a, i, s, row, y, n):
    """s[row, y:y+n] = a[i:i+n] (flat); zeros where `a` is absent."""
    at = row * s.shape[1] + y
    for j in range(0, n, lanes(s)):
        v = splat(s, 0.0)
        if a.size > 0:
            v = load_part(a, i + j, n - j)
        store_part(s, at + j, v, n - j)


@helper
def add_part(a, i, s, row, y, n):
    """s[row, y:y+n] += a[i:i+n] (flat); nothing where `a` is absent."""
    if a.size > 0:
        at = row * s.shape[1] + y
        for j in range(0, n, lanes(s)):
            v = load_part(s, at + j, n - j) + load_part(a, i + j, n - j)
            store_part(s, at + j, v, n - j)


@helper
def relu_row(s, row, y, n):
    """s[row, y:y+n] = max(s[row, y:y+n], 0)."""
    at = row * s.shape[1] + y
    for j in range(0, n, lanes(s)):
        store_part(s, at + j, relu(load_part(s, at + j, n - j)), n - j)


@helper
def place_input(table, level, levels, mixtures, s, row, y, C):
    """A sample's vector: its row of a table, or its value times the first row plus the second;
    zeros for what precedes the first sample."""
    if level < 0:
        fill_row(s, row * s.shape[1] + y, C, 0.0)
    elif mixtures == 0:
        set_part(table, level * C, s, row, y, C)
    else:
        at, x = row * s.shape[1] + y, splat(s, 2.0 * level / (levels - 1) - 1.0)
        for j in range(0, C, lanes(s)):
            v = fma(load_part(table, j, C - j), x, load_part(table, C + j, C - j))
            store_part(s, at + j, v, C - j)


@helper
def gate_units(s, row, z, u, C):
    """u = tanh(z[:C]) * sigmoid(z[C:])."""
    at, to = row * s.shape[1] + z, row * s.shape[1] + u
    for j in range(0, C, lanes(s)):
        a, b = load_part(s, at + j, C - j), load_part(s, at + C + j, C - j)
        store_part(s, to + j, tanh(a) * sigmoid(b), C - j)


@helper
def place_of(s, row, o, count, u, temperature):
    """Which of so many logits is drawn by a number u within (0, 1): -1 where they are no numbers.
    The logits are overwritten."""
    at, n = row * s.shape[1] + o, lanes(s)
    top = row_max(s, at, count)
    if temperature == 0.0:
        for k in range(count):
            if s[row, o + k] == top:
                return k
        return -1
    total = 0.0
    for j in range(0, count, n):
        v = exp((load_part(s, at + j, count - j) - top) * (1.0 / temperature))
        v = keep_part(s, v, count - j, 0.0)
        store_part(s, at + j, v, count - j)
        total += sum_lanes(v)
    if not total < INFINITY:  # or NaN
        return -1
    wanted, found = u * total, -1
    passed = 0.0
    for j in range(0, count, n):
        part = sum_lanes(load_part(s, at + j, count - j))
        if passed + part > wanted:
            for k in range(j, min(j + n, count)):
                passed += s[row, o + k]
                if s[row, o + k] > 0.0:
                    found = k
                    if passed > wanted:
                        return k
            return found
        passed += part
    for k in range(count):  # rounding left u beyond the last one
        if s[row, o + k] > 0.0:
            found = k
    return found


@kernel
def wavenet_sample(
    given: "in rows i[N,P]",  # -1, then samples that are known
    table: "in whole f[V,C]",  # of the levels; or of a value: a factor and a shift
    gate: "in whole f[A,G]",  # [layers taps C, 2C]
    gate_bias: "in whole f[L,G]",
    each: "in rows f[N,D]",  # what a sequence adds to the gates, [N, layers 2C]; may be absent
    frames: "in rows f[N,F,E]",  # likewise in each of F frames; may be absent
    residual: "in whole f[R,C]",  # [(layers - 1) C, C]; absent of a single layer
    residual_bias: "in whole f[Q,C]",  # [layers - 1, C]
    skip: "in whole f[U,S]",  # [layers C, S]
    skip_bias: "in whole f[S]",
    hidden: "in whole f[S,S]",
    hidden_bias: "in whole f[S]",
    last: "in whole f[S,O]",
    last_bias: "in whole f[O]",
    y: "out rows i[N,T]",
    room: "scratch rows f[N,Z]",
    control: "in whole i[K]",
    temperature: "double",
    cycle: "int",
    levels: "int",
    mixtures: "int",  # logistic distributions of a sample's value; 0: O logits, one for each level
    hop: "int",  # samples in a frame
    stream: "int",
    lo: "begin",
    hi: "end",
):
    """y are T samples drawn after the given ones; -1 from where the net says nothing finite on."""
    C, S, O = table.shape[1], skip_bias.size, last_bias.size
    L, G = gate_bias.shape[0], gate_bias.shape[1]
    P, T, F = given.shape[1], y.shape[1], frames.shape[1]
    taps = gate.shape[0] // (L * C)
    Cp = padded(C)
    x, z, units, first, second, o = places(L, cycle, taps, C, S)
    times = (int(control[STEP]), int(control[SEED]))
    for n in range(lo, hi):
        level = -1
        for t in range(P + T - 1):
            if t < P:
                level = int(given[n, t])
            elif level < 0:  # the net has said nothing finite
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
                for k in range(taps - 1):
                    past = t - (taps - 1 - k) * near
                    if past >= 0:
                        add_product(gate, (layer * taps + k) * C * G, C, G, room, n,
                                    ring + past % far * Cp, z)  # fmt: skip
                add_product(gate, (layer * taps + taps - 1) * C * G, C, G, room, n, x, z)
                if far > 0:
                    row = n * room.shape[1]
                    copy_run(room, row + x, room, row + ring + t % far * Cp, C)
                u = units + layer * Cp
                gate_units(room, n, z, u, C)
                if layer < L - 1:
                    add_part(residual_bias, layer * C, room, n, x, C)
                    add_product(residual, layer * C * C, C, C, room, n, u, x)
                ring += far * Cp
            if t < P - 1:
                continue  # the next sample is given
            set_part(skip_bias, 0, room, n, first, S)
            for layer in range(L):
                add_product(skip, layer * C * S, C, S, room, n, units + layer * Cp, first)
            relu_row(room, n, first, S)
            set_part(hidden_bias, 0, room, n, second, S)
            add_product(hidden, 0, S, S, room, n, first, second)
            relu_row(room, n, second, S)
            set_part(last_bias, 0, room, n, o, O)
            add_product(last, 0, S, O, room, n, second, o)
            a, b = chances(n, t, stream, times)
            if mixtures == 0:
                level = place_of(room, n, o, O, a, temperature)
            else:
                k, level = place_of(room, n, o, mixtures, a, temperature), -1
                if k >= 0:
                    mean, scale = room[n, o + mixtures + k], room[n, o + 2 * mixtures + k]
                    level = drawn_level(float(mean), float(scale), b, temperature, levels)
            y[n, t - P + 1] = level
