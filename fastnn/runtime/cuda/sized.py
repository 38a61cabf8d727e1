"""The launches of programs that follow from a formula: the words of all of them at once.

Such a program (`plan/formula.py`) has the launches of the larger one whose memory it shares, but
for some words: addresses, extents, strides, numbers. Which ones these are is found out once for a
formula. For each size all of them are a matrix times the products of the sizes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastnn.graph.extent import Extent
from fastnn.graph.following import follows
from fastnn.graph.sizes import at
from fastnn.kernels import types
from fastnn.kernels.declare import Array
from fastnn.plan.formula import Formula, SizedProgram
from fastnn.plan.program import Count, Operand, PlannedCall, calls_of
from fastnn.runtime.cuda.made import Made, names_of
from fastnn.runtime.cuda.place import Launch, Place, nothing, sizes_of
from fastnn.runtime.cuda.prepared import Prepared, numbers_of

if TYPE_CHECKING:
    from fastnn.runtime.cuda.bound import CudaProgram


class Formulas:
    """Numbers, some of which are formulas, that are wanted at many sizes."""

    def __init__(self) -> None:
        self.numbers: list[Any] = []
        self._ready: tuple[np.ndarray, list[int], list[Any], np.ndarray, list[int]] | None = None

    def add(self, number: Any) -> int:
        """The place of a number among those that `at` gives."""
        self.numbers.append(number)
        return len(self.numbers) - 1

    def at(self, values: Sequence[int]) -> list[Any]:
        """All numbers, at these sizes."""
        if self._ready is None:
            self._ready = self._matrix()
        fixed, moving, monomials, factors, others = self._ready
        products = [math.prod([values[k] for k in monomial]) for monomial in monomials]
        words = fixed.copy()
        words[moving] = factors @ np.array(products, np.int64)
        found: list[Any] = words.tolist()
        for k in others:
            found[k] = at(self.numbers[k], values)
        return found

    def _matrix(self) -> tuple[np.ndarray, list[int], list[Any], np.ndarray, list[int]]:
        """The plain numbers, the places of polynomials, their monomials and factors, and the places
        of other numbers."""
        moving = [k for k, n in enumerate(self.numbers) if type(n) is Extent]
        others = [k for k, n in enumerate(self.numbers) if type(n) not in (Extent, int)]
        monomials = list(dict.fromkeys(m for k in moving for m in self.numbers[k].terms))
        factors = np.zeros((len(moving), len(monomials)), np.int64)
        for row, k in zip(factors, moving, strict=True):
            for monomial, factor in self.numbers[k].terms.items():
                row[monomials.index(monomial)] = factor
        plain = [n if type(n) is int else 0 for n in self.numbers]
        return np.array(plain, np.int64), moving, monomials, factors, others


class _Differing(NamedTuple):
    """A launch of the larger program, and what differs of it.

    Attributes:
        one: the launch.
        arguments: numbers of arguments, their types and words.
        sizes: the words of what its grid follows from; None: it stays the same.
        moving: by numbers of arguments that may move in loops the words of their strides.
        constant: numbers of arguments that are counted from where the constants begin, which each
            program may have for itself.
    """

    one: Made
    arguments: list[tuple[int, Any, int]]
    sizes: dict[str, int] | None
    moving: dict[int, tuple[int, ...]]
    constant: set[int]

    def prepare(self, gpu: Any, dtype: str, words: Sequence[Any], begin: int) -> Launch:
        from fastnn.runtime.cuda import compiler

        one, like = self.one, self.one.launch
        assert isinstance(like, Prepared)
        how, config, code = like.how, like.config, like.code
        if self.sizes is not None:
            sizes = {name: words[k] for name, k in self.sizes.items()}
            how = compiler.launch_of(one.kernel, sizes, dtype)
            if how.empty:
                return nothing
            if how != like.how:
                code = gpu.code(one.kernel, dtype, one.data, how.shared, how.cluster)
                config = gpu.config(how, one.kernel.cooperative)
        arguments = list(like.arguments)
        for number, kind, k in self.arguments:
            arguments[number] = kind(words[k] + begin if number in self.constant else words[k])
        moving = [word for word in like.words if word[0] not in self.moving]
        for number, strides in self.moving.items():
            if any(by := tuple(words[k] for k in strides)):
                moving.append((number, int(arguments[number]), by))
        return Prepared(gpu, like.variant, how, config, code, arguments, moving)


class SizedLaunches:
    """What the programs of a formula launch.

    Args:
        formula: theirs.
        sent: what the larger program launches for its phases.
        dtype: its float type.
    """

    def __init__(self, formula: Formula, sent: Sequence[Made], dtype: str):
        self.dtype = dtype
        self.words = Formulas()
        leaves = [tuple(calls_of([leaf])) for leaf in formula.program.leaves()]
        self.found: list[Any] = [None] * len(sent)  # of each phase
        #: whether all follow from the larger program's
        self.known = len(leaves) == len(sent)
        for k, (calls, one) in enumerate(zip(leaves, sent, strict=False)):
            self.found[k] = self._differing(calls, one)
        self.known = self.known and None not in self.found
        #: whether they read constants
        self.constants = any(one.constant for one in self.found if isinstance(one, _Differing))

    def at(self, gpu: Any, values: Sequence[int], begin: int) -> list[Launch]:
        """The launches at these sizes, by phase, with constants that begin at this address."""
        words = self.words.at(values)
        found: list[Launch] = []
        for one in self.found:
            differs = isinstance(one, _Differing)
            found.append(one.prepare(gpu, self.dtype, words, begin) if differs else one.launch)
        return found

    def _differing(self, calls: Sequence[PlannedCall], one: Made) -> Made | _Differing | None:
        """What differs of a launch; None: that is not known from here."""
        named = [call.kernel for call in one.calls]
        if not isinstance(one.launch, Prepared) or [call.kernel for call in calls] != named:
            return None
        changed = {}
        for k, (call, like) in enumerate(zip(calls, one.calls, strict=True)):
            given = zip(names_of(one.parts, k).items(), call.operands, like.operands, strict=True)
            for (name, own), operand, before in given:
                own_place = type(operand) is Operand and operand.segment == "constant"
                same = operand is before or (not _moves(operand) and operand == before)
                if same and not own_place:
                    continue
                parameter = one.parts[k].params[name]
                if isinstance(operand, Operand) and operand.external:
                    return None
                if type(operand) is not type(before) and Count in (type(operand), type(before)):
                    return None
                if isinstance(parameter, Array) and (
                    parameter.dtype == "d" or operand is None or before is None
                ):
                    return None
                changed[own] = operand
        return self._words_of(one, changed) if changed else one

    def _words_of(self, one: Made, changed: dict[str, Any]) -> _Differing:
        add, starts = self.words.add, numbers_of(one.kernel)
        arguments: list[tuple[int, Any, int]] = []
        moving: dict[int, tuple[int, ...]] = {}
        constant: set[int] = set()
        sizes: dict[str, Any] = dict(sizes_of(one.kernel, one.operands))
        for name, operand in changed.items():
            number, parameter = starts[name], one.kernel.params[name]
            strides: Sequence[int] = ()
            if isinstance(operand, Operand):
                place = one.operands[name]
                assert isinstance(place, Place)
                begin = 0 if operand.segment == "constant" else place.piece.address
                words = [begin + operand.offset, *operand.dims]
                if not begin:
                    constant.add(number)
                strides, kind = operand.strides, np.int64
                sizes.update(zip(parameter.dims, operand.dims, strict=True))
            else:
                words = [operand.first if isinstance(operand, Count) else operand]
                kind = np.dtype(types.scalar(parameter.kind, self.dtype)).type
                strides = operand.strides if isinstance(operand, Count) else ()
                if name in sizes:
                    sizes[name] = operand
            places = [add(word) for word in words]
            arguments += [(number + k, kind, place) for k, place in enumerate(places)]
            if isinstance(operand, Operand | Count):
                moving[number] = tuple(map(add, strides))
        same = not any(map(follows, sizes.values())) and sizes == sizes_of(one.kernel, one.operands)
        return _Differing(
            one, arguments, None if same else {n: add(v) for n, v in sizes.items()}, moving,
            constant,
        )  # fmt: skip


def launches_at(larger: CudaProgram, other: CudaProgram) -> list[Launch] | None:
    """What a program within a larger one launches, by phase, where both follow from a formula and
    share their memory; None: that is not known."""
    program = other.program
    if not isinstance(program, SizedProgram) or (formula := program.formula) is None:
        return None
    if larger.hosts or larger.exchanges:
        return None
    if formula not in larger.sized:
        larger.sized[formula] = SizedLaunches(formula, larger.sent, program.dtype)
    found = larger.sized[formula]
    if not found.known:
        return None
    constants = other.segments["constant"].place(larger.gpu).address if found.constants else 0
    return found.at(larger.gpu, program.values, constants)


def _moves(operand: Any) -> bool:
    """Whether something of an operand is a formula."""
    if type(operand) is Operand:
        numbers = (operand.offset, operand.per_item, *operand.dims, *operand.strides)
        return any(map(follows, numbers))
    if type(operand) is Count:
        return any(map(follows, (operand.first, *operand.strides)))
    return follows(operand)
