"""The fewest changes that make one sequence of another (Levenshtein 1966)."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import Any, Literal, TypeAlias

from fastnn.data import libraries

Kind: TypeAlias = Literal["replace", "delete", "insert"]
#: what is done, at which place of the first sequence, at which of the second
Edit: TypeAlias = tuple[Kind, int, int]

#: of one row of the table, as bits: where the distance grows, and where it falls, from one symbol
#: of the first sequence to the next
Row: TypeAlias = tuple[int, int]

#: rapidfuzz divides larger tables, and may then find others of the shortest ways
LARGEST = 1 << 20
#: a table of so many places is kept, two bits each; of a larger one as much as that at a time (or
#: as is needed) is computed again
KEPT = 1 << 27


def edits(first: Sequence[Any], second: Sequence[Any], library: str = "auto") -> list[Edit]:
    """The changes that make `second` of `first`, in their order: as few as possible, and where
    several ways are as short, that of rapidfuzz's `Levenshtein.editops`.

    Args:
        first, second: sequences of symbols that can be compared and hashed.
        library: "rapidfuzz", "own", or "auto": the first where it is installed. Both find the same.

    Raises OptionError for another library, ImportError for one that is not installed.

    >>> edits("kitten", "sitting")
    [('replace', 0, 0), ('replace', 4, 4), ('insert', 6, 6)]
    """
    levenshtein = libraries.choose(library, "rapidfuzz", "rapidfuzz.distance.Levenshtein")
    if not (isinstance(first, str) and isinstance(second, str)):
        # rapidfuzz compares hashes: numbers of the symbols can't be confused
        numbers: dict[Any, int] = {}
        first, second = (
            [numbers.setdefault(symbol, len(numbers)) for symbol in symbols]
            for symbols in (first, second)
        )
    if levenshtein is not None and len(first) * len(second) <= LARGEST:
        return [(kind, i, j) for kind, i, j in levenshtein.editops(first, second)]
    return _edits(first, second)


def _edits(first: Sequence[Any], second: Sequence[Any]) -> list[Edit]:
    """By differences of neighbours in the table of distances, a row as the bits of two numbers
    (Hyyrö 2003, "A bit-vector algorithm for computing Levenshtein and Damerau edit distances")."""
    begin, ends = 0, (len(first), len(second))
    while begin < min(ends) and first[begin] == second[begin]:
        begin += 1
    while begin < min(ends) and first[ends[0] - 1] == second[ends[1] - 1]:
        ends = (ends[0] - 1, ends[1] - 1)
    width = ends[0] - begin
    places: dict[Any, int] = {}
    for k in range(width):
        symbol = first[begin + k]
        places[symbol] = places.get(symbol, 0) | 1 << k
    count = ends[1] - begin
    size = max(KEPT // max(width, 1), isqrt(count), 1)
    marks: list[Row] = [((1 << width) - 1, 0)]
    for top in range(size, count, size):
        between = second[begin + top - size : begin + top]
        marks.append(_rows(marks[-1], between, places, width)[-1])
    found: list[Edit] = []
    i, j = width, count
    for k in range(len(marks) - 1, -1, -1):
        top = k * size
        rows = _rows(marks[k], second[begin + top : begin + j], places, width) if i else []
        while i and j > top:
            if rows[j - top][0] >> (i - 1) & 1:
                i -= 1
                found.append(("delete", begin + i, begin + j))
                continue
            j -= 1
            if rows[j - top][1] >> (i - 1) & 1:
                found.append(("insert", begin + i, begin + j))
                continue
            i -= 1
            if first[begin + i] != second[begin + j]:
                found.append(("replace", begin + i, begin + j))
    # what is left is at the beginning of one of them
    found += [("delete", begin + k, begin + j) for k in range(i - 1, -1, -1)]
    found += [("insert", begin + i, begin + k) for k in range(j - 1, -1, -1)]
    return found[::-1]


def _rows(row: Row, symbols: Sequence[Any], places: dict[Any, int], width: int) -> list[Row]:
    """A row, and that after each of further symbols of the second sequence."""
    every, (more, less) = (1 << width) - 1, row
    rows = [row]
    for symbol in symbols:
        same = places.get(symbol, 0)
        diagonal = (((same & more) + more) ^ more) | same | less
        grows = ((less | ~(diagonal | more)) << 1 | 1) & every
        falls = (diagonal & more) << 1
        more, less = (falls | ~(diagonal | grows)) & every, grows & diagonal & every
        rows.append((more, less))
    return rows
