"""Functions of numbers that may follow from sizes which vary (see `extent.py`)."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from fastnn.graph.extent import Extent, fraction, number
from fastnn.graph.following import follows, value_of
from fastnn.graph.fraction import Fraction

T = TypeVar("T")


def whole(number: Any) -> Any:
    """`int(number)`, of extents, too."""
    return number if type(number) is Extent else int(number)


def real(number: Any) -> Any:
    """`float(number)`, of what follows from extents, too."""
    if type(number) is Extent:
        return fraction(number)
    return number if type(number) is Fraction else float(number)


def now(number: Any) -> Any:
    """The number at the sizes at hand: only for what does not depend on it."""
    return value_of(number)


def kind(number: Any) -> type:
    """The type that a number passes for."""
    return int if type(number) is Extent else float if type(number) is Fraction else type(number)


def at(number: Any, values: Sequence[int]) -> Any:
    """What a number is at other sizes (those of `Assumptions.all_at`)."""
    return number.at(values) if type(number) in (Extent, Fraction) else number


def root(number: Any) -> Any:
    """`math.sqrt`, of what follows from extents, too."""
    number = real(number)
    return Fraction(number.of, _square_root, number, 0.0) if follows(number) else math.sqrt(number)


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
    return number(one.of, {next(iter(monomials)): factor}, one.value // each * factor)


def bits(number: Any) -> Any:
    """The bits of a float, as a whole number."""
    return compute(_bits, real(number))


def _square_root(a: float, _: float) -> float:
    return math.sqrt(a)


def _bits(number: float) -> int:
    return int.from_bytes(struct.pack("<d", number), "little", signed=True)
