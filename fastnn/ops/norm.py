"""Normalisation, dropout and reductions."""

from __future__ import annotations

from typing import Any

from fastnn.graph.graph import Value
from fastnn.ops.operands import as_value, float_value, graph_of, unary


def layer_norm(x: Any, gain: Any = None, bias: Any = None, eps: float = 1e-5) -> Value:
    """Each row to mean 0 and variance 1, then gain and bias (Ba, Kiros & Hinton 2016)."""
    graph = graph_of(x)
    g, b = (None if p is None else as_value(graph, p) for p in (gain, bias))
    result: Value = graph.apply(
        "layer_norm", x=float_value(x, "layer_norm"), gain=g, bias=b, eps=eps
    )
    return result


def batch_norm(
    x: Any, gain: Any, bias: Any, running_mean: Any, running_var: Any, eps: float = 1e-5,
    momentum: float = 0.1,
) -> Value:  # fmt: skip
    """Each feature to mean 0 and variance 1 over the batch (Ioffe & Szegedy 2015).

    In training the batch's statistics are used and the running ones updated; in evaluation the
    running ones are used.
    """
    graph = graph_of(x)
    inputs = {
        "x": float_value(x, "batch_norm"),
        "gain": as_value(graph, gain),
        "bias": as_value(graph, bias),
        "running_mean": as_value(graph, running_mean),
        "running_var": as_value(graph, running_var),
    }  # fmt: skip
    if graph.training:
        result: Value = graph.apply("batch_norm", eps=eps, momentum=momentum, **inputs)
    else:
        result = graph.apply("batch_norm_inference", eps=eps, **inputs)
    return result


def dropout(x: Any, rate: float = 0.5, scale: float | None = None) -> Value:
    """Zero elements with probability `rate` and multiply the others by `scale` (1 / (1 - rate))."""
    graph = graph_of(x)
    keep = 1.0 - rate
    factor = (1.0 / keep if keep else 0.0) if scale is None else scale
    result: Value = graph.apply(
        "dropout", x=float_value(x, "dropout"), keep=keep, scale=factor, stream=graph.stream()
    )
    return result


def mean(x: Any) -> Value:
    """The mean of all elements, a single number."""
    return unary("mean", x)


def total(x: Any) -> Value:
    """The sum of all elements, a single number."""
    return unary("total", x)


def sum_features(x: Any) -> Value:
    """Sum over the last dimension."""
    return unary("sum_columns", x)
