"""Plans that programs of several sizes share.

Batches of sequences come in hundreds of lengths, and the last batch of an epoch is smaller than the
others. The first program is planned for its own sizes. Programs for smaller batches or shorter
sequences then are that program at other sizes, wherever they have the same calls
(`plan/sizes.py`): they are traced, but not planned. On the CPU they are a list of words to write
into the tables of the larger one, on a GPU they are launched in its memory. Where larger sizes keep
coming, a plan has room for more than the sizes at hand: up to the next power of two. From the third
smaller size on the program is a formula of the sizes, as far as what the model and the planner have
asked of them is answered alike: further ones are not traced either (`formulas.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any, TypeVar

from fastnn.engine.builder import Builder, Built
from fastnn.engine.formulas import formulated
from fastnn.engine.specs import Spec
from fastnn.plan.outline import Looked, Plan
from fastnn.plan.planner import look, plan_for_sizes
from fastnn.plan.sizes import resized

#: different sizes that come before a plan has room for more
EXACT = 2
#: plans that are kept for steps that differ in their sizes only
MOST = 8

Specs = tuple[Spec, ...]
#: of inputs, targets and sample weights
All = tuple[Specs, ...]
B = TypeVar("B", bound=Builder)
N = TypeVar("N")
#: samples, and the first number of each spec's shape
Sizes = tuple[int, ...]


class Plans:
    """The plans of one trainer, step or predictor."""

    def __init__(self) -> None:
        self._plans: dict[Hashable, list[Plan]] = {}
        self._seen: dict[Hashable, list[Sizes]] = {}
        #: by family and batch
        self._formulas: dict[Hashable, list[Any]] = {}
        self._came: dict[Hashable, list[Sizes]] = {}
        self._none: set[Hashable] = set()  # what is no formula

    def clear(self) -> None:
        """Forget everything: the model has changed."""
        self._plans.clear()
        self._seen.clear()
        self._formulas.clear()
        self._came.clear()
        self._none.clear()

    def build(
        self, kind: Hashable, make: Callable[[int, All], B], batch: int, specs: All, *,
        advance: bool = True, grows: bool = True, note: Callable[[B], N],
    ) -> tuple[N, Built]:  # fmt: skip
        """A step for so many samples of these specs: what is noted of its graph, and its program.

        Args:
            kind: of the step: what differs beside sizes.
            make: makes the graph of a complete step.
            batch, specs: of the data.
            advance: whether the step counts.
            grows: whether its inputs may have other sizes than the data in memory.
            note: what to note of a graph, beside its program: the same at all sizes.
        """
        family = kind, tuple(tuple(map(_without_size, part)) for part in specs)
        sizes = _sizes(specs)
        known = self._formulas.setdefault((family, batch), [])
        for number, step in enumerate(known):
            if (built := step.at(sizes)) is not None:
                if number:  # the next size is likely to be one of this formula's, too
                    known.insert(0, known.pop(number))
                return step.note, built

        def traced(specs: All) -> tuple[B, Looked]:
            builder = make(batch, specs)
            builder.close(advance)
            return builder, look(builder.lowered, builder.places)

        builder, looked = traced(specs)
        noted = note(builder)
        plans = self._plans.setdefault(family, [])
        for plan in reversed(plans):
            if (program := resized(plan, looked)) is not None:
                built = builder.built(program)
                self._formulate((family, batch), plan, traced, specs, noted, built)
                return noted, built
        larger = self._larger(family, batch, specs) if grows else None
        room = _planned(make, *larger, advance) if larger is not None else None
        if room is not None:
            plans.append(room)
            if (program := resized(room, looked)) is not None:
                return noted, builder.built(program)
        plans.append(plan_for_sizes(looked, builder.lowered))
        del plans[:-MOST]
        return noted, builder.built(plans[-1].program)

    def _formulate(
        self, key: Hashable, plan: Plan, traced: Callable[[All], tuple[Any, Looked]], specs: All,
        noted: Any, built: Built,
    ) -> None:  # fmt: skip
        """Have the programs of further sizes as formulas, where sizes have come before."""
        came, known = self._came.setdefault(key, []), self._formulas[key]
        came.append(_sizes(specs))
        varies = [len(set(column)) > 1 for column in zip(*came, strict=True)]
        if len(came) <= EXACT or key in self._none or len(known) == MOST or not any(varies):
            return
        found = formulated(plan, traced, specs, varies, noted, built)
        if found is None:
            self._none.add(key)
        else:
            known.insert(0, found)

    def _larger(self, family: Hashable, batch: int, specs: All) -> tuple[int, All] | None:
        """Sizes with room for more, where these are larger than those that came before."""
        sizes = (batch, *_sizes(specs))
        seen = self._seen.setdefault(family, [])
        came = len(seen)
        seen.append(sizes)
        most = tuple(map(max, zip(*seen, strict=True)))
        varies = [len(set(column)) > 1 for column in zip(*seen, strict=True)]
        if came < EXACT or all(max(c[:-1]) >= c[-1] for c in zip(*seen, strict=True)):
            return None
        room = iter(
            1 << (size - 1).bit_length() if varied else size
            for size, varied in zip(most, varies, strict=True)
        )
        return next(room), tuple(tuple(_with_size(s, next(room)) for s in p) for p in specs)


def _planned(
    make: Callable[[int, All], Builder], batch: int, specs: All, advance: bool
) -> Plan | None:
    """A plan for larger sizes; None where the model does not take them."""
    try:
        builder = make(batch, specs)
        builder.close(advance)
        return plan_for_sizes(look(builder.lowered, builder.places), builder.lowered)
    except Exception:  # whatever a model says of other sizes: it takes those at hand
        return None


def _sizes(specs: All) -> Sizes:
    """The first number of each spec's shape."""
    return tuple(spec.shape[0] if spec.shape else 0 for part in specs for spec in part)


def _without_size(spec: Spec) -> tuple[Any, ...]:
    """A spec, whatever the first number of its shape is."""
    return len(spec.shape), spec.shape[1:], spec.dtype, spec.key


def _with_size(spec: Spec, size: int) -> Spec:
    return replace(spec, shape=(size, *spec.shape[1:])) if spec.shape else spec
