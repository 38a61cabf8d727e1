"""A parameter's operators, which read like NumPy in a module's `forward`."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from fastnn.errors import ShapeError, where
from fastnn.graph.methods import Methods
from fastnn.graph.tracing import traced
from fastnn.graph.value import Value, of_numpy

#: what a symbolic value computes by ``value.name(...)``
_METHODS = frozenset(name for name in vars(Methods) if not name.startswith("_"))


class Operators:
    """What a parameter computes with in `forward`: the operators of a symbolic `Value`.

    Outside a `forward`, NumPy's functions read a parameter's numbers, and operators are refused:
    the result would be an array that does not follow the parameter.
    """

    __slots__ = ()

    def __add__(self, other: Any) -> Value:
        return _applied("add", self, other)

    def __radd__(self, other: Any) -> Value:
        return _applied("add", other, self)

    def __sub__(self, other: Any) -> Value:
        return _applied("subtract", self, other)

    def __rsub__(self, other: Any) -> Value:
        return _applied("subtract", other, self)

    def __mul__(self, other: Any) -> Value:
        return _applied("multiply", self, other)

    def __rmul__(self, other: Any) -> Value:
        return _applied("multiply", other, self)

    def __truediv__(self, other: Any) -> Value:
        return _applied("divide", self, other)

    def __rtruediv__(self, other: Any) -> Value:
        return _applied("divide", other, self)

    def __pow__(self, other: Any) -> Value:
        return _applied("power", self, other)

    def __rpow__(self, other: Any) -> Value:
        return _applied("power", other, self)

    def __matmul__(self, other: Any) -> Value:
        return _applied("matmul", self, other)

    def __rmatmul__(self, other: Any) -> Value:
        return _applied("matmul", other, self)

    def __neg__(self) -> Value:
        return _applied("negate", self)

    def __abs__(self) -> Value:
        return _applied("absolute", self)

    def __lt__(self, other: Any) -> Value:
        return _applied("less", self, other)

    def __le__(self, other: Any) -> Value:
        return _applied("less_equal", self, other)

    def __gt__(self, other: Any) -> Value:
        return _applied("greater", self, other)

    def __ge__(self, other: Any) -> Value:
        return _applied("greater_equal", self, other)

    def __getattr__(self, name: str) -> Any:
        """While something is traced, the methods of a symbolic value: ``weight.abs().sum()``."""
        if name in _METHODS and traced() is not None:
            from fastnn.ops.operands import symbolic

            method = getattr(symbolic(self), name)
            return functools.partial(_method, self, method) if callable(method) else method
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        if traced() is not None:
            return of_numpy(ufunc, method, inputs, options)
        arrays = [np.asarray(x) if isinstance(x, Operators) else x for x in inputs]
        return getattr(ufunc, method)(*arrays, **options)


def _method(parameter: Any, method: Any, /, *arguments: Any, **options: Any) -> Any:
    """Call a symbolic value's method for a parameter; NumPy's functions, which would call it, too
    (with an array to put the result in), want numbers."""
    if "out" in options:
        refuse_numbers(parameter)
    return method(*arguments, **options)


def _applied(name: str, *operands: Any) -> Value:
    from fastnn import ops

    if traced() is None and not any(isinstance(x, Value) for x in operands):
        own = next(x for x in operands if isinstance(x, Operators))
        raise ShapeError(
            f"{own!r}: computing with it belongs in a module's forward; for its numbers take "
            "parameter.value"
        )
    result: Value = getattr(ops, name)(*operands)
    return result


def refuse_numbers(parameter: Any) -> None:
    """Raise ShapeError while a `forward` is traced: numbers read there would keep their present
    values while training changes the parameter."""
    graph = traced()
    if graph is not None:
        raise ShapeError(
            f"{where(graph.scope)}{parameter!r}: its numbers are taken while forward is traced, "
            "and would stay what they are now in all steps; compute with the parameter itself "
            "(through ops.detach, if no gradient is wanted)"
        )
