"""Losses: one number for each row; means over rows are ops of their own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastnn.errors import ShapeError, where
from fastnn.graph.gradient import gradient_node
from fastnn.graph.graph import Graph
from fastnn.graph.node import Node
from fastnn.graph.op import Op, register
from fastnn.graph.value import Value
from fastnn.ops.activation import absolute, exp, log, softplus, square
from fastnn.ops.arithmetic import clip
from fastnn.ops.arithmetic import where as choose
from fastnn.ops.comparison import equal, greater
from fastnn.ops.declare import expressed_by, floats, op, outputs
from fastnn.ops.reduce import log_softmax, sum
from fastnn.ops.shape import reshape

# ---------------------------------------------------------------- of classes


def _check_classes(x: Value, target: Value, weight: Value | None) -> None:
    scope, rows = where(x.graph.scope), x.shape[:-1]
    if target.dtype == "i" and target.shape != rows:
        raise ShapeError(
            f"{scope}expected class indices of shape {rows} for outputs of shape {x.shape}, got "
            f"{target.shape}; the classes are the last dimension of the outputs"
        )
    if target.dtype != "i" and target.shape != x.shape:
        raise ShapeError(
            f"{scope}expected class probabilities of shape {x.shape}, got {target.shape}; for "
            "class indices pass integers (y.astype(np.int64))"
        )
    if weight is not None and weight.shape != (x.shape[-1],):
        raise ShapeError(f"{scope}expected {x.shape[-1]} class weights, got shape {weight.shape}")


def _cross_entropy_gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    if "target" in needed:
        raise ShapeError(f"{where(node.scope)}cross entropy has no gradient to its target")
    return gradient_node(graph, node, douts, needed & {"x"})


def _against(q: Value, x: Value, weight: Value | None) -> Value:
    """-sum q log softmax(x), where q is what a row's target says, weighted."""
    q = q if weight is None else q * weight
    return -sum(q * log_softmax(x), -1)


def _of_indices(
    x: Value, target: Value, weight: Value | None, smoothing: float, ignore_index: int
) -> Value:
    ids = reshape(target, (*target.shape, 1))
    q = equal(ids, np.arange(x.shape[-1]).reshape((1,) * target.ndim + (-1,)))
    q = q * (1.0 - smoothing) + smoothing / x.shape[-1]
    return _against(q * (1.0 - equal(ids, ignore_index)), x, weight)


@op(
    returns=("loss",), saves=("dlogits",), gradient=_cross_entropy_gradient,
    differentiable=("x",), expression=_of_indices,
)  # fmt: skip
def _cross_entropy(
    x: Value, target: Value, weight: Value | None, smoothing: float = 0.0, ignore_index: int = -100
) -> Value:
    _check_classes(x, target, weight)
    return outputs(loss=floats(*x.shape[:-1]), dlogits=floats(*x.shape))


def _of_probabilities(x: Value, target: Value, weight: Value | None, smoothing: float) -> Value:
    return _against(target * (1.0 - smoothing) + smoothing / x.shape[-1], x, weight)


@op(
    returns=("loss",), saves=("dlogits",), gradient=_cross_entropy_gradient,
    differentiable=("x",), expression=_of_probabilities,
)  # fmt: skip
def _cross_entropy_probs(
    x: Value, target: Value, weight: Value | None, smoothing: float = 0.0
) -> Value:
    _check_classes(x, target, weight)
    return outputs(loss=floats(*x.shape[:-1]), dlogits=floats(*x.shape))


@op(returns=("loss",), linear=("x",))
def _nll(x: Value, target: Value, weight: Value | None, ignore_index: int = -100) -> Value:
    _check_classes(x, target, weight)
    return floats(*x.shape[:-1])


@op(forward="target_weight")
def _target_weight(target: Value, weight: Value | None, ignore_index: int = -100) -> Value:
    return floats(*target.shape)


# ---------------------------------------------------------------- of pairs


