"""Names of ops' inputs."""

from __future__ import annotations

import pytest

from fastnn.graph.op import Op, register


def test_no_input_is_called_as_a_gradient_to_an_output() -> None:
    """A node of gradients has both among its inputs, and would take one for the other."""
    with pytest.raises(ValueError, match="'twice': expected no input called dy, which is the grad"):
        register(Op("twice", inputs=("x", "dy"), outputs=("y",), returns=("y",)))
