"""Losses over classes on CUDA, row by row, with their gradients.

N rows, C classes; W is C, or 0 where there are no class weights. Formulas as in
`cpu.py`; a row is read once and kept as in `softmax`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..cuda.device import cast, cuda, divide_index, flat, flat_index
from ..cuda.rows import row_place, row_sum
from ..declare import ceil_div, cuda_kernel, helper
from ..scalar import log
from ..simd import fma, where
from ..softmax.cuda import ROWS, row_exp, row_exp_sum, row_top
from ..traits import Ending
from ..vector_math import NAN
from . import cpu
from .shared import weight_of

#: a thread for each row, or for each element
BY_ROWS = {"launch": lambda s: (ceil_div(s["N"], 256), 256)}
BY_ELEMENTS = {"launch": lambda s: (ceil_div(s["N"] * s["C"], 256), 256)}

# ---------------------------------------------------------------- cross entropy


@helper
def weight_total(x: Any, weight: Any, C: int, place: tuple) -> Any:
    """Sum of the class weights."""
    narrow, _, first, step, size, _ = place
    if weight.shape[0] == 0:
        return cast(x, C)
    total = 0.0
    j = first
    while j < size:
        total += weight[j]
        j += step
    return row_sum(total, narrow)


@helper
def spread_sum(weight: Any, keep: Any, at: int, shift: Any, place: tuple) -> Any:
    """Sum of w (x - shift) over a row."""
    narrow, _, first, step, size, _ = place
    total = 0.0
    j = first
    while j < size:
        total += weight_of(weight, j) * (keep[at + j] - shift)
        j += step
    return row_sum(total, narrow)


@helper
def fill_row(y: Any, base: int, value: Any, place: tuple) -> None:
    """Set the row of y that begins at `base`; `place` is of `row_place`, here and below."""
    _, _, first, step, size, _ = place
    j = first
    while j < size:
        y[base + j] = value
        j += step


class Target(NamedTuple):
    """A row's class (without a valid one < 0), the classes' weights, and the share of smoothing."""

    t: int
    weight: Any
    smoothing: Any


class Result(NamedTuple):
    """Where a row's loss and gradient go, which is times `factor`."""

    loss: Any
    dlogits: Any
    factor: Any


class Kept(NamedTuple):
    """Where a row is kept: in `array` from `at` on; `copies`: it is not there yet."""

    array: Any
    at: int
    copies: bool


@helper
def cross_entropy_row(
    x: Any, C: int, target: Target, result: Result, kept: Kept, with_gradient: bool, place: tuple
) -> None:
    """One row; one without a valid class takes part, since threads wait for each other."""
    t, weight, smoothing = target
    loss, dlogits, factor = result
    keep, at, store = kept
    _, row, first, step, size, _ = place
    base = row * C
    valid = t >= 0 and size > 0
    share, own = 0.0, 0.0
    if valid:
        share = (1.0 - smoothing) * weight_of(weight, t)
        own = x[base + t]
    shift = row_top(x, keep, base, at, store, place)
    spread, rest, weights = 0.0, 0.0, 0.0
    if smoothing > 0.0:
        spread = smoothing / cast(x, C)
        rest = spread_sum(weight, keep, at, shift, place)
        weights = weight_total(x, weight, C, place)
    if with_gradient:
        total = row_exp(keep, at, shift, place)
    else:
        total = row_exp_sum(keep, at, shift, place)
    if not valid:
        return
    if first == 0:
        log_sum = log(total)
        value = -share * (own - shift - log_sum)
        if smoothing > 0.0:
            value -= spread * (rest - weights * log_sum)
        loss[row] = value
    if with_gradient:
        scale = (share + spread * weights) / total
        j = first
        while j < size:
            slope = fma(keep[at + j], scale, -spread * weight_of(weight, j))
            if j == t:
                slope -= share
            dlogits[base + j] = slope * factor
            j += step


