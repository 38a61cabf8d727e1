"""Metrics: numbers for each row, averaged over an epoch inside the compiled loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fastnn.errors import OptionError
from fastnn.graph.graph import Value
from fastnn.nn.loss import LOSSES


class Metric:
    """A named function of output and target that gives one number for each row.

    Args:
        name: what the history calls it.
        function: of symbolic (output, target), returns a value of one number for each row.
    """

    def __init__(self, name: str, function: Callable[[Any, Any], Value]):
        self.name, self.function = name, function

    def __call__(self, output: Any, target: Any) -> Value:
        return self.function(output, target)

    def __repr__(self) -> str:
        return f"Metric({self.name!r})"


def accuracy(output: Value, target: Value) -> Value:
    """Share of rows whose largest output is the target class.

    Targets that are floats of the outputs' shape are taken as binary, with a threshold of 0 on the
    output (a logit).
    """
    op = "accuracy" if target.dtype == "i" else "binary_accuracy"
    result: Value = output.graph.apply(op, x=output, target=target)
    return result


def top_k(k: int) -> Metric:
    """Share of rows whose target is among the k largest outputs."""
    if k < 1:
        raise OptionError(f"top_k: expected k >= 1, got {k}")

    def rows(output: Value, target: Value) -> Value:
        if k > output.shape[-1]:
            raise OptionError(
                f"metric top_{k}_accuracy: expected at most the number of classes, "
                f"{output.shape[-1]}; choose a smaller number"
            )
        result: Value = output.graph.apply("top_k", x=output, target=target, k=int(k))
        return result

    return Metric(f"top_{k}_accuracy", rows)


def get(metric: Any) -> Metric:
    """A metric from its name, a function, or itself.

    Names: "accuracy", "top_K_accuracy" with a number K, and those of losses ("mae", "mse", ...).
    """
    if isinstance(metric, Metric):
        return metric
    if isinstance(metric, str):
        if metric in ("accuracy", "acc"):
            return Metric("accuracy", accuracy)
        parts = metric.split("_")
        if len(parts) == 3 and (parts[0], parts[2]) == ("top", "accuracy") and parts[1].isdigit():
            return top_k(int(parts[1]))
        if metric in LOSSES:
            return Metric(metric, LOSSES[metric]().rows)
        raise OptionError(
            f"unknown metric {metric!r}; expected 'accuracy', 'top_5_accuracy', one of "
            f"{sorted(LOSSES)}, or a function of (output, target)"
        )
    if callable(metric):
        return Metric(getattr(metric, "__name__", "metric"), metric)
    raise OptionError(f"metric: expected a name or a function, got {type(metric).__name__}")


def get_all(metrics: Sequence[Any]) -> list[Metric]:
    """Metrics from names and functions, with names that differ."""
    if isinstance(metrics, str):
        metrics = [metrics]
    found = [get(m) for m in metrics]
    names = [m.name for m in found]
    if len(set(names)) != len(names) or "loss" in names:
        raise OptionError(f"metrics: expected different names other than 'loss', got {names}")
    return found
