"""Methods of symbolic values that NumPy's and PyTorch's arrays have, too: functions of
`fastnn.ops`.

Those take more: other axes, bounds, operands that are parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastnn.graph.value import Value

Axes = int | Sequence[int] | None

#: the functions behind a value's operators and methods, by name: `fastnn.ops` enters them
_functions: Any = None


def provide(functions: Any) -> None:
    """Say which functions a value's operators and methods are."""
    global _functions
    _functions = functions


def functions() -> Any:
    """The functions of `fastnn.ops`."""
    return _functions


class Methods:
    """What a value computes by ``value.name(...)``; the batch is the first axis.

    >>> import numpy as np
    >>> from fastnn import nn
    >>> class Bounded(nn.Module):
    ...     def forward(self, x):
    ...         return x.clip(-1.0, 1.0).abs().sum(axis=1)
    >>> Bounded().predict(np.array([[-3.0, 0.5], [0.25, 0.25]], np.float32))
    array([1.5, 0.5], dtype=float32)
    """

    @property
    def T(self) -> Value:
        """The axes in reverse order."""
        return _functions.transpose(self, *range(len(self.shape) - 1, -1, -1))  # type: ignore[attr-defined]

    def reshape(self, *shape: Any) -> Value:
        """The same elements under another shape (batch included); one extent may be -1."""
        return _functions.reshape(self, *shape)

    def flatten(self, start: int = 0) -> Value:
        """The axes from `start` on as one: all, as in NumPy and PyTorch; 1 keeps the batch."""
        return _functions.flatten(self, start)

    def squeeze(self, axis: Axes = None) -> Value:
        """Without axes of extent 1: those of `axis`, or all but the batch."""
        return _functions.squeeze(self, axis)

    def unsqueeze(self, axis: int | Sequence[int]) -> Value:
        """With axes of extent 1 at these places of the result."""
        return _functions.unsqueeze(self, axis)

    def transpose(self, *axes: Any) -> Value:
        """The axes in another order; without axes the last two change places."""
        return _functions.transpose(self, *axes)

    def swapaxes(self, first: int, second: int) -> Value:
        """With two axes in each other's place."""
        return _functions.swapaxes(self, first, second)

    def permute(self, *axes: Any) -> Value:
        """The axes in another order."""
        return _functions.permute(self, *axes)

    def sum(self, axis: Axes = None, keepdims: bool = False) -> Value:
        """The sum of all elements, or over axes; with `keepdims` these stay, with extent 1."""
        return _functions.sum(self, axis, keepdims)

    def mean(self, axis: Axes = None, keepdims: bool = False) -> Value:
        """The mean of all elements, or over axes; with `keepdims` these stay, with extent 1."""
        return _functions.mean(self, axis, keepdims)

    def max(self, axis: Axes = None, keepdims: bool = False) -> Value:
        """The largest element, of all or over axes; with `keepdims` these stay, with extent 1."""
        return _functions.max(self, axis, keepdims)

    def min(self, axis: Axes = None, keepdims: bool = False) -> Value:
        """The smallest element, of all or over axes; with `keepdims` these stay, with extent 1."""
        return _functions.min(self, axis, keepdims)

    def prod(self, axis: Axes = None, keepdims: bool = False) -> Value:
        """The product of all elements, or over axes; with `keepdims` these stay, with extent 1."""
        return _functions.prod(self, axis, keepdims)

    def cumsum(self, axis: int) -> Value:
        """Running sums along an axis."""
        return _functions.cumsum(self, axis)

    def clip(self, low: Any = None, high: Any = None) -> Value:
        """The elements bounded to low..high (numbers, arrays, values); None leaves an end open."""
        return _functions.clip(self, low, high)

    def astype(self, dtype: Any) -> Value:
        """Integers as floating-point numbers."""
        return _functions.astype(self, dtype)

    def float(self) -> Value:
        """Integers as floating-point numbers."""
        return _functions.astype(self)

    def abs(self) -> Value:
        """The elements without their signs."""
        return _functions.absolute(self)

    def exp(self) -> Value:
        """e to the power of each element."""
        return _functions.exp(self)

    def log(self) -> Value:
        """The natural logarithm of each element."""
        return _functions.log(self)

    def sqrt(self) -> Value:
        """The square root of each element."""
        return _functions.sqrt(self)

    def square(self) -> Value:
        """Each element times itself."""
        return _functions.square(self)

    def pow(self, exponent: Any) -> Value:
        """The elements to the power of a number, an array or a value."""
        return _functions.power(self, exponent)

    def tanh(self) -> Value:
        """The hyperbolic tangent of each element."""
        return _functions.tanh(self)

    def sigmoid(self) -> Value:
        """1 / (1 + exp(-x)) of each element."""
        return _functions.sigmoid(self)

    def detach(self) -> Value:
        """The same numbers, through which no gradient passes."""
        return _functions.detach(self)
