"""Formulas of updates, and of what follows them, on both devices."""

import math

import numpy as np

from ..declare import helper
from ..simd import fill_like
from .shared import shared_gradient


@helper
def factor_of(squares, limit):
    """What brings a norm down to the limit, of its square."""
    return limit / math.sqrt(squares) if squares > limit * limit else 1.0


@helper
def deviation(eta, t):
    """The standard deviation of the noise in step t = 0, 1, ..."""
    return math.sqrt(eta / (1.0 + t) ** 0.55)


@helper
def over_root(x):
    """1 / sqrt(x) for a float64; infinite for 0."""
    return 1.0 / math.sqrt(x) if x > 0.0 or x != x else np.float64(np.inf)


@helper
def square(g, share, factor, none, limit):
    """share * g**2, of the gradient as a rule sees it; `none` is 0: there is no decay within it.
    An infinite gradient stays infinite, as where nothing is done to it."""
    g = shared_gradient(g, fill_like(g, 0.0), factor, none, limit)
    return g * share * g
