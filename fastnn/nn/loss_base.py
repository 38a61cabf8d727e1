"""What losses share: they are called with the model's output and the target and give one number.

A loss says what each row contributes (`rows`), what a row weighs in the mean (`weights`) and which
rows count at all (`counted`); batches, epochs and evaluations add these up. `reduction` is "mean"
(the sum of the rows divided by the sum of their weights), "sum", or "none" (the rows themselves,
for losses of your own).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn import ops
from fastnn.errors import OptionError, ShapeError
from fastnn.graph.value import Value
from fastnn.nn.module import Module
from fastnn.public import publish


class Loss(Module):
    """Base class of losses.

    A subclass implements `rows`, and also `weights` and `counted` if rows have different weights.

    Args:
        reduction: "mean" (the sum of the rows divided by the sum of their weights), "sum", or
            "none" (the rows themselves, to build losses of your own).

    Raises:
        OptionError: an argument is not allowed. ShapeError: output and target do not fit each
            other.

    >>> from fastnn import nn, ops, testing
    >>> class Distance(nn.Loss):
    ...     def rows(self, output, target):
    ...         return ops.sum(ops.absolute(output - target), axis=1)
    >>> testing.apply(Distance(), [[1.0, 2.0], [3.0, 4.0]], [[1.0, 1.0], [1.0, 1.0]])
    array(3.)
    """

    #: whether output and target may be tuples or dicts of values
    takes_several = False

    def __init__(self, reduction: str = "mean"):
        if reduction not in ("mean", "sum", "none"):
            raise OptionError(
                f"{type(self).__name__}: expected reduction 'mean', 'sum' or 'none', got "
                f"{reduction!r}"
            )
        self.reduction = reduction

    def forward(self, output: Value, target: Value) -> Value:
        self.check(output, target)
        if self.reduction == "none":
            return self.elements(output, target)
        rows = self.rows(output, target)
        if self.reduction == "sum":
            return ops.total(rows)
        return mean_of(rows, self.weights(output, target))

    def check(self, output: Value, target: Value) -> None:
        """Raise ShapeError for an output or target that the loss does not accept."""
        for what, value in (("output", output), ("target", target)):
            if not isinstance(value, Value):
                raise ShapeError(
                    f"{type(self).__name__}: expected one {what}, got a {type(value).__name__}; "
                    "give a loss for each output (loss=[...], or a dict by the outputs' names), or "
                    "a function of all of them"
                )

    def rows(self, output: Value, target: Value) -> Value:
        """The loss of each row, multiplied by its weight.

        Raises OptionError unless a subclass defines it or `forward`; ShapeError for an output or a
        target that it cannot use.
        """
        raise OptionError(f"{type(self).__name__} has no rows(); write it, or forward")

    def elements(self, output: Value, target: Value) -> Value:
        """What the reduction "none" gives: the rows, or as many numbers as the output has."""
        return self.rows(output, target)

    def weights(self, output: Value, target: Value) -> Value | None:
        """The weight of each row in the mean; None means 1."""
        return None

    def counted(self, output: Value, target: Value) -> Value | None:
        """1 for each row that counts and 0 for each that does not; None means that all count."""
        return None

    def _apply(self, op: str, output: Value, target: Value, **more: Any) -> Value:
        result: Value = output.graph.apply(op, x=output, target=target, **more)
        return result


def mean_of(rows: Value, weights: Value | None) -> Value:
    """Sum of rows by the sum of their weights; 0 where nothing counts."""
    if weights is None:
        return ops.mean(rows)
    mean, _ = rows.graph.apply("weighted_mean", x=rows, weight=weights)
    result: Value = mean
    return result


def checked_weights(given: Any, expected: str, each: str) -> np.ndarray | None:
    """A loss's weights as an array."""
    if given is None:
        return None
    try:
        found = np.asarray(given, np.float64)
    except (TypeError, ValueError):
        found = np.array(np.nan)
    if found.ndim != 1 or not np.isfinite(found).all() or (found < 0).any():
        raise OptionError(f"{expected} to be a list of finite numbers >= 0, one for each {each}")
    return found


publish(globals(), type)
