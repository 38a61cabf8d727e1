"""Restricted Boltzmann machines in float64, by sums over all states."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np


class Machine(NamedTuple):
    """W of shape (hidden, visible), visible and hidden biases, the kind of visible units."""

    w: np.ndarray
    b: np.ndarray
    c: np.ndarray
    units: str = "bernoulli"


def states(count: int) -> np.ndarray:
    return np.array(list(itertools.product([0.0, 1.0], repeat=count)))


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-z))


def energy(m: Machine, v: np.ndarray, h: np.ndarray) -> float:
    own = v @ m.b if m.units == "bernoulli" else -0.5 * np.sum((v - m.b) ** 2)
    return -(own + h @ m.c + h @ m.w @ v)


def free_energy(m: Machine, v: np.ndarray) -> np.ndarray:
    """-log of the sum over hidden states."""
    found = [[np.exp(-energy(m, row, h)) for h in states(len(m.c))] for row in v]
    return -np.log(np.sum(found, axis=1))


def probabilities(m: Machine) -> np.ndarray:
    """Of all states of Bernoulli visible units."""
    weights = np.exp(-free_energy(m, states(len(m.b))))
    return weights / weights.sum()


def log_partition(m: Machine) -> float:
    """Bernoulli units: a sum over pairs of states. Gaussian ones: of each hidden state a Gaussian
    integral, e^(h c) times that of e^(-|v - b|^2 / 2 + h W v)."""
    if m.units == "bernoulli":
        return float(
            np.log(
                sum(np.exp(-energy(m, v, h)) for v in states(len(m.b)) for h in states(len(m.c)))
            )
        )
    total = 0.0
    for h in states(len(m.c)):
        shift = h @ m.w
        total += np.exp(h @ m.c + shift @ m.b + 0.5 * shift @ shift)
    return float(np.log(total) + 0.5 * len(m.b) * np.log(2 * np.pi))


def transition(m: Machine, means: bool = False) -> np.ndarray:
    """What one step of Gibbs sampling makes of each visible state: probabilities of visible states,
    shape (states, states); with `means` the hidden states' (states, hidden states)."""
    v, h = states(len(m.b)), states(len(m.c))
    up = _bits(sigmoid(v @ m.w.T + m.c), h)
    return up if means else up @ _bits(sigmoid(h @ m.w + m.b), v)


def _bits(p: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Probabilities of the bits `of` (K, n) for rows of independent probabilities p (N, n)."""
    return np.prod(np.where(of[None] > 0, p[:, None], 1 - p[:, None]), axis=2)


def statistics(m: Machine, v: np.ndarray, share: np.ndarray) -> dict[str, np.ndarray]:
    """What free energies' gradients are, less their sign: means over visible states with these
    shares."""
    h = sigmoid(v @ m.w.T + m.c)
    return {
        "weight": (share[:, None] * h).T @ v, "visible_bias": share @ v, "hidden_bias": share @ h
    }  # fmt: skip


def contrast(
    m: Machine, data: np.ndarray, k: int | None, means: bool = False
) -> dict[str, np.ndarray]:
    """The expected gradient of CD-k for data that are the states with shares `data`; k None: the
    exact gradient of the mean of -log p(v). `means`: the last visible units are not drawn."""
    v = states(len(m.b))
    model = probabilities(m) if k is None else data @ np.linalg.matrix_power(transition(m), k)
    negative = statistics(m, v, model)
    if means:
        assert k == 1
        share = data @ transition(m, means=True)
        negative = statistics(m, sigmoid(states(len(m.c)) @ m.w + m.b), share)
    positive = statistics(m, v, data)
    return {name: negative[name] - positive[name] for name in positive}
