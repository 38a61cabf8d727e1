"""Losses between two arrays of one shape, row by row, and their gradients.

N rows, C columns; W is C, or 0 where there are no weights. loss[n] = scale sum_c term(x, target);
the caller's scale makes it a sum (1) or a mean (1 / C). Formulas are PyTorch's
(`torch.nn.functional`); a dx may be x or target.
"""

from typing import Any

from ..cpu.parts import keep_part, load_part, store_part
from ..declare import Kernel, helper, kernel
from ..scalar import exp, log1p_fraction
from ..simd import absolute, fma, lanes, maximum, splat, sum_lanes, where
from .shared import (
    bce_slope,
    bce_term,
    huber_slope,
    huber_term,
    kl_div_log_slope,
    kl_div_log_term,
    kl_div_slope,
    kl_div_term,
    mae_slope,
    mae_term,
    mse_slope,
    mse_term,
)


@helper
def pair_sum(term, x, target, i, parameter):
    """Sum of term(x, target, parameter) over row `i`."""
    C = x.shape[1]
    total = splat(x, 0.0)
    for j in range(0, C, lanes(x)):
        v, t = load_part(x, i * C + j, C - j), load_part(target, i * C + j, C - j)
        total = total + keep_part(x, term(v, t, parameter), C - j, 0.0)
    return sum_lanes(total)


@helper
def pair_slope(slope, x, target, dx, i, parameter, factor):
    """dx = factor slope(x, target, parameter) over row `i`."""
    C = x.shape[1]
    for j in range(0, C, lanes(x)):
        v, t = load_part(x, i * C + j, C - j), load_part(target, i * C + j, C - j)
        store_part(dx, i * C + j, slope(v, t, parameter) * factor, C - j)


# ---------------------------------------------------------------- losses without a parameter


def pair_loss(
    name: str, term: Any, slope: Any, loss_is: str, dx_is: str, **traits: Any
) -> tuple[Kernel, Kernel]:
    """The kernels `<name>_forward` and `<name>_backward` of a loss whose term and slope are given;
    what they compute, in words, is their documentation."""

    def forward(
        x: "in rows f[N,C]",
        target: "in rows f[N,C]",
        loss: "out rows f[N]",
        scale: "real",
        lo: "begin",
        hi: "end",
    ):
        for i in range(lo, hi):
            loss[i] = pair_sum(term, x, target, i, 0.0) * scale

    def backward(
        x: "in rows f[N,C]",
        target: "in rows f[N,C]",
        dloss: "in rows f[N]",
        dx: "out rows f[N,C]",
        scale: "real",
        lo: "begin",
        hi: "end",
    ):
        for i in range(lo, hi):
            pair_slope(slope, x, target, dx, i, 0.0, dloss[i] * scale)

    forward.__doc__, backward.__doc__ = loss_is, dx_is
    return (
        kernel(forward, name=f"{name}_forward", **traits),
        kernel(backward, name=f"{name}_backward"),
    )


mse_forward, mse_backward = pair_loss(
    "mse", mse_term, mse_slope,
    "loss = scale sum (x - target)^2.", "dx = dloss scale 2 (x - target).",
)  # fmt: skip
mae_forward, mae_backward = pair_loss(
    "mae", mae_term, mae_slope,
    "loss = scale sum |x - target|.", "dx = dloss scale sign(x - target).",
)  # fmt: skip
#: of probabilities, and targets in 0..1
bce_forward, bce_backward = pair_loss(
    "bce", bce_term, bce_slope,
    "loss = -scale sum (t log x + (1 - t) log(1 - x)), each log at least -100, as PyTorch's.",
    "dx = dloss scale (x - t) / max(x (1 - x), 1e-12).",
    expects="BCELoss takes outputs in [0, 1]: end the model with nn.Sigmoid(), or use "
    "'bce_with_logits'",
)  # fmt: skip
#: of log-probabilities, and targets that are probabilities
kl_div_forward, kl_div_backward = pair_loss(
    "kl_div", kl_div_term, kl_div_slope,
    "loss = scale sum t (log t - x); 0 where t = 0.", "dx = -dloss scale t.",
    expects="KLDivLoss takes outputs that are logarithms of probabilities, and targets that are "
    "probabilities",
)  # fmt: skip
#: of log-probabilities, and targets that are log-probabilities
kl_div_log_forward, kl_div_log_backward = pair_loss(
    "kl_div_log", kl_div_log_term, kl_div_log_slope,
    "loss = scale sum exp(t) (t - x); 0 where exp(t) = 0.", "dx = -dloss scale exp(t).",
)  # fmt: skip


