"""Metrics: sums over rows, added up over an epoch inside the compiled loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastnn import ops
from fastnn.errors import OptionError, ShapeError
from fastnn.graph.node import Range
from fastnn.graph.tree import is_branch
from fastnn.graph.value import Value
from fastnn.nn.loss import (
    LOSSES,
    BCELoss,
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    KLDivLoss,
    NLLLoss,
    _ClassLoss,
)
from fastnn.nn.loss_base import Loss
from fastnn.ops import totals
from fastnn.train import reduction
from fastnn.train.losses import Losses, Part, spread_over


class Metric:
    """A named function of output and target, summed over rows.

    Args:
        name: what the history calls it.
        function: of symbolic (output, target). It returns one number for each row, and the metric
            is their mean; or a pair of these, and the metric is the sum of the first divided by the
            sum of the second (hits divided by predictions, for a precision). It may also return the
            mean over rows itself.
        finish: a function applied to the final quotient (say ``math.sqrt``, for the root of a mean
            square).

    Rows that the loss ignores (its `ignore_index`) are ignored and sample weights apply as in the
    loss, provided that there is one number, or several, for each row of the loss.

    >>> from fastnn import ops
    >>> import math
    >>> rmse = Metric("rmse", lambda output, target: ops.square(output - target), math.sqrt)
    """

    def __init__(
        self,
        name: str,
        function: Callable[[Any, Any], Any],
        finish: Callable[[float], float] | None = None,
    ):
        self.name, self.function, self.finish = name, function, finish

    def __call__(self, output: Any, target: Any) -> Any:
        return self.function(output, target)

    def __repr__(self) -> str:
        return f"Metric({self.name!r})"


class _Named(Metric):
    """A metric of one output that a name stands for."""

    def __call__(self, output: Any, target: Any) -> Any:
        for what, value in (("output", output), ("target", target)):
            if is_branch(value):
                raise ShapeError(
                    f"metric {self.name}: expected one {what}, got {len(value)}; give a loss for "
                    "each output (loss=[...] or a dict), and metrics as a list, or a dict by output"
                )
        return self.function(output, target)


def categorical_accuracy(output: Value, target: Value, ignored: int | None = None) -> Value:
    """1 for a row whose largest output is the target class, else 0.

    The target is a class index, or numbers of the output's shape (one-hot, probabilities), of which
    the largest gives the class. Rows whose index is `ignored` do not count.

    Raises ShapeError for targets of another shape, and for outputs of a single class.

    >>> of, right = fnn.metrics.categorical_accuracy, [[0.0, 1.0], [0.0, 1.0]]
    >>> testing.apply(of, [[0.1, 0.9], [0.8, 0.2]], right)
    array([1., 0.])
    """
    result: Value = output.graph.apply(
        "accuracy", x=output, target=_classes(output, target, ignored)
    )
    return result


def _classes(output: Value, target: Value, ignored: int | None) -> Value:
    """Class indices of a target."""
    graph = output.graph
    if target.dtype == "i":
        if target.root.segment == "input" and output.ndim:
            graph.ranges.append(Range(target.root, 0, output.shape[-1], graph.scope, ignored))
        return target
    if target.shape != output.shape or output.ndim < 2 or output.shape[-1] < 2:
        raise ShapeError(
            f"{graph.scope}: expected class indices of shape {output.shape[:-1]} or probabilities "
            f"of shape {output.shape} with two classes or more, got {target.shape}; for single "
            "logits use the loss 'bce_with_logits'"
        )
    found: Value = graph.apply("largest", x=target)
    return found


@dataclass(frozen=True)
class _Binary:
    """The function of `binary_accuracy`."""

    threshold: float

    def __call__(self, output: Value, target: Value) -> Value:
        result: Value = output.graph.apply(
            "binary_accuracy", x=output, target=target, threshold=self.threshold
        )
        return result


@dataclass(frozen=True)
class _Categorical:
    """The function of accuracies by the largest outputs; k None: the largest alone.

    With `strict`, targets other than class indices are refused: the loss doesn't say what they are.
    """

    name: str
    k: int | None = None
    ignored: int | None = None
    strict: bool = False

    def __call__(self, output: Value, target: Value) -> Value:
        if self.strict and target.dtype != "i":
            raise ShapeError(
                f"metric {self.name}: expected class indices (integers), because the loss doesn't "
                "say what other targets mean; name 'categorical_accuracy' (the largest of each "
                "row), or pass fastnn.metrics.binary_accuracy(threshold)"
            )
        if self.k is None:
            return categorical_accuracy(output, target, self.ignored)
        if not output.ndim or self.k > output.shape[-1]:
            raise OptionError(
                f"metric {self.name}: expected at most the number of classes, "
                f"{output.shape[-1] if output.ndim else 0}; choose a smaller number"
            )
        result: Value = output.graph.apply(
            "top_k", x=output, target=_classes(output, target, self.ignored), k=self.k
        )
        return result


@dataclass(frozen=True)
class _Rows:
    """The function of a loss as a metric."""

    loss: Loss

    def __call__(self, output: Value, target: Value) -> Any:
        self.loss.check(output, target)
        found, weights = self.loss.rows(output, target), self.loss.weights(output, target)
        return found if weights is None else (found, weights)


def binary_accuracy(threshold: float = 0.5) -> Metric:
    """Share of elements where (output > threshold) agrees with (target > 0.5).

    Args:
        threshold: 0.5 for probabilities, 0 for logits.

    >>> import fastnn as fnn
    >>> accuracy = fnn.metrics.binary_accuracy(threshold=0.0)
    >>> trainer = fnn.Trainer(fnn.nn.Linear(4, 1), "bce_with_logits", metrics=[accuracy])
    """
    return _Named("binary_accuracy", _Binary(float(threshold)))


def top_k(k: int) -> Metric:
    """Share of rows whose target is among the k largest outputs.

    Raises OptionError for a `k` below 1.

    >>> import fastnn as fnn
    >>> trainer = fnn.Trainer(fnn.nn.Linear(4, 9), "cross_entropy", metrics=[fnn.metrics.top_k(3)])
    """
    if not isinstance(k, int) or k < 1:
        raise OptionError(f"top_k: expected k >= 1, got {k}")
    name = f"top_{k}_accuracy"
    return _Named(name, _Categorical(name, k))


def get(metric: Any, loss: Any = None) -> Metric:
    """A metric from its name, a function, or itself.

    Names: "accuracy", "categorical_accuracy", "binary_accuracy", "top_K_accuracy" with a number K,
    and those of losses ("mae", "mse", ...).

    Args:
        loss: the loss of the same output; it says what its targets mean, and which are ignored.
    """
    if isinstance(metric, Metric):
        return metric
    if isinstance(metric, str):
        return _by_name(metric, loss)
    if isinstance(metric, type):
        raise OptionError(f"metric: expected an object, got a class; write {metric.__name__}()")
    if isinstance(metric, Loss):
        return _of_loss(type(metric).__name__, metric)
    if callable(metric):
        return Metric(getattr(metric, "__name__", "metric"), metric)
    raise OptionError(f"metric: expected a name or a function, got {type(metric).__name__}")


def _by_name(metric: str, loss: Any) -> Metric:
    ignored = getattr(loss, "ignored", None)
    binary = isinstance(loss, (BCELoss, BCEWithLogitsLoss))
    strict = not isinstance(loss, (CrossEntropyLoss, NLLLoss, KLDivLoss))
    parts = metric.split("_")
    if (metric in ("accuracy", "acc") or metric == "binary_accuracy") and binary:
        name = "accuracy" if metric == "acc" else metric
        return _Named(name, _Binary(0.0 if isinstance(loss, BCEWithLogitsLoss) else 0.5))
    if metric in ("accuracy", "acc"):
        return _Named("accuracy", _Categorical("accuracy", None, ignored, strict))
    if metric == "categorical_accuracy":
        return _Named(metric, _Categorical(metric, None, ignored))
    if metric == "binary_accuracy":
        raise OptionError(
            "metric binary_accuracy: expected a loss 'bce' or 'bce_with_logits', which says where "
            "the threshold lies; pass fastnn.metrics.binary_accuracy(threshold)"
        )
    if len(parts) == 3 and (parts[0], parts[2]) == ("top", "accuracy") and parts[1].isdigit():
        k = int(parts[1])
        top_k(k)  # refuses 0
        return _Named(metric, _Categorical(metric, k, ignored, strict))
    if metric in LOSSES:
        kind: Any = LOSSES[metric]
        ignores = issubclass(kind, _ClassLoss)
        return _of_loss(metric, kind(ignore_index=ignored) if ignores else kind())
    raise OptionError(
        f"unknown metric {metric!r}; expected 'accuracy', 'top_5_accuracy', one of "
        f"{sorted(LOSSES)}, or a function of (output, target)"
    )


def _of_loss(name: str, loss: Loss) -> Metric:
    """A loss as a metric: its rows by their weights."""
    if loss.reduction != "mean" or type(loss).forward is not Loss.forward:
        raise OptionError(
            f"metric {name}: expected a loss with reduction 'mean', got {loss.reduction!r}; "
            "pass a function of (output, target) that gives a number for each row"
        )
    return _Named(name, _Rows(loss))


@dataclass(frozen=True)
class Chosen:
    """A metric with its name in reports, and which of the losses' outputs it is of (None: all)."""

    name: str
    metric: Metric
    part: int | None


