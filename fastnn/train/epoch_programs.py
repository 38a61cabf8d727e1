"""The programs of a trainer: a step with its losses and metrics, planned once for each shape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fastnn.engine.builder import Built
from fastnn.graph.value import Value
from fastnn.runtime.kept import Kept
from fastnn.train.base import Specs, Training
from fastnn.train.batch_sizes import BatchSizes
from fastnn.train.build import StepBuilder
from fastnn.train.report import Report


class EpochPrograms(Training):
    """What a trainer runs for an epoch or an evaluation: built when a shape is first met, and kept.

    Attributes:
        metrics: the metrics chosen.
        report: what the losses and metrics of an epoch are computed from.
    """

    metrics: Any
    report: Report
    _built: Kept[Built]
    _batch_sizes: BatchSizes

    def built(
        self,
        x: Specs,
        y: Specs,
        batch: int,
        feed: str,
        training: bool = True,
        w: Specs = (),
    ) -> Built:
        """The planned step for these shapes (`w`: of sample weights); planned once."""
        key = (x, y, batch, feed, training, self.keep_gradients, w)
        if key not in self._built:
            late = training and self.on_gradients is not None  # a step that it ends counts nowhere

            def make(size: int, specs: Any) -> StepBuilder:
                builder = self.builder(size, training, feed)
                self._describe_losses(builder, *specs)
                if not late:
                    builder.report(self.metrics)
                if training:
                    self.add_updates(builder)
                if late:
                    builder.report(self.metrics)
                return builder

            kind = feed, training, self.keep_gradients
            reductions, built = self._plans.build(
                kind, make, batch, (x, y, w), grows=feed == "direct",
                note=lambda builder: [part.reduction for part in builder.parts],
            )  # fmt: skip
            self.report.learn(reductions)
            self._built[key] = built
        return self._built[key]

    def kept(self, key: Any, make: Callable[[], Built]) -> Built:
        """What was planned before under this key, while the model is as it was; else it is now."""
        if key not in self._built:
            self._built[key] = make()
        return self._built[key]

    def describe(
        self, builder: StepBuilder, x: Specs, y: Specs, w: Specs
    ) -> tuple[Sequence[Value], Sequence[Value], Sequence[Value]]:
        """Put data, model, losses and metrics into a graph; returns the values of the data."""
        data = self._describe_losses(builder, x, y, w)
        builder.report(self.metrics)
        return data

    def _describe_losses(
        self, builder: StepBuilder, x: Specs, y: Specs, w: Specs
    ) -> tuple[Sequence[Value], Sequence[Value], Sequence[Value]]:
        data = super().describe(builder, x, y, w)
        self.choose_batch_sizes(builder, x, y, w)
        if builder.graph.training and self.stop_on_nonfinite:
            builder.check_finite(builder.places["loss"])
        return data

    def choose_batch_sizes(self, builder: StepBuilder, x: Specs, y: Specs, w: Specs) -> None:
        """Find out how the losses follow the batch's size."""
        self._batch_sizes.choose(builder, x, y, w)
