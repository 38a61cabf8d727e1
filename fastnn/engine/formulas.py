"""Steps as formulas of the sizes that vary: a new length's program without a look at the model.

See `fastnn/graph/extent.py` and `fastnn/plan/formula.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from fastnn.engine.builder import Built
from fastnn.engine.single import RANGE_CHECK
from fastnn.engine.specs import Spec
from fastnn.graph.assumptions import Assumptions
from fastnn.plan.formula import Formula, filled
from fastnn.plan.outline import Looked, Plan
from fastnn.plan.ranges import range_check
from fastnn.plan.sizes import resized

#: of inputs, targets and sample weights
All = tuple[tuple[Spec, ...], ...]


class SizedStep:
    """A planned step for all sizes for which something holds.

    Args:
        formula: its program.
        built: the step, with formulas.
        where: for each size of the data which of the sizes that vary it is, or the number that it
            has to be.
        note: what is noted of its graph.
    """

    def __init__(
        self, formula: Formula, built: Built, where: Sequence[tuple[bool, int]], note: Any
    ):
        self.formula, self.built, self.where, self.note = formula, built, where, note
        if built.ranges and all(name in built.program.places for name, _ in built.ranges):
            checks = Formula(formula.assumed, range_check(built.program, built.ranges), 0)
            formula.kept[RANGE_CHECK] = checks

    def at(self, sizes: Sequence[int]) -> Built | None:
        """The step at these sizes of the data; None: it is not known from here."""
        given: dict[int, int] = {}
        for size, (varies, number) in zip(sizes, self.where, strict=True):
            if (given.setdefault(number, size) if varies else number) != size:
                return None
        program = self.formula.at([given[k] for k in range(len(given))])
        if program is None:
            return None
        values, built, still = program.values, self.built, self.formula.still
        return Built(
            program, filled(built.ranges, values, still),
            filled(built.output_shapes, values, still), built.carries, built.checks,
        )  # fmt: skip


def formulated(
    plan: Plan, traced: Callable[[All], tuple[Any, Looked]], specs: All, varies: Sequence[bool],
    note: Any, built: Built,
) -> SizedStep | None:  # fmt: skip
    """A step in a plan's memory as a formula; None where it follows from the very sizes at hand.

    Args:
        plan: the plan.
        traced: makes the step's graph for specs.
        specs: of the data at hand.
        varies: which of their sizes have varied. Those that are equal now have to be so always.
        note: what is noted of the step's graph.
        built: the step at the sizes at hand.
    """
    sizes = [spec.shape[0] if spec.shape else 0 for part in specs for spec in part]
    distinct = list(dict.fromkeys(n for n, v in zip(sizes, varies, strict=True) if v and n > 0))
    where = [
        (True, distinct.index(n)) if v and n > 0 else (False, n)
        for n, v in zip(sizes, varies, strict=True)
    ]
    assumed = Assumptions(distinct)
    numbers = iter(where)
    try:
        builder, looked = traced(
            tuple(tuple(_with(spec, next(numbers), assumed.sizes) for spec in p) for p in specs)
        )
        program = None if assumed.plain else resized(plan, looked)
    except Exception:  # whatever a model says of a size that is no plain number
        return None
    if program is None or assumed.plain is not None:
        return None
    step = SizedStep(
        Formula(assumed, program, built.program.nbytes), builder.built(program), where, note
    )
    here = step.at(sizes)
    known = built.program
    if here is None or here.program.places != known.places or here.program.phases != known.phases:
        return None
    return step


def _with(spec: Spec, where: tuple[bool, int], sizes: Sequence[Any]) -> Spec:
    """A spec with the size that varies."""
    varies, number = where
    return replace(spec, shape=(sizes[number], *spec.shape[1:])) if varies else spec