def choose(metrics: Any, losses: Losses) -> list[Chosen]:
    """The option `metrics`, made uniform.

    For one loss a list of metrics. For several losses a list, each metric for every output; a list
    of lists, one for each output; or a dict from outputs' names to metrics.
    """
    if isinstance(metrics, (str, Metric)) or callable(metrics):
        metrics = [metrics]
    if losses.single:
        if isinstance(metrics, Mapping) or any(isinstance(m, (list, tuple)) for m in metrics):
            raise OptionError(
                "metrics: expected a plain list, because one loss serves all outputs; give a loss "
                "for each output (loss=[...] or a dict)"
            )
        found = [Chosen(m.name, m, None) for m in (get(m, losses.functions[0]) for m in metrics)]
    else:
        found = [
            Chosen(f"{losses.labels[k]}_{m.name}", m, k)
            for k, own in enumerate(_by_output(metrics, losses))
            for m in (get(m, losses.functions[k]) for m in own)
        ]
    names = [chosen.name for chosen in found]
    taken = ["loss", *(part_names(losses) if not losses.single else ())]
    if len(set(names)) != len(names) or set(names) & set(taken):
        raise OptionError(f"metrics: expected different names other than {taken}, got {names}")
    return found


def part_names(losses: Losses) -> list[str]:
    """What the losses of several outputs are reported as."""
    return [f"{label}_loss" for label in losses.labels]


