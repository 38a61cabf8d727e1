"""Activations and other functions of each element, with their slopes; the formulas are in
`kernels/scalar.py`."""

from __future__ import annotations

import math
from types import FunctionType
from typing import Any

import numpy as np

from fastnn.errors import OptionError, ShapeError, where
from fastnn.graph.constants import known
from fastnn.graph.gradient import gradient_node, multiple
from fastnn.graph.graph import Graph
from fastnn.graph.node import Node
from fastnn.graph.value import Value
from fastnn.ops.arithmetic import where as choose
from fastnn.ops.comparison import greater, less
from fastnn.ops.declare import Operand, elementwise, floats, like, need, op
from fastnn.public import publish

SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772
ROOT_2, ROOT_PI = math.sqrt(2.0), math.sqrt(math.pi)


@elementwise(lambda x, y: y)
def exp(x: Operand) -> Value:
    """e to the power of x.

    >>> testing.apply(ops.exp, [[0.0, 1.0]])
    array([[1.        , 2.71828183]])
    """
    return like(x)


@elementwise(lambda x, y: 1.0 / x)
def log(x: Operand) -> Value:
    """Natural logarithm.

    >>> testing.apply(ops.log, [[1.0, 10.0]])
    array([[0.        , 2.30258509]])
    """
    return like(x)


@elementwise(lambda x, y: 0.5 / y)
def sqrt(x: Operand) -> Value:
    """Square root.

    >>> testing.apply(ops.sqrt, [[4.0, 9.0]])
    array([[2., 3.]])
    """
    return like(x)


Values = dict[str, Value]


def _square_gradient(graph: Graph, node: Node, douts: Values, needed: set[str]) -> Values:
    """Of a sum's known gradient, one number everywhere, a multiple of x."""
    x = need(node, "x")
    if (number := known(douts["y"].root.data)) is None:
        return gradient_node(graph, node, douts, needed)
    return {"x": multiple(x, 2.0 * number, x)}


@elementwise(lambda x, y: x * 2.0, gradient=_square_gradient)
def square(x: Operand) -> Value:
    """x * x.

    >>> testing.apply(ops.square, [[2.0, -3.0]])
    array([[4., 9.]])
    """
    return like(x)


@elementwise(lambda x, y: greater(x, 0.0) - less(x, 0.0))
def absolute(x: Operand) -> Value:
    """|x|.

    >>> testing.apply(ops.absolute, [[-2.0, 3.0]])
    array([[2., 3.]])
    """
    return like(x)


@elementwise(lambda x, y: exp(-square(x)) * (2.0 / ROOT_PI))
def erf(x: Operand) -> Value:
    """The error function, 2/sqrt(pi) times the integral of exp(-t^2) from 0 to x.

    >>> testing.apply(ops.erf, [[0.0, 1.0]])
    array([[0.        , 0.84270079]])
    """
    return like(x)


def _sin_slope(x: Value, y: Value) -> Value:
    return cos(x)


@elementwise(_sin_slope)
def sin(x: Operand) -> Value:
    """The sine; NaN beyond 1e6 in float32 (1e14 in float64), where numbers lie too far apart.

    >>> testing.apply(ops.sin, [[0.0, np.pi / 2]])
    array([[0., 1.]])
    """
    return like(x)


@elementwise(lambda x, y: -sin(x))
def cos(x: Operand) -> Value:
    """The cosine; NaN where `sin` is.

    >>> testing.apply(ops.cos, [[0.0, np.pi]])
    array([[ 1., -1.]])
    """
    return like(x)


@elementwise(lambda x, y: y * (1.0 - y))
def sigmoid(x: Operand) -> Value:
    """1 / (1 + exp(-x)).

    >>> testing.apply(ops.sigmoid, [[0.0, 2.0]])
    array([[0.5       , 0.88079708]])
    """
    return like(x)


@elementwise(lambda x, y: 1.0 - square(y))
def tanh(x: Operand) -> Value:
    """The hyperbolic tangent.

    >>> testing.apply(ops.tanh, [[0.0, 1.0]])
    array([[0.        , 0.76159416]])
    """
    return like(x)


# ---------------------------------------------------------------- activations


@elementwise(lambda x, y: greater(x, 0.0))
def relu(x: Operand) -> Value:
    """max(x, 0) (Nair & Hinton 2010).

    >>> testing.apply(ops.relu, [[-1.0, 2.0]])
    array([[0., 2.]])
    """
    return like(x)


@elementwise(lambda x, y, slope: greater(x, 0.0) * (1.0 - slope) + slope)
def leaky_relu(x: Operand, slope: float = 0.01) -> Value:
    """x where positive, else slope * x (Maas et al. 2013).

    >>> testing.apply(ops.leaky_relu, [[-1.0, 2.0]])
    array([[-0.01,  2.  ]])
    """
    return like(x)


def _elu_slope(x: Value, right: float, left: float) -> Value:
    """(Not y + alpha on the left: that cancels.)"""
    positive = greater(x, 0.0)
    return choose(positive, np.full(1, right), exp(choose(positive, np.zeros(1), x)) * left)


