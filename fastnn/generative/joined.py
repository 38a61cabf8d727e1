"""A module that takes a condition in addition to its input."""

from __future__ import annotations

import numpy as np

from fastnn import ops
from fastnn.errors import ShapeError, where
from fastnn.graph.value import Value
from fastnn.nn.module import Module


class Joined(Module):
    """Gives a module of one input a second one: both are joined along the last axis.

    The encoder, decoder, generator or discriminator of a conditional model takes the class as a
    second input; `Joined` appends it to the features (Mirza & Osindero 2014).

    Args:
        module: takes (batch, features + condition).
        before: what the first input passes before they are joined: of an image, the layers to
            features, for one.

    Shapes: (batch, ..., features) and (batch, condition); a condition of fewer axes is repeated
    over those between.

    Raises ShapeError for a condition that is not of shape (batch, features).

    >>> import numpy as np
    >>> from fastnn import nn
    >>> from fastnn.generative import Joined
    >>> Joined(nn.Linear(5, 2)).predict(np.ones((4, 3)), np.ones((4, 2))).shape
    (4, 2)
    """

    def __init__(self, module: Module, before: Module | None = None):
        self.module, self.before = module, before

    def forward(self, x: Value, condition: Value) -> Value:
        if self.before is not None:
            x = self.before(x)
        if condition.ndim != 2 or condition.shape[0] != x.shape[0]:
            raise ShapeError(
                f"{where(x.graph.scope)}Joined: expected a condition of shape ({x.shape[0]}, "
                f"features), got {condition.shape}"
            )
        between = x.ndim - 2
        if between > 0:
            shape = (condition.shape[0], *[1] * between, condition.shape[1])
            condition = ops.expand(
                ops.reshape(condition, shape), (*x.shape[:-1], condition.shape[1])
            )
        result: Value = self.module(ops.concatenate(x, condition, axis=-1))
        return result


def one_hot(labels: Value, classes: int) -> Value:
    """Class numbers (batch,) as rows with one 1, shape (batch, classes)."""
    graph = labels.graph
    if labels.ndim != 1 or labels.dtype != "i":
        raise ShapeError(
            f"{where(graph.scope)}classes: expected class numbers of shape (batch,), got "
            f"{labels}; pass integers"
        )
    graph.limit(labels, 0, classes)
    column = ops.reshape(labels, (labels.shape[0], 1))
    return ops.equal(column, np.arange(classes))
