"""The transducer's loss (Graves 2012, "Sequence transduction with recurrent neural networks").

B sequences of T frames, L labels, V = L + 1, C classes.
"""

import math

from ..cpu.parts import fill_row, load_part, row_max, store_part
from ..ctc.decode import NEVER
from ..ctc.shared import frame_count, label_count
from ..declare import kernel
from ..simd import lanes
from ..softmax.cpu import exp_sum, log_of
from ..vector_math import INFINITY, NAN, exp
from .shared import after_blank, backward_node, forward_node, score


@kernel(slow_to_compile=True, expects="logits, of which each node has a finite one")
def transducer_forward(
    x: "in rows f[B,T,V,C]",  # logits
    target: "in rows i[B,L]",
    lengths: "in rows i[B]",  # absent: all T
    target_lengths: "in rows i[B]",  # absent: up to the first negative label
    loss: "out rows f[B]",
    norm: "out* rows f[B,T,V,D]",  # D = 2, as in `ctc`
    alpha: "out* rows r[B,T,V]",
    blank: "int",
    mean: "int",
    lo: "begin",
    hi: "end",
):
    """loss = -log p(target | softmax x), divided by the number of labels if `mean`; infinite
    without a frame, NaN for labels that are no class and lengths beyond the data."""
    T, V, C = x.shape[1], x.shape[2], x.shape[3]
    for b in range(lo, hi):
        frames = frame_count(lengths, b, T)
        L = label_count(target, target_lengths, b, C, blank)
        if frames < 0 or L < 0:
            loss[b] = NAN
            continue
        if frames == 0:
            loss[b] = INFINITY
            continue
        unknown = 0.0
        for t in range(frames):
            for u in range(L + 1):
                base = ((b * T + t) * V + u) * C
                top = row_max(x, base, C)
                norm[b, t, u, 0] = top
                norm[b, t, u, 1] = log_of(x, exp_sum(x, base, C, top))
                unknown += (norm[b, t, u, 0] + norm[b, t, u, 1]) * 0.0
        for t in range(frames):
            for u in range(L + 1):
                forward_node(x, target, norm, alpha, b, t, u, blank)
        log_p = alpha[b, frames - 1, L] + score(x, norm, b, frames - 1, L, blank)
        if log_p <= NEVER:
            log_p = -INFINITY
        loss[b] = unknown - log_p / max(L if mean != 0 else 1, 1)


@kernel(slow_to_compile=True)
def transducer_backward(
    x: "in rows f[B,T,V,C]",
    target: "in rows i[B,L]",
    lengths: "in rows i[B]",
    target_lengths: "in rows i[B]",
    loss: "in rows f[B]",
    norm: "in* rows f[B,T,V,D]",
    alpha: "in* rows r[B,T,V]",
    dloss: "in rows f[B]",
    dx: "out rows f[B,T,V,C]",
    beta: "scratch rows r[B,T,V]",
    blank: "int",
    mean: "int",
    lo: "begin",
    hi: "end",
):
    """dx = dloss (softmax x times the share of paths through the node - the share of those that
    write the class there), 0 past the ends; NaN where the loss is not finite."""
    T, V, C = x.shape[1], x.shape[2], x.shape[3]
    for b in range(lo, hi):
        frames = frame_count(lengths, b, T)
        L = label_count(target, target_lengths, b, C, blank)
        if frames < 0 or L < 0 or not (abs(loss[b]) < INFINITY):
            fill_row(dx, b * T * V * C, T * V * C, NAN)
            continue
        for i in range(frames):
            for j in range(L + 1):
                t, u = frames - 1 - i, L - j
                backward_node(x, target, norm, beta, b, t, u, frames, L, blank)
        log_p, factor = beta[b, 0, 0], dloss[b] / max(L if mean != 0 else 1, 1)
        for t in range(T):
            for u in range(V):
                base = ((b * T + t) * V + u) * C
                if t >= frames or u > L:
                    fill_row(dx, base, C, 0.0)
                    continue
                before = alpha[b, t, u] - log_p
                own = factor * math.exp(max(before + beta[b, t, u], NEVER))
                for j in range(0, C, lanes(x)):
                    v = load_part(x, base + j, C - j) - norm[b, t, u, 0]
                    p = exp(v - norm[b, t, u, 1])
                    store_part(dx, base + j, p * own, C - j)
                after = before + score(x, norm, b, t, u, blank)
                after += after_blank(beta, b, t, u, frames, L)
                dx[b, t, u, blank] -= factor * math.exp(max(after, NEVER))
                if u < L:
                    after = before + score(x, norm, b, t, u, target[b, u]) + beta[b, t, u + 1]
                    dx[b, t, u, target[b, u]] -= factor * math.exp(max(after, NEVER))
