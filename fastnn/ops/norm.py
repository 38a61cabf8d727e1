"""Normalisation and dropout."""

from __future__ import annotations

from types import FunctionType
from typing import Any

from fastnn.errors import OptionError, ShapeError, check_numbers, where
from fastnn.graph.graph import Graph
from fastnn.graph.leaf import Leaf
from fastnn.graph.node import Node
from fastnn.graph.value import Value
from fastnn.ops.activation import sqrt, square
from fastnn.ops.arithmetic import add, affine, divide, multiply
from fastnn.ops.declare import Operand, floats, like, op, outputs
from fastnn.ops.feeding import write
from fastnn.ops.operands import as_value, float_value, graph_of
from fastnn.ops.reduce import mean
from fastnn.ops.shape import reshape
from fastnn.public import publish


def _check_features(op: str, x: Value, **of_features: Value | None) -> None:
    """Gain, bias and statistics have to have one number for each feature."""
    for value in of_features.values():
        if value is not None and value.shape != (x.shape[-1],):
            raise ShapeError(
                f"{where(x.graph.scope)}{op}: expected {value.size} features, got input of shape "
                f"{x.shape}; set the layer's size to {x.shape[-1]}"
            )


def _scaled(y: Value, gain: Value | None, bias: Value | None) -> Value:
    y = y if gain is None else multiply(y, gain)
    return y if bias is None else y + bias


def _normal(x: Value, axes: Any, eps: float) -> Value:
    centred = x - mean(x, axes, keepdims=True)
    return centred / sqrt(mean(square(centred), axes, keepdims=True) + eps)


def _layer_norm_of(x: Value, gain: Value | None, bias: Value | None, eps: float) -> Value:
    return _scaled(_normal(x, -1, eps), gain, bias)


@op(
    saves=("mean", "rstd"), expression=_layer_norm_of,
    backward=("layer_norm_backward_input", "layer_norm_backward_gain"),
    differentiable=("x", "gain", "bias"),
)  # fmt: skip
def _layer_norm(x: Value, gain: Value | None, bias: Value | None, eps: float = 1e-5) -> Value:
    _check_features("layer_norm", x, gain=gain, bias=bias)
    return outputs(y=like(x), mean=floats(*x.shape[:-1]), rstd=floats(*x.shape[:-1]))


def _batch_norm_of(
    x: Value, gain: Value, bias: Value, running_mean: Value, running_var: Value, eps: float,
    momentum: float,
) -> Value:  # fmt: skip
    return _scaled(_normal(x, tuple(range(x.ndim - 1)), eps), gain, bias)


@op(saves=("mean", "rstd"), expression=_batch_norm_of)
def _batch_norm(
    x: Value, gain: Value, bias: Value, running_mean: Value, running_var: Value,
    eps: float = 1e-5, momentum: float = 0.1,
) -> Value:  # fmt: skip
    _check_features("batch_norm", x, gain=gain, bias=bias, mean=running_mean, var=running_var)
    if x.size // x.shape[-1] < 2:
        raise ShapeError(
            f"{where(x.graph.scope)}batch_norm: expected at least 2 samples in a training batch, "
            f"got shape {x.shape}; use a larger batch or drop_last=True"
        )
    return outputs(y=like(x), mean=floats(x.shape[-1]), rstd=floats(x.shape[-1]))


def _by_running_statistics(
    x: Value, gain: Value, bias: Value, running_mean: Value, running_var: Value, eps: float
) -> Value:
    return _scaled((x - running_mean) / sqrt(running_var + eps), gain, bias)


@op(
    forward="batch_norm_inference", differentiable=("x", "gain", "bias"),
    expression=_by_running_statistics,
)  # fmt: skip
def _batch_norm_inference(
    x: Value, gain: Value, bias: Value, running_mean: Value, running_var: Value, eps: float = 1e-5
) -> Value:
    _check_features("batch_norm", x, gain=gain, bias=bias, mean=running_mean, var=running_var)
    return like(x)


def _dropout_gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    """The same mask, drawn again: nothing is saved."""
    return {"x": graph.apply("dropout", x=douts["y"], **node.attrs)}


@op(forward="dropout", gradient=_dropout_gradient)
def _dropout(x: Value, keep: float = 0.5, scale: float = 2.0, stream: int = 0) -> Value:
    return like(x)


def _dropout_at_gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    rate = node.inputs["rate"]
    return {"x": graph.apply("dropout_at", x=douts["y"], rate=rate, **node.attrs)}


@op(
    forward="dropout_at", gradient=_dropout_at_gradient, constant=("rate",),
    differentiable=("x",), linear=("x",),
)  # fmt: skip
def _dropout_at(x: Value, rate: Value, stream: int = 0) -> Value:
    return like(x)


