"""Steps that run one at a time, from Python."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np

from fastnn.engine.builder import Built
from fastnn.engine.session import Session
from fastnn.plan.formula import SizedProgram
from fastnn.plan.program import Program
from fastnn.plan.ranges import range_check

#: what a formula keeps the checks of integers under
RANGE_CHECK = "range check"


class Single:
    """A step that is run on one mini-batch at a time, with little overhead.

    Integers are checked by a program of its own that runs first: it stops the run before anything
    else happens.

    Args:
        session: whose memory it works on.
        built: the step.
        names, arrays: its inputs, and data like those that it will get.
        found: names of the parameters that it finds gradients of.
    """

    def __init__(
        self,
        session: Session,
        built: Built,
        names: Sequence[str],
        arrays: Sequence[np.ndarray],
        found: set[str],
    ):
        session.store.check_set()
        self.built, self.found = built, found
        self.bound = session.bind(built.program)
        bounds = [self.bound]
        if built.ranges:
            bounds.insert(0, session.runtime.bind_like(self.bound, _range_check(built)))
        self.single = session.runtime.single(bounds, names, arrays)
        self.loss, self.run = self.single.loss, self.single.run
        if session.runtime.functions:
            self.run = functools.partial(_run_with_host, session, self.single.run)
        self.nbytes = sum(int(b.nbytes) for b in bounds)
        self.session = session


def _run_with_host(
    session: Session, run: Callable[[Sequence[np.ndarray]], None], arrays: Sequence[np.ndarray]
) -> None:
    """Run where functions of the host may be called."""
    session.check_not_within("a step")
    session.hold(lambda: run(arrays))


def _range_check(built: Built) -> Program:
    """A program that checks a step's integer inputs: of formulas, where the step is."""
    program = built.program
    if isinstance(program, SizedProgram) and program.formula is not None:
        found: SizedProgram | None = program.formula.kept[RANGE_CHECK].at(program.given)
        if found is not None:
            return found
    return range_check(program, built.ranges)
