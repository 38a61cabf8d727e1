"""Penalties on parameters: terms of a loss, for `penalties` of a trainer or in a loss of your own.

A penalty depends only on the parameters, so it is part of training alone: the losses that
`evaluate` and an epoch report are those of the data.
"""

from __future__ import annotations

from typing import Any

from fastnn import ops
from fastnn.errors import OptionError, ShapeError, check_numbers, where
from fastnn.graph.value import Value
from fastnn.ops.operands import as_value, graph_of
from fastnn.public import publish


def _factors(name: str, **given: Any) -> list[float]:
    check_numbers(name, **given)
    for option, value in given.items():
        if value < 0:
            raise OptionError(f"{name}: expected {option} >= 0, got {value}")
    return [float(value) for value in given.values()]


class Penalty:
    """Base class of penalties: a number that grows as a parameter moves away from what it should
    be.

    A subclass defines `value`. It is called with a parameter (or any symbolic value) while a
    `forward` or a loss is traced.

    Raises ShapeError when `value` returns anything but a single number.

    >>> import numpy as np
    >>> import fastnn as fnn
    >>> from fastnn import nn, ops
    >>> class Heavy(nn.Penalty):
    ...     def value(self, w):
    ...         return 1e-3 * ops.square(ops.square(w)).sum()
    >>> model, x = nn.Linear(3, 1), np.ones((4, 3), np.float32)
    >>> trainer = fnn.Trainer(model, "mse", penalties={"weight": Heavy()})
    >>> history = trainer.fit(x, x[:, :1], verbose=False)
    """

    def __call__(self, parameter: Any) -> Value:
        """The penalty of a parameter, a single number."""
        value = self.value(as_value(graph_of(parameter), parameter))
        if not isinstance(value, Value) or value.size != 1:
            got = value.shape if isinstance(value, Value) else type(value).__name__
            raise ShapeError(f"{self!r}: expected a single number, got {got}; take its sum")
        return ops.reshape(value)

    def value(self, w: Value) -> Value:
        """The penalty of a value w; a matrix may be transposed, as it is kept in memory.

        Raises OptionError unless a subclass defines it.
        """
        raise OptionError(
            f"{type(self).__name__}: expected a kind of penalty, such as nn.L2Penalty; a subclass "
            "defines value(self, w)"
        )

    def __repr__(self) -> str:
        given = ", ".join(f"{k}={v}" for k, v in vars(self).items())
        return f"{type(self).__name__}({given})"


class L1Penalty(Penalty):
    """``l1 * sum |w|``: many weights become small (Tibshirani 1996, "Regression shrinkage and
    selection via the lasso").

    The slope at 0 is 0, a subgradient. Steps along a subgradient leave weights near 0, hardly ever
    at 0; ``proximal_l1``, an option of every optimiser, makes zeros.

    Args:
        l1: factor, >= 0.

    Raises OptionError for a negative factor.

    >>> import fastnn as fnn
    >>> from fastnn import nn
    >>> trainer = fnn.Trainer(nn.Linear(8, 2), "mse", penalties=nn.L1Penalty(1e-4))
    """

    def __init__(self, l1: float = 1e-4):
        (self.l1,) = _factors("L1Penalty", l1=l1)

    def value(self, w: Value) -> Value:
        return ops.affine(ops.total(ops.absolute(w)), self.l1, 0.0)


class L2Penalty(Penalty):
    """``l2 / 2 * sum w**2``, whose gradient is ``l2 * w`` (Hoerl & Kennard 1970; Krogh & Hertz
    1992).

    The same as ``weight_decay=l2`` of an optimiser, which costs less; as a term of the loss it is
    included in what a step returns and in the line searches of full-batch methods. (Keras' factor
    is half as large.)

    Args:
        l2: factor, >= 0.

    Raises OptionError for a negative factor.

    >>> import fastnn as fnn
    >>> from fastnn import nn
    >>> net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    >>> trainer = fnn.Trainer(net, "mse", penalties={"0.weight": nn.L2Penalty(1e-3)})
    """

    def __init__(self, l2: float = 1e-4):
        (self.l2,) = _factors("L2Penalty", l2=l2)

    def value(self, w: Value) -> Value:
        return ops.affine(ops.total(ops.square(w)), 0.5 * self.l2, 0.0)


class ElasticNetPenalty(Penalty):
    """``l1 * sum |w| + l2 / 2 * sum w**2`` (Zou & Hastie 2005, "Regularization and variable
    selection via the elastic net").

    Args:
        l1, l2: factors, >= 0.

    Raises OptionError for negative factors.

    >>> import fastnn as fnn
    >>> from fastnn import nn
    >>> trainer = fnn.Trainer(
    ...     nn.Linear(8, 2), "mse", penalties={"weight": nn.ElasticNetPenalty(1e-4, 1e-3)}
    ... )
    """

    def __init__(self, l1: float = 1e-4, l2: float = 1e-4):
        self.l1, self.l2 = _factors("ElasticNetPenalty", l1=l1, l2=l2)

    def value(self, w: Value) -> Value:
        sizes = ops.affine(ops.total(ops.absolute(w)), self.l1, 0.0)
        return ops.add(sizes, ops.affine(ops.total(ops.square(w)), 0.5 * self.l2, 0.0))


class OrthogonalPenalty(Penalty):
    """``factor * ||W Wᵀ - I||²``, the sum of the squared elements, or ``||Wᵀ W - I||²`` where W has
    more rows than columns: the rows (or columns) tend to be orthogonal and of length 1 (Brock et
    al. 2017, "Neural photo editing with introspective adversarial networks"; Bansal, Chen & Wang
    2018, "Can we gain more from orthogonality regularizations").

    Args:
        factor: >= 0.

    Raises OptionError for a negative factor, ShapeError for anything but a matrix.

    >>> import fastnn as fnn
    >>> from fastnn import nn
    >>> trainer = fnn.Trainer(
    ...     nn.Linear(8, 8), "mse", penalties={"weight": nn.OrthogonalPenalty(1e-2)}
    ... )
    """

    def __init__(self, factor: float = 1e-4):
        (self.factor,) = _factors("OrthogonalPenalty", factor=factor)

    def value(self, w: Value) -> Value:
        if w.ndim != 2:
            raise ShapeError(
                f"{where(w.graph.scope)}OrthogonalPenalty: expected a matrix, got shape {w.shape}; "
                "name matrices only"
            )
        other = ops.transpose(w)
        product = ops.matmul(w, other) if w.shape[0] <= w.shape[1] else ops.matmul(other, w)
        size = product.shape[0]
        unit = w.graph.constant([[float(i == j) for j in range(size)] for i in range(size)])
        return ops.affine(ops.total(ops.square(product - unit)), self.factor, 0.0)


publish(globals(), type)