# ---------------------------------------------------------------- functions


def layer_norm(x: Operand, gain: Operand = None, bias: Operand = None, eps: float = 1e-5) -> Value:
    """Normalise each row to mean 0 and variance 1, then apply gain and bias (Ba et al. 2016).
    `eps` is added to the variance.

    Raises ShapeError for a gain or bias of another size than the features.

    >>> testing.apply(lambda x: ops.layer_norm(x, eps=0.0), [[1.0, 2.0, 3.0]])
    array([[-1.22474487,  0.        ,  1.22474487]])
    """
    graph = graph_of(x)
    g, b = (None if p is None else as_value(graph, p) for p in (gain, bias))
    x = float_value(x, "layer_norm")
    if x.ndim == 1:  # one row
        return reshape(layer_norm(reshape(x, (1, x.size)), g, b, eps), x.shape)
    return _layer_norm(x, g, b, eps)


def rms_norm(x: Operand, gain: Operand = None, eps: float = 1e-5) -> Value:
    """Each row divided by its root mean square, sqrt(mean(x^2) + eps), then a gain (Zhang &
    Sennrich 2019).

    >>> testing.apply(lambda x: ops.rms_norm(x, eps=0.0), [[3.0, 4.0]])
    array([[0.84852814, 1.13137085]])
    """
    x = float_value(x, "rms_norm")
    mean_square = mean(square(x), -1, keepdims=True)
    y = multiply(x, divide(1.0, sqrt(add(mean_square, eps))))
    return y if gain is None else multiply(y, gain)


def batch_norm(
    x: Operand, gain: Operand = None, bias: Operand = None, running_mean: Operand = None,
    running_var: Operand = None,
    eps: float = 1e-5, momentum: float = 0.1,
) -> Value:  # fmt: skip
    """Normalise each feature to mean 0 and variance 1 over the batch (Ioffe & Szegedy 2015).

    Training uses the batch's statistics and updates the running ones, `running_mean` and
    `running_var`, by the share `momentum`; evaluation uses the running ones, or the batch's if
    these are None. Without a gain it is 1, without a bias 0. `eps` is added to the variance.

    Raises ShapeError for vectors of another size than the features, and for a training batch of one
    row.
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
        return _batch_norm(**inputs, eps=eps, momentum=momentum)
    running_stats = {"running_mean": running_mean, "running_var": running_var}
    inputs |= {name: as_value(graph, v) for name, v in running_stats.items()}
    return _batch_norm_inference(**inputs, eps=eps)


def _passing(x: Value) -> Value:
    """A place for running statistics that nobody keeps."""
    place = x.graph.value(x.shape[-1:], name="statistics")
    zeros = x.graph.full(place.shape, 0.0)
    write(zeros, place)
    return place


def dropout(x: Operand, rate: Operand = 0.5, scale: float | None = None) -> Value:
    """Zero elements with probability `rate` and multiply the others by `scale` (1 / (1 - rate)).

    Args:
        x: of any shape.
        rate: a number in [0, 1], or a value or buffer with one such number, which may change from
            step to step; it gets no gradient. With the number 0 nothing is drawn.
        scale: factor of the elements that are kept; only with a rate that is a number.

    Elements are dropped in evaluation, too: layers ask `x.graph.training` first.

    Raises OptionError for a number outside [0, 1], ShapeError for several numbers.

    >>> y = testing.apply(lambda x: ops.dropout(x, 0.5), np.ones((4, 3)))
    >>> y.shape, set(np.unique(y)) <= {0.0, 2.0}
    ((4, 3), True)
    """
    graph = graph_of(x)
    if isinstance(rate, (Value, Leaf)):
        value = as_value(graph, rate)
        if value.size != 1 or scale is not None:
            raise ShapeError(
                f"{where(graph.scope)}dropout: expected a rate of one number and no scale with it, "
                f"got shape {value.shape} and scale={scale}"
            )
        return _dropout_at(float_value(x, "dropout"), value, graph.stream())
    check_numbers("dropout", rate=rate)
    if not 0 <= rate <= 1:
        raise OptionError(f"dropout: expected a rate in [0, 1], got {rate}")
    keep = 1.0 - rate
    factor = (1.0 / keep if keep else 0.0) if scale is None else scale
    if keep == 1.0:  # all elements are kept
        x = float_value(x, "dropout")
        return x if factor == 1.0 else affine(x, factor, 0.0)
    return _dropout(float_value(x, "dropout"), keep, factor, graph.stream())


publish(globals(), FunctionType)
