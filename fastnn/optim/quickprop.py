"""Quickprop: a step to the bottom of the parabola through two slopes, for every weight by
itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from fastnn.kernels.simd import fill_like, maximum, minimum, where
from fastnn.optim.optimizer import Optimizer


class Quickprop(Optimizer):
    """Quickprop (Fahlman 1988, "An empirical study of learning speed in back-propagation
    networks"), for full batches. With s the slope, s0 and d0 the slope and the step before::

        d = d0 * s / (s0 - s)          the parabola's minimum,
        d = mu * d0                    where that were farther, or not ahead (s close to s0),
        d = d - lr * s                 where s still has the sign it had, or d0 is 0
        p = p + d

    "Close" is s at least mu / (1 + mu) of s0, as in Fahlman's program.

    Args:
        lr: factor of the slope (Fahlman's epsilon).
        mu: the largest growth of a step, above 0; 1.75 in the paper.
        common: see `Optimizer`; the paper's decay is ``weight_decay=1e-4``.

    >>> Quickprop(lr=0.1)
    Quickprop(lr=0.1, mu=1.75)
    """

    name: ClassVar[str] = "quickprop"
    slots = ("prev", "delta")

    def __init__(self, lr: float = 1e-2, mu: float = 1.75, **common: Any):
        super().__init__(lr=lr, mu=mu, **common)

    def check(self, options: Mapping[str, Any]) -> str | None:
        if not options["mu"] > 0:
            return f"mu: expected a number above 0, got {options['mu']}"
        return None

    @staticmethod
    def scalars(t: int, lr: float, mu: float) -> tuple[float, ...]:
        return -lr, mu, mu / (1.0 + mu)

    @staticmethod
    def rule(
        p: Any, g: Any, before: Any, d: Any, rate: Any, mu: Any, shrink: Any
    ) -> tuple[Any, ...]:
        none = fill_like(g, 0.0)
        # 1 where the step before went down, so that a slope ahead is positive
        way = where(d > 0.0, fill_like(g, -1.0), where(d < 0.0, fill_like(g, 1.0), d))
        slope, first = g * way, before * way
        # where the parabola opens downwards, or is flat, the limit of growth takes over
        ahead = maximum(minimum(slope / (first - slope), mu), -mu)
        jump = d * where(slope >= first * shrink, fill_like(g, 1.0) * mu, ahead)
        linear = where(slope < 0.0, none, g * rate)  # also where there was no step
        d = where(d > 0.0, jump, where(d < 0.0, jump, none)) + linear
        return p + d, g, d
