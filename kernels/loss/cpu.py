"""Losses over classes, row by row, with their gradients.

N rows, C classes; W is C, or 0 where there are no class weights. Formulas are PyTorch's
(`torch.nn.functional`), so that numbers can be compared. A class index outside 0..C-1 that is not
the ignored one gives NaN.
"""

from ..cpu.parts import fill_row, keep_part, load_part, row_max, store_part
from ..declare import helper, kernel
from ..scalar import exp, log
from ..simd import fma, iota, lanes, max_lanes, maximum, splat, sum_lanes, where
from ..softmax.cpu import exp_row, exp_sum, log_of
from .shared import weight_of

#: logits of the rows that go through the passes of a cross entropy together
BLOCK = 1 << 12

# ---------------------------------------------------------------- cross entropy


@helper
def weight_total(weight, C):
    """Sum of the class weights."""
    if weight.shape[0] == 0:
        return float(C)
    total = splat(weight, 0.0)
    for j in range(0, C, lanes(weight)):
        total = total + load_part(weight, j, C - j)
    return float(sum_lanes(total))


@helper
def weighted(weight, v, j, n):
    """`v` times the class weights from class `j` on."""
    return v * load_part(weight, j, n) if weight.shape[0] > 0 else v


@helper
def spread_sum(x, weight, base, C, shift):
    """Sum of w (x - shift) over a row."""
    total = splat(x, 0.0)
    for j in range(0, C, lanes(x)):
        v = weighted(weight, load_part(x, base + j, C - j) - shift, j, C - j)
        total = total + keep_part(x, v, C - j, 0.0)
    return sum_lanes(total)


@helper
def narrow_cross_entropy(x, target, weight, loss, dlogits, ignore_index, lo, hi):
    """`cross_entropy_forward` without smoothing, of rows that fit in two vectors.

    A row stays in registers, and one logarithm serves as many rows as a vector has lanes. Every
    number is computed in the order of longer rows.
    """
    C, step = x.shape[1], lanes(x)
    rest, nothing = C - step, 0.0 * weight_total(weight, C)
    zero, lowest = splat(x, -0.0), splat(x, -float("inf"))
    others, behind = weighted(weight, zero, 0, C), zero
    if rest > 0:
        behind = weighted(weight, zero, step, rest)
    for first in range(lo, hi, step):
        count = min(step, hi - first)
        totals, own, shares = splat(x, 1.0), splat(x, 0.0), zero
        for k in range(count):
            i, here = first + k, iota(x) == k
            base, t = i * C, target[i]
            if t < 0 or t >= C or t == ignore_index:
                value = 0.0 if t == ignore_index else float("nan")
                own = where(here, splat(x, value), own)
                fill_row(dlogits, base, C, value)
                continue
            a, b = load_part(x, base, C), zero
            largest = maximum(keep_part(x, a, C, -float("inf")), lowest)
            if rest > 0:
                b = load_part(x, base + step, rest)
                largest = maximum(keep_part(x, b, rest, -float("inf")), largest)
            shift = max_lanes(largest)
            a = keep_part(x, exp(a - shift), C, 0.0)
            if rest > 0:
                b = keep_part(x, exp(b - shift), rest, 0.0)
            total, share = sum_lanes(a + b), 1.0 * weight_of(weight, t)
            scale = (share + nothing) / total
            totals = where(here, splat(x, total), totals)
            own = where(here, splat(x, x[i, t] - shift), own)
            shares = where(here, splat(x, share), shares)
            store_part(dlogits, base, fma(a, scale, others), C)
            if rest > 0:
                store_part(dlogits, base + step, fma(b, scale, behind), rest)
            dlogits[i, t] -= share
        store_part(loss, first, -shares * (own - log(totals)), count)


@helper
def is_class(t, C, ignore_index):
    """Whether a target is a class that counts."""
    return t >= 0 and t < C and t != ignore_index


