"""From running totals to the numbers that a trainer reports."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from fastnn.errors import DataError
from fastnn.train.reduction import SUM, WEIGHTS

#: what becomes of a total's sum and count
MEAN = "mean"
#: that the samples of something make no loss
NOTHING = (
    "{}: nothing counts in the loss, because each row has a weight of 0 (sample_weight, or the "
    "loss's weight of its class) or a target that is ignored (ignore_index); give a row that counts"
)


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
        weighted: the losses whose rows have weights, so that all may be 0, by total.
    """

    names: list[str]
    factors: Sequence[float] = (1.0,)
    parts: bool = False
    kinds: dict[int, str] = field(default_factory=dict)
    finish: dict[int, Callable[[float], float]] = field(default_factory=dict)
    weighted: set[int] = field(default_factory=set)

    @property
    def totals(self) -> int:
        """How many totals there are."""
        return len(self.names) - self.parts

    def learn(self, reductions: Sequence[str | None]) -> None:
        """How the losses of a step are reduced, in order: see `reduction`."""
        for k, kind in enumerate(reductions):
            if kind == SUM:
                self.kinds[k] = SUM
            elif kind == WEIGHTS:
                self.weighted.add(k)

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

    def result(self, totals: np.ndarray, what: str) -> dict[str, float]:
        """The numbers over all samples of `what`.

        Raises DataError where nothing counts in the loss: it is a mean of nothing.
        """
        losses = range(len(self.factors))
        if self.weighted.issuperset(losses) and not any(totals[2 * k + 1] for k in losses):
            raise DataError(NOTHING.format(what))
        return self.values(totals)

    def _value(self, k: int, total: float, count: float) -> float:
        if not count:
            return math.nan
        value = total if self.kinds.get(k, MEAN) == SUM else total / count
        return float(self.finish[k](value)) if k in self.finish else value
