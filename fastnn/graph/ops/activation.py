"""Activations and other functions of each element or of each row."""

from __future__ import annotations

from typing import Any

from fastnn.errors import ShapeError, where
from fastnn.graph.graph import Value
from fastnn.graph.op import Op, register

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
