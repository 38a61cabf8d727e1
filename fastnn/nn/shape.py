"""Layers without parameters that rearrange or combine values."""

from __future__ import annotations

from collections.abc import Sequence

from fastnn import ops
from fastnn.errors import OptionError, ShapeError, check_numbers, is_whole, where
from fastnn.graph.value import Value
from fastnn.nn.module import Module
from fastnn.public import publish


class Flatten(Module):
    """Flattens each sample: (batch, a, b, ...) becomes (batch, a * b * ...).

    >>> nn.Flatten().predict(np.ones((4, 2, 3), np.float32)).shape
    (4, 6)
    """

    def forward(self, x: Value) -> Value:
        return ops.flatten(x)


class Reshape(Module):
    """Reshapes each sample to `shape`; one size may be -1. The batch dimension is not given.

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


class Permute(Module):
    """Puts the axes of each sample into another order; the batch stays first.

    Args:
        axes: the numbers of the axes in their new order: a permutation of 1, 2, ...

    Raises OptionError for anything but a permutation; ShapeError for an input with another number
    of axes.

    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.Permute(3, 1, 2).predict(np.zeros((5, 8, 9, 3))).shape
    (5, 3, 8, 9)
    """

    def __init__(self, *axes: int):
        self.axes = tuple(axes)
        if sorted(self.axes) != list(range(1, len(axes) + 1)):
            raise OptionError(
                f"Permute: expected each of the axes 1 to {max(len(axes), 1)} once, got {axes}; "
                "axis 0, the batch, stays where it is"
            )

    def forward(self, x: Value) -> Value:
        if x.ndim != len(self.axes) + 1:
            raise ShapeError(
                f"{where(x.graph.scope)}{self!r}: expected an input of {len(self.axes) + 1} axes, "
                f"got shape {x.shape}"
            )
        return ops.transpose(x, (0, *self.axes))

    def extra(self) -> str:
        return ", ".join(map(str, self.axes))


class Pad(Module):
    """Gives each sample a border.

    Args:
        widths: for each axis of a sample, the batch left out, a pair (before, after) or one number
            for both.
        mode: "constant" (filled with `value`), or NumPy's "edge", "reflect" and "wrap", which
            repeat elements of the sample.
        value: what "constant" fills in.

    Raises OptionError for an unknown `mode` and negative widths; ShapeError for an input with
    another number of axes.

    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.Pad((1, 2)).predict(np.ones((1, 2)))
    array([[0., 1., 1., 0., 0.]], dtype=float32)
    >>> nn.Pad(2, 0).predict(np.ones((3, 8, 4))).shape  # before and after each sequence
    (3, 12, 4)
    """

    def __init__(self, *widths: int | Sequence[int], mode: str = "constant", value: float = 0.0):
        pairs: list[tuple[int, int]] = []
        for given in widths:
            pair = tuple(given) if isinstance(given, (tuple, list)) else (given, given)
            if len(pair) != 2 or not all(is_whole(n, 0) for n in pair):
                raise OptionError(
                    "Pad: expected whole numbers from 0 on, or pairs of them, one for each axis of "
                    f"a sample, got {widths}"
                )
            pairs.append((int(pair[0]), int(pair[1])))
        if mode not in ("constant", "edge", "reflect", "wrap"):
            raise OptionError(
                f"Pad: expected mode 'constant', 'edge', 'reflect' or 'wrap', got {mode!r}"
            )
        check_numbers("Pad", value=value)
        self.widths = tuple(pairs)
        self.mode, self.value = mode, float(value)

    def forward(self, x: Value) -> Value:
        if x.ndim != len(self.widths) + 1:
            raise ShapeError(
                f"{where(x.graph.scope)}{self!r}: expected an input of {len(self.widths) + 1} "
                f"axes, got shape {x.shape}"
            )
        return ops.pad(x, [(0, 0), *self.widths], self.mode, self.value)

    def extra(self) -> str:
        return ", ".join(map(str, self.widths))


class Concatenate(Module):
    """Concatenates its inputs along the last dimension; their other dimensions must be equal.

    >>> testing.apply(nn.Concatenate(), [[1.0, 2.0]], [[10.0]])
    array([[ 1.,  2., 10.]])
    """

    def forward(self, *parts: Value) -> Value:
        return ops.concatenate(*parts)


class Add(Module):
    """Element-wise sum of its inputs, whose shapes broadcast as in NumPy.

    Raises ShapeError when it is called without inputs, or with shapes that do not broadcast.

    >>> testing.apply(nn.Add(), [[1.0, 2.0]], [[10.0, 20.0]])
    array([[11., 22.]])
    """

    def forward(self, *parts: Value) -> Value:
        _some(self, parts)
        result = parts[0]
        for part in parts[1:]:
            result = ops.add(result, part)
        return result


class Multiply(Module):
    """Element-wise product of its inputs, whose shapes broadcast as in NumPy.

    Raises ShapeError when it is called without inputs, or with shapes that do not broadcast.

    >>> testing.apply(nn.Multiply(), [[1.0, 2.0]], [[10.0, 20.0]])
    array([[10., 40.]])
    """

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
