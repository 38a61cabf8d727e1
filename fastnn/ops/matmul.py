"""The product of matrices, and of stacks of matrices."""

from __future__ import annotations

from types import FunctionType

from fastnn.errors import ShapeError, where
from fastnn.graph.gradient import gradient_node
from fastnn.graph.graph import Graph
from fastnn.graph.leaf import Leaf
from fastnn.graph.node import Node
from fastnn.graph.value import Value
from fastnn.ops.declare import Operand, floats, need, op
from fastnn.ops.operands import (
    as_shown,
    as_value,
    broadcast_shape,
    expanded,
    float_value,
    graph_of,
)
from fastnn.ops.shape import reshape
from fastnn.public import publish

#: rows up to which a gradient's matrices are multiplied by dot products, not transposed first
FEW_ROWS = 4


def _gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    b, dy = node.inputs["b"], douts["y"]
    found = {}
    if "a" in needed:
        assert b is not None
        found["a"] = _by_rows(dy, b)
    return found | gradient_node(graph, node, douts, needed - {"a"})


def _derivative(node: Node, d: dict[str, Value]) -> dict[str, Value]:
    return {"b": _stacks(need(node, "a").transpose(0, 2, 1), d["y"])}


def _by_rows(a: Value, b: Value) -> Value:
    """The products with transposed matrices: few rows are multiplied with rows as they lie."""
    if a.shape[1] <= FEW_ROWS:
        return _transposed_stacks(a, b)
    return _stacks(a, b.transpose(0, 2, 1))


def _transposed_gradient(
    graph: Graph, node: Node, douts: dict[str, Value], needed: set[str]
) -> dict[str, Value]:
    found = {"a": _stacks(douts["y"], need(node, "b"))} if "a" in needed else {}
    if "b" in needed:
        found["b"] = _stacks(douts["y"].transpose(0, 2, 1), need(node, "a"))
    return found


@op(name="matmul_transposed", gradient=_transposed_gradient)
def _transposed_stacks(a: Value, b: Value) -> Value:
    """The products of a stack of matrices with another one's matrices, transposed."""
    return floats(*a.shape[:-1], b.shape[1])


@op(name="matmul", gradient=_gradient, backward=("matmul_backward_b",), derivative=_derivative)
def _stacks(a: Value, b: Value) -> Value:
    """The products of two stacks of matrices."""
    return floats(*a.shape[:-1], b.shape[-1])


# ---------------------------------------------------------------- functions


def matmul(a: Operand, b: Operand) -> Value:
    """a @ b by NumPy's rules: the product of the last two axes; axes before them broadcast.

    A vector on the left is treated as a row and on the right as a column; the result lacks that
    axis. Either operand may be an array or a parameter.

    Raises ShapeError for shapes that do not fit each other.

    >>> testing.apply(ops.matmul, np.ones((1, 2, 3)), np.ones((1, 3, 2)))
    array([[[3., 3.],
            [3., 3.]]])
    """
    graph = graph_of(a, b)
    if isinstance(b, Leaf) and b.transposed and isinstance(a, Value) and a.ndim > 1:
        product: Value = graph.apply("linear_transposed", x=float_value(a, "matmul"),
                                     w=as_value(graph, b))  # fmt: skip
        return product
    x, y = (float_value(as_shown(graph, v), "matmul") for v in (a, b))
    if not x.ndim or not y.ndim or x.shape[-1] != y.shape[-2 if y.ndim > 1 else 0]:
        raise ShapeError(
            f"{where(graph.scope)}matmul: cannot multiply shapes {x.shape} and {y.shape}; expected "
            "(..., M, C) and (..., C, K): transpose or reshape one of them"
        )
    row, column = x.ndim == 1, y.ndim == 1
    x = reshape(x, (1, x.size)) if row else x
    y = reshape(y, (y.size, 1)) if column else y
    if y.ndim == 2:
        result: Value = graph.apply("linear", x=x, w=y, bias=None)
    else:
        outer = broadcast_shape([x.shape[:-2], y.shape[:-2]], graph.scope, "matmul")
        batched = any(v.batched and v.shape[:-2] == outer for v in (x, y))
        pair = [
            v if v.shape[:-2] == outer else expanded(v, (*outer, *v.shape[-2:]), batched)
            for v in (x, y)
        ]
        x, y = (v if v.ndim == 3 else reshape(v, (-1, *v.shape[-2:])) for v in pair)
        result = _stacks(x, y)
        if len(outer) != 1:
            result = reshape(result, (*outer, *result.shape[1:]))
    if row or column:
        *lead, m, k = result.shape
        result = reshape(result, (*lead, *(() if row else (m,)), *(() if column else (k,))))
    return result


publish(globals(), FunctionType)
