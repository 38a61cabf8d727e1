"""Fractions: floats that follow from sizes which vary (see `extent.py`)."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from fastnn.graph.following import Following, follows, take_as_plain, value_of

if TYPE_CHECKING:
    from fastnn.graph.assumptions import Assumptions


class Fraction(Following):
    """A float that follows from sizes that vary: made of extents by the same operations again.

    Attributes:
        of: what is assumed of the sizes.
        op, a, b: what it is computed by.
        value: the number at the sizes at hand.
    """

    __slots__ = ("a", "b", "of", "op", "value")

    def __init__(self, of: Assumptions, op: Callable[..., float], a: Any, b: Any):
        self.of, self.op, self.a, self.b = of, op, a, b
        self.value = op(value_of(a), value_of(b))

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return float

    def at(self, values: Sequence[int]) -> float:
        """The number at other sizes."""
        return self.op(*(x.at(values) if follows(x) else x for x in (self.a, self.b)))

    def _with(self, op: Callable[..., float], a: Any, b: Any) -> Any:
        if all(isinstance(x, (int, float)) for x in (a, b)):  # which extents pass for
            return Fraction(self.of, op, a, b)
        return NotImplemented

    def __add__(self, other: Any) -> Any:
        return self._with(operator.add, self, other)

    def __radd__(self, other: Any) -> Any:
        return self._with(operator.add, other, self)

    def __sub__(self, other: Any) -> Any:
        return self._with(operator.sub, self, other)

    def __rsub__(self, other: Any) -> Any:
        return self._with(operator.sub, other, self)

    def __mul__(self, other: Any) -> Any:
        return self._with(operator.mul, self, other)

    def __rmul__(self, other: Any) -> Any:
        return self._with(operator.mul, other, self)

    def __truediv__(self, other: Any) -> Any:
        return self._with(operator.truediv, self, other) if other != 0 else self.value / other

    def __rtruediv__(self, other: Any) -> Any:
        return self._with(operator.truediv, other, self) if self != 0 else other / self.value

    def __neg__(self) -> Any:
        return self._with(operator.sub, -0.0, self)

    def __pos__(self) -> Fraction:
        return self

    def __abs__(self) -> Any:
        return -self if self < 0 else self

    def _compared(self, op: Callable[[Any, Any], bool], other: Any) -> Any:
        if not isinstance(other, (int, float)):
            return NotImplemented
        outcome = op(self.value, value_of(other))
        self.of.compared.append((op, self, other, outcome))
        self.of.count += 1
        return outcome

    def __eq__(self, other: Any) -> Any:
        return self._compared(operator.eq, other)

    def __ne__(self, other: Any) -> Any:
        found = self._compared(operator.eq, other)
        return found if found is NotImplemented else not found

    def __lt__(self, other: Any) -> Any:
        return self._compared(operator.lt, other)

    def __le__(self, other: Any) -> Any:
        return self._compared(operator.le, other)

    def __gt__(self, other: Any) -> Any:
        return self._compared(operator.gt, other)

    def __ge__(self, other: Any) -> Any:
        return self._compared(operator.ge, other)

    def __bool__(self) -> bool:
        return bool(self != 0.0)

    def __float__(self) -> float:
        return float(self.of.taken(self.value))

    def __int__(self) -> int:
        return int(float(self))

    def __hash__(self) -> int:
        return hash(float(self))

    def __repr__(self) -> str:
        return repr(float(self))

    def __format__(self, spec: str) -> str:
        return format(float(self), spec)

    def __getattr__(self, name: str) -> Any:
        if not hasattr(float, name):
            raise AttributeError(name)
        return getattr(float(self), name)

    def __reduce__(self) -> Any:
        return float, (float(self),)


take_as_plain(
    Fraction,
    ("round", "trunc", "floor", "ceil", "rpow", "mod", "rmod", "floordiv", "rfloordiv", "divmod",
     "rdivmod", "pow"),
)  # fmt: skip
