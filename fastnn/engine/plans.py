"""Plans that programs of several sizes share.

Batches of sequences come in hundreds of lengths, and the last batch of an epoch is smaller than the
others. The first program is planned for its own sizes. Programs for smaller batches or shorter
sequences then are that program at other sizes, wherever they have the same calls
(`plan/sizes.py`): they are traced, but not planned. On the CPU they are a list of words to write
into the tables of the larger one, on a GPU they are launched in its memory. Where larger sizes keep
coming, a plan has room for more than the sizes at hand: up to the next power of two.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any, TypeVar

from fastnn.engine.builder import Builder, Built
from fastnn.engine.specs import Spec
from fastnn.plan.outline import Plan
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
#: samples, and the first number of each spec's shape
Sizes = tuple[int, ...]


class Plans:
    """The plans of one trainer, step or predictor."""

    def __init__(self) -> None:
        self._plans: dict[Hashable, list[Plan]] = {}
        self._seen: dict[Hashable, list[Sizes]] = {}

    def clear(self) -> None:
        """Forget everything: the model has changed."""
        self._plans.clear()
        self._seen.clear()

    def build(
        self, kind: Hashable, make: Callable[[int, All], B], batch: int, specs: All, *,
        advance: bool = True, grows: bool = True,
    ) -> tuple[B, Built]:  # fmt: skip
        """A step for so many samples of these specs: its graph, and its program.

        Args:
            kind: of the step: what differs beside sizes.
            make: makes the graph of a complete step.
            batch, specs: of the data.
            advance: whether the step counts.
            grows: whether its inputs may have other sizes than the data in memory.
        """
        builder = make(batch, specs)
        builder.close(advance)
        family = kind, tuple(tuple(map(_without_size, part)) for part in specs)
        plans = self._plans.setdefault(family, [])
        looked = look(builder.lowered, builder.places)
        for plan in reversed(plans):
            if (program := resized(plan, looked)) is not None:
                return builder, builder.built(program)
        larger = self._larger(family, batch, specs) if grows else None
        room = _planned(make, *larger, advance) if larger is not None else None
        if room is not None:
            plans.append(room)
            if (program := resized(room, looked)) is not None:
                return builder, builder.built(program)
        plans.append(plan_for_sizes(looked, builder.lowered))
        del plans[:-MOST]
        return builder, builder.built(plans[-1].program)

    def _larger(self, family: Hashable, batch: int, specs: All) -> tuple[int, All] | None:
        """Sizes with room for more, where these are larger than those that came before."""
        first = (spec.shape[0] if spec.shape else 0 for part in specs for spec in part)
        sizes = (batch, *first)
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


def _without_size(spec: Spec) -> tuple[Any, ...]:
    """A spec, whatever the first number of its shape is."""
    return len(spec.shape), spec.shape[1:], spec.dtype, spec.key


def _with_size(spec: Spec, size: int) -> Spec:
    return replace(spec, shape=(size, *spec.shape[1:])) if spec.shape else spec
