"""How operands of all functions become values: symbolic values, parameters, arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn.errors import ShapeError, where
from fastnn.graph.graph import Graph, Value
from fastnn.nn.parameter import Parameter


def graph_of(*operands: Any) -> Graph:
    """The graph that the symbolic operands belong to."""
    for operand in operands:
        if isinstance(operand, Value):
            return operand.graph
    raise ShapeError(
        f"expected at least one symbolic value, got {[type(o).__name__ for o in operands]}; "
        "fastnn.ops are used inside a module's forward"
    )


def as_value(graph: Graph, operand: Any) -> Value:
    """A value for a symbolic value, a parameter, or an array (a constant)."""
    if isinstance(operand, Value):
        return operand
    if isinstance(operand, Parameter):
        if graph.owned is not None and operand not in graph.owned:
            raise ShapeError(
                f"parameter {operand.name or operand.shape} does not belong to the model that is "
                "traced; assign it (or the layer that has it) to an attribute of the model, or to "
                "a list, tuple or dict in one, in its __init__"
            )
        return graph.leaf(
            operand, operand.storage_shape, operand.segment, offset=operand.offset or 0,
            name=operand.name,
        )  # fmt: skip
    return graph.constant(np.asarray(operand, dtype=np.float64))


def float_value(x: Any, op: str) -> Value:
    if not isinstance(x, Value):
        raise ShapeError(f"{op}: expected a symbolic value, got {type(x).__name__}")
    if x.dtype != "f":
        raise ShapeError(
            f"{where(x.graph.scope)}{op}: expected floating-point input, got integers; convert the "
            "data with x.astype(np.float32), or use nn.Embedding for ids"
        )
    return x


def unary(name: str, x: Any, **attrs: Any) -> Value:
    result: Value = float_value(x, name).graph.apply(name, x=x, **attrs)
    return result


def untransposed(operand: Any, op: str) -> Any:
    if isinstance(operand, Parameter) and operand.transposed:
        raise ShapeError(
            f"{op}: parameter {operand.name!r} is kept transposed for matrix products; use it with "
            "ops.linear, or make it with transposed=False"
        )
    return operand
