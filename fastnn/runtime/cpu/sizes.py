"""Sizes that one bound program has in turn: the words of its tables that differ.

A program within a larger one (`plan/sizes.py`) has no tables of its own. What differs in those of
the larger one (extents, numbers of steps, addresses, small constants) is a list of words, which the
run loop writes before such a program's first step, unless they are there already.
"""

from __future__ import annotations

import ctypes
import itertools
import math
import weakref
from typing import TYPE_CHECKING

import numpy as np

from fastnn.graph.following import follows
from fastnn.graph.sizes import now
from fastnn.plan.formula import Formula, SizedProgram
from fastnn.plan.program import Program
from fastnn.runtime.cpu import layout
from fastnn.runtime.cpu.memory import in_words
from fastnn.runtime.cpu.records import Tables

if TYPE_CHECKING:
    from fastnn.runtime.cpu.execute import BoundProgram

_numbers = itertools.count(1)


class Sizes:
    """The words of a bound program's tables, and the sizes that they may be for.

    Each size has a *cell*, a word with the address of its list: address of the word that says which
    list was written last, this list's number, how many words, then for each its address and value.
    The cell holds 0 while there is one size only.

    Args:
        bound: whose tables these are.
        tables: their contents for its own size.
    """

    def __init__(self, bound: BoundProgram, tables: Tables):
        self.bound, self.tables = weakref.proxy(bound), tables
        self.words = tables.vector()
        #: the number of the list that was written last
        self.stands = np.zeros(1, np.int64)
        #: numbers of the words that differ, and what they are for the program's own size
        self.differs, self.values = np.zeros(0, np.int64), np.zeros(0, np.int64)
        #: whether the lists of all sizes are complete: not where an interrupt came before that
        self.listed = True
        #: offsets of the constants that differ
        self.changed: list[int] = []
        self.own = Size(self, tables.program, self.differs, self.differs)
        self._formulas: weakref.WeakKeyDictionary[Formula, WordFormulas] = (
            weakref.WeakKeyDictionary()
        )
        self._others: weakref.WeakSet[Size] = weakref.WeakSet()
        self._places: tuple[np.ndarray, np.ndarray] | None = None
        #: numbers of words that are among those that differ, and where: sizes of one formula share
        #: an array of numbers
        self._found: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    def add(self, tables: Tables) -> Size | None:
        """Another size; None if its tables have another structure."""
        words = tables.vector()
        if len(words) != len(self.words) or tables.structure() != self.tables.structure():
            return None
        numbers = np.flatnonzero(words != self.words)
        return self._added(tables.program, numbers, words[numbers])

    def follow(self, program: SizedProgram) -> Size | None:
        """Another size, of a program that follows from formulas; None where the words in its tables
        do not."""
        if program.formula is None:
            return None
        found = self._formulas.get(program.formula)
        if found is None:
            found = self._formulas[program.formula] = WordFormulas(self, program.formula)
        values = found.at(program)
        if values is None:
            return None
        if found.alike is not None:  # the words are those of the last size
            return found.alike
        size = self._added(program, found.numbers, values)
        if not found.moves and not program.formula.program.constants:
            found.alike = size
        return size

    def _added(self, program: Program, numbers: np.ndarray, values: np.ndarray) -> Size:
        found = Size(self, program, numbers, values)
        known = self.own.constants
        changed = {*self.changed, *(o for o, c in found.constants.items() if c is not known[o])}
        if len(changed) > len(self.changed) or self.indices(numbers) is None:
            self.listed = False
            self.differs, self.changed = np.union1d(numbers, self.differs), sorted(changed)
        if not self.listed:
            self.renew()
        found.list_words()  # last: no other size is without the words that this one writes
        self._others.add(found)
        return found

    def indices(self, numbers: np.ndarray) -> np.ndarray | None:
        """Where these words are among those that differ; None: some are not among them."""
        found = self._found
        if found is None or found[0] is not numbers or found[1] is not self.differs:
            if not np.isin(numbers, self.differs).all():
                return None
            where = np.searchsorted(self.differs, numbers)
            found = self._found = numbers, self.differs, where
        return found[2]

    def renew(self) -> None:
        """List the words of all sizes anew: there are more that differ, or they have moved."""
        self.listed, self._places = False, None
        self.values = self.words[self.differs]
        if len(self.differs) or self.changed:
            for size in (self.own, *self._others):
                size.list_words()
        self.listed = True

    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """Where the words that differ are, some at several places: their index in `differs`, and
        addresses."""
        if self._places is None:
            numbers, addresses = self.bound.places()
            chosen = np.isin(numbers, self.differs)
            indices = np.searchsorted(self.differs, numbers[chosen])
            self._places = indices, addresses[chosen]
        return self._places


