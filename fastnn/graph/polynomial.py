"""Polynomials of sizes with whole factors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

#: a product of sizes by their numbers, in order: (0, 0, 1) is the first one squared by the second
Monomial = tuple[int, ...]
#: a polynomial: factors, which are not 0, by monomial
Terms = dict[Monomial, int]
#: the monomial of the constant term
ONE: Monomial = ()


def total(terms: Iterable[tuple[Monomial, int]], values: Sequence[int]) -> int:
    """The number that a polynomial is at these sizes."""
    found = 0
    for monomial, factor in terms:
        for k in monomial:
            factor *= values[k]
        found += factor
    return found


def times(a: Terms, b: Terms) -> Terms:
    """The product."""
    found: Terms = {}
    for one, number in a.items():
        for two, factor in b.items():
            both = tuple(sorted(one + two))
            found[both] = found.get(both, 0) + number * factor
    return found


def quotient(a: Terms, b: Terms) -> Terms | None:
    """a / b where it is a polynomial and b a single term, or a multiple of a with factors above 0;
    else None. (No size is 0.)"""
    if len(b) > 1:
        if a.keys() != b.keys():
            return None
        ratios = {divmod(a[m], f) for m, f in b.items()}
        factor, left = next(iter(ratios))
        positive = all(f > 0 for f in b.values())
        return {ONE: factor} if len(ratios) == 1 and not left and positive else None
    (monomial, factor), found = next(iter(b.items())), {}
    for m, f in a.items():
        rest = list(m)
        for k in monomial:
            if k not in rest:
                return None
            rest.remove(k)
        if f % factor:
            return None
        found[tuple(rest)] = f // factor
    return found
