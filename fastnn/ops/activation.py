"""Activations and other functions of each element or of each row."""

from __future__ import annotations

from typing import Any

from fastnn.errors import OptionError, ShapeError, where
from fastnn.graph.op import Op, register
from fastnn.graph.value import Value
from fastnn.ops.operands import as_value, float_value, graph_of, unary

for _name, _defaults in {
    "relu": {},
    "leaky_relu": {"slope": 0.01},
    "elu": {"alpha": 1.0},
    "selu": {},
    "gelu": {},
    "gelu_tanh": {},
    "silu": {},
    "sigmoid": {},
    "tanh": {},
    "softplus": {"beta": 1.0, "threshold": 20.0},
    "exp": {},
    "log": {},
    "sqrt": {},
    "square": {},
    "absolute": {},
    "erf": {},
    "clip": {"low": -float("inf"), "high": float("inf")},
    "softmax": {},
    "log_softmax": {},
}.items():
    register(Op(_name, defaults=dict(_defaults)))


def _prelu_shape(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    x, weight = inputs["x"], inputs["weight"]
    if weight.shape not in ((1,), (x.shape[-1],)):
        raise ShapeError(
            f"{where(scope)}prelu: expected 1 weight or {x.shape[-1]}, one for each feature, got "
            f"{weight.shape}"
        )
    return {"y": (x.shape, "f")}


register(Op("prelu", inputs=("x", "weight"), shape=_prelu_shape, differentiable=("x", "weight")))


def _maxout_shape(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    x, pieces = inputs["x"], attrs["pieces"]
    if pieces < 1 or x.shape[-1] % pieces:
        raise ShapeError(
            f"{where(scope)}maxout: expected a number of features that {pieces} pieces divide, "
            f"got {x.shape[-1]}"
        )
    return {"y": ((*x.shape[:-1], x.shape[-1] // pieces), "f")}


register(Op("maxout", shape=_maxout_shape))


# ---------------------------------------------------------------- functions


def relu(x: Any) -> Value:
    """max(x, 0)."""
    return unary("relu", x)


def leaky_relu(x: Any, slope: float = 0.01) -> Value:
    """x where positive, else slope * x."""
    return unary("leaky_relu", x, slope=slope)


def prelu(x: Any, weight: Any) -> Value:
    """x where positive, else weight * x; `weight` has 1 or C elements."""
    graph = graph_of(x)
    result: Value = graph.apply("prelu", x=float_value(x, "prelu"), weight=as_value(graph, weight))
    return result


def elu(x: Any, alpha: float = 1.0) -> Value:
    """x where positive, else alpha * (exp(x) - 1)."""
    return unary("elu", x, alpha=alpha)


def selu(x: Any) -> Value:
    """Self-normalising ELU (Klambauer et al. 2017)."""
    return unary("selu", x)


def gelu(x: Any, approximate: str = "none") -> Value:
    """x times the normal distribution function of x; `approximate="tanh"` for the tanh formula."""
    if approximate not in ("none", "tanh"):
        raise OptionError(f"gelu: expected approximate 'none' or 'tanh', got {approximate!r}")
    return unary("gelu" if approximate == "none" else "gelu_tanh", x)


def silu(x: Any) -> Value:
    """x * sigmoid(x)."""
    return unary("silu", x)


def sigmoid(x: Any) -> Value:
    """1 / (1 + exp(-x))."""
    return unary("sigmoid", x)


def tanh(x: Any) -> Value:
    """Hyperbolic tangent."""
    return unary("tanh", x)


def softplus(x: Any, beta: float = 1.0, threshold: float = 20.0) -> Value:
    """log(1 + exp(beta x)) / beta; x itself where beta * x > threshold."""
    return unary("softplus", x, beta=beta, threshold=threshold)


def exp(x: Any) -> Value:
    """e to the power of x."""
    return unary("exp", x)


def log(x: Any) -> Value:
    """Natural logarithm."""
    return unary("log", x)


def sqrt(x: Any) -> Value:
    """Square root."""
    return unary("sqrt", x)


def square(x: Any) -> Value:
    """x * x."""
    return unary("square", x)


def absolute(x: Any) -> Value:
    """|x|."""
    return unary("absolute", x)


def erf(x: Any) -> Value:
    """The error function, 2/sqrt(pi) times the integral of exp(-t^2) from 0 to x."""
    return unary("erf", x)


def maxout(x: Any, pieces: int) -> Value:
    """Largest of `pieces` blocks of features: (..., pieces * C) to (..., C)."""
    return unary("maxout", x, pieces=int(pieces))
