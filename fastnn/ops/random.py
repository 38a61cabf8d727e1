"""Random numbers, drawn anew in each step."""

from __future__ import annotations

from types import FunctionType

from fastnn.errors import OptionError
from fastnn.graph.op import batched_like
from fastnn.graph.value import Value
from fastnn.ops.declare import Operand, like, op
from fastnn.ops.operands import float_value
from fastnn.public import publish


@op(forward="normal", constant=("x",), placement=batched_like("y", like="x"))
def _normal(x: Value, mean: float = 0.0, std: float = 1.0, stream: int = 0) -> Value:
    return like(x)


@op(forward="uniform", constant=("x",), placement=batched_like("y", like="x"))
def _uniform(x: Value, low: float = 0.0, high: float = 1.0, stream: int = 0) -> Value:
    return like(x)


def normal_like(x: Operand, mean: float = 0.0, std: float = 1.0) -> Value:
    """Normally distributed numbers in the shape of x.

    They depend only on the seed, the step, the place in the model and the element, not on the
    number of workers, and no gradient passes through them: ``mu + sigma * normal_like(mu)`` is the
    reparametrisation of Kingma & Welling (2014).

    Args:
        x: gives the shape; its numbers do not matter.
        mean, std: mean and standard deviation of the distribution; `std` is >= 0.

    Raises OptionError for a negative `std`.

    >>> testing.apply(ops.normal_like, np.zeros((4, 3))).shape
    (4, 3)
    """
    x = float_value(x, "normal_like")
    if not std >= 0:
        raise OptionError(f"normal_like: expected std >= 0, got {std}")
    return _normal(x, mean, std, x.graph.stream())


def uniform_like(x: Operand, low: float = 0.0, high: float = 1.0) -> Value:
    """Numbers uniform within low..high in the shape of x; see `normal_like`.

    Raises OptionError for a `low` above `high`.

    >>> y = testing.apply(ops.uniform_like, np.zeros((4, 3)))
    >>> y.shape, bool(y.min() >= 0.0 and y.max() < 1.0)
    ((4, 3), True)
    """
    x = float_value(x, "uniform_like")
    if not low <= high:
        raise OptionError(f"uniform_like: expected low <= high, got {low} and {high}")
    return _uniform(x, low, high, x.graph.stream())


publish(globals(), FunctionType)
