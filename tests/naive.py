"""The oracle: every formula of the project in plain float64 NumPy, importing nothing of fastnn.

Slow and obvious on purpose. Arrays are (rows, columns) with samples as rows; gradients come from
`numeric_gradient`, so no derivative is written down here.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

Array = np.ndarray


def numeric_gradient(f: Callable[[Array], Array], x: Array, dy: Array | float) -> Array:
    """Gradient of sum(f(x) * dy) to x by central differences."""
    x = np.array(x, np.float64)
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        kept = x[index]
        step = 1e-6 * max(1.0, abs(kept))
        x[index] = kept + step
        above = np.array(f(x), np.float64)
        x[index] = kept - step
        below = np.array(f(x), np.float64)
        x[index] = kept
        gradient[index] = np.sum((above - below) * dy) / (2 * step)
    return gradient


# ---------------------------------------------------------------- activations


def relu(x: Array) -> Array:
    return np.where(x > 0, x, 0.0)


def leaky_relu(x: Array, slope: float = 0.01) -> Array:
    return np.where(x > 0, x, slope * x)


def erf(x: Array) -> Array:
    """2/sqrt(pi) times the integral of exp(-t^2) from 0 to x."""
    return np.vectorize(math.erf, otypes=[float])(x)


def logsumexp(x: Array, axis: int | tuple[int, ...]) -> Array:
    top = x.max(axis, keepdims=True)
    return np.squeeze(top, axis) + np.log(np.exp(x - top).sum(axis))


def prelu(x: Array, slope: Array) -> Array:
    """`slope` has one number for each column, or one for all."""
    return np.where(x > 0, x, slope * x)


def elu(x: Array, alpha: float = 1.0) -> Array:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0.0)))


def selu(x: Array) -> Array:
    alpha, scale = 1.6732632423543772848, 1.0507009873554804934
    return scale * elu(x, alpha)


def gelu(x: Array) -> Array:
    return 0.5 * x * np.array([math.erfc(-v / math.sqrt(2)) for v in np.ravel(x)]).reshape(x.shape)


def gelu_tanh(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


def silu(x: Array) -> Array:
    return x * sigmoid(x)


def tanh(x: Array) -> Array:
    return np.tanh(x)


def softplus(x: Array, beta: float = 1.0, threshold: float = 20.0) -> Array:
    return np.where(beta * x > threshold, x, np.logaddexp(0, beta * x) / beta)


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def log_softmax(x: Array) -> Array:
    shifted = x - x.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def maxout(x: Array, pieces: int) -> Array:
    """x[n, p*C + c] -> y[n, c], the largest of the pieces p."""
    return x.reshape(len(x), pieces, -1).max(1)


# ---------------------------------------------------------------- losses: one number a row


def cross_entropy(
    x: Array,
    target: Array,
    weight: Array | None = None,
    smoothing: float = 0.0,
    ignore_index: int = -100,
) -> Array:
    """Softmax cross entropy; `target` holds class indices (N) or probabilities (N, C)."""
    count, classes = x.shape
    weight = np.ones(classes) if weight is None else weight
    log_p = log_softmax(x)
    loss = np.zeros(count)
    for n in range(count):
        if target.ndim == 1 and target[n] == ignore_index:
            continue
        for c in range(classes):
            wanted = float(target[n] == c) if target.ndim == 1 else target[n, c]
            share = wanted * (1 - smoothing) + smoothing / classes
            if share != 0:
                loss[n] -= weight[c] * share * log_p[n, c]
    return loss


def target_weight(target: Array, weight: Array | None = None, ignore_index: int = -100) -> Array:
    """The weight of each row in the mean of `cross_entropy` and `nll`."""
    return np.array(
        [0.0 if t == ignore_index else 1.0 if weight is None else weight[t] for t in target]
    )


def nll(x: Array, target: Array, weight: Array | None = None, ignore_index: int = -100) -> Array:
    w = target_weight(target, weight, ignore_index)
    return np.array([-w[n] * x[n, t] if t != ignore_index else 0.0 for n, t in enumerate(target)])


def mse(x: Array, target: Array) -> Array:
    return ((x - target) ** 2).sum(1)


def mae(x: Array, target: Array) -> Array:
    return np.abs(x - target).sum(1)


def huber(x: Array, target: Array, delta: float = 1.0) -> Array:
    d = np.abs(x - target)
    return np.where(d <= delta, 0.5 * d**2, delta * (d - 0.5 * delta)).sum(1)


def bce_with_logits(x: Array, target: Array, pos_weight: Array | None = None) -> Array:
    pos_weight = np.ones(x.shape[1]) if pos_weight is None else pos_weight
    positive = np.logaddexp(0, -x)  # -log sigmoid(x)
    negative = np.logaddexp(0, x)
    return (pos_weight * target * positive + (1 - target) * negative).sum(1)


def bce(x: Array, target: Array) -> Array:
    """x holds probabilities; logarithms are at least -100."""
    with np.errstate(divide="ignore"):
        a, b = np.maximum(np.log(x), -100), np.maximum(np.log1p(-x), -100)
    return -(target * a + (1 - target) * b).sum(1)


def kl_div(x: Array, target: Array) -> Array:
    """x holds log-probabilities, target probabilities."""
    safe = np.where(target == 0, 1.0, target)
    return np.where(target == 0, 0.0, target * (np.log(safe) - x)).sum(1)


def kl_div_log(x: Array, target: Array) -> Array:
    """x and target hold log-probabilities."""
    return kl_div(x, np.exp(target))


# ---------------------------------------------------------------- layers


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """weight is (in, out)."""
    return x @ weight + (0 if bias is None else bias)


def embedding(ids: Array, table: Array) -> Array:
    return np.stack([table[i] for i in ids])


def layer_norm(
    x: Array, gain: Array | None = None, bias: Array | None = None, eps: float = 1e-5
) -> Array:
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    y = (x - mean) / np.sqrt(variance + eps)
    return y * (1 if gain is None else gain) + (0 if bias is None else bias)


def batch_norm_inference(
    x: Array, gain: Array, bias: Array, mean: Array, variance: Array, eps: float = 1e-5
) -> Array:
    return (x - mean) / np.sqrt(variance + eps) * gain + bias


def batch_norm(
    x: Array,
    gain: Array,
    bias: Array,
    running_mean: Array,
    running_var: Array,
    eps: float = 1e-5,
    momentum: float = 0.1,
) -> tuple[Array, Array, Array]:
    """Training: the output and the new running mean and variance."""
    mean = x.mean(0)
    variance = ((x - mean) ** 2).mean(0)
    unbiased = variance * len(x) / max(len(x) - 1, 1)
    return (
        batch_norm_inference(x, gain, bias, mean, variance, eps),
        (1 - momentum) * running_mean + momentum * mean,
        (1 - momentum) * running_var + momentum * unbiased,
    )


# ---------------------------------------------------------------- optimisers: one step each
#
# `state` is a dict that a step reads and writes, empty at first; `step` counts from 1.


def sgd(
    p: Array,
    g: Array,
    state: dict[str, Array],
    lr: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
) -> Array:
    g = g + weight_decay * p
    if momentum != 0:
        first = "velocity" not in state
        state["velocity"] = g if first else momentum * state["velocity"] + (1 - dampening) * g
        g = g + momentum * state["velocity"] if nesterov else state["velocity"]
    return p - lr * g


def adagrad(
    p: Array,
    g: Array,
    state: dict[str, Array],
    lr: float,
    step: int,
    lr_decay: float = 0.0,
    initial: float = 0.0,
    eps: float = 1e-10,
    weight_decay: float = 0.0,
) -> Array:
    g = g + weight_decay * p
    state["square"] = state.get("square", np.full_like(p, initial)) + g * g
    return p - lr / (1 + (step - 1) * lr_decay) * g / (np.sqrt(state["square"]) + eps)


def rmsprop(
    p: Array,
    g: Array,
    state: dict[str, Array],
    lr: float,
    alpha: float = 0.99,
    eps: float = 1e-8,
    momentum: float = 0.0,
    centered: bool = False,
    weight_decay: float = 0.0,
) -> Array:
    zero = np.zeros_like(p)
    g = g + weight_decay * p
    state["square"] = alpha * state.get("square", zero) + (1 - alpha) * g * g
    variance = state["square"]
    if centered:
        state["mean"] = alpha * state.get("mean", zero) + (1 - alpha) * g
        variance = variance - state["mean"] ** 2
    change = g / (np.sqrt(variance) + eps)
    if momentum > 0:
        state["velocity"] = momentum * state.get("velocity", zero) + change
        change = state["velocity"]
    return p - lr * change


def adadelta(
    p: Array,
    g: Array,
    state: dict[str, Array],
    lr: float = 1.0,
    rho: float = 0.9,
    eps: float = 1e-6,
    weight_decay: float = 0.0,
) -> Array:
    zero = np.zeros_like(p)
    g = g + weight_decay * p
    state["square"] = rho * state.get("square", zero) + (1 - rho) * g * g
    change = np.sqrt(state.get("change", zero) + eps) / np.sqrt(state["square"] + eps) * g
    state["change"] = rho * state.get("change", zero) + (1 - rho) * change * change
    return p - lr * change


def adam(
    p: Array,
    g: Array,
    state: dict[str, Array],
    lr: float,
    step: int,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    amsgrad: bool = False,
) -> Array:
    zero = np.zeros_like(p)
    g = g + weight_decay * p
    state["mean"] = beta1 * state.get("mean", zero) + (1 - beta1) * g
    state["square"] = beta2 * state.get("square", zero) + (1 - beta2) * g * g
    square = state["square"]
    if amsgrad:
        square = state["largest"] = np.maximum(state.get("largest", zero), square)
    mean = state["mean"] / (1 - beta1**step)
    return p - lr * mean / (np.sqrt(square / (1 - beta2**step)) + eps)


def adamw(
    p: Array,
    g: Array,
    state: dict[str, Array],
    lr: float,
    step: int,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    amsgrad: bool = False,
) -> Array:
    p = p - lr * weight_decay * p
    return adam(p, g, state, lr, step, beta1, beta2, eps, 0.0, amsgrad)


# ---------------------------------------------------------------- random numbers


def philox4x32_10(counter: tuple[int, ...], key: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Four 32-bit words from a counter of four and a key of two (Salmon et al. 2011)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        a, b = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (
            (b >> 32) ^ c1 ^ k0,
            b & 0xFFFFFFFF,
            (a >> 32) ^ c3 ^ k1,
            a & 0xFFFFFFFF,
        )
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c0, c1, c2, c3
