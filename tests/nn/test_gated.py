"""Gates, borders and orders of axes, beside NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from fastnn import nn, testing
from fastnn.errors import OptionError, ShapeError

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("axis", [-1, 1, 2, -2])
@pytest.mark.parametrize("layer", [nn.GLU, nn.GTU])
def test_gates(layer: type[nn.Module], axis: int) -> None:
    x = RNG.normal(size=(3, 4, 6))
    a, b = np.split(x, 2, axis)
    inner = a if layer is nn.GLU else np.tanh(a)
    model = layer(axis)  # type: ignore[call-arg]
    np.testing.assert_allclose(model.predict(x), inner / (1 + np.exp(-b)), rtol=1e-6)
    assert testing.gradcheck(model, x)


def test_permute_and_pad() -> None:
    x = RNG.normal(size=(2, 3, 4, 5)).astype(np.float32)
    np.testing.assert_array_equal(nn.Permute(3, 1, 2).predict(x), x.transpose(0, 3, 1, 2))
    for mode in ("constant", "edge", "reflect", "wrap"):
        padded = nn.Pad(1, (0, 2), 0, mode=mode).predict(x)
        np.testing.assert_array_equal(padded, np.pad(x, [(0, 0), (1, 1), (0, 2), (0, 0)], mode))  # type: ignore[call-overload]
    filled = nn.Pad(0, 0, (1, 0), value=-2.0).predict(x)
    assert (filled[..., 0] == -2.0).all()


def test_bad_options_and_shapes() -> None:
    x = np.zeros((2, 3, 4), np.float32)
    with pytest.raises(OptionError, match="axis of the sample"):
        nn.GLU(0)
    for axis in (1, 3, -3):
        with pytest.raises(ShapeError, match="even number"):
            nn.GLU(axis).predict(x)
    for axes in ((0, 1), (1, 1), (1, 3), ()):
        with pytest.raises((OptionError, ShapeError), match="axes"):
            nn.Permute(*axes).predict(x)
    with pytest.raises(ShapeError, match="2 axes"):
        nn.Pad(1).predict(x)
    for widths in ((-1, 0), (1.5, 0), ((1, 2, 3), 0)):
        with pytest.raises(OptionError, match="whole numbers"):
            nn.Pad(*widths)
    with pytest.raises(OptionError, match="mode"):
        nn.Pad(1, 1, mode="mirror")
