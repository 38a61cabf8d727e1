"""Units that are drawn."""

from __future__ import annotations

import numpy as np

from fastnn import ops
from fastnn.graph.value import Value

#: kinds of visible units
UNITS = ("bernoulli", "gaussian")


def bernoulli(p: Value) -> Value:
    """1 with probability p, else 0, for each element; no gradient passes through."""
    return ops.less(ops.uniform_like(p), ops.detach(p))


def drawn(rng: np.random.Generator, shape: tuple[int, ...], units: str) -> np.ndarray:
    """Visible units of a machine without weights."""
    if units == "bernoulli":
        return rng.integers(0, 2, shape).astype(np.float64)
    return rng.normal(size=shape)
