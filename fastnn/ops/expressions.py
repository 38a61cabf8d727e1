"""What gradients are made of, for gradients of gradients (see `fastnn/graph/gradient.py`).

Functions of one argument have a slope, written with x and y = f(x); ops of several inputs have
their gradients; composed ones (norms, losses) a formula in other ops. Those of recurrent nets are
in `recurrent_expressions.py`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

import fastnn.ops.linear
import fastnn.ops.loss
import fastnn.ops.norm
import fastnn.ops.recurrent
import fastnn.ops.strided  # noqa: F401  (the ops that this says more of)
from fastnn.graph.gradient import Values
from fastnn.graph.node import Node
from fastnn.graph.op import OPS
from fastnn.graph.value import Value
from fastnn.ops.activation import absolute, erf, exp, log, sigmoid, softplus, sqrt, square, tanh
from fastnn.ops.arithmetic import clip, equal, greater, less, less_equal, multiply, where
from fastnn.ops.matmul import matmul
from fastnn.ops.reduce import log_softmax, max, mean, sum
from fastnn.ops.shape import columns, reshape, transpose

SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772
ROOT_2, ROOT_PI = math.sqrt(2.0), math.sqrt(math.pi)


def need(node: Node, name: str) -> Value:
    """An input that is not absent."""
    value = node.inputs[name]
    assert value is not None
    return value


# ---------------------------------------------------------------- functions of each element


def _gelu_slope(x: Value, y: Value, a: dict[str, Any]) -> Value:
    return (erf(x / ROOT_2) + 1.0) * 0.5 + x * exp(square(x) * -0.5) / (ROOT_2 * ROOT_PI)


def _gelu_tanh_slope(x: Value, y: Value, a: dict[str, Any]) -> Value:
    k, c = ROOT_2 / ROOT_PI, 0.044715
    t = tanh((x + square(x) * x * c) * k)
    return (t + 1.0) * 0.5 + x * (1.0 - square(t)) * (square(x) * (3.0 * c) + 1.0) * (0.5 * k)


def _elu_slope(x: Value, right: float, left: float) -> Value:
    """(Not y + alpha on the left: that cancels.)"""
    positive = greater(x, 0.0)
    return where(positive, np.full(1, right), exp(where(positive, np.zeros(1), x)) * left)


def _silu_slope(x: Value, y: Value, a: dict[str, Any]) -> Value:
    s = sigmoid(x)
    return s * (1.0 + x * (1.0 - s))


SLOPES: dict[str, Callable[[Value, Value, dict[str, Any]], Value]] = {
    "relu": lambda x, y, a: greater(x, 0.0),
    "leaky_relu": lambda x, y, a: greater(x, 0.0) * (1.0 - a["slope"]) + a["slope"],
    "elu": lambda x, y, a: _elu_slope(x, 1.0, a["alpha"]),
    "selu": lambda x, y, a: _elu_slope(x, SELU_SCALE, SELU_SCALE * SELU_ALPHA),
    "gelu": _gelu_slope,
    "gelu_tanh": _gelu_tanh_slope,
    "silu": _silu_slope,
    "sigmoid": lambda x, y, a: y * (1.0 - y),
    "tanh": lambda x, y, a: 1.0 - square(y),
    "softplus": lambda x, y, a: where(
        greater(x * a["beta"], a["threshold"]), np.ones(1), sigmoid(x * a["beta"])
    ),
    "exp": lambda x, y, a: y,
    "log": lambda x, y, a: 1.0 / x,
    "sqrt": lambda x, y, a: 0.5 / y,
    "square": lambda x, y, a: x * 2.0,
    "absolute": lambda x, y, a: greater(x, 0.0) - less(x, 0.0),
    "erf": lambda x, y, a: exp(-square(x)) * (2.0 / ROOT_PI),
    "clip": lambda x, y, a: less_equal(a["low"], x) * less_equal(x, a["high"]),
}


def _by_slope(slope: Callable[..., Value]) -> Callable[[Node, Values], Values]:
    return lambda node, d: {"x": d["y"] * slope(need(node, "x"), node.outputs["y"], node.attrs)}


def _say(name: str, **rules: Any) -> None:
    OPS[name] = dataclasses.replace(OPS[name], **rules)


for _name, _slope in SLOPES.items():
    _say(_name, derivative=_by_slope(_slope))


def _derivative(name: str) -> Callable[[Any], Any]:
    def enter(rule: Any) -> Any:
        _say(name, derivative=rule)
        return rule

    return enter


def formula(*names: str) -> Callable[[Any], Any]:
    """Enter what an op is made of."""

    def enter(rule: Any) -> Any:
        for name in names:
            _say(name, expression=rule)
        return rule

    return enter


@_derivative("softmax")
def _softmax(node: Node, d: Values) -> Values:
    y = node.outputs["y"]
    return {"x": y * (d["y"] - sum(d["y"] * y, -1, keepdims=True))}


@_derivative("log_softmax")
def _log_softmax(node: Node, d: Values) -> Values:
    return {"x": d["y"] - exp(node.outputs["y"]) * sum(d["y"], -1, keepdims=True)}


@formula("prelu")
def _prelu(node: Node) -> Values:
    x = need(node, "x")
    return {"y": where(greater(x, 0.0), x, x * need(node, "weight"))}


@formula("maxout")
def _maxout(node: Node) -> Values:
    x, pieces = need(node, "x"), node.attrs["pieces"]
    return {"y": max(reshape(x, (*x.shape[:-1], pieces, x.shape[-1] // pieces)), -2)}


# ---------------------------------------------------------------- arithmetic

# linear in what they are given, all else a constant
for _name, _inputs in {
    "where": ("a", "b"), "mean": ("x",), "total": ("x",), "weighted_mean": ("x",),
    "gather": ("x",), "nll": ("x",), "add_row": ("a", "b"), "add_column": ("a", "b"),
    "leaky": ("x", "h0"),
}.items():  # fmt: skip
    _say(_name, linear=_inputs)


def _pair(node: Node) -> tuple[Value, Value, Value]:
    return need(node, "a"), need(node, "b"), node.outputs["y"]


@_derivative("multiply")
def _multiply(node: Node, d: Values) -> Values:
    a, b, _ = _pair(node)
    return {"a": d["y"] * b, "b": d["y"] * a}


@_derivative("divide")
def _divide(node: Node, d: Values) -> Values:
    _, b, y = _pair(node)
    part = d["y"] / b
    return {"a": part, "b": -part * y}


@_derivative("maximum")
def _maximum(node: Node, d: Values) -> Values:
    a, b, _ = _pair(node)
    tie = equal(a, b) * 0.5
    return {"a": d["y"] * (greater(a, b) + tie), "b": d["y"] * (less(a, b) + tie)}


@_derivative("minimum")
def _minimum(node: Node, d: Values) -> Values:
    a, b, _ = _pair(node)
    tie = equal(a, b) * 0.5
    return {"a": d["y"] * (less(a, b) + tie), "b": d["y"] * (greater(a, b) + tie)}


@_derivative("power")
def _power(node: Node, d: Values) -> Values:
    a, b, y = _pair(node)
    nothing = equal(a, 0.0)
    logarithm = where(nothing, np.zeros(1), log(where(nothing, np.ones(1), a)))
    safe = where(nothing * equal(b, 0.0), np.ones(1), b)  # a ** 0 has no slope at 0, not 0 / 0
    return {"a": d["y"] * b * a ** (safe - 1.0), "b": d["y"] * y * logarithm}


@_derivative("multiply_row")
def _multiply_row(node: Node, d: Values) -> Values:
    a, b, _ = _pair(node)
    sums = sum(reshape(a * d["y"], (-1, b.size)), 0)
    return {"a": d["y"] * b, "b": reshape(sums, b.shape)}


@_derivative("multiply_column")
def _multiply_column(node: Node, d: Values) -> Values:
    a, b, _ = _pair(node)
    column = reshape(b, (*a.shape[:-1], 1))
    return {"a": d["y"] * column, "b": reshape(sum(a * d["y"], -1), b.shape)}


@_derivative("max_columns")
def _max_columns(node: Node, d: Values) -> Values:
    x, y = need(node, "x"), node.outputs["y"]
    largest = equal(x, reshape(y, (*y.shape, 1)))
    share = largest / sum(largest, -1, keepdims=True)
    return {"x": share * reshape(d["y"], (*y.shape, 1))}


@_derivative("logsumexp_columns")
def _logsumexp(node: Node, d: Values) -> Values:
    x, y = need(node, "x"), node.outputs["y"]
    return {"x": exp(x - reshape(y, (*y.shape, 1))) * reshape(d["y"], (*y.shape, 1))}


@formula("product_columns")
def _product(node: Node) -> Values:
    x = need(node, "x")
    y = columns(x, 0, 1)
    for k in range(1, x.shape[-1]):  # zeros make no harm
        y = y * columns(x, k, k + 1)
    return {"y": reshape(y, node.outputs["y"].shape)}


# ---------------------------------------------------------------- products


def _rows(x: Value) -> Value:
    return x if x.ndim == 2 else reshape(x, (-1, x.shape[-1]))


@_derivative("linear")
def _linear(node: Node, d: Values) -> Values:
    x, w, dy = need(node, "x"), need(node, "w"), d["y"]
    graph = x.graph
    found = {"x": graph.apply("linear_transposed", x=dy, w=w)}
    found["w"] = graph.apply("linear", x=transpose(_rows(x)), w=_rows(dy), bias=None)
    found["bias"] = sum(_rows(dy), 0)
    return found


@_derivative("linear_transposed")
def _linear_transposed(node: Node, d: Values) -> Values:
    x, w, dy = need(node, "x"), need(node, "w"), d["y"]
    graph = x.graph
    found = {"x": graph.apply("linear", x=dy, w=w, bias=None)}
    found["w"] = graph.apply("linear", x=transpose(_rows(dy)), w=_rows(x), bias=None)
    return found


@_derivative("matmul")
def _matmul(node: Node, d: Values) -> Values:
    return {"b": matmul(transpose(need(node, "a"), 0, 2, 1), d["y"])}


@formula("embedding")
def _embedding(node: Node) -> Values:
    """Products with one-hot rows, without the row that is not trained."""
    ids, table, padding = need(node, "ids"), need(node, "table"), node.attrs["padding_index"]
    places = np.arange(table.shape[0])
    hot = equal(reshape(ids, (-1, 1)), places[None])
    if padding >= 0:
        hot = hot * (places != padding)[None].astype(np.float64)
    y = hot.graph.apply("linear", x=hot, w=table, bias=None)
    return {"y": reshape(y, node.outputs["y"].shape)}


# ---------------------------------------------------------------- norms


def _scaled(node: Node, y: Value) -> Values:
    for name, function in (("gain", multiply), ("bias", lambda a, b: a + b)):
        if node.inputs[name] is not None:
            y = function(y, need(node, name))
    return {"y": y}


def _normal(node: Node, axis: Any) -> Values:
    x = need(node, "x")
    centred = x - mean(x, axis, keepdims=True)
    spread = sqrt(mean(square(centred), axis, keepdims=True) + node.attrs["eps"])
    return _scaled(node, centred / spread)


@formula("layer_norm")
def _layer_norm(node: Node) -> Values:
    return _normal(node, -1)


@formula("batch_norm")
def _batch_norm(node: Node) -> Values:
    return _normal(node, tuple(range(need(node, "x").ndim - 1)))


@formula("batch_norm_inference")
def _batch_norm_inference(node: Node) -> Values:
    mean, var = need(node, "running_mean"), need(node, "running_var")
    return _scaled(node, (need(node, "x") - mean) / sqrt(var + node.attrs["eps"]))


# ---------------------------------------------------------------- losses


@formula("cross_entropy", "cross_entropy_probs")
def _cross_entropy(node: Node) -> Values:
    """-sum q log softmax(x), where q is what a row's target says, smoothed and weighted."""
    x, target, smoothing = need(node, "x"), need(node, "target"), node.attrs["smoothing"]
    if node.op.name == "cross_entropy":
        ids = reshape(target, (*target.shape, 1))
        q = equal(ids, np.arange(x.shape[-1]).reshape((1,) * target.ndim + (-1,)))
        q = q * (1.0 - smoothing) + smoothing / x.shape[-1]
        q = q * (1.0 - equal(ids, node.attrs["ignore_index"]))
    else:
        q = target * (1.0 - smoothing) + smoothing / x.shape[-1]
    if node.inputs["weight"] is not None:
        q = q * need(node, "weight")
    return {"loss": -sum(q * log_softmax(x), -1)}


