"""Optimisers whose update needs sums over a whole parameter: passes over it, and sums between.

Each pass is one kernel over the rows of the parameter; what lies between two passes is computed on
one worker. So sums have one order, and the bits do not depend on the number of workers. The first
pass is made where the gradient is still in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from fastnn.kernels.update.making_rows import make_combine, make_rows
from fastnn.kernels.update.shared import Pass
from fastnn.optim.optimizer import Apply, Optimizer


class Passes(Optimizer):
    """Base class of these. A subclass has `passes` and `combines`, by name, and `place`, which
    calls them in order with `run` and `combine`."""

    elementwise: ClassVar[bool] = False

    @property
    def passes(self) -> Mapping[str, Pass]:
        """The passes, by name."""
        raise NotImplementedError

    @property
    def combines(self) -> Mapping[str, tuple[Callable[..., Any], int]]:
        """What is computed between passes, by name: a function of sums, their parameter's size and
        the step's scalars, and the number of sums."""
        raise NotImplementedError

    def kernels(self) -> tuple[str, str]:
        found = [self._pass(name) for name in self.passes]
        for name in self.combines:
            self._combine(name)
        return self._prepare_kernel(), found[-1]

    def _pass(self, name: str) -> str:
        return make_rows(f"{self.kernel_name}_{name}", self.passes[name]).name

    def _combine(self, name: str) -> str:
        function, sums = self.combines[name]
        made = make_combine(f"{self.kernel_name}_{name}", function, sums, self.scalar_count)
        return made.name

    def run(self, name: str, apply: Apply, given: Mapping[str, Any], **more: Any) -> list[Any]:
        """Add a pass; returns the values of its sums, a number for each row.

        Args:
            apply: as of `place`.
            given: all arrays by name, with "hyper", "scale" and "guard".
            more: further arrays; "own" where the pass has numbers of the parameter's own.
        """
        what, p = self.passes[name], given["p"]
        arrays = {**given, **more}
        # as kernels see it: the leading axes of a convolution's weight are rows
        rows = p.size // p.shape[-1] if p.ndim > 1 else p.size
        sums = {f"s{k}": p.graph.value((rows,), "r") for k in range(what.sums)}
        operands = {a: arrays[a] for a in (*what.writes, *what.reads, *what.outs)}
        if what.factors:
            operands |= {"row": arrays["row"], "col": arrays["col"]}
        if what.own:
            operands["own"] = arrays["own"]
        if "g" in (*what.writes, *what.reads):
            operands["scale"] = given["scale"]
        if "p" in what.writes:
            operands["guard"] = given["guard"]
        apply(self._pass(name), **operands, **sums, hyper=given["hyper"])
        return list(sums.values())

    def combine(
        self, name: str, apply: Apply, given: Mapping[str, Any], sums: list[Any], count: float
    ) -> Any:
        """Add what is computed from sums, and one number more; returns the value of the results."""
        p = given["p"]
        function, number = self.combines[name]
        scalars = type(self).scalars(1, 1.0, *self.own_values(self.options))
        found = function(*[1.0] * number, 1.0, *scalars)
        own = p.graph.value((len(found),), name=name)
        apply(
            self._combine(name), **{f"s{k}": s for k, s in enumerate(sums)}, hyper=given["hyper"],
            own=own, count=float(count),
        )  # fmt: skip
        return own
