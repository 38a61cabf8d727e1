"""Extents: whole numbers that follow from sizes which vary, and what was assumed of these.

A model that is traced with an `Extent` in a shape is traced for many sizes at once. An extent is a
polynomial of the sizes, and has its value at those at hand. Sums and products of extents are
extents. Whoever compares one with a number gets the answer for the sizes at hand, and the answer is
noted: what was traced is right for all sizes with the same answers. Whoever takes an extent for a
plain number (`int(n)`, `range(n)`, an array of n numbers, an entry of a dict) gets that, and it is
noted, too: then what was traced is right for these sizes alone.

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
import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

#: a product of sizes by their numbers, in order: (0, 0, 1) is the first one squared by the second
Monomial = tuple[int, ...]
#: a polynomial: factors, which are not 0, by monomial
Terms = dict[Monomial, int]

_ONE: Monomial = ()
T = TypeVar("T")


class Assumptions:
    """What was assumed of sizes while something was traced with them.

    Args:
        given: the sizes, whole numbers of at least 1.

    Attributes:
        sizes: extents that stand for them.
        plain: where an extent was taken for a plain number first; None: nowhere.
        count: how much has been assumed.
    """

    def __init__(self, given: Sequence[int]):
        self.given = tuple(given)
        self.values: list[int] = list(given)
        #: what is no polynomial of sizes (rounded quotients, choices) is like a further size: how
        #: it is computed, of what
        self.derived: list[tuple[Callable[..., int], tuple[Any, ...]]] = []
        self._derived: dict[Any, Extent] = {}
        #: by the terms without the constant one, in lowest terms: these are at least so much
        self.least: dict[tuple[tuple[Monomial, int], ...], int] = {}
        #: terms that are zero, or are not
        self.zeros: dict[tuple[tuple[Monomial, int], ...], bool] = {}
        #: comparisons of fractions, with their outcome
        self.compared: list[tuple[Callable[[Any, Any], bool], Any, Any, bool]] = []
        self.plain: str | None = None
        self.count = 0
        self._code: tuple[Any, Any] = None, None
        self._last: tuple[Any, list[int] | None] = (None, None)
        self.sizes = tuple(Extent(self, {(k,): 1}, n) for k, n in enumerate(given))

    # ---------------------------------------------------------------- notes

    def taken(self, value: int) -> int:
        """An extent is taken for a plain number, which is returned."""
        if self.plain is None:
            frame = sys._getframe(2)
            self.plain = f"{frame.f_code.co_filename}:{frame.f_lineno}"
        return value

    def at_least_zero(self, of: Extent | int) -> bool:
        """Whether this is 0 or more, which is noted."""
        if not isinstance(of, _Extent):
            return of >= 0
        outcome = of.value >= 0
        terms = of.terms if outcome else {m: -f for m, f in of.terms.items()}
        const = terms.get(_ONE, 0) - (not outcome)
        rest = {m: f for m, f in terms.items() if m != _ONE}
        plain = all(k < len(self.given) for m in rest for k in m)
        if plain and min(rest.values()) > 0 and sum(rest.values()) + const >= 0:
            return outcome  # so it is for all sizes
        common = math.gcd(*rest.values())
        key = tuple(sorted((m, f // common) for m, f in rest.items()))
        bound = -(const // common)
        if self.least.get(key, bound - 1) < bound:
            self.least[key] = bound
            self.count += 1
        return outcome

    def is_zero(self, of: Extent | int) -> bool:
        """Whether this is 0, which is noted."""
        if not isinstance(of, _Extent):
            return of == 0
        outcome = of.value == 0
        rest = [f for m, f in of.terms.items() if m != _ONE]
        const, common = of.terms.get(_ONE, 0), math.gcd(*rest)
        if const % common:
            return False  # for all sizes
        plain = all(k < len(self.given) for m in of.terms for k in m)
        if plain and not outcome and min(rest) > 0 and sum(rest) + const > 0:
            return False
        if plain and not outcome and max(rest) < 0 and sum(rest) + const < 0:
            return False
        key = tuple(sorted((m, f // common) for m, f in of.terms.items()))
        if key not in self.zeros:
            self.zeros[key] = outcome
            self.count += 1
        return outcome

    def derive(self, rule: Callable[..., int], *of: Any) -> Extent:
        """What a rule computes of whole numbers: a further size."""
        key = (rule, *map(_key, of))
        if key not in self._derived:
            number = len(self.values)
            self.values.append(rule(*map(_value, of)))
            self.derived.append((rule, of))
            self._derived[key] = Extent(self, {(number,): 1}, self.values[-1])
        return self._derived[key]

    # ---------------------------------------------------------------- other sizes

    def all_at(self, sizes: Sequence[int]) -> list[int]:
        """Other sizes, with what follows from them."""
        found: list[int] = self._compiled()[0](*sizes)
        return found

    def holds(self, sizes: Sequence[int]) -> bool:
        """Whether all that was assumed is so for other sizes."""
        if self.plain is not None:
            return tuple(sizes) == self.given
        return self.values_at(sizes) is not None

    def values_at(self, sizes: Sequence[int]) -> list[int] | None:
        """Other sizes, with what follows from them; None where something that was assumed is not
        so."""
        state = self.count, len(self.derived), *sizes
        if self._last[0] != state:
            self._last = state, self._values_at(sizes)
        return self._last[1]

    def _values_at(self, sizes: Sequence[int]) -> list[int] | None:
        if min(sizes, default=1) < 1:
            return None
        everything, early, rest = self._compiled()
        try:
            if not early(*sizes):
                return None
            values: list[int] = everything(*sizes)
            return values if rest(*values) else None
        except ZeroDivisionError:
            return None

    def _compiled(self) -> Any:
        """Functions of the sizes (all that follows; whether what was assumed of the sizes alone is
        so), and one of all values (whether the rest is so): as Python's own code, since they are
        called for each new size."""
        state = self.count, len(self.derived)
        if self._code[0] != state:
            self._code = state, self._functions()
        return self._code[1]

    def _functions(self) -> Any:
        text = _Text()
        given = ", ".join(f"v{k}" for k in range(len(self.given)))
        every = ", ".join(f"v{k}" for k in range(len(self.values)))
        lines = [
            f"  v{k} = {text.call(rule, of)}"
            for k, (rule, of) in enumerate(self.derived, len(self.given))
        ]
        facts: dict[bool, list[str]] = {True: ["True"], False: ["True"]}
        for terms, bound in self.least.items():
            facts[self._early(terms)].append(f"{text.sum(terms)} >= {bound}")
        for terms, zero in self.zeros.items():
            facts[self._early(terms)].append(f"({text.sum(terms)} == 0) == {zero}")
        for op, a, b, so in self.compared:
            facts[False].append(f"bool({text.call(op, (a, b))}) == {so}")
        exec(
            "\n".join(
                [
                    f"def everything({given}):", *lines, f"  return [{every}]",
                    f"def early({given}):", f"  return {' and '.join(facts[True])}",
                    f"def rest({every}):", f"  return {' and '.join(facts[False])}",
                ]
            ),
            text.names,
        )  # fmt: skip
        return tuple(text.names[name] for name in ("everything", "early", "rest"))

    def _early(self, terms: Iterable[tuple[Monomial, int]]) -> bool:
        return all(k < len(self.given) for monomial, _ in terms for k in monomial)


class _Text:
    """Formulas as Python's text; `names` are the functions and numbers in it."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {}

    def call(self, function: Callable[..., Any], of: Iterable[Any]) -> str:
        return f"{self._name(function)}({', '.join(map(self.number, of))})"

    def number(self, number: Any) -> str:
        if type(number) is Extent:
            return self.sum(number.terms.items())
        if type(number) is Fraction:
            return self.call(number.op, (number.a, number.b))
        return self._name(number)

    def sum(self, terms: Iterable[tuple[Monomial, int]]) -> str:
        found = ("*".join([str(factor), *(f"v{k}" for k in m)]) for m, factor in terms)
        return f"({' + '.join(found)})"

    def _name(self, thing: Any) -> str:
        name = f"c{len(self.names)}"
        self.names[name] = thing
        return name


