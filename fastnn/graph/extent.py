"""Extents: whole numbers that follow from sizes which vary, and what was assumed of these.

A model that is traced with an `Extent` in a shape is traced for many sizes at once. An extent is a
polynomial of the sizes, and has its value at those at hand. Sums and products of extents are
extents. Whoever compares one with a number gets the answer for the sizes at hand, and the answer is
noted: what was traced is right for all sizes with the same answers. Whoever takes an extent for a
plain number (`int(n)`, `range(n)`, an array of n numbers, an entry of a dict) gets that, and it is
noted, too: then what was traced is right for these sizes alone.

>>> from fastnn.graph.assumptions import Assumptions
>>> assumed = Assumptions((7,))
>>> n = assumed.sizes[0]
>>> rows = 4 * (n + 1)
>>> rows > 20
True
>>> assumed.holds((5,)), assumed.holds((4,)), assumed.plain
(True, False, None)
>>> rows.at(assumed.all_at((10,)))
44
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.graph import polynomial
from fastnn.graph.following import Following, take_as_plain, value_of
from fastnn.graph.fraction import Fraction
from fastnn.graph.polynomial import ONE, Terms

if TYPE_CHECKING:
    from fastnn.graph.assumptions import Assumptions


class Extent(Following):
    """A whole number that follows from sizes that vary; see the module's description.

    It passes for an `int`, as far as Python lets it.

    Attributes:
        of: what is assumed of the sizes.
        terms: the polynomial; it is no constant.
        value: the number at the sizes at hand.
    """

    __slots__ = ("of", "terms", "value")

    def __init__(self, of: Assumptions, terms: Terms, value: int):
        self.of, self.terms, self.value = of, terms, value

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return int

    def at(self, values: Sequence[int]) -> int:
        """The number at other sizes (those of `Assumptions.all_at`)."""
        return polynomial.total(self.terms.items(), values)

    # ---------------------------------------------------------------- arithmetic

    def _plus(self, other: Any, factor: int) -> Any:
        other = _of_here(self.of, other)
        if isinstance(other, Extent):
            terms = dict(self.terms)
            for monomial, by in other.terms.items():
                terms[monomial] = terms.get(monomial, 0) + factor * by
            return number(self.of, terms, self.value + factor * other.value)
        if _is_whole(other):
            terms = dict(self.terms)
            terms[ONE] = terms.get(ONE, 0) + factor * int(other)
            return number(self.of, terms, self.value + factor * int(other))
        return NotImplemented

    def __add__(self, other: Any) -> Any:
        found = self._plus(other, 1)
        return fraction(self) + other if found is NotImplemented else found

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        found = self._plus(other, -1)
        return fraction(self) - other if found is NotImplemented else found

    def __rsub__(self, other: Any) -> Any:
        return -self + other

    def __neg__(self) -> Any:
        return number(self.of, {m: -f for m, f in self.terms.items()}, -self.value)

    def __pos__(self) -> Extent:
        return self

    def __mul__(self, other: Any) -> Any:
        other = _of_here(self.of, other)
        if isinstance(other, Extent):
            terms = polynomial.times(self.terms, other.terms)
            return number(self.of, terms, self.value * other.value)
        if _is_whole(other):
            factor = int(other)
            scaled = {m: f * factor for m, f in self.terms.items()}
            return number(self.of, scaled, self.value * factor)
        if isinstance(other, (list, tuple, str)):
            return other * self.__index__()
        return fraction(self) * other

    __rmul__ = __mul__

    def __floordiv__(self, other: Any) -> Any:
        return _divided(self.of, self, other)

    def __rfloordiv__(self, other: Any) -> Any:
        return _divided(self.of, other, self)

    def __mod__(self, other: Any) -> Any:
        return self.__index__() % other if _refused(other) else self - self // other * other

    def __rmod__(self, other: Any) -> Any:
        return other % self.__index__() if _refused(other) else other - other // self * self

    def __divmod__(self, other: Any) -> Any:
        return self // other, self % other

    def __rdivmod__(self, other: Any) -> Any:
        return other // self, other % self

    def __truediv__(self, other: Any) -> Any:
        return fraction(self) / other

    def __rtruediv__(self, other: Any) -> Any:
        return other / fraction(self)

    def __pow__(self, other: Any, modulus: Any = None) -> Any:
        if type(other) is int and 1 <= other <= 4 and modulus is None:
            return math.prod([self] * other)
        return pow(self.__index__(), other, modulus)

    def __abs__(self) -> Any:
        return self if self >= 0 else -self

    # ---------------------------------------------------------------- comparisons

    def __bool__(self) -> bool:
        return not self.of.is_zero(self)

    def __eq__(self, other: Any) -> Any:
        if _refused(other):
            return fraction(self) == other if isinstance(other, float) else NotImplemented
        return self.of.is_zero(self - other)

    def __ne__(self, other: Any) -> Any:
        found = self.__eq__(other)
        return found if found is NotImplemented else not found

    def __lt__(self, other: Any) -> Any:
        if _refused(other):
            return fraction(self) < other if isinstance(other, float) else NotImplemented
        return self.of.at_least_zero(other - self - 1)

    def __le__(self, other: Any) -> Any:
        if _refused(other):
            return fraction(self) <= other if isinstance(other, float) else NotImplemented
        return self.of.at_least_zero(other - self)

    def __gt__(self, other: Any) -> Any:
        if _refused(other):
            return fraction(self) > other if isinstance(other, float) else NotImplemented
        return self.of.at_least_zero(self - other - 1)

    def __ge__(self, other: Any) -> Any:
        if _refused(other):
            return fraction(self) >= other if isinstance(other, float) else NotImplemented
        return self.of.at_least_zero(self - other)

    # ---------------------------------------------------------------- as a plain number

    def __index__(self) -> int:
        return self.of.taken(self.value)

    def __int__(self) -> int:
        return self.of.taken(self.value)

    def __float__(self) -> float:
        return float(self.of.taken(self.value))

    def __hash__(self) -> int:
        return hash(self.of.taken(self.value))

    def __repr__(self) -> str:
        return str(self.of.taken(self.value))

    def __format__(self, spec: str) -> str:
        return format(self.of.taken(self.value), spec)

    def __getattr__(self, name: str) -> Any:
        if not hasattr(int, name):  # NumPy asks, and who tells values from numbers
            raise AttributeError(name)
        return getattr(self.of.taken(self.value), name)

    def __reduce__(self) -> Any:
        return int, (self.of.taken(self.value),)


take_as_plain(
    Extent,
    ("round", "trunc", "floor", "ceil", "rpow", "and", "rand", "or", "ror", "xor", "rxor", "lshift",
     "rlshift", "rshift", "rrshift"),
)  # fmt: skip


def fraction(extent: Extent) -> Any:
    return Fraction(extent.of, operator.add, extent, 0.0)


def _of_here(of: Assumptions, number: Any) -> Any:
    """An operand; what somebody has kept from an earlier look at a model is a plain number."""
    if type(number) is Extent and number.of is not of:
        of.taken(number.value)
        return number.value
    return number


def number(of: Assumptions, terms: Terms, value: int) -> Any:
    """The number that a polynomial is: a plain one where it is a constant."""
    terms = {m: f for m, f in terms.items() if f}
    if not terms or (len(terms) == 1 and ONE in terms):
        return terms.get(ONE, 0)
    return Extent(of, terms, value)


def _divided(of: Assumptions, a: Any, b: Any) -> Any:
    """a // b, without a remainder as a polynomial."""
    a, b = _of_here(of, a), _of_here(of, b)
    if _refused(a) or _refused(b):
        return (a if _refused(a) else int(a)) // (b if _refused(b) else int(b))
    if isinstance(b, Extent):
        if of.is_zero(b):
            raise ZeroDivisionError("integer division or modulo by zero")
        exact = _exactly(of, a, b)
        return of.derive(operator.floordiv, a, b) if exact is None else exact
    b = int(b)
    rest = {m: f for m, f in a.terms.items() if m != ONE}
    if b and all(f % b == 0 for f in rest.values()):
        terms = {m: f // b for m, f in rest.items()}
        terms[ONE] = a.terms.get(ONE, 0) // b
        return number(of, terms, a.value // b)
    return of.derive(operator.floordiv, a, b)


def _exactly(of: Assumptions, a: Any, b: Extent) -> Any:
    """a // b where that is a polynomial; else None."""
    if a is b or (type(a) is not Extent and a == 0):
        return 1 if a is b else 0
    if any(k >= len(of.given) for m in b.terms for k in m):
        return None
    terms = polynomial.quotient(a.terms if type(a) is Extent else {ONE: int(a)}, b.terms)
    return None if terms is None else number(of, terms, value_of(a) // b.value)


def _is_whole(number: Any) -> bool:
    return type(number) is int or isinstance(number, (int, np.integer))


def _refused(other: Any) -> bool:
    return not _is_whole(other)
