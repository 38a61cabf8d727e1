"""The partition function of a restricted Boltzmann machine: exact, and by annealed importance
sampling. All in float64."""

from __future__ import annotations

import itertools
import math
from typing import Any, NamedTuple

import numpy as np

from fastnn.errors import OptionError, check_whole

#: most units whose states are summed over, and states at a time
MOST, BLOCK = 25, 1 << 12


class Partition(NamedTuple):
    """An estimate of log Z.

    Attributes:
        log_z: the estimate.
        low, high: three standard errors of Z below and above it; `low` is -infinity where the
            error is as large as the estimate.
    """

    log_z: float
    low: float
    high: float


def exact(weight: np.ndarray, b: np.ndarray, c: np.ndarray, units: str) -> float:
    """log Z by a sum over all states of the smaller side (of hidden units, for Gaussian ones)."""
    hidden, visible = weight.shape
    over_visible = units == "bernoulli" and visible < hidden
    if over_visible:
        weight, b, c = weight.T, c, b  # the energy is symmetric
        hidden, visible = weight.shape
    if hidden > MOST:
        raise OptionError(
            f"RBM.log_partition: expected at most {MOST} "
            f"{'hidden units' if units == 'gaussian' else 'units on one side'}, got {hidden}, "
            f"whose 2^{hidden} states cannot be summed; use estimate_log_partition()"
        )
    total = -math.inf
    for first in range(0, 1 << hidden, BLOCK):
        codes = np.arange(first, min(first + BLOCK, 1 << hidden))
        h = (codes[:, None] >> np.arange(hidden) & 1).astype(np.float64)
        z = h @ weight
        if units == "bernoulli":
            logs = h @ c + np.logaddexp(0.0, z + b).sum(axis=1)
        else:
            logs = h @ c + z @ b + 0.5 * (z * z).sum(axis=1)
        total = float(np.logaddexp(total, _log_sum(logs)))
    return total + (0.5 * visible * math.log(2 * math.pi) if units == "gaussian" else 0.0)


def annealed(
    weight: np.ndarray, b: np.ndarray, c: np.ndarray, units: str, runs: int, temperatures: Any,
    means: np.ndarray | None, seed: int,
) -> Partition:  # fmt: skip
    """log Z by annealed importance sampling, from a machine without weights (inverse temperature 0)
    to this one (1): equations 14 to 18 of Salakhutdinov & Murray (2008)."""
    check_whole("RBM.estimate_log_partition", 2, runs=runs)
    check_whole("RBM.estimate_log_partition", 0, seed=seed)
    betas = _inverse_temperatures(temperatures)
    rng, (hidden, visible) = np.random.default_rng(seed), weight.shape
    if units == "gaussian":
        if means is not None:
            raise OptionError(
                "RBM.estimate_log_partition: expected base=None for Gaussian units, whose base is "
                "their biases"
            )
        base = b
        start = 0.5 * visible * math.log(2 * math.pi)
        v = b + rng.normal(size=(runs, visible))
    else:
        base = np.zeros(visible)
        if means is not None:  # kept away from 0 and 1, as the base has to reach all states
            p = 0.05 / visible + (1 - 0.1 / visible) * np.clip(means, 0.0, 1.0)
            base = np.log(p) - np.log1p(-p)
        start = float(np.logaddexp(0.0, base).sum())
        v = (rng.random((runs, visible)) < _sigmoid(base)).astype(np.float64)
    weights = np.zeros(runs)
    for low, high in itertools.pairwise(betas):
        z = v @ weight.T + c
        weights += np.logaddexp(0.0, high * z).sum(1) - np.logaddexp(0.0, low * z).sum(1)
        if units == "bernoulli":
            weights += (high - low) * (v @ (b - base))
        h = (rng.random((runs, hidden)) < _sigmoid(high * z)).astype(np.float64)
        z = high * (h @ weight)
        if units == "bernoulli":
            z += (1 - high) * base + high * b
            v = (rng.random((runs, visible)) < _sigmoid(z)).astype(np.float64)
        else:
            v = b + z + rng.normal(size=(runs, visible))
    start += hidden * math.log(2.0)
    mean = _log_sum(weights) - math.log(runs)
    ratios = np.exp(weights - mean)  # their mean is 1
    error = 3 * float(ratios.std(ddof=1)) / math.sqrt(runs)
    low = mean + math.log1p(-error) if error < 1 else -math.inf
    return Partition(start + mean, start + low, start + mean + math.log1p(error))


def _inverse_temperatures(given: Any) -> np.ndarray:
    if np.ndim(given) == 0:
        check_whole("RBM.estimate_log_partition", 2, temperatures=given)
        return np.linspace(0.0, 1.0, int(given))
    betas = np.asarray(given, np.float64)
    good = betas.ndim == 1 and len(betas) > 1 and betas[0] == 0 and betas[-1] == 1
    if not good or not (np.diff(betas) > 0).all():
        raise OptionError(
            "RBM.estimate_log_partition: expected temperatures to be a number, or an increasing "
            f"array of inverse temperatures from 0 to 1, got {given!r}"
        )
    return betas


def _sigmoid(z: np.ndarray) -> np.ndarray:
    return 0.5 * (1.0 + np.tanh(0.5 * z))


def _log_sum(logs: np.ndarray) -> float:
    top = float(logs.max())
    return top + math.log(float(np.exp(logs - top).sum()))