@helper
def class_of(target: Any, row: int, N: int, C: int, ignore_index: int) -> int:
    """The row's class; -1 if it is ignored, -2 if there is no such class (or row)."""
    if row >= N:
        return -2
    t = target[row]
    if t == ignore_index:
        return -1
    return t if 0 <= t < C else -2


@helper
def without_class(t: int) -> Any:
    """Loss and gradient of a row without a valid class."""
    return 0.0 if t == -1 else NAN


@helper
def cross_entropy_of(
    x: Any, target: Any, weight: Any, loss: Any, dlogits: Any, smoothing: Any, ignore_index: int,
    dloss: Any,
) -> None:  # fmt: skip
    """Loss and gradient of the block's rows; the gradient is times `dloss` where that is given."""
    N, C = x.shape
    place = row_place(N, C)
    row = place[1]
    t = class_of(target, row, N, C, ignore_index)
    factor = cast(x, 1.0)
    if row < N and dloss.shape[0] > 0:
        factor = dloss[row]
    classes, result = Target(t, weight, smoothing), Result(loss, flat(dlogits), factor)
    memory = cuda.shared.array(0, x.dtype)
    if memory.size >= C:
        cross_entropy_row(flat(x), C, classes, result, Kept(memory, place[5], True), True, place)
    else:
        cross_entropy_row(
            flat(x), C, classes, result, Kept(flat(dlogits), row * C, True), True, place
        )
    if t < 0 and row < N:
        value = cast(x, without_class(t))
        fill_row(flat(dlogits), row * C, value * factor, place)
        if place[2] == 0:
            loss[row] = value


@cuda_kernel(like=cpu.cross_entropy_forward, **ROWS)
def cross_entropy_forward(x, target, weight, loss, dlogits, smoothing, ignore_index):
    cross_entropy_of(x, target, weight, loss, dlogits, smoothing, ignore_index, loss[:0])


@cuda_kernel(
    **ROWS,
    endings=(
        Ending(
            "cross_entropy_forward", "cross_entropy_backward", "dlogits", "dlogits", "dx",
            also="dloss",
        ),
    ),
)  # fmt: skip
def cross_entropy_scaled(
    x: "in whole f[N,C]",
    target: "in whole i[N]",
    weight: "in whole f[W]",
    dloss: "in whole f[N]",
    loss: "out whole f[N]",
    dx: "out whole f[N,C]",
    smoothing: "real",
    ignore_index: "int",
):
    """`cross_entropy_forward` and `cross_entropy_backward` where the losses' gradient is known."""
    cross_entropy_of(x, target, weight, loss, dx, smoothing, ignore_index, dloss)


@cuda_kernel(like=cpu.cross_entropy_loss, **ROWS)
def cross_entropy_loss(x, target, weight, loss, smoothing, ignore_index):
    N, C = x.shape
    place = row_place(N, C)
    row = place[1]
    t = class_of(target, row, N, C, ignore_index)
    classes, result = Target(t, weight, smoothing), Result(loss, loss, 1.0)
    memory = cuda.shared.array(0, x.dtype)
    if memory.size >= C:
        cross_entropy_row(flat(x), C, classes, result, Kept(memory, place[5], True), False, place)
    else:
        cross_entropy_row(flat(x), C, classes, result, Kept(flat(x), row * C, False), False, place)
    if t < 0 and row < N and place[2] == 0:
        loss[row] = cast(x, without_class(t))


@cuda_kernel(like=cpu.cross_entropy_backward, **BY_ELEMENTS)
def cross_entropy_backward(dlogits, dloss, dx):
    i = flat_index()
    if i < dx.size:
        flat(dx)[i] = flat(dlogits)[i] * dloss[divide_index(i, dx.shape[1])]


@helper
def soft_target(target: Any, weight: Any, i: int, j: int, smoothing: Any, spread: Any) -> Any:
    """w ((1 - s) target + s / C)."""
    return fma(target[i], 1.0 - smoothing, spread) * weight_of(weight, j)


