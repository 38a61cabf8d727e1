"""Ways between codes, and codes laid out on a plane."""

from __future__ import annotations

import numpy as np
import pytest

from fastnn.errors import OptionError, ShapeError
from fastnn.generative import interpolate, manifold


def test_the_arc_keeps_the_length() -> None:
    a, b = np.array([2.0, 0.0, 0.0]), np.array([0.0, 2.0, 0.0])
    arc = interpolate(a, b, 5, spherical=True)
    np.testing.assert_allclose(np.linalg.norm(arc, axis=1), 2.0)
    np.testing.assert_allclose(arc[2], [2**0.5, 2**0.5, 0.0])
    np.testing.assert_allclose(interpolate(a, b, 5)[2], [1.0, 1.0, 0.0])
    for spherical in (False, True):
        ends = interpolate(a, b, 7, spherical)
        np.testing.assert_allclose(ends[[0, -1]], [a, b], atol=1e-12)


@pytest.mark.parametrize("b", [[0.0, 0.0], [3.0, 0.0], [-1.0, 0.0]])
def test_where_there_is_no_arc_the_way_is_straight(b: list[float]) -> None:
    np.testing.assert_allclose(interpolate([1.0, 0.0], b, 3, True), interpolate([1.0, 0.0], b, 3))


def test_the_lattice_is_as_dense_as_the_codes() -> None:
    lattice = manifold(5, within=0.8).reshape(5, 5, 2)
    np.testing.assert_allclose(
        lattice[0, :, 0], [-1.28155, -0.52440, 0, 0.52440, 1.28155], atol=1e-4
    )
    np.testing.assert_allclose(lattice[:, 0, 1], lattice[0, ::-1, 0])
    assert (lattice[:, 2, 0] == 0).all()


def test_bad_input() -> None:
    with pytest.raises(ShapeError, match="one shape"):
        interpolate([1.0], [1.0, 2.0])
    with pytest.raises(OptionError, match="steps"):
        interpolate([1.0], [2.0], steps=1)
    with pytest.raises(OptionError, match=r"\(0, 1\)"):
        manifold(3, within=1.0)
