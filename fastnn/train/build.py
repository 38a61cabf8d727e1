"""Steps with losses and metrics: what training and evaluation add to the engine's builder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastnn.engine.builder import Builder
from fastnn.errors import ShapeError
from fastnn.graph.value import Value
from fastnn.ops import totals
from fastnn.ops.arithmetic import affine
from fastnn.ops.declare import need
from fastnn.ops.operands import as_value
from fastnn.plan.samples import Samples
from fastnn.train import reduction
from fastnn.train.losses import Losses, Part
from fastnn.train.metrics import Chosen, accumulate

LossFunction = Callable[..., Value]


class StepBuilder(Builder):
    """Puts the graph of a step with losses together; arguments as for `Builder`.

    Attributes:
        parts: the losses.
        of_inputs: whether there are no targets but the inputs.
    """

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self.parts: list[Part] = []
        self.of_inputs = False
        self._copies: dict[Any, Value] = {}

    def trace(self, describe: Callable[[StepBuilder], None], again: bool = False) -> None:
        """Describe model and losses; with `again` in a way that `loss_again` can repeat."""
        self._streams = self.graph.streams
        if again:  # what the first trace writes, the second one has to read as it was
            for parameter in self.arrays.values():
                if parameter.buffer:
                    leaf = as_value(self.graph, parameter)
                    self._copies[parameter] = affine(leaf, 1.0, 0.0)
            self._describe = describe
        describe(self)

    def loss_again(self, points: Mapping[Any, Value]) -> Value:
        """The loss of the same batch, with the same random numbers, where these values stand for
        parameters. Nothing else changes: buffers are copies of them."""
        graph = self.graph
        kept = dict(graph.leaves), graph.streams, self.tree, self.output_values, self.parts
        places, ranges, checks = dict(self.places), list(graph.ranges), list(graph.checks)
        graph.leaves.update(self._copies)
        graph.leaves.update(points)
        graph.streams = self._streams
        self._describe(self)
        loss = self.places["loss"]
        graph.leaves = {**graph.leaves, **kept[0]}
        _, streams, self.tree, self.output_values, self.parts = kept
        graph.streams = max(streams, graph.streams)
        self.places, graph.ranges, graph.checks = places, ranges, checks
        return loss

    def loss(
        self,
        function: Losses | LossFunction,
        outputs: Sequence[Value],
        targets: Sequence[Value],
        weights: Sequence[Value] = (),
    ) -> Value:
        """The loss, one number; named as a place. `parts` has the losses that it is the sum of."""
        losses = function if isinstance(function, Losses) else Losses(function)
        out: Any = self.tree
        if out is None:
            out = outputs[0] if len(outputs) == 1 else tuple(outputs)
        with self.graph.inside_scope("loss"):
            target = self.target(targets)
            try:
                value, self.parts = losses.place(self.graph, out, target, weights, self.of_inputs)
            except ShapeError as error:
                if not self.of_inputs:
                    raise
                raise ShapeError(
                    "y: expected targets, got none; pass y. (Without it the inputs are the "
                    f"targets, as for an autoencoder, and the loss does not take them: {error})"
                ) from error
        if any(part.reduction == reduction.SUM for part in self.parts):
            samples = Samples(self.lowered, self.names)
            for part in self.parts:  # a sum of parameters alone doesn't grow with the samples
                if part.reduction == reduction.SUM and not samples.depends(part.value):
                    part.reduction = reduction.SAMPLES
        self.places["loss"] = value
        return value

    def target(self, targets: Sequence[Value]) -> Any:
        """Targets as a loss gets them: one, a tuple, or a dict."""
        if targets and all(value in self.keys for value in targets):
            return {self.keys[value]: value for value in targets}
        return targets[0] if len(targets) == 1 else tuple(targets)

    def report(self, metrics: Sequence[Chosen]) -> None:
        """Add the losses and metrics of this batch to the running totals."""
        graph = self.graph
        for k, part in enumerate(self.parts):
            total = self._total(k)
            node = part.value.node
            if node is not None and node.op.name == "weighted_mean":
                # The sums themselves: rows that weigh 0 may be part of the loss (label smoothing).
                rows, weight = need(node, "x"), need(node, "weight")
                totals.accumulate_pair(rows, weight, total)
            elif part.denominator is not None:
                totals.accumulate_by(part.value, part.denominator, total)
            else:
                count = 1 if part.reduction == reduction.SUM else graph.batch
                totals.accumulate(part.value, total, count)
        for k, chosen in enumerate(metrics, len(self.parts)):
            part = self.parts[chosen.part or 0]
            own = part.output, part.target
            with graph.inside_scope(f"metric {chosen.name}"):
                accumulate(chosen.metric, part, *own, self._total(k))

    def _total(self, index: int) -> Value:
        return self.graph.leaf(
            ("total", index), (2,), "totals", dtype="r", offset=2 * index, name="totals"
        )
