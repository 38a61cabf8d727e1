"""Losses: one number for each row; means over rows are ops of their own."""

from __future__ import annotations

from typing import Any

from fastnn.errors import ShapeError, where
from fastnn.graph.gradient import gradient_node
from fastnn.graph.graph import Graph
from fastnn.graph.node import Node
from fastnn.graph.op import Op, register
from fastnn.graph.value import Value


def _rows(x: Value) -> tuple[int, ...]:
    return x.shape[:-1]


def _class_shape(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    x, target, weight = inputs["x"], inputs["target"], inputs.get("weight")
    if target.dtype == "i" and target.shape != _rows(x):
        raise ShapeError(
            f"{where(scope)}expected class indices of shape {_rows(x)} for outputs of shape "
            f"{x.shape}, got {target.shape}; the classes are the last dimension of the outputs"
        )
    if target.dtype != "i" and target.shape != x.shape:
        raise ShapeError(
            f"{where(scope)}expected class probabilities of shape {x.shape}, got {target.shape}; "
            "for class indices pass integers (y.astype(np.int64))"
        )
    if weight is not None and weight.shape != (x.shape[-1],):
        raise ShapeError(
            f"{where(scope)}expected {x.shape[-1]} class weights, got shape {weight.shape}"
        )
    return {"loss": (_rows(x), "f"), "dlogits": (x.shape, "f")}


def _cross_entropy_gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    if "target" in needed:
        raise ShapeError(f"{where(node.scope)}cross entropy has no gradient to its target")
    return gradient_node(graph, node, douts, needed & {"x"})


for _name, _defaults in (
    ("cross_entropy", {"smoothing": 0.0, "ignore_index": -100}),
    ("cross_entropy_probs", {"smoothing": 0.0}),
):
    register(
        Op(
            _name, inputs=("x", "target", "weight"), outputs=("loss", "dlogits"),
            returns=("loss",), defaults=dict(_defaults), shape=_class_shape,
            gradient=_cross_entropy_gradient, differentiable=("x",),
        )
    )  # fmt: skip


def _loss_of(rule: Any) -> Any:
    def shape(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
        return {"loss": rule(inputs, attrs, scope)["loss"]}

    return shape


register(
    Op(
        "nll", inputs=("x", "target", "weight"), outputs=("loss",), returns=("loss",),
        defaults={"ignore_index": -100}, shape=_loss_of(_class_shape),
    )
)  # fmt: skip


def _weight_shape(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    return {"y": (inputs["target"].shape, "f")}


register(
    Op(
        "target_weight", inputs=("target", "weight"), defaults={"ignore_index": -100},
        shape=_weight_shape, forward="target_weight",
    )
)  # fmt: skip


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
    if weight is not None and weight.shape != (x.shape[-1],):
        raise ShapeError(f"{where(scope)}expected {x.shape[-1]} pos_weight, got {weight.shape}")
    return {"loss": (_rows(x) if x.ndim > 1 else x.shape, "f")}


def _difference_gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    """For a function of x - target: the gradient to the target is the negative of that to x."""
    found = gradient_node(graph, node, douts, {"x"})
    if "target" in needed:
        found["target"] = graph.apply("negate", x=found["x"])
    return found


for _name, _extra, _defaults in (
    ("mse", (), {}),
    ("mae", (), {}),
    ("huber", (), {"delta": 1.0}),
    ("bce_with_logits", ("pos_weight",), {}),
    ("bce", (), {}),
    ("kl_div", (), {}),
    ("kl_div_log", (), {}),
):
    register(
        Op(
            _name, inputs=("x", "target", *_extra), outputs=("loss",), returns=("loss",),
            defaults={"scale": 1.0, **_defaults}, shape=_pair_shape,
            gradient=_difference_gradient if _name in ("mse", "mae", "huber") else None,
        )
    )  # fmt: skip
