"""From running totals to the numbers that a trainer reports."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from fastnn.errors import DataError
from fastnn.train.reduction import SUM, WEIGHTS

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
        kinds: the totals that are of another kind than a mean.
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
        found: list[float] = []
        for k in range(len(self.names) - self.parts):
            value, count = numbers[2 * k : 2 * k + 2]
            if not count:
                value = math.nan
            elif self.kinds.get(k) != SUM:
                value /= count
            if count and k in self.finish:
                value = float(self.finish[k](value))
            found.append(value)
        if self.parts:
            parts = zip(self.factors, found, numbers[1::2], strict=False)
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
