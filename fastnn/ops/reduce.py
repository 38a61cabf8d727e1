"""Reductions and running sums over any axes, and the softmax over any axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

import numpy as np

from fastnn.graph.constants import first
from fastnn.graph.gradient import gradient_node
from fastnn.graph.graph import Graph
from fastnn.graph.node import Node
from fastnn.graph.value import Value
from fastnn.ops.arithmetic import affine, negate
from fastnn.ops.comparison import equal
from fastnn.ops.declare import Operand, floats, like, need, op, outputs
from fastnn.ops.indexing import columns
from fastnn.ops.operands import float_value, unary, whole_axes
from fastnn.ops.shape import reshape, transpose
from fastnn.public import publish

Values = dict[str, Value]


def _for_each(y: Value) -> Value:
    """One number for each row, as a column."""
    return y.reshape(*y.shape, 1)


def _max_derivative(node: Node, d: Values) -> Values:
    largest = equal(need(node, "x"), _for_each(node.outputs["y"]))
    share = largest / sum(largest, -1, keepdims=True)
    return {"x": share * _for_each(d["y"])}


@op(forward="max_columns", derivative=_max_derivative)
def _max_columns(x: Value) -> Value:
    return floats(*x.shape[:-1])


def _product(x: Value) -> Value:
    y = columns(x, 0, 1)
    for k in range(1, x.shape[-1]):  # zeros make no harm
        y = y * columns(x, k, k + 1)
    return y.reshape(x.shape[:-1])


@op(forward="product_columns", expression=_product)
def _product_columns(x: Value) -> Value:
    return floats(*x.shape[:-1])


def _logsumexp_derivative(node: Node, d: Values) -> Values:
    x, y = need(node, "x"), node.outputs["y"]
    return {"x": (x - _for_each(y)).exp() * _for_each(d["y"])}


@op(forward="logsumexp_columns", derivative=_logsumexp_derivative)
def _logsumexp_columns(x: Value) -> Value:
    return floats(*x.shape[:-1])


def _spread_gradient(graph: Graph, node: Node, douts: Values, needed: set[str]) -> Values:
    """Gradient of a mean or total: the same number for every element.

    Where the incoming gradient is a known number, so is the result: a constant, no call.
    """
    x, dy = need(node, "x"), douts["y"]
    if dy.data is not None:
        share = first(dy.data) / (x.size if node.op.name == "mean" else 1)
        return {"x": graph.full(x.shape, share, x.batched)}
    return gradient_node(graph, node, douts, needed)


@op(name="mean", forward="mean", gradient=_spread_gradient, linear=("x",))
def _mean_of_all(x: Value) -> Value:
    return floats()


@op(forward="total", gradient=_spread_gradient, linear=("x",))
def total(x: Operand) -> Value:
    """The sum of all elements, a single number.

    >>> testing.apply(lambda x: x / ops.total(x), [[1.0, 3.0]])
    array([[0.25, 0.75]])
    """
    return floats()


@op(returns=("y", "denominator"), forward="weighted_mean", constant=("weight",), linear=("x",))
def _weighted_mean(x: Value, weight: Value) -> tuple[Value, Value]:
    return outputs(y=floats(), denominator=floats())


def _sum_columns_gradient(graph: Graph, node: Node, douts: Values, needed: set[str]) -> Values:
    x = need(node, "x")
    zeros = graph.full(x.shape, 0.0, x.batched)
    return {"x": graph.apply("add_column", a=zeros, b=douts["y"])}


@op(forward="sum_columns", gradient=_sum_columns_gradient)
def _sum_columns(x: Value) -> Value:
    return floats(*x.shape[:-1])


def _sum_rows_gradient(graph: Graph, node: Node, douts: Values, needed: set[str]) -> Values:
    x = need(node, "x")
    return {"x": graph.apply("expand", x=douts["y"], shape=x.shape, batched=x.batched)}


@op(forward="sum_rows", gradient=_sum_rows_gradient)
def _sum_rows(x: Value) -> Value:
    return floats(*x.shape[1:])


def _running_sum_gradient(graph: Graph, node: Node, douts: Values, needed: set[str]) -> Values:
    back = {**node.attrs, "reverse": 1 - node.attrs["reverse"]}
    return {"x": graph.apply("running_sum", x=douts["y"], **back)}


@op(forward="running_sum", gradient=_running_sum_gradient)
def _running_sum(x: Value, reverse: int = 0, exclusive: int = 0) -> Value:
    return like(x)


def _softmax_derivative(node: Node, d: Values) -> Values:
    y = node.outputs["y"]
    return {"x": y * (d["y"] - sum(d["y"] * y, -1, keepdims=True))}


@op(name="softmax", derivative=_softmax_derivative)
def _softmax_rows(x: Value) -> Value:
    return like(x)


def _log_softmax_derivative(node: Node, d: Values) -> Values:
    return {"x": d["y"] - node.outputs["y"].exp() * sum(d["y"], -1, keepdims=True)}


@op(name="log_softmax", derivative=_log_softmax_derivative)
def _log_softmax_rows(x: Value) -> Value:
    return like(x)


# ---------------------------------------------------------------- functions


Axes = int | Sequence[int] | None


def _reduced(
    name: str, x: Any, axis: Axes, keepdims: bool, rows: Callable[[Value], Value],
    everything: str = "", first: str = "",
) -> Value:  # fmt: skip
    """`rows` of x with the reduced axes as its last one.

    `everything` and `first` name ops for reductions over all axes and over the first axes.
    """
    x = float_value(x, name)
    axes = tuple(range(x.ndim)) if axis is None else whole_axes(x, axis, name)
    kept = tuple(d for d in range(x.ndim) if d not in axes)
    shape = tuple(1 if d in axes else n for d, n in enumerate(x.shape) if keepdims or d in kept)
    if not axes or not x.ndim:
        y = rows(reshape(x, (*x.shape, 1)) if x.ndim else reshape(x, (1, 1)))
    elif everything and not kept:
        y = unary(everything, x)
    elif first and kept == tuple(range(len(axes), x.ndim)):
        y = unary(first, reshape(x, (-1, math.prod(x.shape[d] for d in kept))))
    else:
        x = transpose(x, (*kept, *axes))
        y = rows(reshape(x, (*(x.shape[: len(kept)] or (1,)), -1)))
    return y if y.shape == shape else reshape(y, shape)


def sum(x: Operand, axis: Axes = None, keepdims: bool = False) -> Value:
    """The sum over all elements, over an axis or over several.

    Args:
        x: float values.
        axis: an axis, several, or None for all; negative ones count from the end.
        keepdims: keep the reduced axes, with size 1.

    >>> testing.apply(lambda x: ops.sum(x, axis=1), [[1.0, 2.0], [3.0, 4.0]])
    array([3., 7.])
    """
    rows = _sum_columns
    return _reduced("sum", x, axis, keepdims, rows, "total", "sum_rows")


def sum_features(x: Operand) -> Value:
    """Sum over the last dimension.

    >>> testing.apply(ops.sum_features, [[1.0, 2.0], [3.0, 4.0]])
    array([3., 7.])
    """
    return sum(x, -1)


def mean(x: Operand, axis: Axes = None, keepdims: bool = False) -> Value:
    """The mean of all elements, or over axes; arguments as for `sum`.

    >>> testing.apply(lambda x: ops.mean(x, axis=1), [[1.0, 2.0], [3.0, 4.0]])
    array([1.5, 3.5])
    """
    x = float_value(x, "mean")
    if axis is None:
        y = _mean_of_all(x)
        return reshape(y, (1,) * x.ndim) if keepdims and x.ndim else y
    count = 1
    for d in whole_axes(x, axis, "mean"):
        count *= x.shape[d]
    return affine(sum(x, axis, keepdims), 1.0 / count, 0.0)


def max(x: Operand, axis: Axes = None, keepdims: bool = False) -> Value:
    """The largest element, of all or over axes; NaN where one of them is. Arguments as for `sum`.

    Where several elements are the largest, the gradient is shared equally among them, as by
    PyTorch's `amax` (its `max` over one axis gives it all to one of them).

    >>> testing.apply(lambda x: ops.max(x, axis=1), [[1.0, 2.0], [4.0, 3.0]])
    array([2., 4.])
    """
    return _reduced("max", x, axis, keepdims, _max_columns)


def min(x: Operand, axis: Axes = None, keepdims: bool = False) -> Value:
    """The smallest element; arguments and the rest as `max`.

    >>> testing.apply(lambda x: ops.min(x, axis=1), [[1.0, 2.0], [4.0, 3.0]])
    array([1., 3.])
    """
    rows = lambda x: negate(_max_columns(negate(x)))  # noqa: E731
    return _reduced("min", x, axis, keepdims, rows)


def prod(x: Operand, axis: Axes = None, keepdims: bool = False) -> Value:
    """The product of all elements, or over axes; arguments as for `sum`. Gradients are right with
    zeros among the elements.

    >>> testing.apply(lambda x: ops.prod(x, axis=1), [[1.0, 2.0], [4.0, 3.0]])
    array([ 2., 12.])
    """
    return _reduced("prod", x, axis, keepdims, _product_columns)


def logsumexp(x: Operand, axis: Axes = None, keepdims: bool = False) -> Value:
    """log(sum(exp(x))) without overflow; arguments as for `sum`.

    >>> testing.apply(lambda x: ops.logsumexp(x, axis=1), [[1000.0, 1000.0]])
    array([1000.69314718])
    """
    return _reduced("logsumexp", x, axis, keepdims, _logsumexp_columns)


def _along(
    name: str, x: Any, axis: int | Sequence[int], function: Callable[[Value], Value]
) -> Value:
    """A function of rows, with these axes as its row."""
    x = float_value(x, name)
    if x.ndim == 0:
        return reshape(function(reshape(x, (1, 1))), ())
    axes = whole_axes(x, axis, name)
    order = (*(d for d in range(x.ndim) if d not in axes), *axes)
    moved = transpose(x, order)
    rows = moved if len(axes) == 1 and x.ndim > 1 else reshape(
        moved, (*(moved.shape[: x.ndim - len(axes)] or (1,)), -1)
    )  # fmt: skip
    y = function(rows)
    y = y if y.shape == moved.shape else reshape(y, moved.shape)
    return transpose(y, tuple(int(d) for d in np.argsort(order)))


def softmax(x: Operand, axis: int | Sequence[int] = -1) -> Value:
    """exp(x) / sum(exp(x)) over an axis, by default the last, or over several together.

    >>> testing.apply(ops.softmax, [[0.0, 0.0, 1.0]])
    array([[0.21194156, 0.21194156, 0.57611688]])
    """
    return _along("softmax", x, axis, _softmax_rows)


def log_softmax(x: Operand, axis: int | Sequence[int] = -1) -> Value:
    """Logarithm of the softmax over an axis, by default the last, or over several together.

    >>> testing.apply(ops.log_softmax, [[0.0, 0.0, 1.0]])
    array([[-1.55144471, -1.55144471, -0.55144471]])
    """
    return _along("log_softmax", x, axis, _log_softmax_rows)


def cumsum(x: Operand, axis: int = -1, reverse: bool = False, exclusive: bool = False) -> Value:
    """Running sums along an axis.

    Args:
        x: float values.
        axis: along which to add.
        reverse: from the end to the beginning.
        exclusive: leave the element itself out of its sum.

    >>> testing.apply(ops.cumsum, [[1.0, 2.0, 3.0]])
    array([[1., 3., 6.]])
    """
    flags = {"reverse": int(bool(reverse)), "exclusive": int(bool(exclusive))}
    return _along("cumsum", x, axis, lambda x: _running_sum(x, **flags))


publish(globals(), FunctionType)
