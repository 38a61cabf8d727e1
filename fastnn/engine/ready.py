"""A forward pass that is bound: ready to run again and again on arrays of one shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastnn.engine.arrays import Arrays
from fastnn.engine.builder import Built
from fastnn.engine.session import CarriedStates, Session
from fastnn.graph.tree import rebuild


@dataclass(frozen=True)
class Forward:
    """A planned forward pass: the program, the outputs' structure, shapes and element types."""

    built: Built
    tree: Any
    dtypes: tuple[str, ...]

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        return self.built.output_shapes

    @property
    def nbytes(self) -> int:
        return self.built.nbytes


class Ready:
    """A forward pass with memory, for arrays of these shapes and element types.

    Attributes:
        samples: how many there are in the arrays.
    """

    def __init__(self, session: Session, forward: Forward, x: Arrays):
        session.store.check_set()
        self.session, self.forward, self.samples = session, forward, len(x)
        self.bound = session.bind(forward.built.program)
        self.step = session.runtime.single([self.bound], x.names, x.arrays)
        #: where the outputs lie, for good: a bound program keeps the memory that it has
        self.views = [self.bound.view(f"output{k}") for k in range(len(forward.shapes))]
        self.specs, self.names = x.specs, x.names
        self.run, built = self.step.run, forward.built
        #: the one output, where there are no checks of the numbers and no states
        self.plain = None
        if forward.tree is None and not (built.ranges or built.checks or built.carries):
            self.plain = self.views[0]

    @property
    def nbytes(self) -> int:
        return int(self.bound.nbytes)

    def __call__(self, x: Arrays) -> list[np.ndarray]:
        """The outputs, to be read before the next run."""
        self.run(x.arrays)
        return self.views

    def again(self, arrays: tuple[np.ndarray, ...]) -> Any:
        """The outputs for arrays of the same shapes and element types as those it was made for."""
        if self.plain is not None:
            self.run(arrays)
            return self.plain.copy()
        built = self.forward.built
        if built.ranges or built.checks:
            built.check(Arrays(list(arrays), self.specs, self.names))
        if built.carries:
            with CarriedStates(self.session) as states:
                states.before(built)
                self.run(arrays)
        else:
            self.run(arrays)
        return rebuild(self.forward.tree, [view.copy() for view in self.views])