class Extent:
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
        return _sum(self.terms.items(), values)

    # ---------------------------------------------------------------- arithmetic

    def _plus(self, other: Any, factor: int) -> Any:
        other = _of_here(self.of, other)
        if isinstance(other, _Extent):
            terms = dict(self.terms)
            for monomial, number in other.terms.items():
                terms[monomial] = terms.get(monomial, 0) + factor * number
            return _number(self.of, terms, self.value + factor * other.value)
        if _is_whole(other):
            terms = dict(self.terms)
            terms[_ONE] = terms.get(_ONE, 0) + factor * int(other)
            return _number(self.of, terms, self.value + factor * int(other))
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
        return _number(self.of, {m: -f for m, f in self.terms.items()}, -self.value)

    def __pos__(self) -> Extent:
        return self

    def __mul__(self, other: Any) -> Any:
        other = _of_here(self.of, other)
        if isinstance(other, _Extent):
            terms: Terms = {}
            for one, number in self.terms.items():
                for two, factor in other.terms.items():
                    both = tuple(sorted(one + two))
                    terms[both] = terms.get(both, 0) + number * factor
            return _number(self.of, terms, self.value * other.value)
        if _is_whole(other):
            factor = int(other)
            scaled = {m: f * factor for m, f in self.terms.items()}
            return _number(self.of, scaled, self.value * factor)
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


