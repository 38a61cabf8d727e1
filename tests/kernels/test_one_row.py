"""A single sequence's products with large weights have the bits that they have among others."""

from __future__ import annotations

import numpy as np
import pytest

from fastnn import nn
from fastnn.kernels.matmul.cpu_panels import PREFETCH_BYTES

HIDDEN = 227  # neither a multiple of the rows that are read together nor of a vector


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU], ids=["LSTM", "GRU"])
def test_one_sequence_is_as_among_others(layer: type, dtype: str) -> None:
    """Alone a weight beyond L2 is read in sequence, a step alone without tiles."""
    model = layer(HIDDEN, HIDDEN).to(dtype)
    gates = 4 if layer is nn.LSTM else 3
    assert gates * HIDDEN**2 * 4 > PREFETCH_BYTES
    x = np.random.default_rng(0).normal(size=(6, 3, HIDDEN)).astype(dtype)
    among = model.predict(x)
    among = among[0] if isinstance(among, tuple) else among
    for steps in (1, 3):
        alone = model.predict(x[2:3, :steps])
        alone = alone[0] if isinstance(alone, tuple) else alone
        np.testing.assert_array_equal(alone[0], among[2, :steps])
