"""What was assumed of sizes while something was traced with them (see `extent.py`)."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from fastnn.graph.extent import Extent
from fastnn.graph.following import value_of
from fastnn.graph.fraction import Fraction
from fastnn.graph.polynomial import ONE, Monomial


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
        if not isinstance(of, Extent):
            return of >= 0
        outcome = of.value >= 0
        terms = of.terms if outcome else {m: -f for m, f in of.terms.items()}
        const = terms.get(ONE, 0) - (not outcome)
        rest = {m: f for m, f in terms.items() if m != ONE}
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
        if not isinstance(of, Extent):
            return of == 0
        outcome = of.value == 0
        rest = [f for m, f in of.terms.items() if m != ONE]
        const, common = of.terms.get(ONE, 0), math.gcd(*rest)
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
            self.values.append(rule(*map(value_of, of)))
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


def _key(number: Any) -> Any:
    if type(number) is Fraction:
        return Fraction, id(number)
    return tuple(sorted(number.terms.items())) if isinstance(number, Extent) else int(number)