class Fraction:
    """A float that follows from sizes that vary: made of extents by the same operations again.

    Attributes:
        of: what is assumed of the sizes.
        op, a, b: what it is computed by.
        value: the number at the sizes at hand.
    """

    __slots__ = ("a", "b", "of", "op", "value")

    def __init__(self, of: Assumptions, op: Callable[..., float], a: Any, b: Any):
        self.of, self.op, self.a, self.b = of, op, a, b
        self.value = op(_value(a), _value(b))

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return float

    def at(self, values: Sequence[int]) -> float:
        """The number at other sizes."""
        return self.op(at(self.a, values), at(self.b, values))

    def _with(self, op: Callable[..., float], a: Any, b: Any) -> Any:
        if all(isinstance(x, (_Extent, _Fraction, int, float)) for x in (a, b)):
            return Fraction(self.of, op, a, b)
        return NotImplemented

    def __add__(self, other: Any) -> Any:
        return self._with(_add, self, other)

    def __radd__(self, other: Any) -> Any:
        return self._with(_add, other, self)

    def __sub__(self, other: Any) -> Any:
        return self._with(_subtract, self, other)

    def __rsub__(self, other: Any) -> Any:
        return self._with(_subtract, other, self)

    def __mul__(self, other: Any) -> Any:
        return self._with(_multiply, self, other)

    def __rmul__(self, other: Any) -> Any:
        return self._with(_multiply, other, self)

    def __truediv__(self, other: Any) -> Any:
        return self._with(_divide, self, other) if other != 0 else self.value / other

    def __rtruediv__(self, other: Any) -> Any:
        return self._with(_divide, other, self) if self != 0 else other / self.value

    def __neg__(self) -> Any:
        return self._with(_subtract, -0.0, self)

    def __pos__(self) -> Fraction:
        return self

    def __abs__(self) -> Any:
        return -self if self < 0 else self

    def _compared(self, op: Callable[[Any, Any], bool], other: Any) -> Any:
        if not isinstance(other, (_Extent, _Fraction, int, float)):
            return NotImplemented
        outcome = op(self.value, _value(other))
        self.of.compared.append((op, self, other, outcome))
        self.of.count += 1
        return outcome

    def __eq__(self, other: Any) -> Any:
        return self._compared(_equal, other)

    def __ne__(self, other: Any) -> Any:
        found = self._compared(_equal, other)
        return found if found is NotImplemented else not found

    def __lt__(self, other: Any) -> Any:
        return self._compared(_less, other)

    def __le__(self, other: Any) -> Any:
        return self._compared(_less_equal, other)

    def __gt__(self, other: Any) -> Any:
        return self._compared(_greater, other)

    def __ge__(self, other: Any) -> Any:
        return self._compared(_greater_equal, other)

    def __bool__(self) -> bool:
        return bool(self != 0.0)

    def __float__(self) -> float:
        return float(self.of.taken(self.value))  # type: ignore[arg-type]

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


