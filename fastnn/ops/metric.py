"""Metrics: one number for each row, without gradient."""

from __future__ import annotations

from fastnn.errors import ShapeError, where
from fastnn.graph.value import Value
from fastnn.ops.declare import floats, op, output


def _of_classes(x: Value, target: Value) -> Value:
    if target.dtype != "i" or target.shape != x.shape[:-1]:
        raise ShapeError(
            f"{where(x.graph.scope)}metric: expected class indices (integers) of shape "
            f"{x.shape[:-1]} for outputs of shape {x.shape}, got "
            f"{target.dtype}{list(target.shape)}"
        )
    return floats(*target.shape)


@op(returns=("hit",), forward="accuracy", backward=())
def _accuracy(x: Value, target: Value) -> Value:
    return _of_classes(x, target)


@op(returns=("hit",), forward="top_k", backward=())
def _top_k(x: Value, target: Value, k: int = 5) -> Value:
    return _of_classes(x, target)


@op(returns=("hit",), forward="binary_accuracy", backward=())
def _binary_accuracy(x: Value, target: Value, threshold: float = 0.0) -> Value:
    if target.dtype != "f" or target.shape != x.shape:
        raise ShapeError(
            f"{where(x.graph.scope)}metric: expected floating-point targets of the outputs' shape "
            f"{x.shape}, got {target.dtype}{list(target.shape)}"
        )
    return floats(*(x.shape[:-1] if x.ndim > 1 else x.shape))


@op(forward="largest", backward=())
def _largest(x: Value) -> Value:
    return output(x.shape[:-1], "i")
