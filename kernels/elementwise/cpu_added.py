"""Terms of sums: each element is computed and added to the one at the same place.

The planner puts them where a term is computed and added by two calls (`plan/endings.py`): it needs
no memory of its own then. The bits are those of the two calls.
"""

from __future__ import annotations

from ..arithmetic import multiply
from ..declare import helper
from ..scalar import square_gradient
from ..simd import Vector
from ..traits import term_of
from .cpu import elementwise


@helper
def multiply_add(a: Vector, b: Vector, given: Vector) -> Vector:
    """a*b + given, each rounded."""
    return multiply(a, b) + given


@helper
def square_gradient_add(x: Vector, dy: Vector, given: Vector) -> Vector:
    """The gradient of a square, + given."""
    return square_gradient(x, dy) + given


for _first, _formula, _inputs, _output in (
    ("multiply_forward", multiply_add, ("a", "b"), "y"),
    ("multiply_backward_a", multiply_add, ("b", "dy"), "da"),
    ("multiply_backward_b", multiply_add, ("a", "dy"), "db"),
    ("square_backward", square_gradient_add, ("x", "dy"), "dx"),
):
    elementwise(
        f"{_first}_add", _formula, (*_inputs, "given"), _output, endings=term_of(_first, _output)
    )