def _as_plain(method: str) -> Callable[..., Any]:
    """An operation on plain numbers."""

    def operation(self: Any, *others: Any) -> Any:
        return getattr(_plain(self), method)(*map(_plain, others))

    return operation


def _plain(number: Any) -> Any:
    return number.of.taken(number.value) if type(number) in (Extent, Fraction) else number


for _name in ("round", "trunc", "floor", "ceil", "rpow"):
    setattr(Extent, f"__{_name}__", _as_plain(f"__{_name}__"))
    setattr(Fraction, f"__{_name}__", _as_plain(f"__{_name}__"))
for _name in ("and", "or", "xor", "lshift", "rshift"):
    for _side in ("", "r"):
        setattr(Extent, f"__{_side}{_name}__", _as_plain(f"__{_side}{_name}__"))
for _name in ("mod", "rmod", "floordiv", "rfloordiv", "divmod", "rdivmod", "pow"):
    setattr(Fraction, f"__{_name}__", _as_plain(f"__{_name}__"))


class _OfType(type):
    """`isinstance(x, _Extent)` looks at the type alone, which `Extent` itself hides."""

    kind: type

    def __instancecheck__(cls, instance: Any) -> bool:
        return type(instance) is cls.kind


class _Extent(metaclass=_OfType):
    kind = Extent
    of: Assumptions
    terms: Terms
    value: int


class _Fraction(metaclass=_OfType):
    kind = Fraction
    of: Assumptions
    value: float


def whole(number: Any) -> Any:
    """`int(number)`, of extents, too."""
    return number if type(number) is Extent else int(number)


def real(number: Any) -> Any:
    """`float(number)`, of what follows from extents, too."""
    if type(number) is Extent:
        return fraction(number)
    return number if type(number) is Fraction else float(number)


def fraction(extent: Extent) -> Any:
    return Fraction(extent.of, _add, extent, 0.0)


def follows(number: Any) -> bool:
    """Whether a number follows from sizes that vary."""
    return type(number) in (Extent, Fraction)


def now(number: Any) -> Any:
    """The number at the sizes at hand: only for what does not depend on it."""
    return _value(number)


def kind(number: Any) -> type:
    """The type that a number passes for."""
    return int if type(number) is Extent else float if type(number) is Fraction else type(number)


def at(number: Any, values: Sequence[int]) -> Any:
    """What a number is at other sizes (those of `Assumptions.all_at`)."""
    return number.at(values) if type(number) in (Extent, Fraction) else number


def root(number: Any) -> Any:
    """`math.sqrt`, of what follows from extents, too."""
    number = real(number)
    return Fraction(number.of, _root, number, 0.0) if follows(number) else math.sqrt(number)


def compute(rule: Callable[..., int], *of: Any) -> Any:
    """What a rule computes of numbers, of those that follow from sizes at any size."""
    found = next(filter(follows, of), None)
    return rule(*of) if found is None else found.of.derive(rule, *of)


def most(*numbers: Any) -> Any:
    """The largest of whole numbers; see `compute`."""
    return numbers[0] if len(numbers) == 1 else compute(max, *numbers)


def distinct(items: Iterable[T]) -> list[T]:
    """Without what is there already, word for word: extents that are equal by chance stay."""
    return list({canonical(item): item for item in items}.values())


def canonical(item: Any) -> Any:
    """Something, tuples nested maybe, as a key of a dict: extents by their formulas."""
    if isinstance(item, tuple):
        return tuple(map(canonical, item))
    return (Extent, *sorted(item.terms.items())) if type(item) is Extent else item