@helper
def plain_cross_entropy(x, target, weight, loss, dlogits, ignore_index, lo, hi):
    """`cross_entropy_forward` without smoothing: each pass over some rows before the next one, so
    that none waits for the sum or the largest number of another, and one logarithm for all of them.
    """
    C, zero, others = x.shape[1], splat(x, 0.0), splat(x, -0.0)
    nothing, rows = 0.0 * weight_total(weight, C), max(1, min(lanes(x), BLOCK // C))
    for first in range(lo, hi, rows):
        last = min(first + rows, hi)
        for i in range(first, last):  # until the end `loss` holds what a row needs next
            loss[i] = row_max(x, i * C, C)
        totals, own, shares, other = splat(x, 1.0), zero, zero, zero
        for i in range(first, last):
            t, base, here = target[i], i * C, iota(x) == i - first
            if is_class(t, C, ignore_index):
                shift = loss[i]
                own = where(here, splat(x, x[i, t] - shift), own)
                loss[i] = exp_row(x, dlogits, base, C, shift)
                totals = where(here, splat(x, loss[i]), totals)
                shares = where(here, splat(x, 1.0 * weight_of(weight, t)), shares)
            else:
                value = 0.0 if t == ignore_index else float("nan")
                other = where(here, splat(x, value), other)
                fill_row(dlogits, base, C, value)
        for i in range(first, last):
            t, base = target[i], i * C
            if is_class(t, C, ignore_index):
                share = 1.0 * weight_of(weight, t)
                scale = (share + nothing) / loss[i]
                for j in range(0, C, lanes(x)):
                    p = fma(load_part(dlogits, base + j, C - j), scale,
                            weighted(weight, others, j, C - j))  # fmt: skip
                    store_part(dlogits, base + j, p, C - j)
                dlogits[i, t] -= share
        store_part(loss, first, other - shares * (own - log(totals)), last - first)


@kernel(slow_to_compile=True)
def cross_entropy_forward(
    x: "in rows f[N,C]",  # logits
    target: "in rows i[N]",
    weight: "in whole f[W]",
    loss: "out rows f[N]",
    dlogits: "out rows f[N,C]",  # may be x
    smoothing: "real",
    ignore_index: "int",
    lo: "begin",
    hi: "end",
):
    """Softmax and cross entropy with class indices, and the gradient of the row's loss.

    loss = -(1 - s) w_t log p_t - s / C sum_c w_c log p_c with s = smoothing
    dlogits = p ((1 - s) w_t + s / C sum w) - (1 - s) w_t [c = t] - s / C w_c
    """
    C = x.shape[1]
    if 2 * lanes(x) >= C and smoothing == 0.0:
        narrow_cross_entropy(x, target, weight, loss, dlogits, ignore_index, lo, hi)
        return
    if smoothing == 0.0:
        plain_cross_entropy(x, target, weight, loss, dlogits, ignore_index, lo, hi)
        return
    weights = weight_total(weight, C)
    spread = smoothing / C
    others = splat(x, -spread)
    for i in range(lo, hi):
        base = i * C
        t = target[i]
        if t < 0 or t >= C or t == ignore_index:
            value = 0.0 if t == ignore_index else float("nan")
            loss[i] = value
            fill_row(dlogits, base, C, value)
            continue
        share = (1.0 - smoothing) * weight_of(weight, t)
        shift = row_max(x, base, C)
        own = x[i, t] - shift
        rest = spread_sum(x, weight, base, C, shift) if smoothing > 0.0 else 0.0
        total = exp_row(x, dlogits, base, C, shift)
        log_sum = log_of(x, total)
        loss[i] = -share * (own - log_sum)
        if smoothing > 0.0:
            loss[i] -= spread * (rest - weights * log_sum)
        scale = (share + spread * weights) / total
        for j in range(0, C, lanes(x)):
            p = load_part(dlogits, base + j, C - j)
            store_part(dlogits, base + j, fma(p, scale, weighted(weight, others, j, C - j)), C - j)
        dlogits[i, t] -= share


@kernel(slow_to_compile=True)
def cross_entropy_loss(
    x: "in rows f[N,C]",
    target: "in rows i[N]",
    weight: "in whole f[W]",
    loss: "out rows f[N]",
    smoothing: "real",
    ignore_index: "int",
    lo: "begin",
    hi: "end",
):
    """`cross_entropy_forward` without the gradient, for evaluation: the same bits."""
    C = x.shape[1]
    weights = weight_total(weight, C)
    spread = smoothing / C
    for i in range(lo, hi):
        base = i * C
        t = target[i]
        if t < 0 or t >= C or t == ignore_index:
            loss[i] = 0.0 if t == ignore_index else float("nan")
            continue
        share = (1.0 - smoothing) * weight_of(weight, t)
        shift = row_max(x, base, C)
        log_sum = log_of(x, exp_sum(x, base, C, shift))
        loss[i] = -share * (x[i, t] - shift - log_sum)
        if smoothing > 0.0:
            loss[i] -= spread * (spread_sum(x, weight, base, C, shift) - weights * log_sum)


@kernel(slow_to_compile=True)
def cross_entropy_backward(
    dlogits: "in rows f[N,C]",
    dloss: "in rows f[N]",
    dx: "out rows f[N,C]",  # may be dlogits
    lo: "begin",
    hi: "end",
):
    """dx = dloss dlogits: for either cross entropy."""
    C = dlogits.shape[1]
    for i in range(lo, hi):
        for j in range(0, C, lanes(dx)):
            v = load_part(dlogits, i * C + j, C - j) * dloss[i]
            store_part(dx, i * C + j, v, C - j)


@helper
def soft_part(target, weight, base, j, n, smoothing, spread):
    """w ((1 - s) target + s / C) of one part; lanes from `n` on are 0."""
    q = fma(load_part(target, base + j, n), 1.0 - smoothing, spread)
    return keep_part(target, weighted(weight, q, j, n), n, 0.0)


@helper
def soft_loss(x, target, weight, base, C, smoothing, shift, log_sum):
    """-sum_c q_c log p_c with q = w ((1 - s) target + s / C); classes with q = 0 count 0."""
    total = splat(x, 0.0)
    for j in range(0, C, lanes(x)):
        q = soft_part(target, weight, base, j, C - j, smoothing, smoothing / C)
        log_p = load_part(x, base + j, C - j) - shift - log_sum
        total = total + where(q == 0.0, 0.0 * q, q * log_p)
    return -sum_lanes(total)


@kernel(slow_to_compile=True)
def cross_entropy_probs_forward(
    x: "in rows f[N,C]",  # logits
    target: "in rows f[N,C]",  # probabilities
    weight: "in whole f[W]",
    loss: "out rows f[N]",
    dlogits: "out rows f[N,C]",
    smoothing: "real",
    lo: "begin",
    hi: "end",
):
    """Softmax and cross entropy with class probabilities, and the gradient of the row's loss.

    loss = -sum_c q_c log p_c with q = w ((1 - s) target + s / C); dlogits = p sum(q) - q
    """
    C = x.shape[1]
    spread = smoothing / C
    for i in range(lo, hi):
        base = i * C
        shift = row_max(x, base, C)
        total = exp_row(x, dlogits, base, C, shift)
        log_sum = log_of(x, total)
        loss[i] = soft_loss(x, target, weight, base, C, smoothing, shift, log_sum)
        mass = splat(x, 0.0)
        for j in range(0, C, lanes(x)):
            mass = mass + soft_part(target, weight, base, j, C - j, smoothing, spread)
        scale = sum_lanes(mass) / total
        for j in range(0, C, lanes(x)):
            q = soft_part(target, weight, base, j, C - j, smoothing, spread)
            store_part(dlogits, base + j, load_part(dlogits, base + j, C - j) * scale - q, C - j)


@kernel(slow_to_compile=True)
def cross_entropy_probs_loss(
    x: "in rows f[N,C]",
    target: "in rows f[N,C]",
    weight: "in whole f[W]",
    loss: "out rows f[N]",
    smoothing: "real",
    lo: "begin",
    hi: "end",
):
    """`cross_entropy_probs_forward` without the gradient, for evaluation: the same bits."""
    C = x.shape[1]
    for i in range(lo, hi):
        base = i * C
        shift = row_max(x, base, C)
        log_sum = log_of(x, exp_sum(x, base, C, shift))
        loss[i] = soft_loss(x, target, weight, base, C, smoothing, shift, log_sum)


# ---------------------------------------------------------------- negative log likelihood


@kernel
def target_weight(
    target: "in rows i[N]",
    weight: "in whole f[W]",
    y: "out rows f[N]",
    ignore_index: "int",
    lo: "begin",
    hi: "end",
):
    """The weight of the row's class, 0 for an ignored row: what the mean divides by."""
    W = weight.shape[0]
    for i in range(lo, hi):
        t = target[i]
        if t == ignore_index:
            y[i] = 0.0
        elif t < 0 or (W > 0 and t >= W):
            y[i] = float("nan")
        else:
            y[i] = weight_of(weight, t)


@kernel
def nll_forward(
    x: "in rows f[N,C]",  # log-probabilities
    target: "in rows i[N]",
    weight: "in whole f[W]",
    loss: "out rows f[N]",
    ignore_index: "int",
    lo: "begin",
    hi: "end",
):
    """loss = -w_t x_t."""
    C = x.shape[1]
    for i in range(lo, hi):
        t = target[i]
        if t < 0 or t >= C or t == ignore_index:
            loss[i] = 0.0 if t == ignore_index else float("nan")
        else:
            loss[i] = -weight_of(weight, t) * x[i, t]


@kernel
def nll_backward(
    target: "in rows i[N]",
    weight: "in whole f[W]",
    dloss: "in rows f[N]",
    dx: "out rows f[N,C]",
    ignore_index: "int",
    lo: "begin",
    hi: "end",
):
    """dx = -w_t dloss in the target's column, else 0."""
    C = dx.shape[1]
    for i in range(lo, hi):
        t = target[i]
        fill_row(dx, i * C, C, 0.0)
        if t >= 0 and t < C and t != ignore_index:
            dx[i, t] = -weight_of(weight, t) * dloss[i]
