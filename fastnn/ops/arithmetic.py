"""Arithmetic, element by element."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import FunctionType
from typing import Any

import numpy as np

from fastnn.errors import OptionError
from fastnn.errors import where as at
from fastnn.graph.constants import known
from fastnn.graph.following import follows
from fastnn.graph.gradient import gradient_node, multiple
from fastnn.graph.graph import Graph
from fastnn.graph.node import Node
from fastnn.graph.op import batched_like
from fastnn.graph.sizes import real
from fastnn.graph.value import Value
from fastnn.ops.comparison import equal, greater, less, less_equal
from fastnn.ops.declare import Operand, elementwise, floats, like, need, op, same
from fastnn.ops.operands import (
    broadcast_kind,
    common,
    float_operand,
    float_value,
    graph_of,
    is_number,
    symbolic,
    unary,
)
from fastnn.public import publish

Gradients = dict[str, Value]


def _add_gradient(graph: Graph, node: Node, douts: Gradients, needed: set[str]) -> Gradients:
    return dict.fromkeys(needed, douts["y"])


def _subtract_gradient(graph: Graph, node: Node, douts: Gradients, needed: set[str]) -> Gradients:
    found = {"a": douts["y"]} if "a" in needed else {}
    if "b" in needed:
        found["b"] = graph.apply("negate", x=douts["y"])
    return found


def _multiply_gradient(graph: Graph, node: Node, douts: Gradients, needed: set[str]) -> Gradients:
    """Of a sum's known gradient, one number everywhere, multiples of the operands."""
    a, b = need(node, "a"), need(node, "b")
    if (number := known(douts["y"].root.data)) is None:
        return gradient_node(graph, node, douts, needed)
    return {n: multiple(x, number, y) for n, x, y in (("a", b, a), ("b", a, b)) if n in needed}


def _multiply_derivative(node: Node, d: Gradients) -> Gradients:
    return {"a": d["y"] * need(node, "b"), "b": d["y"] * need(node, "a")}


def _divide_derivative(node: Node, d: Gradients) -> Gradients:
    part = d["y"] / need(node, "b")
    return {"a": part, "b": -part * node.outputs["y"]}


_PAIR = ("a", "b")


@op(gradient=_add_gradient)
def _add(a: Value, b: Value) -> Value:
    return same(a=a, b=b)


@op(gradient=_subtract_gradient)
def _subtract(a: Value, b: Value) -> Value:
    return same(a=a, b=b)


@op(gradient=_multiply_gradient, backward=("multiply_backward_a", "multiply_backward_b"),
    derivative=_multiply_derivative)  # fmt: skip
def _multiply(a: Value, b: Value) -> Value:
    return same(a=a, b=b)


@op(backward=("divide_backward_a", "divide_backward_b"), derivative=_divide_derivative)
def _divide(a: Value, b: Value) -> Value:
    return same(a=a, b=b)


@op(forward="integers_to_floats", constant=("x",))
def _to_floats(x: Value) -> Value:
    return floats(*x.shape)


def astype(x: Any, dtype: Any = "float32") -> Value:
    """Integers as floating-point numbers: ``x.sum(1) / lengths.astype("float32")``.

    Args:
        x: any shape; floating-point numbers stay as they are.
        dtype: a floating-point type. Whichever it is, the result has the program's
            (`dtype` of `Trainer` or `compile`).

    Raises:
        OptionError: another type. A mask of integers is made by comparing: ``x > 0``.

    >>> testing.apply(lambda n: n.astype("float32") / 2.0, [[1, 2]])
    array([[0.5, 1. ]])
    """
    x = symbolic(x)
    try:
        kind = np.dtype(dtype).kind
    except TypeError:
        kind = ""
    if kind != "f":
        raise OptionError(
            f"{at(x.graph.scope)}astype: expected a floating-point type, such as 'float32', got "
            f"{dtype!r}; a forward pass makes no integers"
        )
    return x if x.dtype == "f" else x.graph.apply("to_floats", x=x)


# ---------------------------------------------------------------- with a row, with a column


def _sum_gradient(graph: Graph, node: Node, douts: Gradients, needed: set[str]) -> Gradients:
    """Of a sum with a row or a column: what a gets, and its sums."""
    found = {"a": douts["y"]} if "a" in needed else {}
    return found | gradient_node(graph, node, douts, needed - {"a"})


def _row_derivative(node: Node, d: Gradients) -> Gradients:
    a, b = need(node, "a"), need(node, "b")
    sums = (a * d["y"]).reshape(-1, b.size).sum(0)
    return {"a": d["y"] * b, "b": sums.reshape(b.shape)}


def _column_derivative(node: Node, d: Gradients) -> Gradients:
    a, b = need(node, "a"), need(node, "b")
    column = b.reshape(*a.shape[:-1], 1)
    return {"a": d["y"] * column, "b": (a * d["y"]).sum(-1).reshape(b.shape)}