@elementwise(lambda x, y, alpha: _elu_slope(x, 1.0, alpha))
def elu(x: Operand, alpha: float = 1.0) -> Value:
    """x where positive, else alpha * (exp(x) - 1) (Clevert et al. 2016).

    >>> testing.apply(ops.elu, [[-1.0, 2.0]])
    array([[-0.63212056,  2.        ]])
    """
    return like(x)


@elementwise(lambda x, y: _elu_slope(x, SELU_SCALE, SELU_SCALE * SELU_ALPHA))
def selu(x: Operand) -> Value:
    """Self-normalising ELU (Klambauer et al. 2017); initialise with LeCun normal.

    >>> testing.apply(ops.selu, [[-1.0, 2.0]])
    array([[-1.11133074,  2.10140197]])
    """
    return like(x)


def gelu(x: Operand, approximate: str = "none") -> Value:
    """x times the normal distribution function of x (Hendrycks & Gimpel 2016);
    `approximate="tanh"` for the tanh formula.

    Raises OptionError for another `approximate`.

    >>> testing.apply(ops.gelu, [[-1.0, 2.0]])
    array([[-0.15865525,  1.95449974]])
    """
    if approximate not in ("none", "tanh"):
        raise OptionError(f"gelu: expected approximate 'none' or 'tanh', got {approximate!r}")
    return _gelu(x) if approximate == "none" else _gelu_tanh(x)


def _gelu_slope(x: Value, y: Value) -> Value:
    return (erf(x / ROOT_2) + 1.0) * 0.5 + x * exp(square(x) * -0.5) / (ROOT_2 * ROOT_PI)


@elementwise(_gelu_slope)
def _gelu(x: Operand) -> Value:
    return like(x)


def _gelu_tanh_slope(x: Value, y: Value) -> Value:
    k, c = ROOT_2 / ROOT_PI, 0.044715
    t = tanh((x + square(x) * x * c) * k)
    return (t + 1.0) * 0.5 + x * (1.0 - square(t)) * (square(x) * (3.0 * c) + 1.0) * (0.5 * k)


@elementwise(_gelu_tanh_slope)
def _gelu_tanh(x: Operand) -> Value:
    return like(x)


def _silu_slope(x: Value, y: Value) -> Value:
    s = sigmoid(x)
    return s * (1.0 + x * (1.0 - s))


@elementwise(_silu_slope)
def silu(x: Operand) -> Value:
    """x * sigmoid(x), also called swish (Elfwing et al. 2018).

    >>> testing.apply(ops.silu, [[-1.0, 2.0]])
    array([[-0.26894142,  1.76159416]])
    """
    return like(x)


def _softplus_slope(x: Value, y: Value, beta: float, threshold: float) -> Value:
    return choose(greater(x * beta, threshold), np.ones(1), sigmoid(x * beta))


@elementwise(_softplus_slope)
def softplus(x: Operand, beta: float = 1.0, threshold: float = 20.0) -> Value:
    """log(1 + exp(beta x)) / beta (Dugas et al. 2001); x itself where beta * x > threshold.

    >>> testing.apply(ops.softplus, [[0.0, 1.0]])
    array([[0.69314718, 1.31326169]])
    """
    return like(x)


# ---------------------------------------------------------------- with more than one element


@op(
    expression=lambda x, weight: choose(greater(x, 0.0), x, x * weight),
    differentiable=("x", "weight"),
)
def prelu(x: Operand, weight: Operand) -> Value:
    """x where positive, else weight * x (He et al. 2015); `weight` has 1 or C elements.

    Raises ShapeError for another number of weights.

    >>> testing.apply(lambda x: ops.prelu(x, np.array([0.25])), [[-1.0, 2.0]])
    array([[-0.25,  2.  ]])
    """
    if weight.shape not in ((1,), (x.shape[-1],)):
        raise ShapeError(
            f"{where(x.graph.scope)}prelu: expected 1 weight or {x.shape[-1]}, one for each "
            f"feature, got {weight.shape}"
        )
    return like(x)


def _largest_piece(x: Value, pieces: int) -> Any:
    return x.reshape(*x.shape[:-1], pieces, x.shape[-1] // pieces).max(-2)


@op(expression=_largest_piece)
def maxout(x: Operand, pieces: int) -> Value:
    """Largest of `pieces` blocks of features (Goodfellow et al. 2013): (..., pieces * C) to
    (..., C).

    Raises ShapeError for a number of features that `pieces` does not divide.

    >>> testing.apply(lambda x: ops.maxout(x, 2), [[1.0, 2.0, 3.0, 0.0]])
    array([[3., 2.]])
    """
    if pieces < 1 or x.shape[-1] % pieces:
        raise ShapeError(
            f"{where(x.graph.scope)}maxout: expected a number of features that {pieces} pieces "
            f"divide, got {x.shape[-1]}"
        )
    return floats(*x.shape[:-1], x.shape[-1] // pieces)


publish(globals(), FunctionType)
