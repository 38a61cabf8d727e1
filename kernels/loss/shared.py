"""Losses of single elements and their slopes: term(x, target, parameter) and its derivative."""

from ..declare import helper
from ..scalar import exp, log
from ..simd import absolute, copysign, maximum, minimum, where


@helper
def weight_of(weight, c):
    """The weight of class c; 1 where there are none."""
    return weight[c] if weight.shape[0] > 0 else 1.0


@helper
def mse_term(x, t, _):
    return (x - t) * (x - t)


@helper
def mse_slope(x, t, _):
    return 2.0 * (x - t)


@helper
def mae_term(x, t, _):
    return absolute(x - t)


@helper
def mae_slope(x, t, _):
    d = x - t
    return where(absolute(d) > 0.0, copysign(1.0, d), d)  # a NaN stays


@helper
def huber_term(x, t, delta):
    d = absolute(x - t)
    return where(d > delta, delta * (d - 0.5 * delta), 0.5 * d * d)


@helper
def huber_slope(x, t, delta):
    return maximum(-delta, minimum(delta, x - t))


@helper
def bce_term(p, t, _):
    a, b = log(p), log(1.0 - p)
    a, b = where(a < -100.0, -100.0, a), where(b < -100.0, -100.0, b)
    return -(t * a + (1.0 - t) * b)


@helper
def bce_slope(p, t, _):
    spread = (1.0 - p) * p
    return (p - t) / where(spread < 1e-12, 1e-12, spread)


@helper
def kl_div_term(x, t, _):
    return where(t == 0.0, 0.0 * t, t * (log(t) - x))


@helper
def kl_div_slope(x, t, _):
    return -t


@helper
def kl_div_log_term(x, t, _):
    p = exp(t)
    return where(p == 0.0, p, p * (t - x))


@helper
def kl_div_log_slope(x, t, _):
    return -exp(t)
