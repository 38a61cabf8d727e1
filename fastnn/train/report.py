"""From running totals to the numbers that a trainer reports."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

#: what becomes of a total's sum and count
MEAN, SUM = "mean", "sum"


@dataclass
class Report:
    """What is reported of the totals: first the loss, then its parts, then metrics.

    A total is a sum and a count in float64, added up batch after batch, so what is reported of
    many batches is that of all samples.

    Attributes:
        names: what is reported, in order.
        factors: of the loss's parts, which are the first totals.
        parts: whether each part is reported after their sum, "loss"; else there is one, the loss.
        kinds: for each total whether its value is the sum divided by the count, or the sum.
        finish: functions of a metric's quotient (a root, say), by total.
    """

    names: list[str]
    factors: Sequence[float] = (1.0,)
    parts: bool = False
    kinds: dict[int, str] = field(default_factory=dict)
    finish: dict[int, Callable[[float], float]] = field(default_factory=dict)

    @property
    def totals(self) -> int:
        """How many totals there are."""
        return len(self.names) - self.parts

    def values(self, totals: np.ndarray) -> dict[str, float]:
        """The numbers so far; NaN for a mean of nothing."""
        numbers = totals.tolist()
        sums, counts = numbers[0::2], numbers[1::2]
        found = [self._value(k, sums[k], counts[k]) for k in range(self.totals)]
        if self.parts:
            parts = zip(self.factors, found, counts, strict=False)
            counted = [factor * value for factor, value, count in parts if count]
            found.insert(0, math.fsum(counted) if counted else math.nan)
        return dict(zip(self.names, found, strict=True))

    def _value(self, k: int, total: float, count: float) -> float:
        if not count:
            return math.nan
        value = total if self.kinds.get(k, MEAN) == SUM else total / count
        return float(self.finish[k](value)) if k in self.finish else value
