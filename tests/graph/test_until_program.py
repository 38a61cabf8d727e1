"""Loops that end by a condition of the data: their programs, and the proof that they are right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import ops
from fastnn.errors import ProgramError
from fastnn.plan.program import PlannedCall, PlannedGroup, PlannedPhase, PlannedRepeat, Program
from fastnn.plan.verify import verify
from fastnn.testing.null import null_device
from tests.graph.test_until import Net, data


def program(way: str, training: bool) -> Program:
    x = data(7, 9).astype(np.float32)
    with null_device() as null:
        if training:
            fnn.compile(Net(way), lambda out, _: ops.mean(ops.square(out[0])))(x, x[:, 0, 0])
        else:
            Net(way).predict(x)
    return null.programs[-1]


def changed(item: Any, on: Callable[[Any], Any]) -> Any:
    """A program (or part of one) with each call and loop changed; None leaves it out."""
    if isinstance(item, tuple):
        return tuple(new for part in item if (new := changed(part, on)) is not None)
    if isinstance(item, PlannedCall):
        return on(item)
    fields: tuple[str, ...] = ("groups", "serial") if isinstance(item, PlannedPhase) else ("calls",)
    fields = {Program: ("phases",), PlannedRepeat: ("body",)}.get(type(item), fields)
    item = replace(item, **{name: changed(getattr(item, name), on) for name in fields})
    return on(item) if isinstance(item, PlannedRepeat) else item


@pytest.mark.parametrize("way", ["rows", "mixed", "nested"])
@pytest.mark.parametrize("training", [False, True])
def test_the_verifier_asks_for_what_steps_left_out_would_have_written(
    way: str, training: bool
) -> None:
    good = program(way, training)
    verify(good)
    clears = [c for c in good.calls() if c.kernel in ("clear_ended", "clear_idle", "full")]
    assert {"clear_ended", *(["clear_idle"] if training else [])} <= {c.kernel for c in clears}
    for missing in clears:
        with pytest.raises(ProgramError, match="not written"):
            verify(changed(good, lambda c: None if c is missing else c))  # noqa: B023


def test_the_verifier_knows_whose_ends_a_loop_goes_by() -> None:
    good = program("mixed", True)

    def without(item: Any) -> Any:
        """The gradient makes all steps, of which some have left nothing."""
        if isinstance(item, PlannedRepeat) and item.reverse:
            return replace(item, running=None)
        return item

    with pytest.raises(ProgramError, match="not written"):
        verify(changed(good, without))

    def elsewhere(item: Any) -> Any:
        if isinstance(item, PlannedRepeat):
            return replace(item, running=replace(item.running, offset=good.sizes["work"]))
        return item

    with pytest.raises(ProgramError, match="lies outside"):
        verify(changed(good, elsewhere))


def test_steps_of_which_a_gradient_reads_are_made_for_all_sequences_or_none() -> None:
    """In a prediction each block of a group ends alone; a gradient's blocks may be others."""
    ((phase, inside),) = loops_of(program("rows", False))
    assert inside
    assert phase.running is not None
    assert [inside for _, inside in loops_of(program("rows", True))] == [False, False]


def loops_of(program: Program) -> list[tuple[PlannedRepeat, bool]]:
    """All loops, and whether each stands in a group."""
    found: list[tuple[PlannedRepeat, bool]] = []

    def look(items: Any, inside: bool) -> None:
        for item in items:
            if isinstance(item, PlannedRepeat):
                found.append((item, inside))
                look(item.body, inside)
            elif isinstance(item, PlannedPhase):
                look(item.groups, False)
            elif isinstance(item, PlannedGroup):
                look(item.calls, True)

    look(program.phases, False)
    return found