# ---------------------------------------------------------------- Huber


@kernel
def huber_forward(
    x: "in rows f[N,C]",
    target: "in rows f[N,C]",
    loss: "out rows f[N]",
    scale: "real",
    delta: "real",
    lo: "begin",
    hi: "end",
):
    """loss = scale sum (d^2 / 2 where d = |x - target| is at most delta, else
    delta (d - delta / 2)); Huber 1964."""
    for i in range(lo, hi):
        loss[i] = pair_sum(huber_term, x, target, i, delta) * scale


@kernel
def huber_backward(
    x: "in rows f[N,C]",
    target: "in rows f[N,C]",
    dloss: "in rows f[N]",
    dx: "out rows f[N,C]",
    scale: "real",
    delta: "real",
    lo: "begin",
    hi: "end",
):
    """dx = dloss scale (x - target), cut to -delta..delta."""
    for i in range(lo, hi):
        pair_slope(huber_slope, x, target, dx, i, delta, dloss[i] * scale)


# ---------------------------------------------------------------- binary cross entropy


@helper
def positive_part(x, pos_weight, j, n):
    """The weights of positive examples from column `j` on, 1 where there are none."""
    return load_part(pos_weight, j, n) if pos_weight.shape[0] > 0 else splat(x, 1.0)


@kernel
def bce_with_logits_forward(
    x: "in rows f[N,C]",  # logits
    target: "in rows f[N,C]",  # 0..1
    pos_weight: "in whole f[W]",
    loss: "out rows f[N]",
    scale: "real",
    lo: "begin",
    hi: "end",
):
    """loss = scale sum ((1 - t) softplus(x) + w t softplus(-x)),
    where softplus(x) = max(x, 0) + log(1 + exp(-|x|))."""
    C = x.shape[1]
    for i in range(lo, hi):
        total = splat(x, 0.0)
        for j in range(0, C, lanes(x)):
            n = C - j
            v, t = load_part(x, i * C + j, n), load_part(target, i * C + j, n)
            small = log1p_fraction(exp(-absolute(v)))
            positive = t * positive_part(x, pos_weight, j, n) * (maximum(-v, 0.0) + small)
            term = fma(1.0 - t, maximum(v, 0.0) + small, positive)
            total = total + keep_part(x, term, n, 0.0)
        loss[i] = sum_lanes(total) * scale


@kernel
def bce_with_logits_backward(
    x: "in rows f[N,C]",
    target: "in rows f[N,C]",
    pos_weight: "in whole f[W]",
    dloss: "in rows f[N]",
    dx: "out rows f[N,C]",
    scale: "real",
    lo: "begin",
    hi: "end",
):
    """dx = dloss scale ((1 - t) sigmoid(x) - w t sigmoid(-x))."""
    C = x.shape[1]
    for i in range(lo, hi):
        factor = dloss[i] * scale
        for j in range(0, C, lanes(x)):
            n = C - j
            v, t = load_part(x, i * C + j, n), load_part(target, i * C + j, n)
            e = exp(-absolute(v))
            large = 1.0 / (1.0 + e)  # sigmoid(|x|)
            small = e * large  # sigmoid(-|x|)
            up, down = where(v > 0.0, large, small), where(v > 0.0, small, large)
            g = (1.0 - t) * up - t * positive_part(x, pos_weight, j, n) * down
            store_part(dx, i * C + j, g * factor, n)
