"""Normalisation and dropout."""

from __future__ import annotations

from typing import Any

from fastnn.errors import ShapeError, where
from fastnn.graph.graph import Graph
from fastnn.graph.node import Node
from fastnn.graph.op import Op, register
from fastnn.graph.value import Value
from fastnn.ops.activation import sqrt, square
from fastnn.ops.arithmetic import add, divide, multiply
from fastnn.ops.operands import as_value, float_value, graph_of
from fastnn.ops.reduce import mean
from fastnn.ops.shape import reshape


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


def _dropout_gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    """The same mask, drawn again: nothing is saved."""
    return {"x": graph.apply("dropout", x=douts["y"], **node.attrs)}


register(
    Op(
        "dropout", defaults={"keep": 0.5, "scale": 2.0, "stream": 0}, forward="dropout",
        gradient=_dropout_gradient,
    )
)  # fmt: skip


# ---------------------------------------------------------------- functions


def layer_norm(x: Any, gain: Any = None, bias: Any = None, eps: float = 1e-5) -> Value:
    """Each row to mean 0 and variance 1, then gain and bias (Ba, Kiros & Hinton 2016)."""
    graph = graph_of(x)
    g, b = (None if p is None else as_value(graph, p) for p in (gain, bias))
    x = float_value(x, "layer_norm")
    if x.ndim == 1:  # one row
        return reshape(layer_norm(reshape(x, (1, x.size)), g, b, eps), x.shape)
    result: Value = graph.apply("layer_norm", x=x, gain=g, bias=b, eps=eps)
    return result


def rms_norm(x: Any, gain: Any = None, eps: float = 1e-5) -> Value:
    """Each row divided by its root mean square, sqrt(mean(x^2) + eps), then a gain (Zhang &
    Sennrich 2019)."""
    x = float_value(x, "rms_norm")
    mean_square = mean(square(x), -1, keepdims=True)
    y = multiply(x, divide(1.0, sqrt(add(mean_square, eps))))
    return y if gain is None else multiply(y, gain)


def batch_norm(
    x: Any, gain: Any = None, bias: Any = None, running_mean: Any = None, running_var: Any = None,
    eps: float = 1e-5, momentum: float = 0.1,
) -> Value:  # fmt: skip
    """Each feature to mean 0 and variance 1 over the batch (Ioffe & Szegedy 2015).

    In training the batch's statistics are used and the running ones updated; in evaluation the
    running ones are used, or the batch's where there are none (None). No gain means 1, no bias 0.
    """
    graph = graph_of(x)
    x = float_value(x, "batch_norm")
    shape = x.shape[-1:]
    inputs = {
        "x": x,
        "gain": graph.full(shape, 1.0) if gain is None else as_value(graph, gain),
        "bias": graph.full(shape, 0.0) if bias is None else as_value(graph, bias),
    }
    if graph.training or running_mean is None:
        for name, running in (("running_mean", running_mean), ("running_var", running_var)):
            inputs[name] = _passing(x) if running is None else as_value(graph, running)
        result: Value = graph.apply("batch_norm", eps=eps, momentum=momentum, **inputs)
    else:
        running_stats = {"running_mean": running_mean, "running_var": running_var}
        inputs |= {name: as_value(graph, v) for name, v in running_stats.items()}
        result = graph.apply("batch_norm_inference", eps=eps, **inputs)
    return result


def _passing(x: Value) -> Value:
    """A place for running statistics that nobody keeps."""
    place = x.graph.value(x.shape[-1:], name="statistics")
    zeros = x.graph.full(place.shape, 0.0)
    x.graph.call("affine", x=zeros, y=place, scale=1.0, shift=0.0)
    return place


def dropout(x: Any, rate: float = 0.5, scale: float | None = None) -> Value:
    """Zero elements with probability `rate` and multiply the others by `scale` (1 / (1 - rate))."""
    graph = graph_of(x)
    keep = 1.0 - rate
    factor = (1.0 / keep if keep else 0.0) if scale is None else scale
    result: Value = graph.apply(
        "dropout", x=float_value(x, "dropout"), keep=keep, scale=factor, stream=graph.stream()
    )
    return result