def gcd(*numbers: Any) -> Any:
    """`math.gcd`, of multiples of one product of sizes, too."""
    found = [n for n in numbers if type(n) is Extent]
    if not found:
        return math.gcd(*numbers)
    monomials = {m for n in found for m in n.terms}
    others = [n for n in numbers if type(n) is not Extent]
    if len(monomials) > 1 or any(others):
        return math.gcd(*(int(n) for n in numbers))
    one, factor = found[0], math.gcd(*(f for n in found for f in n.terms.values()))
    each = next(iter(one.terms.values()))
    return _number(one.of, {next(iter(monomials)): factor}, one.value // each * factor)


class Words:
    """The contents of a constant, of which some follow from the sizes.

    Who looks at it as an array takes it for that of the sizes at hand, which is noted.

    Attributes:
        numbers: nested lists of them, or the one number that it is filled with.
        shape: of the array.
        array: the contents at the sizes at hand.
    """

    def __init__(self, numbers: Any, shape: tuple[Any, ...], array: np.ndarray):
        self.numbers, self.shape, self.array = numbers, shape, array

    def at(self, values: Sequence[int]) -> np.ndarray:
        """The contents at other sizes."""
        if isinstance(self.numbers, list):
            return np.array(_listed(self.numbers, values), self.array.dtype)
        shape = tuple(at(n, values) for n in self.shape)
        return np.full(shape, at(self.numbers, values), self.array.dtype)

    def __array__(self, *args: Any, **options: Any) -> np.ndarray:
        return np.array(self._plain(), *args, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plain(), name)

    def _plain(self) -> np.ndarray:
        numbers = self.numbers if isinstance(self.numbers, list) else [self.numbers]
        for number in _flat(numbers):
            _plain(number)
        return self.array


def first(data: Any) -> Any:
    """The first number of a constant's contents, as a float."""
    if type(data) is Words and not isinstance(data.numbers, list):
        return real(data.numbers)
    return float(data.reshape(-1)[0])


def _listed(numbers: Any, values: Sequence[int]) -> Any:
    if isinstance(numbers, list):
        return [_listed(n, values) for n in numbers]
    return at(numbers, values)


def _flat(numbers: list[Any]) -> Iterator[Any]:
    for number in numbers:
        if isinstance(number, list):
            yield from _flat(number)
        else:
            yield number


class Memo:
    """What was made already, by keys (tuples, nested maybe) that may have extents in them.

    Other than of a dict's, the hash of no extent is asked for: keys are compared one by one.
    """

    def __init__(self) -> None:
        self._plain: dict[Any, Any] = {}
        self._others: list[tuple[Any, Any]] = []  # whose keys have extents

    def _find(self, key: Any) -> Any:
        entries: Any = self._others
        if not _mentions(key):
            if key in self._plain:
                return self._plain[key]
        else:
            entries = [*self._plain.items(), *self._others]
        return next((value for other, value in entries if _same(key, other)), None)

    def __contains__(self, key: Any) -> bool:
        return self._find(key) is not None

    def __getitem__(self, key: Any) -> Any:
        return self._find(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        if _mentions(key):
            self._others.append((key, value))
        else:
            self._plain[key] = value

    def values(self) -> list[Any]:
        """All that was made."""
        return [*self._plain.values(), *(value for _, value in self._others)]

    def __len__(self) -> int:
        return len(self._plain) + len(self._others)

    def keep(self, wanted: Callable[[Any, Any], bool]) -> None:
        """Forget all but the keys and values that are wanted."""
        self._plain = {key: value for key, value in self._plain.items() if wanted(key, value)}
        self._others = [entry for entry in self._others if wanted(*entry)]


def _mentions(key: Any) -> bool:
    return any(map(_mentions, key)) if type(key) is tuple else follows(key)


def _same(one: Any, other: Any) -> bool:
    if type(one) is tuple and type(other) is tuple:
        return len(one) == len(other) and all(map(_same, one, other))
    numbers = all(type(x) in (int, float, Extent, Fraction) for x in (one, other))
    return bool(one == other) if numbers or type(one) is type(other) is str else one is other


def _of_here(of: Assumptions, number: Any) -> Any:
    """An operand; what somebody has kept from an earlier look at a model is a plain number."""
    if type(number) is Extent and number.of is not of:
        of.taken(number.value)
        return number.value
    return number


def _number(of: Assumptions, terms: Terms, value: int) -> Any:
    terms = {m: f for m, f in terms.items() if f}
    if not terms or (len(terms) == 1 and _ONE in terms):
        return terms.get(_ONE, 0)
    return Extent(of, terms, value)


def _divided(of: Assumptions, a: Any, b: Any) -> Any:
    """a // b, without a remainder as a polynomial."""
    a, b = _of_here(of, a), _of_here(of, b)
    if _refused(a) or _refused(b):
        return (a if _refused(a) else int(a)) // (b if _refused(b) else int(b))
    if isinstance(b, _Extent):
        if of.is_zero(b):  # type: ignore[arg-type]
            raise ZeroDivisionError("integer division or modulo by zero")
        exact = _exactly(of, a, b)
        return of.derive(_floor, a, b) if exact is None else exact
    b = int(b)
    rest = {m: f for m, f in a.terms.items() if m != _ONE}
    if b and all(f % b == 0 for f in rest.values()):
        terms = {m: f // b for m, f in rest.items()}
        terms[_ONE] = a.terms.get(_ONE, 0) // b
        return _number(of, terms, a.value // b)
    return of.derive(_floor, a, b)


def _exactly(of: Assumptions, a: Any, b: Any) -> Any:
    """a // b where b is a single term, or a multiple of it; else None. (No size is 0.)"""
    terms: Terms = a.terms if isinstance(a, _Extent) else {_ONE: int(a)}
    if a is b or (not isinstance(a, _Extent) and a == 0):
        return 1 if a is b else 0
    if any(k >= len(of.given) for m in b.terms for k in m):
        return None
    if len(b.terms) > 1:
        if terms.keys() != b.terms.keys():
            return None
        times = {divmod(terms[m], f) for m, f in b.terms.items()}
        factor, left = next(iter(times))
        positive = all(f > 0 for f in b.terms.values())
        return factor if len(times) == 1 and not left and positive else None
    (monomial, factor), found = next(iter(b.terms.items())), {}
    for m, f in terms.items():
        left = list(m)
        for k in monomial:
            if k not in left:
                return None
            left.remove(k)
        if f % factor:
            return None
        found[tuple(left)] = f // factor
    return _number(of, found, _value(a) // b.value)


def bits(number: Any) -> Any:
    """The bits of a float, as a whole number."""
    return compute(_bits, real(number))


def _key(number: Any) -> Any:
    if type(number) is Fraction:
        return Fraction, id(number)
    return tuple(sorted(number.terms.items())) if isinstance(number, _Extent) else int(number)


def _value(number: Any) -> Any:
    return number.value if type(number) in (Extent, Fraction) else number


def _sum(terms: Iterable[tuple[Monomial, int]], values: Sequence[int]) -> int:
    total = 0
    for monomial, factor in terms:
        for k in monomial:
            factor *= values[k]
        total += factor
    return total


def _is_whole(number: Any) -> bool:
    return type(number) is int or isinstance(number, (int, np.integer))


def _refused(other: Any) -> bool:
    return not _is_whole(other)


def _add(a: float, b: float) -> float:
    return a + b


def _subtract(a: float, b: float) -> float:
    return a - b


def _multiply(a: float, b: float) -> float:
    return a * b


def _divide(a: float, b: float) -> float:
    return a / b


def _bits(number: float) -> int:
    return int.from_bytes(struct.pack("<d", number), "little", signed=True)


def _floor(a: int, b: int) -> int:
    return a // b


def _root(a: float, _: float) -> float:
    return math.sqrt(a)


def _equal(a: float, b: float) -> bool:
    return a == b


def _less(a: float, b: float) -> bool:
    return a < b


def _less_equal(a: float, b: float) -> bool:
    return a <= b


def _greater(a: float, b: float) -> bool:
    return a > b


def _greater_equal(a: float, b: float) -> bool:
    return a >= b