_by_rows = batched_like("y", like="a")


@op(forward="add_row", gradient=_sum_gradient, differentiable=("b",), linear=_PAIR,
    placement=_by_rows)  # fmt: skip
def _add_row(a: Value, b: Value) -> Value:
    return floats(*a.shape)


@op(forward="add_column", gradient=_sum_gradient, differentiable=("b",), linear=_PAIR)
def _add_column(a: Value, b: Value) -> Value:
    return floats(*a.shape)


@op(forward="multiply_row", differentiable=_PAIR, derivative=_row_derivative, placement=_by_rows)
def _multiply_row(a: Value, b: Value) -> Value:
    return floats(*a.shape)


@op(forward="multiply_column", differentiable=_PAIR, derivative=_column_derivative)
def _multiply_column(a: Value, b: Value) -> Value:
    return floats(*a.shape)


# ---------------------------------------------------------------- functions


def _binary(name: str, a: Any, b: Any) -> Value:
    graph = graph_of(a, b)
    x, y = float_operand(graph, a, name), float_operand(graph, b, name)
    if name in ("add", "multiply") and (x.size, x.ndim) < (y.size, y.ndim):
        x, y = y, x
    kind = broadcast_kind(x, y)
    if kind in ("row", "column") and name != "divide":
        if name == "subtract":
            name, y = "add", negate(y)
        result: Value = graph.apply(f"{name}_{kind}", a=x, b=y)
        return result
    x, y = common(name, x, y)
    result = graph.apply(name, a=x, b=y)
    return result


def add(a: Operand, b: Operand) -> Value:
    """a + b, element by element.

    As in all functions of two operands, one of them is a symbolic value and the other may be a
    parameter, a NumPy array or a number. Shapes broadcast as in NumPy, and gradients are summed
    over the repeated axes.

    >>> testing.apply(ops.add, [[1.0, 2.0]], [[10.0, 20.0]])
    array([[11., 22.]])
    """
    if is_number(b):
        return affine(a, 1.0, real(b))
    return affine(b, 1.0, real(a)) if is_number(a) else _binary("add", a, b)


def subtract(a: Operand, b: Operand) -> Value:
    """a - b, element by element; operands as in `add`.

    >>> testing.apply(ops.subtract, [[1.0, 2.0]], [[10.0, 20.0]])
    array([[ -9., -18.]])
    """
    if is_number(a):
        return affine(b, -1.0, real(a))
    return affine(a, 1.0, -real(b)) if is_number(b) else _binary("subtract", a, b)


def multiply(a: Operand, b: Operand) -> Value:
    """a * b, element by element; operands as in `add`.

    >>> testing.apply(ops.multiply, [[1.0, 2.0]], [[10.0, 20.0]])
    array([[10., 40.]])
    """
    if is_number(b):
        return affine(a, real(b), 0.0)
    return affine(b, real(a), 0.0) if is_number(a) else _binary("multiply", a, b)


def divide(a: Operand, b: Operand) -> Value:
    """a / b, element by element; operands as in `add`. Division by 0 gives infinity or NaN.

    >>> testing.apply(ops.divide, [[1.0, 2.0]], [[4.0, 0.5]])
    array([[0.25, 4.  ]])
    """
    if is_number(b) and 1e-30 < abs(real(b)) < 1e30:
        return affine(a, 1.0 / real(b), 0.0)
    return _binary("divide", a, b)


def _power_derivative(node: Node, d: Gradients) -> Gradients:
    a, b, y = need(node, "a"), need(node, "b"), node.outputs["y"]
    nothing = equal(a, 0.0)
    logarithm = where(nothing, np.zeros(1), where(nothing, np.ones(1), a).log())
    safe = where(nothing * equal(b, 0.0), np.ones(1), b)  # a ** 0 has no slope at 0, not 0 / 0
    return {"a": d["y"] * b * a ** (safe - 1.0), "b": d["y"] * y * logarithm}


@elementwise(derivative=_power_derivative)
def _power(a: Operand, b: Operand) -> Value:
    return like(a)


def power(a: Operand, b: Operand) -> Value:
    """a ** b, element by element; operands as in `add`.

    NaN where a < 0, unless b is whole. Small whole powers and square roots are computed as such;
    other powers as e^(b log|a|), with a relative error of about |b log a| ULP.

    >>> testing.apply(ops.power, [[2.0, 3.0]], [[3.0, 2.0]])
    array([[8., 9.]])
    """
    if is_number(b) and float(b) in _POWERS:
        return _POWERS[float(b)](float_value(a, "power"))
    return _power(a, b)


def _reciprocal(x: Value) -> Value:
    return divide(1.0, x)


#: exponents with a way of their own
_POWERS: dict[float, Callable[[Value], Value]] = {
    -2.0: lambda x: _reciprocal(unary("square", x)),
    -1.0: _reciprocal,
    0.5: lambda x: unary("sqrt", x),
    1.0: lambda x: x,
    2.0: lambda x: unary("square", x),
    3.0: lambda x: multiply(unary("square", x), x),
    4.0: lambda x: unary("square", unary("square", x)),
}