def _pair_shape(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    x, target = inputs["x"], inputs["target"]
    if x.shape != target.shape:
        raise ShapeError(
            f"{where(scope)}expected a target of the output's shape {x.shape}, got {target.shape}; "
            "reshape one of them"
        )
    if target.dtype != "f":
        raise ShapeError(
            f"{where(scope)}expected a floating-point target, got integers; convert with "
            "y.astype(np.float32)"
        )
    weight = inputs.get("pos_weight")
    features = x.shape[-1] if x.ndim > 1 else 1
    if weight is not None and weight.shape != (features,):
        raise ShapeError(f"{where(scope)}expected {features} pos_weight, got {weight.shape}")
    return {"loss": floats(*(x.shape[:-1] if x.ndim > 1 else x.shape))}


def _difference_gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    """For a function of x - target: the gradient to the target is the negative of that to x."""
    found = gradient_node(graph, node, douts, {"x"})
    if "target" in needed:
        found["target"] = graph.apply("negate", x=found["x"])
    return found


def _huber(x: Value, t: Value, delta: float) -> Value:
    size = absolute(x - t)
    return choose(greater(size, delta), (size - 0.5 * delta) * delta, square(x - t) * 0.5)


def _bce_with_logits(x: Value, t: Value, pos_weight: Value | None) -> Value:
    positive = t if pos_weight is None else t * pos_weight
    up, down = softplus(x, threshold=math.inf), softplus(-x, threshold=math.inf)
    return (1.0 - t) * up + positive * down


def _bce_with_logits_gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    """The kernel's gradient to the logits; that to the target is written with other ops."""
    found = gradient_node(graph, node, douts, needed - {"target"})
    if "target" in needed:
        x, weight, dloss = node.inputs["x"], node.inputs["pos_weight"], douts["loss"]
        assert x is not None
        if weight is None:
            slope = x
        else:
            up, down = softplus(x, threshold=math.inf), softplus(-x, threshold=math.inf)
            slope = up - weight * down
        rows = reshape(dloss, *dloss.shape, 1) if x.ndim > 1 else dloss
        found["target"] = slope * (rows * -node.attrs["scale"])
    return found


def _bce(p: Value, t: Value) -> Value:
    return -(t * log(clip(p, 1e-12)) + (1.0 - t) * log(clip(1.0 - p, 1e-12)))


def _kl_div(x: Value, t: Value) -> Value:
    nothing = equal(t, 0.0)
    return t * (log(choose(nothing, np.ones(1), t)) - x)


class Row(NamedTuple):
    """A loss that is a sum of terms over a row: its term, of x, target and what is beside them."""

    name: str
    term: Callable[..., Value]
    inputs: tuple[str, ...] = ()
    defaults: tuple[tuple[str, float], ...] = ()
    gradient: Callable[..., dict[str, Value]] | None = None  # beyond the kernel's, that to x


def _sum_of(term: Callable[..., Value]) -> Callable[..., Value]:
    def loss(x: Value, target: Value, *more: Value | None, scale: float, **attrs: float) -> Value:
        terms = term(x, target, *more, **attrs) * scale
        return sum(terms, -1) if x.ndim > 1 else reshape(terms, x.shape)

    return loss


for _row in (
    Row("mse", lambda x, t: square(x - t), gradient=_difference_gradient),
    Row("mae", lambda x, t: absolute(x - t), gradient=_difference_gradient),
    Row("huber", _huber, defaults=(("delta", 1.0),), gradient=_difference_gradient),
    Row("bce_with_logits", _bce_with_logits, ("pos_weight",), gradient=_bce_with_logits_gradient),
    Row("bce", _bce),
    Row("kl_div", _kl_div),
    Row("kl_div_log", lambda x, t: exp(t) * (t - x)),
):
    register(
        Op(
            _row.name, inputs=("x", "target", *_row.inputs), outputs=("loss",), returns=("loss",),
            defaults={"scale": 1.0, **dict(_row.defaults)}, shape=_pair_shape,
            gradient=_row.gradient,
            expression=expressed_by(_row.name, _sum_of(_row.term)),
        )
    )  # fmt: skip
