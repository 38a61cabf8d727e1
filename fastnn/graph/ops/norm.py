"""Normalisation."""

from __future__ import annotations

from typing import Any

from fastnn.errors import ShapeError, where
from fastnn.graph.graph import Value
from fastnn.graph.op import Op, register


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


register(
    Op(
        "layer_norm", inputs=("x", "gain", "bias"), outputs=("y", "mean", "rstd"),
        defaults={"eps": 1e-5}, shape=_layer_norm_shape,
        backward=("layer_norm_backward_input", "layer_norm_backward_gain"),
        differentiable=("x", "gain", "bias"),
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


register(
    Op(
        "batch_norm", inputs=_BATCH, outputs=("y", "mean", "rstd"),
        defaults={"eps": 1e-5, "momentum": 0.1}, shape=_batch_norm_shape,
    )
)  # fmt: skip
register(
    Op(
        "batch_norm_inference", inputs=_BATCH, defaults={"eps": 1e-5},
        shape=_inference_shape, forward="batch_norm_inference",
        differentiable=("x", "gain", "bias"),
    )
)  # fmt: skip
