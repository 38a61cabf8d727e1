"""Losses of the user's own with factors that follow the batch's size: what they are a mean of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastnn.engine.model import PROBE
from fastnn.engine.specs import Spec
from fastnn.errors import ShapeError
from fastnn.graph.alike import has_numbers
from fastnn.train.build import StepBuilder
from fastnn.train.reduction import CONSTANT, WEIGHTS, reduction_of

Specs = tuple[Spec, ...]


class BatchSizes:
    """Corrects how losses add up over batches, by a look at graphs for two batch sizes.

    ``ops.sum(rows) / x.shape[0]`` is a mean of the samples, though the graph for one size shows a
    sum with some factor.

    Args:
        trace: function of (batch, whether in training, specs of inputs, targets and weights) that
            returns a builder with the losses.
    """

    def __init__(self, trace: Callable[..., StepBuilder]):
        self.trace = trace
        self._found: dict[Any, list[str | None]] = {}

    def choose(self, builder: StepBuilder, x: Specs, y: Specs, w: Specs) -> None:
        """Set `reduction` of the builder's parts to what it is for all batch sizes."""
        parts = builder.parts
        if not any(part.own and part.reduction is not None for part in parts):
            return
        if not has_numbers(builder.graph):
            return
        key = (x, y, w, builder.graph.training)
        if key not in self._found:
            try:
                one, two = (
                    self.trace(n, builder.graph.training, x, y, w) for n in (PROBE, PROBE + 1)
                )
            except ShapeError:  # a model for batches of its own size
                self._found[key] = [part.reduction for part in parts]
            else:
                self._found[key] = _compared(one, two)
        for part, kind in zip(parts, self._found[key], strict=True):
            part.reduction = kind
            part.denominator = part.denominator if kind == WEIGHTS else None

    def clear(self) -> None:
        """Forget what was found: the model has changed."""
        self._found.clear()


def _compared(one: StepBuilder, two: StepBuilder) -> list[str | None]:
    """How each loss adds up over batches."""
    kinds: list[str | None] = []
    for part, resized in zip(one.parts, two.parts, strict=True):
        kind = part.reduction
        if part.own and kind is not None:
            seen, found = reduction_of(part.value), reduction_of(part.value, resized=resized.value)
            if found is None or seen is None:
                kind = None
            elif found[0] != seen[0] and found[0] != CONSTANT:
                kind = found[0]
        kinds.append(kind)
    return kinds
