"""What tests of sizes are given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fastnn.engine import plans
from fastnn.plan import sizes
from fastnn.plan.formula import SizedProgram
from fastnn.plan.planner import look
from fastnn.plan.verify import verify


@pytest.fixture(autouse=True)
def verified(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each program that takes over another one's plan is checked as planned ones are; and one that
    follows from formulas is that which tracing gives."""

    def checked(*given: Any) -> Any:
        program = sizes.resized(*given)
        if program is not None:
            verify(program)
        return program

    build = plans.Plans.build

    def as_traced(self: Any, kind: Any, make: Any, batch: int, specs: Any, **more: Any) -> Any:
        noted, built = build(self, kind, make, batch, specs, **more)
        program = built.program
        if isinstance(program, SizedProgram):
            builder = make(batch, specs)
            builder.close(more.get("advance", True))
            looked = look(builder.lowered, builder.places)
            known = [plan for found in self._plans.values() for plan in found]
            plan = next(plan for plan in known if plan.program is program.within)
            expected = sizes.resized(plan, looked)
            assert (program.phases, program.places) == (expected.phases, expected.places)
            assert (program.batch, program.sizes) == (expected.batch, expected.sizes)
            for one, other in zip(program.constants, expected.constants, strict=True):
                assert (one[0], one[1].tobytes()) == (other[0], other[1].tobytes())
            traced = builder.built(expected)
            assert (built.ranges, built.output_shapes) == (traced.ranges, traced.output_shapes)
            verify(program)
        return noted, built

    monkeypatch.setattr(plans.Plans, "build", as_traced)
    monkeypatch.setattr(plans, "resized", checked)
    monkeypatch.setattr(plans, "MOST", 1000)


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """What makes all programs from here on be planned for themselves."""

    def alone() -> None:
        monkeypatch.setattr(plans, "resized", lambda *_: None)
        monkeypatch.setattr(plans, "EXACT", 10**9)

    return alone