@helper
def soft_row(
    x: Any, target: Any, weight: Any, loss: Any, dlogits: Any, kept: Kept, smoothing: Any,
    C: int, with_gradient: bool, place: tuple,
) -> None:  # fmt: skip
    """A row's cross entropy with probabilities as target, and (`with_gradient`) its gradient to the
    logits; the row stays where it is kept."""
    keep, at, store = kept
    narrow, row, first, step, size, _ = place
    base = row * C
    spread = smoothing / cast(x, C)
    shift = row_top(x, keep, base, at, store, place)
    log_sum = log(row_exp_sum(keep, at, shift, place))
    value, mass = 0.0, 0.0
    j = first
    while j < size:
        q = soft_target(target, weight, base + j, j, smoothing, spread)
        log_p = keep[at + j] - shift - log_sum
        value += where(q == 0.0, 0.0 * q, q * log_p)  # a class with q = 0 counts 0
        mass += q
        j += step
    value = row_sum(value, narrow)
    if first == 0 and size > 0:
        loss[row] = -value
    if with_gradient:
        scale = row_sum(mass, narrow) / row_exp(keep, at, shift, place)
        j = first
        while j < size:
            q = soft_target(target, weight, base + j, j, smoothing, spread)
            dlogits[base + j] = keep[at + j] * scale - q
            j += step


@cuda_kernel(like=cpu.cross_entropy_probs_forward, **ROWS)
def cross_entropy_probs_forward(x, target, weight, loss, dlogits, smoothing):
    N, C = x.shape
    place = row_place(N, C)
    memory = cuda.shared.array(0, x.dtype)
    if memory.size >= C:
        soft_row(flat(x), flat(target), weight, loss, flat(dlogits), Kept(memory, place[5], True),
                 smoothing, C, True, place)  # fmt: skip
    else:
        soft_row(flat(x), flat(target), weight, loss, flat(dlogits),
                 Kept(flat(dlogits), place[1] * C, True), smoothing, C, True, place)  # fmt: skip


@cuda_kernel(like=cpu.cross_entropy_probs_loss, **ROWS)
def cross_entropy_probs_loss(x, target, weight, loss, smoothing):
    N, C = x.shape
    place = row_place(N, C)
    memory = cuda.shared.array(0, x.dtype)
    if memory.size >= C:
        soft_row(flat(x), flat(target), weight, loss, loss, Kept(memory, place[5], True), smoothing,
                 C, False, place)  # fmt: skip
    else:
        soft_row(flat(x), flat(target), weight, loss, loss, Kept(flat(x), place[1] * C, False),
                 smoothing, C, False, place)  # fmt: skip


# ---------------------------------------------------------------- negative log likelihood


@cuda_kernel(like=cpu.target_weight, **BY_ROWS)
def target_weight(target, weight, y, ignore_index):
    i, W = flat_index(), weight.shape[0]
    if i >= y.size:
        return
    t = target[i]
    if t == ignore_index:
        y[i] = 0.0
    elif t < 0 or (W > 0 and t >= W):
        y[i] = NAN
    else:
        y[i] = weight_of(weight, t)


@cuda_kernel(like=cpu.nll_forward, **BY_ROWS)
def nll_forward(x, target, weight, loss, ignore_index):
    i = flat_index()
    if i >= loss.size:
        return
    t = class_of(target, i, loss.size, x.shape[1], ignore_index)
    if t < 0:
        loss[i] = without_class(t)
    else:
        loss[i] = -weight_of(weight, t) * x[i, t]


@cuda_kernel(like=cpu.nll_backward, **BY_ELEMENTS)
def nll_backward(target, weight, dloss, dx, ignore_index):
    i, (N, C) = flat_index(), dx.shape
    if i >= dx.size:
        return
    row = divide_index(i, C)
    t = class_of(target, row, N, C, ignore_index)
    flat(dx)[i] = -weight_of(weight, t) * dloss[row] if t == i - row * C else 0.0
