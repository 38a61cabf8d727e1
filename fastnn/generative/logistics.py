"""Mixtures of logistic distributions over the levels of a sample."""

from __future__ import annotations

from fastnn import ops
from fastnn.graph.value import Value
from fastnn.kernels.wavenet.shared import LEAST_LOG_SCALE


def mixture_nats(output: Value, level: Value, levels: int) -> Value:
    """-log p(level) under a mixture of logistic distributions (Salimans et al. 2017).

    A level k stands for x = 2 k / (levels - 1) - 1, and has the probability that the mixture gives
    the numbers nearer to it than to others; the first and the last one have all that lies beyond.

    With a and b the edges of a level's range in units of a component's scale, measured from its
    mean, sigmoid(a) - sigmoid(b) is ``sigmoid(a) sigmoid(-b) (1 - exp(b - a))``: no digits cancel,
    however narrow the level is.

    Args:
        output: shape (..., 3 M): M logits of the components, their means, the logarithms of their
            scales.
        level: whole numbers within 0..levels-1, as floats, shape (...).
        levels: how many there are.

    Returns:
        Shape (...), in nats.
    """
    logits, means, log_scales = ops.split(output, 3, -1)
    log_scales = ops.maximum(log_scales, LEAST_LOG_SCALE)
    half = 1.0 / (levels - 1)  # of a level's range
    k = ops.expand(ops.reshape(level, (*level.shape, 1)), means.shape)
    apart = ops.subtract(ops.affine(k, 2.0 * half, -1.0), means)
    narrowness = ops.exp(ops.negate(log_scales))
    a = ops.multiply(ops.affine(apart, 1.0, half), narrowness)
    b = ops.multiply(ops.affine(apart, 1.0, -half), narrowness)
    # log(1 - exp(-u)) for u = a - b = 2 half / scale, by t = tanh(u / 2): 1 - exp(-u) = 2 t/(1 + t)
    t = ops.tanh(ops.affine(narrowness, half, 0.0))
    inner = ops.subtract(ops.log(ops.affine(t, 2.0, 0.0)), ops.log(ops.affine(t, 1.0, 1.0)))
    below = ops.negate(ops.softplus(ops.negate(a)))  # log sigmoid(a)
    above = ops.negate(ops.softplus(b))  # log sigmoid(-b)
    first, last = ops.less(k, 0.5), ops.greater(k, levels - 1.5)
    each = ops.add(below, ops.add(above, inner))
    each = ops.where(first, below, ops.where(last, above, each))
    return ops.negate(ops.logsumexp(ops.add(ops.log_softmax(logits), each), axis=-1))
