"""What is minimised: one loss, or a loss for each of several outputs, with factors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastnn import ops
from fastnn.errors import OptionError, ShapeError
from fastnn.graph.graph import Graph
from fastnn.graph.tree import branches, is_branch
from fastnn.graph.value import Value
from fastnn.nn.loss import LOSSES
from fastnn.nn.loss_base import Loss, mean_of
from fastnn.train import reduction


@dataclass
class Part:
    """A loss in a graph.

    Attributes:
        value: of the batch, one number.
        reduction: how it is added up over batches (see `reduction`); None: it can't be.
        denominator: what the batch's value is weighted by, for reduction.WEIGHTS.
        output, target: what it is the loss of.
        counted: makes a value of 1 for rows that count and 0 for others, or None.
        weight: the samples' weights, or None.
        own: whether a function of the user's made one number of the batch.
    """

    value: Value
    reduction: str | None
    denominator: Value | None
    output: Any
    target: Any
    counted: Callable[[], Value | None]
    weight: Value | None
    own: bool = False


class Losses:
    """The option `loss`, made uniform.

    Args:
        loss: a loss, its name, or a function; or a list or dict of these, one for each output (None
            in a list: that output has no loss).
        factors: what each is multiplied by in their sum; a list or dict like `loss`.

    Attributes:
        keys: names or numbers of the outputs that have a loss; None: one loss of all outputs.
        labels: what reports call each.
    """

    def __init__(self, loss: Any, factors: Any = None):
        self.given = loss
        self.count = 0
        self.named = isinstance(loss, Mapping)
        self.keys: list[Any] | None = None
        if not isinstance(loss, (Mapping, list, tuple)):
            if factors is not None:
                raise OptionError(
                    "loss_weights: expected a list or dict of losses to weigh, got one loss; "
                    "leave it out"
                )
            self.functions = [resolve_loss(loss)]
            self.factors, self.labels = [1.0], ["loss"]
            return
        self.count = len(loss)
        items = list(loss.items()) if isinstance(loss, Mapping) else list(enumerate(loss))
        items = [(key, one) for key, one in items if one is not None]
        if not items:
            raise OptionError("loss: expected at least one, got none")
        self.keys = [key for key, _ in items]
        self.functions = [resolve_loss(one) for _, one in items]
        self.labels = [self.label(key) for key in self.keys]
        self.factors = self._factors(factors)

    @staticmethod
    def label(key: Any) -> str:
        """What an output is called in reports."""
        return f"output{key}" if isinstance(key, int) else str(key)

    def _factors(self, given: Any) -> list[float]:
        assert self.keys is not None
        if given is None:
            return [1.0] * len(self.keys)
        if isinstance(given, Mapping) != self.named or not isinstance(
            given, (Mapping, list, tuple)
        ):
            kind = "dict with the losses' names" if self.named else "list with a number for each"
            raise OptionError(f"loss_weights: expected a {kind}, got {given!r}")
        unknown = [key for key in given if key not in self.keys] if self.named else []
        if unknown or (not self.named and len(given) != self.count):
            raise OptionError(
                f"loss_weights: expected one for each of {self.keys}, got {given!r}; "
                "they are the losses'"
            )
        values: dict[Any, Any] = dict(given if isinstance(given, Mapping) else enumerate(given))
        found = [values.get(key, 1.0) for key in self.keys]
        for factor in found:
            if not isinstance(factor, (int, float, np.number)) or not np.isfinite(factor):
                raise OptionError(f"loss_weights: expected finite numbers, got {factor!r}")
        return [float(factor) for factor in found]

    @property
    def single(self) -> bool:
        """Whether there is one loss, of all outputs together."""
        return self.keys is None

    def place(
        self,
        graph: Graph,
        output: Any,
        target: Any,
        weights: Sequence[Value] = (),
        of_inputs: bool = False,
    ) -> tuple[Value, list[Part]]:
        """Add the losses to a graph: their weighted sum, and each of them.

        Args:
            output: what the model's forward returned.
            target: a value, or a tuple or dict of them.
            weights: the samples' weights: none, one for all losses, or one for each.
            of_inputs: whether the target is the model's inputs, for lack of another: losses find
                theirs among them by name or number, and where they are not there each gets all.
        """
        if self.keys is None:
            part = self._part(graph, self.functions[0], output, target, _one(weights, 1, 0))
            return part.value, [part]
        outputs = self._matched("outputs", output, self.keys, whole=True)
        if of_inputs and not self._finds(target):
            targets = [target] * len(self.keys)
        else:
            targets = self._matched("targets", target, self.keys, whole=False)
        parts, total = [], None
        for k, function in enumerate(self.functions):
            weight = _one(weights, len(self.functions), k)
            with graph.inside_scope(f"loss of {self.labels[k]}"):
                part = self._part(graph, function, outputs[k], targets[k], weight)
                parts.append(part)
                term = part.value if part.value.shape == () else ops.reshape(part.value)
                term = ops.multiply(term, self.factors[k]) if self.factors[k] != 1.0 else term
                total = term if total is None else ops.add(total, term)
        assert total is not None
        return total, parts

    def _finds(self, inputs: Any) -> bool:
        """Whether the inputs have the names of the losses' targets, or their number."""
        assert self.keys is not None
        if self.named:
            names = [name for name, _ in branches(inputs)] if isinstance(inputs, Mapping) else []
            return all(str(key) in names for key in self.keys)
        return is_branch(inputs) and len(branches(inputs)) == len(self.keys)

    def _matched(self, what: str, tree: Any, keys: list[Any], whole: bool) -> list[Any]:
        """The outputs or targets that the losses are of, in the order of the losses."""
        parts = branches(tree)
        found: dict[Any, Any] = {}
        if not self.named:
            found.update(enumerate([part for _, part in parts] if is_branch(tree) else [tree]))
        else:
            found.update(parts)
        shown = ", ".join(map(str, found)) or "one"
        if self.named and not isinstance(tree, Mapping):
            raise ShapeError(
                f"loss: expected {what} by name for the losses of {keys}, got {shown}; "
                + ("return a dict from forward" if whole else "pass a dict of targets")
            )
        if self.named:
            missing = [key for key in keys if str(key) not in found]
            extra = [key for key in found if key not in [str(k) for k in keys] and not whole]
            if missing or extra:
                raise ShapeError(
                    f"loss: expected {what} called {keys}, got {shown}; names have to agree"
                )
            return [found[str(key)] for key in keys]
        expected = self.count if whole else len(keys)
        if len(found) != expected:
            raise ShapeError(
                f"loss: expected {expected} {what}, one for each loss, got {len(found)}; "
                "losses that are None take no targets"
            )
        return [found[key] for key in keys] if whole else list(found.values())

    def _part(
        self, graph: Graph, function: Any, output: Any, target: Any, weight: Value | None
    ) -> Part:
        if isinstance(function, Loss) and type(function).forward is Loss.forward:
            if not function.takes_several:
                output, target = _only(output, "outputs"), _only(target, "targets")
            function.check(output, target)
            return _of_rows(function, output, target, weight)
        value = function(output, target)
        if weight is not None:
            return self._weighted(value, output, target, weight)
        if not isinstance(value, Value) or value.size != 1:
            got = value.shape if isinstance(value, Value) else type(value).__name__
            raise ShapeError(f"the loss: expected a single number, got {got}; take ops.mean of it")
        found = reduction.reduction_of(value)
        kind, denominator = found if found is not None else (None, None)
        if kind == reduction.CONSTANT:
            kind = reduction.SAMPLES
        return Part(value, kind, denominator, output, target, all_count, None, own=True)

    @staticmethod
    def _weighted(rows: Any, output: Any, target: Any, weight: Value) -> Part:
        if not isinstance(rows, Value) or rows.ndim == 0 or rows.shape[0] != weight.shape[0]:
            got = rows.shape if isinstance(rows, Value) else type(rows).__name__
            raise ShapeError(
                "the loss: with sample_weight a function has to return a number for each sample, "
                f"so that it can be weighted, got {got}; return rows, not their mean"
            )
        spread = spread_over(weight, rows, "the loss")
        mean, denominator = rows.graph.apply(
            "weighted_mean", x=ops.multiply(rows, spread), weight=spread
        )
        return Part(mean, reduction.WEIGHTS, denominator, output, target, all_count, weight)


