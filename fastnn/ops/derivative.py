"""Derivatives within a model or a loss: penalties, Hessian-vector products."""

from __future__ import annotations

from collections.abc import Sequence
from types import FunctionType
from typing import Any

from fastnn.errors import ShapeError, where
from fastnn.graph.gradient import differentiate
from fastnn.graph.graph import Graph
from fastnn.graph.leaf import Leaf, seen_axes, stored_axes
from fastnn.graph.tangent import tangents
from fastnn.graph.value import Value
from fastnn.ops.operands import as_value, graph_of
from fastnn.ops.shape import transpose
from fastnn.public import publish


def gradient(y: Any, wrt: Any, seed: Any = None) -> Any:
    """The gradient of a number with respect to values or parameters that it depends on.

    For use in `forward` or in a loss. The result is a value like any other: training differentiates
    through what is computed from it, and it can be differentiated again (like `torch.autograd.grad`
    with ``create_graph=True``, or `jax.grad`). This is exact; a recurrent net is differentiated
    again as a loop of its steps. An op without a second gradient raises an error when the model is
    built.

    Args:
        y: a symbolic value of one element (or of any shape with `seed`).
        wrt: a symbolic value, a parameter, or a list of such.
        seed: the gradient of y itself, of y's shape; 1 by default. With other numbers the result is
            a vector-Jacobian product.

    Returns:
        A value of the shape of `wrt`, or a list of them; zeros where y does not depend on it.

    Raises:
        ShapeError: y has more than one element and there is no seed; `wrt` is an array.

    >>> import numpy as np
    >>> import fastnn as fnn
    >>> class Slope(fnn.nn.Module):
    ...     def forward(self, x):
    ...         return fnn.ops.gradient(fnn.ops.sum(x**3), x)
    >>> Slope().predict(np.array([[1.0, 2.0]], np.float32))
    array([[ 3., 12.]], dtype=float32)

    A Hessian-vector product is the gradient of the gradient's product with the vector; the penalty
    of Gulrajani et al. (2017) is ``(norm - 1) ** 2`` of such a gradient with respect to the input.
    """
    graph = graph_of(y)
    several = isinstance(wrt, (list, tuple))
    wanted: Sequence[Any] = wrt if several else [wrt]
    values = _values(graph, "gradient", y, wanted)
    if y.size != 1 and seed is None:
        raise ShapeError(
            f"{where(graph.scope)}gradient: expected one number, got shape {y.shape}; take its sum "
            "or mean, or pass a seed of its shape"
        )
    if seed is not None:
        seed = as_value(graph, seed)
        if seed.shape != y.shape:
            raise ShapeError(
                f"{where(graph.scope)}gradient: expected a seed of shape {y.shape}, got "
                f"{seed.shape}"
            )
    found = []
    for given, value, part in zip(
        wanted, values, differentiate(graph, y, values, seed), strict=True
    ):
        result = graph.full(value.shape, 0.0, value.batched) if part is None else part
        if result.shape != value.shape:
            result = graph.apply("reshape", x=result, shape=value.shape)
        transposed = isinstance(given, Leaf) and given.transposed
        found.append(transpose(result, seen_axes(result.ndim)) if transposed else result)
    return found if several else found[0]


def tangent(y: Any, wrt: Any, along: Any) -> Value:
    """The derivative of a value along a direction in the values or parameters that it was computed
    from: a Jacobian-vector product, in forward mode.

    For use in `forward` or in a loss, like `gradient`. Applied to a gradient it gives
    Hessian-vector products (the R-operator of Pearlmutter 1994). It corresponds to `jax.jvp`.

    Args:
        y: a symbolic value of any shape.
        wrt: a symbolic value, a parameter, or a list of such.
        along: the direction: an array or symbolic value of the shape of `wrt`, or a list of them.

    Returns:
        A value of y's shape; zeros where y does not depend on `wrt`.

    Raises:
        ShapeError: a direction has another shape; `wrt` is an array.

    >>> import numpy as np
    >>> import fastnn as fnn
    >>> class Along(fnn.nn.Module):
    ...     def forward(self, x):
    ...         return fnn.ops.tangent(x**3, x, np.array([[1.0, 10.0]]))
    >>> Along().predict(np.array([[1.0, 2.0]], np.float32))
    array([[  3., 120.]], dtype=float32)
    """
    graph = graph_of(y)
    several = isinstance(wrt, (list, tuple))
    wanted: Sequence[Any] = wrt if several else [wrt]
    values = _values(graph, "tangent", y, wanted)
    directions: Sequence[Any] = along if several else [along]
    if len(directions) != len(wanted):
        raise ShapeError(
            f"{where(graph.scope)}tangent: expected {len(wanted)} directions, one for each of wrt, "
            f"got {len(directions)}"
        )
    moved = {}
    for given, value, direction in zip(wanted, values, directions, strict=True):
        direction = as_value(graph, direction)
        if direction.shape != given.shape:
            raise ShapeError(
                f"{where(graph.scope)}tangent: expected a direction of shape {given.shape}, got "
                f"{direction.shape}"
            )
        if isinstance(given, Leaf) and given.transposed:
            direction = transpose(direction, stored_axes(direction.ndim))
        if direction.batched != value.batched:
            direction = graph.same(direction, value)
        moved[value] = direction
    (found,) = tangents(graph, moved, [y])
    return graph.full(y.shape, 0.0, y.batched) if found is None else found


def _values(graph: Graph, what: str, y: Value, wanted: Sequence[Any]) -> list[Value]:
    """What is differentiated to, as values."""
    for value in wanted:
        if not isinstance(value, (Value, Leaf)):
            raise ShapeError(
                f"{where(graph.scope)}{what}: expected symbolic values or parameters as wrt, got "
                f"{type(value).__name__}"
            )
    values = [as_value(graph, value) for value in wanted]
    for value in (y, *values):
        if value.dtype != "f":
            raise ShapeError(
                f"{where(graph.scope)}{what}: expected floating-point values, got {value}"
            )
    return values


publish(globals(), FunctionType)