def _terms(
    term: Callable[[Value, Value, dict[str, Any]], Value],
) -> Callable[[Node], Values]:
    """A loss that is a sum of terms over a row."""

    def rule(node: Node) -> Values:
        x, loss = need(node, "x"), node.outputs["loss"]
        terms = term(x, need(node, "target"), {**node.attrs, **node.inputs}) * node.attrs["scale"]
        return {"loss": sum(terms, -1) if x.ndim > 1 else reshape(terms, loss.shape)}

    return rule


def _huber(x: Value, t: Value, a: dict[str, Any]) -> Value:
    size, delta = absolute(x - t), a["delta"]
    return where(greater(size, delta), (size - 0.5 * delta) * delta, square(x - t) * 0.5)


def _bce_with_logits(x: Value, t: Value, a: dict[str, Any]) -> Value:
    positive = t if a["pos_weight"] is None else t * a["pos_weight"]
    up, down = softplus(x, threshold=math.inf), softplus(-x, threshold=math.inf)
    return (1.0 - t) * up + positive * down


def _bce(p: Value, t: Value, a: dict[str, Any]) -> Value:
    return -(t * log(clip(p, 1e-12)) + (1.0 - t) * log(clip(1.0 - p, 1e-12)))


def _kl_div(x: Value, t: Value, a: dict[str, Any]) -> Value:
    nothing = equal(t, 0.0)
    return t * (log(where(nothing, np.ones(1), t)) - x)


for _name, _term in (
    ("mse", lambda x, t, a: square(x - t)),
    ("mae", lambda x, t, a: absolute(x - t)),
    ("huber", _huber),
    ("bce_with_logits", _bce_with_logits),
    ("bce", _bce),
    ("kl_div", _kl_div),
    ("kl_div_log", lambda x, t, a: exp(t) * (t - x)),
):
    _say(_name, expression=_terms(_term))
