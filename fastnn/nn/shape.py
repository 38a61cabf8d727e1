"""Layers without parameters that rearrange or combine values."""

from __future__ import annotations

from collections.abc import Sequence

from fastnn import ops
from fastnn.errors import ShapeError
from fastnn.graph.value import Value
from fastnn.nn.module import Module
from fastnn.public import publish


class Flatten(Module):
    """Flattens each sample: (batch, a, b, ...) becomes (batch, a * b * ...)."""

    def forward(self, x: Value) -> Value:
        return ops.flatten(x)


class Reshape(Module):
    """Reshapes each sample; one size may be -1. The batch dimension is not given.

    Raises ShapeError where the number of elements does not fit.

    >>> from fastnn import nn
    >>> nn.Reshape(8, 8)
    Reshape(8, 8)
    """

    def __init__(self, *shape: int):
        self.shape = tuple(int(n) for n in shape)

    def forward(self, x: Value) -> Value:
        return ops.reshape(x, x.shape[0], *self.shape)

    def extra(self) -> str:
        return ", ".join(map(str, self.shape))


class Concatenate(Module):
    """Concatenates its inputs along the last dimension; their other dimensions must be equal."""

    def forward(self, *parts: Value) -> Value:
        return ops.concatenate(*parts)


class Add(Module):
    """Element-wise sum of its inputs, whose shapes broadcast as in NumPy."""

    def forward(self, *parts: Value) -> Value:
        _some(self, parts)
        result = parts[0]
        for part in parts[1:]:
            result = ops.add(result, part)
        return result


class Multiply(Module):
    """Element-wise product of its inputs, whose shapes broadcast as in NumPy."""

    def forward(self, *parts: Value) -> Value:
        _some(self, parts)
        result = parts[0]
        for part in parts[1:]:
            result = ops.multiply(result, part)
        return result


def _some(layer: Module, parts: Sequence[Value]) -> None:
    if not parts:
        raise ShapeError(
            f"{type(layer).__name__}: expected one or more inputs, got none; call it with them, "
            "layer(a, b)"
        )


publish(globals(), type)