def _of_larger(a: Value, b: Value, y: Value) -> Gradients:
    tie = equal(a, b) * 0.5
    return {"a": greater(a, b) + tie, "b": less(a, b) + tie}


def _of_smaller(a: Value, b: Value, y: Value) -> Gradients:
    tie = equal(a, b) * 0.5
    return {"a": less(a, b) + tie, "b": greater(a, b) + tie}


@elementwise(_of_larger)
def maximum(a: Operand, b: Operand) -> Value:
    """The larger of a and b, element by element; NaN where one of them is. Operands as in `add`.

    Where they are equal, each gets half of the gradient, as in PyTorch.

    >>> testing.apply(ops.maximum, [[1.0, 5.0]], [[2.0, 4.0]])
    array([[2., 5.]])
    """
    return like(a)


@elementwise(_of_smaller)
def minimum(a: Operand, b: Operand) -> Value:
    """The smaller of a and b, element by element; otherwise as `maximum`.

    >>> testing.apply(ops.minimum, [[1.0, 5.0]], [[2.0, 4.0]])
    array([[1., 4.]])
    """
    return like(a)


@elementwise(lambda x, y, low, high: less_equal(low, x) * less_equal(x, high))
def _clip(x: Operand, low: float = -math.inf, high: float = math.inf) -> Value:
    return like(x)


def clip(x: Operand, low: Any = None, high: Any = None) -> Value:
    """x limited to the range low to high, min(max(x, low), high); NaN stays NaN.

    A bound is a number, or an array or value that broadcasts with x; None leaves an end open. The
    gradient passes where low <= x <= high. For bounds that are not numbers see `maximum`.

    >>> testing.apply(lambda x: ops.clip(x, 0.0, 1.0), [[-1.0, 0.5, 2.0]])
    array([[0. , 0.5, 1. ]])
    """
    numbers = [b is None or is_number(b) for b in (low, high)]
    if all(numbers):
        ends = (-np.inf if low is None else float(low), np.inf if high is None else float(high))
        return _clip(x, *ends)
    x = x if low is None else maximum(x, low)
    return x if high is None else minimum(x, high)


@elementwise(constant=("mask",), linear=("a", "b"))
def where(mask: Operand, a: Operand, b: Operand) -> Value:
    """a where the mask holds (is not 0), else b, element by element; operands as in `add`.

    The operand that was not chosen gets gradient 0, even where it is infinite or NaN. (If its own
    slope is infinite, that 0 still becomes NaN, as in other libraries; apply `where` to the
    argument of a logarithm instead of to its result.)

    >>> testing.apply(lambda x: ops.where(x > 0.0, x, 0.1 * x), [[-1.0, 2.0]])
    array([[-0.1,  2. ]])
    """
    return like(a)


def _as_it_lies(node: Node) -> None:
    x, y = need(node, "x"), node.outputs["y"]
    y.base, y.segment, y.batched = x, x.root.segment, x.batched


@op(placement=_as_it_lies, constant=("x",))
def detach(x: Operand) -> Value:
    """The same numbers, treated as a constant by the gradient.

    >>> testing.apply(lambda x: ops.gradient(ops.sum(x * ops.detach(x)), x), [[3.0]])
    array([[3.]])
    """
    return like(x)


def _negate_gradient(graph: Graph, node: Node, douts: Gradients, needed: set[str]) -> Gradients:
    return {"x": graph.apply("negate", x=douts["y"])}


@op(forward="negate", gradient=_negate_gradient)
def negate(x: Operand) -> Value:
    """-x.

    >>> testing.apply(ops.negate, [[1.0, -2.0]])
    array([[-1.,  2.]])
    """
    return like(x)


def _affine_gradient(graph: Graph, node: Node, douts: Gradients, needed: set[str]) -> Gradients:
    return {"x": graph.apply("affine", x=douts["y"], scale=node.attrs["scale"], shift=0.0)}


@op(name="affine", forward="affine", gradient=_affine_gradient)
def _scaled(x: Value, scale: float = 1.0, shift: float = 0.0) -> Value:
    return like(x)


def affine(x: Operand, scale: float, shift: float) -> Value:
    """scale * x + shift for numbers `scale` and `shift`.

    >>> testing.apply(lambda x: ops.affine(x, 2.0, 1.0), [[1.0, 2.0]])
    array([[3., 5.]])
    """
    x = float_value(x, "arithmetic with a number")
    for number in (scale, shift):
        if follows(number):
            x.graph.check_range(number, "a number")
    plain = [n for n in (scale, shift) if not follows(n)]
    x.graph.check_range(np.array(plain, np.float64), "a number")
    return _scaled(x, scale, shift)


publish(globals(), FunctionType)
