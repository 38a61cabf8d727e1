"""Arithmetic and comparisons, element by element."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastnn.errors import ShapeError
from fastnn.errors import where as at
from fastnn.graph.gradient import gradient_node
from fastnn.graph.graph import Graph
from fastnn.graph.leaf import Leaf
from fastnn.graph.node import Node
from fastnn.graph.op import Op, register, settle_as
from fastnn.graph.value import Value
from fastnn.ops.operands import (
    as_value,
    broadcast_kind,
    broadcast_shape,
    float_value,
    graph_of,
    unary,
    untransposed,
)

Gradients = dict[str, Value]


def _add_gradient(graph: Graph, node: Node, douts: Gradients, needed: set[str]) -> Gradients:
    return dict.fromkeys(needed, douts["y"])


def _subtract_gradient(graph: Graph, node: Node, douts: Gradients, needed: set[str]) -> Gradients:
    found = {"a": douts["y"]} if "a" in needed else {}
    if "b" in needed:
        found["b"] = graph.apply("negate", x=douts["y"])
    return found


register(Op("add", inputs=("a", "b"), gradient=_add_gradient))
register(Op("subtract", inputs=("a", "b"), gradient=_subtract_gradient))
register(Op("multiply", inputs=("a", "b"), backward=("multiply_backward_a", "multiply_backward_b")))
register(Op("divide", inputs=("a", "b"), backward=("divide_backward_a", "divide_backward_b")))

for _name in ("maximum", "minimum", "power"):
    register(Op(_name, inputs=("a", "b"), backward=(f"{_name}_backward_a", f"{_name}_backward_b")))


register(
    Op("where", inputs=("mask", "a", "b"), backward=("where_backward_a", "where_backward_b"),
       constant=("mask",))
)  # fmt: skip

for _name in ("less", "less_equal", "equal", "not_equal"):
    register(Op(_name, inputs=("a", "b"), forward=_name, constant=("a", "b")))


def _compare_shape(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    return {"y": (inputs["a"].shape, "f")}


register(
    Op("compare_integers", inputs=("a", "b"), defaults={"relation": 0}, shape=_compare_shape,
       forward="compare_integers", constant=("a", "b"))
)  # fmt: skip


def _as_it_lies(node: Node) -> None:
    x, y = node.inputs["x"], node.outputs["y"]
    assert x is not None
    y.base, y.home, y.batched = x, x.root.home, x.batched


register(Op("detach", settle=_as_it_lies, constant=("x",)))


def _negate_gradient(graph: Graph, node: Node, douts: Gradients, needed: set[str]) -> Gradients:
    return {"x": graph.apply("negate", x=douts["y"])}


def _affine_gradient(graph: Graph, node: Node, douts: Gradients, needed: set[str]) -> Gradients:
    return {"x": graph.apply("affine", x=douts["y"], scale=node.attrs["scale"], shift=0.0)}


register(Op("negate", forward="negate", gradient=_negate_gradient))
register(
    Op("affine", defaults={"scale": 1.0, "shift": 0.0}, forward="affine", gradient=_affine_gradient)
)

# ---------------------------------------------------------------- broadcasts


def _shape_of_a(inputs: dict[str, Value], attrs: dict[str, Any], scope: str) -> dict[str, Any]:
    return {"y": (inputs["a"].shape, "f")}


def _sum_gradient(graph: Graph, node: Node, douts: Gradients, needed: set[str]) -> Gradients:
    """Of a sum with a row or a column: what a gets, and its sums."""
    found = {"a": douts["y"]} if "a" in needed else {}
    return found | gradient_node(graph, node, douts, needed - {"a"})


for _kind in ("row", "column"):
    register(
        Op(
            f"add_{_kind}", inputs=("a", "b"), shape=_shape_of_a, forward=f"add_{_kind}",
            gradient=_sum_gradient, differentiable=("b",),
            settle=settle_as("y", like="a") if _kind == "row" else None,
        )
    )  # fmt: skip
    register(
        Op(
            f"multiply_{_kind}", inputs=("a", "b"), shape=_shape_of_a, forward=f"multiply_{_kind}",
            differentiable=("a", "b"),
            settle=settle_as("y", like="a") if _kind == "row" else None,
        )
    )  # fmt: skip


# ---------------------------------------------------------------- functions


def common(name: str, *operands: Any) -> list[Value]:
    """The operands as float values of one shape, by NumPy's rules of broadcasting."""
    graph = graph_of(*operands)
    values = [_operand(graph, x, name) for x in operands]
    shape = broadcast_shape([v.shape for v in values], graph.scope, name)
    batched = any(v.batched and v.shape == shape for v in values)
    return [v if v.shape == shape else expanded(v, shape, batched) for v in values]


def expanded(x: Value, shape: tuple[int, ...], batched: bool = False) -> Value:
    """x repeated to a shape that it fits."""
    if x.data is not None and x.size == 1 and x.dtype == "f":
        return x.graph.full(shape, float(x.data.reshape(-1)[0]), batched)
    result: Value = x.graph.apply("expand", x=x, shape=shape, batched=batched)
    return result


def _operand(graph: Graph, x: Any, name: str) -> Value:
    return float_value(as_value(graph, untransposed(x, name)), name)


