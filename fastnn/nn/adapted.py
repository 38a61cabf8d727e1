"""What the layers that are adapted to training data have in common (see
`fastnn/nn/normalization.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from fastnn import ops
from fastnn.engine.numbers import numbers
from fastnn.errors import DataError, OptionError, ShapeError, where
from fastnn.graph.value import Value
from fastnn.nn.module import Module
from fastnn.nn.parameter import Parameter
from fastnn.nn.statistics import pieces, sizes
from fastnn.ops.lengths import checked_lengths

_UNSET = "%s: expected it to be adapted to training data, or loaded, before use; call its adapt(x)"


class Adapted(Module):
    """Base of layers that are adapted to data.

    Attributes:
        samples: a buffer of shape (1,): the number of rows it was adapted to, 0 before that.
    """

    #: rows that are needed at least
    least = 1

    def __init__(self, features: int | Sequence[int]):
        self.shape = sizes(type(self).__name__, features)
        self.samples = Parameter((1,), 0.0, trainable=False, unset=_UNSET % type(self).__name__)

    def adapt(self, x: Any, lengths: Any = None, mask: Any = None) -> Self:
        """Take the statistics of training data, replacing those of an earlier call.

        Sums are in float64 and taken a block at a time, so `x` may be a memory map, or come in
        chunks that do not fit into memory together.

        Args:
            x: an array of shape (..., features), or an iterable of such arrays (a list, a
                generator), or of pairs (array, lengths).
            lengths: of padded sequences, shape (samples,), with `x` of shape (samples, steps,
                features); padding is ignored.
            mask: booleans of x's shape without the features: which rows count.

        Returns:
            The layer.

        Raises:
            DataError: the data contain NaN or infinity, or there are too few samples.
            ShapeError: shapes do not fit.
        """
        name = type(self).__name__
        found = self._statistics()
        for rows in pieces(x, lengths, mask, self.shape, name):
            found.add(rows)
        if found.count < self.least:
            raise DataError(
                f"{name}.adapt: expected at least {self.least} samples, got {found.count}; "
                "adapt it to all training data"
            )
        self._take(found)
        self.samples.value = np.array([float(found.count)])
        return self

    def _statistics(self) -> Any:
        raise NotImplementedError

    def _take(self, found: Any) -> None:
        raise NotImplementedError

    def inverse(self, y: Any) -> np.ndarray:
        """Undo the normalisation, in NumPy: the input that gives `y`, for instance the targets of a
        regression.

        Args:
            y: an array of the shape of the layer's output.

        Returns:
            A float64 array of the shape of the input.
        """
        if not self.samples.read().any():
            raise OptionError(_UNSET % type(self).__name__)
        return self._back(np.asarray(numbers(y, f"{type(self).__name__}.inverse: y"), np.float64))

    def _back(self, y: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _sample_shape(self) -> tuple[int, ...]:
        return self.shape

    def _input(self, x: Value) -> Value:
        if x.ndim <= len(self.shape) or x.shape[-len(self.shape) :] != self.shape:
            raise ShapeError(
                f"{where(x.graph.scope)}{self!r}: expected input of shape (batch, ..., "
                f"{', '.join(map(str, self.shape))}), got {x.shape}"
            )
        return x

    @staticmethod
    def _unpadded(y: Value, lengths: Value | None) -> Value:
        """Zeros where sequences are over."""
        if lengths is None:
            return y
        if y.ndim < 3:
            raise ShapeError(
                f"{where(y.graph.scope)}expected sequences of shape (batch, steps, features) with "
                f"lengths, got {y.shape}"
            )
        lengths = checked_lengths(y.graph, lengths, y.shape[0], y.shape[1], "normalisation")
        steps = np.arange(y.shape[1])[None]
        within = ops.less(steps, ops.reshape(lengths, -1, 1))
        return ops.multiply(y, ops.reshape(within, *y.shape[:2], *[1] * (y.ndim - 2)))

    def extra(self) -> str:
        return ", ".join(map(str, self.shape)) if len(self.shape) == 1 else f"{self.shape}"