def _by_output(metrics: Any, losses: Losses) -> list[list[Any]]:
    keys = losses.keys
    assert keys is not None
    if isinstance(metrics, Mapping):
        unknown = [key for key in metrics if key not in keys]
        if unknown:
            raise OptionError(f"metrics: expected outputs with a loss, {keys}, got {unknown}")
        return [_listed(metrics.get(key, ())) for key in keys]
    nested = [isinstance(m, (list, tuple)) for m in metrics]
    if not any(nested):
        return [list(metrics) for _ in keys]
    if not all(nested) or len(metrics) != losses.count or losses.named:
        raise OptionError(
            f"metrics: expected one list for each of {losses.count} outputs, got {metrics!r}"
        )
    return [_listed(metrics[key]) for key in keys]


def _listed(metrics: Any) -> list[Any]:
    return list(metrics) if isinstance(metrics, (list, tuple)) else [metrics]


def accumulate(metric: Metric, part: Part, output: Any, target: Any, total: Value) -> None:
    """Add a metric of this batch to its running total.

    Args:
        part: the loss of the same output, which says what counts.
        output, target: what the metric is computed of.
        total: sum and count.
    """
    found = metric(output, target)
    pair = isinstance(found, tuple)
    values = list(found) if pair else [found]
    if not all(isinstance(value, Value) for value in values) or (pair and len(values) != 2):
        raise ShapeError(
            f"metric {metric.name}: expected a number for each row, or a pair of such, got "
            f"{type(found).__name__}; compute it with fastnn.ops"
        )
    rows = values[0]
    if rows.dtype != "f" or any(value.shape != rows.shape for value in values):
        raise ShapeError(
            f"metric {metric.name}: expected floating-point numbers of one shape, got "
            f"{[f'{v.dtype}{list(v.shape)}' for v in values]}"
        )
    weight = _weight(metric, part, rows)
    if rows.ndim == 0:
        _scalar(metric, rows, pair, weight, total)
    elif pair:
        if weight is not None:
            values = [ops.multiply(value, weight) for value in values]
        totals.accumulate_pair(values[0], values[1], total)
    elif weight is not None:
        totals.accumulate_weighted(rows, weight, total)
    else:
        totals.accumulate_rows(rows, total)


def _scalar(metric: Metric, value: Value, pair: bool, weight: Value | None, total: Value) -> None:
    found = reduction.reduction_of(value)
    if pair or weight is not None or found is None or found[0] == reduction.SUM:
        raise ShapeError(
            f"metric {metric.name}: expected a number for each row, got a single number, which "
            "can't be averaged over batches; return rows, a pair of rows (the metric is the sum of "
            "the first divided by that of the second), or fastnn.metrics.Metric(name, function, "
            "finish)"
        )
    if found[1] is not None:
        totals.accumulate_by(value, found[1], total)
    else:
        totals.accumulate(value, total, value.graph.batch)


def _weight(metric: Metric, part: Part, rows: Value) -> Value | None:
    """What each row weighs in a metric; None: 1."""
    counted = part.counted()
    if counted is not None:
        fits = rows.shape[: counted.ndim] == counted.shape
        counted = spread_over(counted, rows, f"metric {metric.name}") if fits else None
    if part.weight is None:
        return counted
    if rows.ndim == 0:
        return part.weight  # refused
    spread = spread_over(part.weight, rows, f"metric {metric.name}")
    return spread if counted is None else ops.multiply(spread, counted)


def names_of(losses: Losses, metrics: Sequence[Chosen]) -> list[str]:
    """Everything that is reported, in order."""
    parts = [] if losses.single else part_names(losses)
    return ["loss", *parts, *(chosen.name for chosen in metrics)]
