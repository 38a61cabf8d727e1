"""Units with gates: half of the features decides what passes of the other half."""

from __future__ import annotations

from types import FunctionType
from typing import Any

from fastnn.errors import ShapeError, where
from fastnn.graph.value import Value
from fastnn.ops.activation import sigmoid, tanh
from fastnn.ops.arithmetic import multiply
from fastnn.ops.declare import Operand, floats, op
from fastnn.ops.indexing import split
from fastnn.public import publish


def _halved(x: Value, name: str) -> Any:
    if x.ndim < 2 or x.shape[-1] % 2:
        raise ShapeError(
            f"{where(x.graph.scope)}{name}: expected an even number of features, shape (..., 2 C), "
            f"got {x.shape}"
        )
    return floats(*x.shape[:-1], x.shape[-1] // 2)


def _linear_unit(x: Value) -> Value:
    a, b = split(x, 2, -1)
    return multiply(a, sigmoid(b))


def _tanh_unit(x: Value) -> Value:
    a, b = split(x, 2, -1)
    return multiply(tanh(a), sigmoid(b))


@op(expression=_linear_unit)
def glu(x: Operand) -> Value:
    """The gated linear unit, a * sigmoid(b) for the halves a and b of the last axis (Dauphin et al.
    2017): shape (..., 2 C) to (..., C).

    Raises ShapeError for an odd number of features.

    >>> testing.apply(ops.glu, [[3.0, 0.0]])
    array([[1.5]])
    """
    result: Value = _halved(x, "glu")
    return result


@op(expression=_tanh_unit)
def gtu(x: Operand) -> Value:
    """The gated tanh unit, tanh(a) * sigmoid(b) for the halves a and b of the last axis (van den
    Oord et al. 2016): shape (..., 2 C) to (..., C).

    Raises ShapeError for an odd number of features.

    >>> testing.apply(ops.gtu, [[1.0, 0.0]])
    array([[0.38079708]])
    """
    result: Value = _halved(x, "gtu")
    return result


publish(globals(), FunctionType)