def _binary(name: str, a: Any, b: Any) -> Value:
    graph = graph_of(a, b)
    x, y = _operand(graph, a, name), _operand(graph, b, name)
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


def is_number(x: Any) -> bool:
    """Whether an operand is one number (a NumPy array without axes counts)."""
    return isinstance(x, (int, float, np.number)) or (isinstance(x, np.ndarray) and x.ndim == 0)


def add(a: Any, b: Any) -> Value:
    """a + b, element by element.

    As in all functions of two operands, either is a symbolic value, and the other one may be a
    parameter, a NumPy array or a number; shapes broadcast by NumPy's rules, and gradients are
    summed over what was repeated.
    """
    if is_number(b):
        return affine(a, 1.0, float(b))
    return affine(b, 1.0, float(a)) if is_number(a) else _binary("add", a, b)


def subtract(a: Any, b: Any) -> Value:
    """a - b, element by element; operands as in `add`."""
    if is_number(a):
        return affine(b, -1.0, float(a))
    return affine(a, 1.0, -float(b)) if is_number(b) else _binary("subtract", a, b)


def multiply(a: Any, b: Any) -> Value:
    """a * b, element by element; operands as in `add`."""
    if is_number(b):
        return affine(a, float(b), 0.0)
    return affine(b, float(a), 0.0) if is_number(a) else _binary("multiply", a, b)


def divide(a: Any, b: Any) -> Value:
    """a / b, element by element; operands as in `add`. Division by 0 gives infinity or NaN."""
    if is_number(b) and 1e-30 < abs(float(b)) < 1e30:
        return affine(a, 1.0 / float(b), 0.0)
    return _binary("divide", a, b)


def power(a: Any, b: Any) -> Value:
    """a ** b, element by element; operands as in `add`.

    NaN where a < 0, unless b is whole. Small whole powers and square roots are computed as such;
    other powers as e^(b log|a|), with a relative error of about |b log a| ULP.
    """
    if is_number(b) and float(b) in _POWERS:
        return _POWERS[float(b)](float_value(a, "power"))
    x, y = common("power", a, b)
    result: Value = x.graph.apply("power", a=x, b=y)
    return result


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


def maximum(a: Any, b: Any) -> Value:
    """The larger of a and b, element by element; NaN where one of them is. Operands as in `add`.

    Where they are equal, each gets half of the gradient, as in PyTorch.
    """
    x, y = common("maximum", a, b)
    result: Value = x.graph.apply("maximum", a=x, b=y)
    return result


def minimum(a: Any, b: Any) -> Value:
    """The smaller of a and b, element by element; otherwise as `maximum`."""
    x, y = common("minimum", a, b)
    result: Value = x.graph.apply("minimum", a=x, b=y)
    return result


def clip(x: Any, low: Any = None, high: Any = None) -> Value:
    """x bounded to low..high, min(max(x, low), high); NaN stays.

    A bound is a number, or an array or value that broadcasts with x; None leaves an end open. The
    gradient passes where low <= x <= high. For bounds that are not numbers see `maximum`.
    """
    numbers = [b is None or is_number(b) for b in (low, high)]
    if all(numbers):
        ends = (-np.inf if low is None else float(low), np.inf if high is None else float(high))
        return unary("clip", x, low=ends[0], high=ends[1])
    x = x if low is None else maximum(x, low)
    return x if high is None else minimum(x, high)


def where(mask: Any, a: Any, b: Any) -> Value:
    """a where the mask holds (is not 0), else b, element by element; operands as in `add`.

    What was not chosen gets a gradient of 0, be it infinite or NaN. (An infinite slope before it
    still makes NaN of that 0, as in other libraries: choose the argument of a logarithm first.)
    """
    m, x, y = common("where", mask, a, b)
    result: Value = m.graph.apply("where", mask=m, a=x, b=y)
    return result


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


def less(a: Any, b: Any) -> Value:
    """1.0 where a < b, else 0.0: a mask for `where` or a product.

    Operands as in `add`, or both integers (ids). Comparisons have no gradient;
    with NaN only `not_equal` holds.
    """
    return _compare("less", a, b)


def less_equal(a: Any, b: Any) -> Value:
    """1.0 where a <= b, else 0.0; see `less`."""
    return _compare("less_equal", a, b)


def greater(a: Any, b: Any) -> Value:
    """1.0 where a > b, else 0.0; see `less`."""
    return _compare("greater", a, b)


def greater_equal(a: Any, b: Any) -> Value:
    """1.0 where a >= b, else 0.0; see `less`."""
    return _compare("greater_equal", a, b)


def equal(a: Any, b: Any) -> Value:
    """1.0 where a == b, else 0.0; see `less`."""
    return _compare("equal", a, b)


def not_equal(a: Any, b: Any) -> Value:
    """1.0 where a != b, else 0.0; see `less`."""
    return _compare("not_equal", a, b)


def detach(x: Any) -> Value:
    """The same numbers, as a constant for the gradient."""
    return unary("detach", x)


def negate(x: Any) -> Value:
    """-x."""
    return unary("negate", x)


def affine(x: Any, scale: float, shift: float) -> Value:
    """scale * x + shift for numbers `scale` and `shift`."""
    x = float_value(x, "arithmetic with a number")
    x.graph.check_range(np.array([scale, shift], np.float64), "a number")
    return unary("affine", x, scale=float(scale), shift=float(shift))
