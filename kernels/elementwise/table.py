"""The functions that are computed element by element: formulas and their gradients, in tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from .. import scalar


class Function(NamedTuple):
    """A function of one array and its gradient."""

    name: str
    formula: Callable[..., Any]
    gradient: Callable[..., Any]
    saved: str  # what the gradient is computed from
    reals: tuple[str, ...] = ()
    keeps_finite: bool = False  # as of `Traits`


FUNCTIONS: tuple[Function, ...] = (
    Function("relu", scalar.relu, scalar.relu_gradient, "y", keeps_finite=True),
    Function(
        "leaky_relu",
        scalar.leaky_relu,
        scalar.leaky_relu_gradient,
        "x",
        ("slope",),
        keeps_finite=True,
    ),
    Function("elu", scalar.elu, scalar.elu_gradient, "x", ("alpha",)),
    Function("selu", scalar.selu, scalar.selu_gradient, "x"),
    Function("gelu", scalar.gelu, scalar.gelu_gradient, "x", keeps_finite=True),
    Function("gelu_tanh", scalar.gelu_tanh, scalar.gelu_tanh_gradient, "x"),
    Function("silu", scalar.silu, scalar.silu_gradient, "x", keeps_finite=True),
    Function("sigmoid", scalar.sigmoid, scalar.sigmoid_gradient, "y", keeps_finite=True),
    Function("tanh", scalar.tanh, scalar.tanh_gradient, "y", keeps_finite=True),
    Function("softplus", scalar.softplus, scalar.softplus_gradient, "x", ("beta", "threshold")),
    Function("exp", scalar.exp, scalar.exp_gradient, "y"),
    Function("log", scalar.log, scalar.log_gradient, "x"),
    Function("sqrt", scalar.sqrt, scalar.sqrt_gradient, "y"),
    Function("square", scalar.square, scalar.square_gradient, "x"),
    Function("absolute", scalar.absolute, scalar.absolute_gradient, "x"),
    Function("erf", scalar.erf, scalar.erf_gradient, "x"),
    Function("clip", scalar.clip, scalar.clip_gradient, "x", ("low", "high")),
)
#: name, formula, inputs, output of the kernels of several operands
SEVERAL: tuple[tuple[str, Callable[..., Any], tuple[str, ...], str], ...] = (
    ("maximum_forward", scalar.larger, ("a", "b"), "y"),
    ("maximum_backward_a", scalar.larger_gradient, ("a", "b", "dy"), "da"),
    ("maximum_backward_b", scalar.larger_gradient_b, ("a", "b", "dy"), "db"),
    ("minimum_forward", scalar.smaller, ("a", "b"), "y"),
    ("minimum_backward_a", scalar.smaller_gradient, ("a", "b", "dy"), "da"),
    ("minimum_backward_b", scalar.smaller_gradient_b, ("a", "b", "dy"), "db"),
    ("power_forward", scalar.power, ("a", "b"), "y"),
    ("power_backward_a", scalar.power_gradient_a, ("a", "b", "dy"), "da"),
    ("power_backward_b", scalar.power_gradient_b, ("a", "b", "y", "dy"), "db"),
    ("where_forward", scalar.select, ("mask", "a", "b"), "y"),
    ("where_backward_a", scalar.select_gradient_a, ("mask", "dy"), "da"),
    ("where_backward_b", scalar.select_gradient_b, ("mask", "dy"), "db"),
    ("less", scalar.less, ("a", "b"), "y"),
    ("less_equal", scalar.less_equal, ("a", "b"), "y"),
    ("equal", scalar.equal, ("a", "b"), "y"),
    ("not_equal", scalar.not_equal, ("a", "b"), "y"),
)