def all_count() -> None:
    """Every row counts."""


def _one(weights: Sequence[Value], losses: int, number: int) -> Value | None:
    """A loss's sample weights."""
    if len(weights) not in (0, 1, losses):
        raise ShapeError(
            f"sample_weight: expected one array, or one for each of {losses} losses, got "
            f"{len(weights)}"
        )
    return None if not weights else weights[0] if len(weights) == 1 else weights[number]


def _only(tree: Any, what: str) -> Any:
    if is_branch(tree):
        names = ", ".join(name for name, _ in branches(tree))
        raise ShapeError(
            f"loss: expected one of the {what}, got {len(branches(tree))} ({names}); pass a loss "
            "for each output (loss=[...], or a dict by name; None for one without), or a function "
            "of (outputs, targets)"
        )
    return tree


def _of_rows(loss: Loss, output: Value, target: Value, weight: Value | None) -> Part:
    """A loss made of its rows and their weights."""
    rows, weights = loss.rows(output, target), loss.weights(output, target)

    def counted() -> Value | None:
        return loss.counted(output, target)

    if weight is not None:
        spread = spread_over(weight, rows, "the loss")
        rows = ops.multiply(rows, spread)
        weights = spread if weights is None else ops.multiply(weights, spread)
    if loss.reduction == "sum":
        return Part(ops.total(rows), reduction.SUM, None, output, target, counted, weight)
    mean = mean_of(rows, weights)
    kind, denominator = reduction.SAMPLES, None
    if weights is not None:
        kind = reduction.WEIGHTS
        assert mean.node is not None
        denominator = mean.node.outputs["denominator"]
    return Part(mean, kind, denominator, output, target, counted, weight)


