"""Mixup: training on mixtures of two samples."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

from fastnn import ops
from fastnn.errors import OptionError, check_numbers
from fastnn.graph.value import Value
from fastnn.ops.feeding import mixing_share
from fastnn.train import reduction
from fastnn.train.build import StepBuilder
from fastnn.train.losses import Losses


def check(alpha: Any) -> float:
    """The option `mixup`; raises OptionError where it is no number >= 0."""
    if alpha is None:
        return 0.0
    check_numbers("mixup", alpha=alpha)
    if alpha < 0:
        raise OptionError(f"mixup: expected alpha >= 0 (0: none), got {alpha}")
    return float(alpha)


class Mixture:
    """A batch's mixture: each sample with the one at its place from the end (the order of samples
    is random), in the same shares for the whole batch.

    The larger share is the sample's own, so metrics use the label with the larger weight.

    Args:
        builder: of a training step.
        alpha: of the shares' beta distribution.
    """

    def __init__(self, builder: StepBuilder, alpha: float):
        self.builder: StepBuilder = weakref.proxy(builder)  # which keeps what describes the step
        graph = builder.graph
        self.share = graph.value((1,), name="share")
        mixing_share(self.share, alpha, graph.stream())
        self.rest = ops.affine(self.share, -1.0, 1.0)

    def inputs(self, given: Sequence[Value]) -> list[Value]:
        """The mixed inputs."""
        for value in given:
            if value.dtype != "f":
                raise OptionError(
                    "mixup: expected floating-point inputs, got integers (ids, which have no mean);"
                    " leave it out, or give vectors"
                )
        return [self._named(self._mean(value, self._other(value)), value) for value in given]

    def others(self, given: Sequence[Value]) -> list[Value]:
        """Targets, or weights, of the other samples."""
        return [self._named(self._other(value), value) for value in given]

    def loss(
        self, losses: Losses, own: Value, targets: Sequence[Value], weights: Sequence[Value]
    ) -> Value:
        """The loss by the samples' own targets and by those of the others, in their shares."""
        builder = self.builder
        with builder.graph.inside_scope("loss"):
            out = builder.tree
            target, weights = builder.target(self.others(targets)), self.others(weights)
            other, parts = losses.place(builder.graph, out, target, weights, builder.of_inputs)
            for part, mixed in zip(builder.parts, parts, strict=True):
                part.value = self._mean(_number(part.value), _number(mixed.value))
                if part.reduction == reduction.WEIGHTS:
                    part.reduction, part.denominator = reduction.SAMPLES, None
            return self._mean(_number(own), _number(other))

    def _mean(self, own: Value, other: Value) -> Value:
        shares = (self.share, self.rest)
        if own.shape == ():
            shares = (ops.reshape(self.share), ops.reshape(self.rest))
        return ops.add(ops.multiply(own, shares[0]), ops.multiply(other, shares[1]))

    def _other(self, value: Value) -> Value:
        return ops.flip(value, 0)

    def _named(self, made: Value, value: Value) -> Value:
        if value in self.builder.keys:
            self.builder.keys[made] = self.builder.keys[value]
        return made


def _number(value: Value) -> Value:
    return value if value.shape == () else ops.reshape(value)