class WordFormulas:
    """The words in the tables of programs that follow from formulas.

    Args:
        sizes: of the program that these are within.
        formula: theirs.
    """

    def __init__(self, sizes: Sizes, formula: Formula):
        self.assumed = formula.assumed
        #: where no word moves, one size is that of all programs
        self.alike: Size | None = None
        base = sizes.bound
        tables = Tables(formula.program, base.memory, base.poison, sizes.tables)
        words = tables.words()
        #: whether there are such
        self.same = (
            len(words) == len(sizes.words)
            and tables.structure() == sizes.tables.structure()
            and self.assumed.plain is None
        )
        if not self.same:
            return
        fixed = np.array([now(word) for word in words], np.int64)
        moving = [k for k, word in enumerate(words) if follows(word)]
        self.moves = bool(moving)
        own = fixed != sizes.words
        own[moving] = True
        self.numbers = np.flatnonzero(own)
        #: the words that differ from those of the larger program; of which some are polynomials
        self._fixed = fixed[self.numbers]
        self._where = np.searchsorted(self.numbers, moving)
        self._monomials = list(dict.fromkeys(m for k in moving for m in words[k].terms))
        places = {monomial: k for k, monomial in enumerate(self._monomials)}
        self._factors = np.zeros((len(moving), len(places)), np.int64)
        for row, k in zip(self._factors, moving, strict=True):
            for monomial, factor in words[k].terms.items():
                row[places[monomial]] = factor

    def at(self, program: SizedProgram) -> np.ndarray | None:
        """What the words are that differ; None: that is not known."""
        values = self.assumed.values_at(program.given) if self.same else None
        if values is None:
            return None
        found = self._fixed.copy()
        products = [math.prod(values[k] for k in monomial) for monomial in self._monomials]
        found[self._where] = self._factors @ np.array(products, np.int64)
        return found


class Size:
    """One size: the words that are others than those of the program's own size.

    `constants`: the contents of the constant segment, by offset.
    """

    def __init__(self, sizes: Sizes, program: Program, numbers: np.ndarray, values: np.ndarray):
        #: those of the bound program, which keeps its own
        self.sizes: Sizes = weakref.proxy(sizes)
        self.numbers, self.values = numbers, values
        self.constants = dict(program.constants)
        self.cell = np.zeros(1, np.int64)
        self.list = np.zeros(0, np.int64)
        self._kept = self.list, self.list

    def list_words(self) -> None:
        sizes, head = self.sizes, layout.SIZE_WORDS
        indices, addresses = sizes.places()
        values = sizes.values.copy()
        inside = sizes.indices(self.numbers)
        assert inside is not None  # what differs is among all that differ
        values[inside] = self.values
        parts = [(addresses, values[indices])]
        for offset in sizes.changed:
            words = in_words(self.constants[offset])
            begin = sizes.bound.memory["constant"].ctypes.data + offset
            parts.append((begin + 8 * np.arange(len(words)), words))
        where, what = (np.concatenate(part) for part in zip(*parts, strict=True))
        found = np.empty(head + 2 * len(where), np.int64)
        found[:head] = sizes.stands.ctypes.data, next(_numbers), len(where)
        found[head::2], found[head + 1 :: 2] = where, what
        self._kept = self.list, found  # whichever the cell shows, should an interrupt come
        self.cell[0] = found.ctypes.data
        self.list = found

    @property
    def stands(self) -> bool:
        """Whether the tables are for this size now."""
        return not self.cell[0] or bool(self.list[1] == self.sizes.stands[0])

    def stand(self) -> None:
        """Make the tables those for this size, as the run loop does."""
        if not self.stands:
            self.sizes.stands[0] = self.list[1]
            for address, value in self.list[layout.SIZE_WORDS :].reshape(-1, 2).tolist():
                ctypes.c_int64.from_address(address).value = value

    @property
    def nbytes(self) -> int:
        return int(self.numbers.nbytes + self.values.nbytes + self.list.nbytes)
