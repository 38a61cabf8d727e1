"""What a decoder's outputs mean: the distribution of data that they are the parameters of."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn import ops
from fastnn.engine.numbers import numbers
from fastnn.errors import DataError, OptionError, ShapeError, check_numbers, is_whole, where
from fastnn.graph.value import Value

#: log(2 pi)
LOG_2PI = float(np.log(2.0 * np.pi))


class Output:
    """The distribution of each number of a sample, given the decoder's output z.

    - "bernoulli": p = sigmoid(z), for data within 0..1 (grey values count as probabilities);
    - "gaussian": mean z, and one fixed standard deviation, for any data.

    Args:
        kind: which.
        std: the standard deviation of "gaussian".
        who: what messages call the model.
    """

    def __init__(self, kind: str, std: float, who: str):
        if kind not in ("bernoulli", "gaussian"):
            raise OptionError(f"{who} output: expected 'bernoulli' or 'gaussian', got {kind!r}")
        check_numbers(who, std=std)
        if not std > 0:
            raise OptionError(f"{who} std: expected a number > 0, got {std!r}")
        self.kind, self.std, self.who = kind, float(std), who

    def nats(self, z: Value, x: Value, draws: int = 1) -> Value:
        """-log p(x | z) of each sample, shape (batch,) for z of x's shape; of each draw, shape
        (batch, draws), for a z of so many times as many samples, a sample's one after the other."""
        expected = (draws * x.shape[0], *x.shape[1:])
        if z.shape != expected:
            raise ShapeError(
                f"{where(x.graph.scope)}{self.who}: expected the decoder's output to have the "
                f"data's shape {expected}, got {z.shape}; change the decoder's last layer"
            )
        if draws > 1:
            z = ops.reshape(z, (x.shape[0], draws, *x.shape[1:]))
            x = ops.reshape(x, (x.shape[0], 1, *x.shape[1:]))
        if self.kind == "bernoulli" and draws == 1:  # in one pass over memory
            return sum_from(x.graph.apply("bce_with_logits", x=z, target=x), 1)
        if self.kind == "bernoulli":
            each = ops.subtract(ops.softplus(z), ops.multiply(x, z))
        else:
            shift = 0.5 * LOG_2PI + float(np.log(self.std))
            each = ops.affine(ops.square(ops.subtract(x, z)), 0.5 / self.std**2, shift)
        return sum_from(each, 1 if draws == 1 else 2)

    def mean(self, z: Value) -> Value:
        """The mean of the data."""
        return ops.sigmoid(z) if self.kind == "bernoulli" else z

    def check(self, x: Any, what: str = "x") -> None:
        """Refuse data that can't be of this distribution."""
        if self.kind != "bernoulli" or not (hasattr(x, "__array__") or isinstance(x, list)):
            return
        array = numbers(x, what)
        if array.size and not (array.min() >= 0 and array.max() <= 1):
            raise DataError(
                f"{what}: expected numbers within 0..1 for output='bernoulli', got "
                f"{array.min():g}..{array.max():g}; divide by the largest, or use "
                "output='gaussian'"
            )


def check_hidden(who: str, hidden: Any) -> None:
    """Raise OptionError unless these are the units of some layers."""
    if not isinstance(hidden, (tuple, list)) or not all(is_whole(n, 1) for n in hidden):
        raise OptionError(f"{who} hidden: expected units of layers, as [128, 64], got {hidden!r}")


def sum_from(each: Value, first: int) -> Value:
    """The sum over all axes from one on."""
    return each if each.ndim == first else ops.sum(each, axis=tuple(range(first, each.ndim)))
