"""A program as formulas of the sizes that vary: that of any such size without tracing the model.

A model is traced with extents (`graph/extent.py`) in the place of the sizes that have varied, and
the graph compared with a plan, as at any other size (`sizes.py`). What comes of it is a program
whose extents, numbers of steps, addresses and numbers are formulas, and what was assumed of the
sizes on the way: by the model, by the choice of kernels, by the comparison with the plan. At sizes
for which all of that holds the program is the one that tracing would give.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from operator import is_
from typing import Any

from fastnn.graph.assumptions import Assumptions
from fastnn.graph.constants import SymbolicArray
from fastnn.graph.following import follows
from fastnn.graph.sizes import at
from fastnn.plan.program import Count, Operand, PlannedCall, Program

#: of a program that follows from formulas, what is computed when somebody looks at it
_LATE = ("phases", "constants")


class Formula:
    """The programs of all sizes for which something holds.

    Args:
        assumed: of the sizes.
        program: with formulas in the place of numbers.
        nbytes: about how much memory a program of one size takes.
    """

    def __init__(self, assumed: Assumptions, program: Program, nbytes: int):
        self.assumed, self.program, self.nbytes = assumed, program, nbytes
        #: what others have found out about its programs
        self.kept: dict[Any, Any] = {}
        #: parts of the program, by identity, in which there are no formulas
        self.still: set[int] = set()
        #: the places that are formulas; the others are the same at all sizes
        self.moving = {n: p for n, p in program.places.items() if _moves(p)}

    def at(self, sizes: Sequence[int]) -> SizedProgram | None:
        """The program of these sizes; None: it is not known from here."""
        values = None if self.assumed.plain is not None else self.assumed.values_at(sizes)
        return None if values is None else SizedProgram.of(self, values)


class SizedProgram(Program):
    """A program that follows from formulas: its phases are there when somebody looks at them.

    Attributes:
        formula, values: what it follows from (None: it has been changed since).
    """

    formula: Formula | None = None
    values: tuple[int, ...] = ()

    @classmethod
    def of(cls, formula: Formula, values: Sequence[int]) -> SizedProgram:
        found = object.__new__(cls)
        known = formula.program
        found.__dict__.update(known.__dict__)
        for name in _LATE:
            del found.__dict__[name]
        found.__dict__.update(
            places={**known.places, **filled(formula.moving, values)},
            batch=at(known.batch, values),
            nbytes=formula.nbytes, formula=formula, values=tuple(values),
        )  # fmt: skip
        return found

    @property
    def given(self) -> tuple[int, ...]:
        """The sizes that vary."""
        assert self.formula is not None
        return self.values[: len(self.formula.assumed.given)]

    def __getattr__(self, name: str) -> Any:
        if name not in _LATE or self.formula is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        contents = getattr(self.formula.program, name)
        found = self.__dict__[name] = filled(contents, self.values, self.formula.still)
        return found


def _moves(place: Operand) -> bool:
    """Whether something of it is a formula."""
    return any(map(follows, (place.offset, place.per_item, *place.dims, *place.strides)))


def filled(found: Any, values: Sequence[int], still: set[int] | None = None) -> Any:
    """Something with numbers in the place of the formulas in it; the same object, if there are
    none.

    Args:
        found: what has formulas in it.
        values: the sizes, and what follows from them.
        still: objects, by identity, in which there are none, to which those found are added: they
            have to live as long as it does.
    """
    kind: Any = type(found)
    if kind is int or kind is str or kind is float or found is None:
        return found
    if still is not None and id(found) in still:
        return found
    if follows(found):
        return at(found, values)
    if kind is Operand:
        offset, dims = at(found.offset, values), filled(found.dims, values)
        strides, per_item = filled(found.strides, values), at(found.per_item, values)
        if (
            offset is found.offset and dims is found.dims
            and strides is found.strides and per_item is found.per_item
        ):  # fmt: skip
            return found
        return Operand(
            found.segment, offset, dims, found.dtype, found.external, found.buffer, per_item,
            strides,
        )  # fmt: skip
    if kind is Count:
        return Count(at(found.first, values), filled(found.strides, values))
    if kind is SymbolicArray:
        return found.at(values)
    made = _filled_inside(found, kind, values, still)
    if made is found and still is not None:
        still.add(id(found))
    return made


def _filled_inside(found: Any, kind: Any, values: Sequence[int], still: set[int] | None) -> Any:
    """The same of what consists of parts."""
    if kind is tuple:
        items = [filled(item, values, still) for item in found]
        return found if all(map(is_, items, found)) else tuple(items)
    if kind is PlannedCall:
        operands, multiplier = filled(found.operands, values, still), at(found.multiplier, values)
        if operands is found.operands and multiplier is found.multiplier:
            return found
        return PlannedCall(found.kernel, operands, multiplier, found.scope)
    if kind is dict:
        return {name: filled(item, values, still) for name, item in found.items()}
    if (names := _fields(kind)) and kind is not Program:
        before = [getattr(found, name) for name in names]
        items = [filled(part, values, still) for part in before]
        if not all(map(is_, items, before)):
            return kind(**dict(zip(names, items, strict=True)))
    return found


@functools.cache
def _fields(kind: Any) -> tuple[str, ...]:
    """The names of a dataclass's fields; () of another class."""
    return tuple(field.name for field in fields(kind)) if is_dataclass(kind) else ()