def spread_over(weight: Value, rows: Value, what: str) -> Value:
    """Sample weights in the shape of rows, of which they may have the leading dimensions only."""
    if weight.shape == rows.shape:
        return weight
    if rows.shape[: weight.ndim] != weight.shape:
        raise ShapeError(
            f"{what}: expected sample_weight of shape {rows.shape} or of its leading dimensions, "
            f"got {weight.shape}"
        )
    rest = rows.size // weight.size
    ones = rows.graph.full((weight.size, rest), 1.0, batched=True)
    column = ops.reshape(weight, weight.size, 1)
    return ops.reshape(ops.multiply(ones, column), *rows.shape)


def resolve_loss(loss: Any) -> Callable[..., Any]:
    """A loss from its name, or itself; refuses what can't be trained with."""
    if isinstance(loss, str):
        if loss not in LOSSES:
            raise OptionError(f"unknown loss {loss!r}; expected one of {sorted(LOSSES)}")
        return LOSSES[loss]()
    if isinstance(loss, type):
        raise OptionError(f"loss: expected an object, got a class; write {loss.__name__}()")
    if not callable(loss):
        raise OptionError(f"loss: expected one of {sorted(LOSSES)} or an object, got {loss!r}")
    if getattr(loss, "reduction", "mean") == "none":
        raise OptionError(
            f"loss: {type(loss).__name__} with reduction 'none' gives rows, and training needs one "
            "number; use 'mean' or 'sum', or a function that makes one of the rows"
        )
    return loss
