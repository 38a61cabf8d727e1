"""Normalisation."""

from __future__ import annotations

from typing import Any

from fastnn.errors import ShapeError, where
from fastnn.graph.graph import Graph, Node, Value
from fastnn.graph.op import Op, derived_gradient, register


def _check_features(inputs: dict[str, Value], scope: str, op: str) -> None:
    x = inputs["x"]
    for name in ("gain", "bias", "running_mean", "running_var"):
        value = inputs.get(name)
        if value is not None and value.shape != (x.shape[-1],):
            raise ShapeError(
                f"{where(scope)}{op}: expected {value.size} features, got input of shape {x.shape}"
                f"; set the layer's size to {x.shape[-1]}"
            )


def _layer_norm_shape(
    inputs: dict[str, Value], attrs: dict[str, Any], scope: str
) -> dict[str, Any]:
    x = inputs["x"]
    _check_features(inputs, scope, "layer_norm")
    return {"y": (x.shape, "f"), "mean": (x.shape[:-1], "f"), "rstd": (x.shape[:-1], "f")}


def _layer_norm_gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    found = derived_gradient(graph, node, douts, needed - {"bias"})
    bias = node.inputs["bias"]
    if "bias" in needed and bias is not None:
        found["bias"] = graph.value(bias.shape)
        graph.call_for("sum_rows", node, {"x": douts["y"], "y": found["bias"]})
    return found


register(
    Op(
        "layer_norm", inputs=("x", "gain", "bias"), outputs=("y", "mean", "rstd"),
        defaults={"eps": 1e-5}, shape=_layer_norm_shape,
        backward=("layer_norm_backward_input", "layer_norm_backward_gain"),
        gradient=_layer_norm_gradient,
    )
)  # fmt: skip

_BATCH = ("x", "gain", "bias", "running_mean", "running_var")


def _batch_norm_shape(
    inputs: dict[str, Value], attrs: dict[str, Any], scope: str
) -> dict[str, Any]:
    x = inputs["x"]
    _check_features(inputs, scope, "batch_norm")
    rows = x.size // x.shape[-1]
    if rows < 2:
        raise ShapeError(
            f"{where(scope)}batch_norm: expected at least 2 samples in a training batch, got shape "
            f"{x.shape}; use a larger batch or drop_last=True"
        )
    return {
        "y": (x.shape, "f"),
        "mean": ((x.shape[-1],), "f"),
        "rstd": ((x.shape[-1],), "f"),
    }


def _inference_shape(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    _check_features(inputs, scope, "batch_norm")
    return {"y": (inputs["x"].shape, "f")}


def _inference_gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    """In evaluation the statistics are constants. Gain and bias: sums over the batch of dy times
    the normalised input, and of dy."""
    found, x, gain = {}, node.inputs["x"], node.inputs["gain"]
    assert x is not None and gain is not None
    if "x" in needed:
        found = derived_gradient(graph, node, douts, {"x"})
    if "bias" in needed:
        found["bias"] = graph.value(gain.shape)
        graph.call_for("sum_rows", node, {"x": douts["y"], "y": found["bias"]})
    if "gain" in needed:
        normal, product = graph.value(x.shape), graph.value(x.shape)
        ones, zeros = graph.full(gain.shape, 1.0), graph.full(gain.shape, 0.0)
        plain = {"gain": ones, "bias": zeros, "y": normal}
        graph.call_for("batch_norm_inference", node, plain)
        graph.call_for("multiply_forward", node, {"a": normal, "b": douts["y"], "y": product})
        found["gain"] = graph.value(gain.shape)
        graph.call_for("sum_rows", node, {"x": product, "y": found["gain"]})
    return found


register(
    Op(
        "batch_norm", inputs=_BATCH, outputs=("y", "mean", "rstd"),
        defaults={"eps": 1e-5, "momentum": 0.1}, shape=_batch_norm_shape,
    )
)  # fmt: skip
register(
    Op(
        "batch_norm_inference", inputs=_BATCH, defaults={"eps": 1e-5},
        shape=_inference_shape, forward="batch_norm_inference", gradient=_inference_gradient,
    )
)  # fmt: skip
