"""Comparisons, element by element: masks of 1.0 and 0.0, without gradient."""

from __future__ import annotations

from types import FunctionType
from typing import Any

import numpy as np

from fastnn.errors import ShapeError
from fastnn.errors import where as at
from fastnn.graph.graph import Graph
from fastnn.graph.leaf import Leaf
from fastnn.graph.value import Value
from fastnn.ops.declare import Operand, floats, op, same
from fastnn.ops.operands import broadcast_shape, common, expanded, graph_of, is_number
from fastnn.public import publish


def _compared(a: Value, b: Value) -> Value:
    return same(a=a, b=b)


for _name in ("less", "less_equal", "equal", "not_equal"):
    op(name=_name, forward=_name, constant=("a", "b"))(_compared)


@op(forward="compare_integers", constant=("a", "b"))
def _compare_integers(a: Value, b: Value, relation: int = 0) -> Value:
    return floats(*a.shape)


#: bits of `compare_integers`: less 1, equal 2, greater 4
_RELATIONS = {"less": 1, "less_equal": 3, "equal": 2, "not_equal": 5, "greater": 4,
              "greater_equal": 6}  # fmt: skip


def _compare(name: str, a: Any, b: Any) -> Value:
    """1.0 where the comparison holds, else 0.0; integers are compared as such."""
    graph = graph_of(a, b)
    if any(isinstance(v, Value) and v.dtype == "i" for v in (a, b)):
        ids = [_integers(graph, v, name) for v in (a, b)]
        shape = broadcast_shape([v.shape for v in ids], graph.scope, name)
        batched = any(v.batched and v.shape == shape for v in ids)
        x, y = (v if v.shape == shape else expanded(v, shape, batched) for v in ids)
        mask: Value = graph.apply("compare_integers", a=x, b=y, relation=_RELATIONS[name])
        return mask
    if name in ("greater", "greater_equal"):
        name, a, b = name.replace("greater", "less"), b, a
    x, y = common(name, a, b)
    result: Value = x.graph.apply(name, a=x, b=y)
    return result


def _integers(graph: Graph, x: Any, name: str) -> Value:
    """An operand of a comparison of integers."""
    if isinstance(x, Value) and x.dtype == "i":
        return x
    array = np.asarray(x) if not isinstance(x, (Value, Leaf)) else np.zeros(1)
    if array.dtype.kind == "f" and is_number(x) and float(x).is_integer():
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise ShapeError(
            f"{at(graph.scope)}{name}: integers are compared with integers, got "
            f"{type(x).__name__}; convert the data with x.astype(np.float32)"
        )
    return graph.constant(array, "i")


def less(a: Operand, b: Operand) -> Value:
    """1.0 where a < b, else 0.0: a mask for `where` or for a product.

    Operands as in `add`, or both integers (ids). Comparisons have no gradient; if an operand is
    NaN, only `not_equal` is 1.

    Raises ShapeError for an integer compared with a float, and for shapes that do not broadcast.

    >>> testing.apply(ops.less, [[1.0, 2.0]], [[2.0, 2.0]])
    array([[1., 0.]])
    """
    return _compare("less", a, b)


def less_equal(a: Operand, b: Operand) -> Value:
    """1.0 where a <= b, else 0.0; see `less`.

    Raises ShapeError as `less`.

    >>> testing.apply(ops.less_equal, [[1.0, 2.0]], [[2.0, 2.0]])
    array([[1., 1.]])
    """
    return _compare("less_equal", a, b)


def greater(a: Operand, b: Operand) -> Value:
    """1.0 where a > b, else 0.0; see `less`.

    Raises ShapeError as `less`.

    >>> testing.apply(ops.greater, [[3.0, 2.0]], [[2.0, 2.0]])
    array([[1., 0.]])
    """
    return _compare("greater", a, b)


def greater_equal(a: Operand, b: Operand) -> Value:
    """1.0 where a >= b, else 0.0; see `less`.

    Raises ShapeError as `less`.

    >>> testing.apply(ops.greater_equal, [[3.0, 2.0]], [[2.0, 2.0]])
    array([[1., 1.]])
    """
    return _compare("greater_equal", a, b)


def equal(a: Operand, b: Operand) -> Value:
    """1.0 where a == b, else 0.0; see `less`.

    Raises ShapeError as `less`.

    >>> testing.apply(ops.equal, [[3.0, 2.0]], [[2.0, 2.0]])
    array([[0., 1.]])
    """
    return _compare("equal", a, b)


def not_equal(a: Operand, b: Operand) -> Value:
    """1.0 where a != b, else 0.0; see `less`.

    Raises ShapeError as `less`.

    >>> testing.apply(ops.not_equal, [[3.0, 2.0]], [[2.0, 2.0]])
    array([[1., 0.]])
    """
    return _compare("not_equal", a, b)


publish(globals(), FunctionType)
