"""Reductions and running sums over any axes, and the softmax over any axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastnn.graph.gradient import gradient_node
from fastnn.graph.graph import Graph
from fastnn.graph.node import Node
from fastnn.graph.op import Op, register
from fastnn.graph.value import Value
from fastnn.ops.arithmetic import affine, negate
from fastnn.ops.operands import float_value, unary, whole_axes
from fastnn.ops.shape import reshape, transpose


def _without_last(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    return {"y": (inputs["x"].shape[:-1], "f")}


for _name in ("max_columns", "product_columns", "logsumexp_columns"):
    register(Op(_name, shape=_without_last, forward=_name))


def _scalar(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    return {"y": ((), "f")}


def _spread_gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    """Gradient of a mean or total: the same number for every element.

    Where the incoming gradient is a known number, so is the result: a constant, no call.
    """
    x, dy = node.inputs["x"], douts["y"]
    assert x is not None
    if dy.data is not None:
        share = float(dy.data.reshape(-1)[0]) / (x.size if node.op.name == "mean" else 1)
        return {"x": graph.full(x.shape, share, x.batched)}
    return gradient_node(graph, node, douts, needed)


register(Op("mean", shape=_scalar, forward="mean", gradient=_spread_gradient))
register(Op("total", shape=_scalar, forward="total", gradient=_spread_gradient))


def _weighted_shape(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    return {"y": ((), "f"), "denominator": ((), "f")}


register(
    Op(
        "weighted_mean", inputs=("x", "weight"), outputs=("y", "denominator"),
        returns=("y", "denominator"), shape=_weighted_shape, forward="weighted_mean",
        constant=("weight",),
    )
)  # fmt: skip


def _sum_columns_gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    x = node.inputs["x"]
    assert x is not None
    zeros = graph.full(x.shape, 0.0, x.batched)
    return {"x": graph.apply("add_column", a=zeros, b=douts["y"])}


register(
    Op("sum_columns", shape=_without_last, forward="sum_columns", gradient=_sum_columns_gradient)
)


def _without_first(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    return {"y": (inputs["x"].shape[1:], "f")}


def _sum_rows_gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    x = node.inputs["x"]
    assert x is not None
    return {"x": graph.apply("expand", x=douts["y"], shape=x.shape, batched=x.batched)}


register(Op("sum_rows", shape=_without_first, forward="sum_rows", gradient=_sum_rows_gradient))


def _running_sum_gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    back = {**node.attrs, "reverse": 1 - node.attrs["reverse"]}
    return {"x": graph.apply("running_sum", x=douts["y"], **back)}


register(
    Op("running_sum", defaults={"reverse": 0, "exclusive": 0}, forward="running_sum",
       gradient=_running_sum_gradient)
)  # fmt: skip


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


def sum(x: Any, axis: Axes = None, keepdims: bool = False) -> Value:
    """The sum over all elements, over an axis or over several.

    Args:
        x: float values.
        axis: a place, several, or None for all; negative ones count from the end.
        keepdims: leave the reduced axes in the shape, with extent 1.
    """
    rows = lambda x: unary("sum_columns", x)  # noqa: E731
    return _reduced("sum", x, axis, keepdims, rows, "total", "sum_rows")


def total(x: Any) -> Value:
    """The sum of all elements, a single number."""
    return unary("total", x)


def sum_features(x: Any) -> Value:
    """Sum over the last dimension."""
    return sum(x, -1)


def mean(x: Any, axis: Axes = None, keepdims: bool = False) -> Value:
    """The mean of all elements, or over axes; arguments as for `sum`."""
    x = float_value(x, "mean")
    if axis is None:
        y = unary("mean", x)
        return reshape(y, (1,) * x.ndim) if keepdims and x.ndim else y
    count = 1
    for d in whole_axes(x, axis, "mean"):
        count *= x.shape[d]
    return affine(sum(x, axis, keepdims), 1.0 / count, 0.0)


def max(x: Any, axis: Axes = None, keepdims: bool = False) -> Value:
    """The largest element, of all or over axes; NaN where one of them is. Arguments as for `sum`.

    Where several elements are the largest, the gradient is shared equally among them, as by
    PyTorch's `amax` (its `max` over one axis gives it all to one of them).
    """
    return _reduced("max", x, axis, keepdims, lambda x: unary("max_columns", x))


def min(x: Any, axis: Axes = None, keepdims: bool = False) -> Value:
    """The smallest element; otherwise as `max`."""
    rows = lambda x: negate(unary("max_columns", negate(x)))  # noqa: E731
    return _reduced("min", x, axis, keepdims, rows)


def prod(x: Any, axis: Axes = None, keepdims: bool = False) -> Value:
    """The product of all elements, or over axes; arguments as for `sum`. Gradients are right with
    zeros among the elements."""
    return _reduced("prod", x, axis, keepdims, lambda x: unary("product_columns", x))


def logsumexp(x: Any, axis: Axes = None, keepdims: bool = False) -> Value:
    """log(sum(exp(x))) without overflow; arguments as for `sum`."""
    return _reduced("logsumexp", x, axis, keepdims, lambda x: unary("logsumexp_columns", x))


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


def softmax(x: Any, axis: int | Sequence[int] = -1) -> Value:
    """exp(x) / sum(exp(x)) over an axis, by default the last, or over several together."""
    return _along("softmax", x, axis, lambda x: unary("softmax", x))


def log_softmax(x: Any, axis: int | Sequence[int] = -1) -> Value:
    """Logarithm of the softmax over an axis, by default the last, or over several together."""
    return _along("log_softmax", x, axis, lambda x: unary("log_softmax", x))


def cumsum(x: Any, axis: int = -1, reverse: bool = False, exclusive: bool = False) -> Value:
    """Running sums along an axis.

    Args:
        x: float values.
        axis: along which to add.
        reverse: from the end to the beginning.
        exclusive: the sum of what comes before an element, without it.
    """
    flags = {"reverse": int(bool(reverse)), "exclusive": int(bool(exclusive))}
    return _along("cumsum", x, axis, lambda x: unary("running_sum", x, **flags))
