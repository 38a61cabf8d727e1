"""Losses. Each is called with the model's output and the target and gives a single number.

`reduction` is "mean" (over all elements or rows that count) or "sum".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastnn import ops
from fastnn.errors import OptionError, ShapeError, where
from fastnn.graph.graph import Range, Value
from fastnn.nn.module import Module

#: a class index that no data has
NO_CLASS = -100


class Loss(Module):
    """Base class of losses."""

    def __init__(self, reduction: str = "mean"):
        if reduction not in ("mean", "sum"):
            raise OptionError(
                f"{type(self).__name__}: expected reduction 'mean' or 'sum', got {reduction!r}"
            )
        self.reduction = reduction

    def forward(self, output: Value, target: Value) -> Value:
        rows = self.rows(output, target)
        return ops.mean(rows) if self.reduction == "mean" else ops.total(rows)

    def rows(self, output: Value, target: Value) -> Value:
        """The loss of each row."""
        raise OptionError(f"{type(self).__name__} has no rows(); write it, or forward")

    def _apply(self, op: str, output: Value, target: Value, **more: Any) -> Value:
        result: Value = output.graph.apply(op, x=output, target=target, **more)
        return result


class _ClassLoss(Loss):
    """A loss on classes, with class weights and an index that is ignored."""

    def __init__(self, weight: Sequence[float] | None, ignore_index: int | None, reduction: str):
        super().__init__(reduction)
        self.weight = None if weight is None else np.asarray(weight, np.float64)
        if self.weight is not None and (self.weight.ndim != 1 or (self.weight < 0).any()):
            raise OptionError(
                f"{type(self).__name__}: expected weight to be a list of numbers >= 0, one for "
                "each class"
            )
        self.ignored = None if ignore_index is None else int(ignore_index)
        self.ignore_index = NO_CLASS if self.ignored is None else self.ignored

    def _weight(self, output: Value) -> Value | None:
        return None if self.weight is None else output.graph.constant(self.weight, name="weight")

    def forward(self, output: Value, target: Value) -> Value:
        rows = self.rows(output, target)
        graph = output.graph
        if target.root.home == "input" and target.dtype == "i":
            graph.ranges.append(Range(target.root, 0, output.shape[-1], graph.scope, self.ignored))
        if self.reduction == "sum":
            return ops.total(rows)
        if target.dtype != "i" or (self.weight is None and self.ignored is None):
            return ops.mean(rows)
        weights = graph.apply(
            "target_weight", target=target, weight=self._weight(output),
            ignore_index=self.ignore_index,
        )  # fmt: skip
        mean, _ = graph.apply("weighted_mean", x=rows, weight=weights)
        result: Value = mean
        return result


class CrossEntropyLoss(_ClassLoss):
    """Softmax and cross-entropy in one, numerically safe: output are logits.

    Args:
        weight: weight of each class.
        ignore_index: rows with this class index (of padding, say) count nothing, nor does the mean
            count them; None: all rows count. PyTorch's default is -100.
        label_smoothing: share of the target spread evenly over the classes (Szegedy et al. 2016).
        reduction: "mean" (weighted by the targets' class weights, as in PyTorch) or "sum".

    Shapes: output (N, ..., classes), the classes last; target (N, ...) integers, or (N, ...,
    classes) probabilities.
    """

    def __init__(
        self,
        weight: Sequence[float] | None = None,
        ignore_index: int | None = None,
        label_smoothing: float = 0.0,
        reduction: str = "mean",
    ):
        super().__init__(weight, ignore_index, reduction)
        if not 0 <= label_smoothing <= 1:
            raise OptionError(
                f"CrossEntropyLoss: expected label_smoothing in [0, 1], got {label_smoothing}"
            )
        self.label_smoothing = float(label_smoothing)

    def rows(self, output: Value, target: Value) -> Value:
        more: dict[str, Any] = {
            "weight": self._weight(output),
            "smoothing": self.label_smoothing,
        }
        if target.dtype == "i":
            return self._apply(
                "cross_entropy", output, target, ignore_index=self.ignore_index, **more
            )
        return self._apply("cross_entropy_probs", output, target, **more)


class NLLLoss(_ClassLoss):
    """Negative log-likelihood of log-probabilities (see `LogSoftmax`).

    Args and shapes as `CrossEntropyLoss`, with class indices only.
    """

    def __init__(
        self,
        weight: Sequence[float] | None = None,
        ignore_index: int | None = None,
        reduction: str = "mean",
    ):
        super().__init__(weight, ignore_index, reduction)

    def rows(self, output: Value, target: Value) -> Value:
        if target.dtype != "i":
            raise ShapeError(
                f"{where(output.graph.scope)}NLLLoss: expected class indices (integers); for "
                "probabilities use CrossEntropyLoss"
            )
        return self._apply(
            "nll", output, target, weight=self._weight(output), ignore_index=self.ignore_index
        )


class _PairLoss(Loss):
    """A loss of output and target of the same shape, element by element."""

    op = ""

    def scale(self, output: Value) -> float:
        """Factor of the sum over a row's elements."""
        wide = output.ndim > 1 and self.reduction == "mean"
        return 1.0 / output.shape[-1] if wide else 1.0

    def options(self, output: Value) -> dict[str, Any]:
        return {}

    def rows(self, output: Value, target: Value) -> Value:
        return self._apply(
            self.op, output, target, scale=self.scale(output), **self.options(output)
        )


class MSELoss(_PairLoss):
    """Mean of (output - target)**2."""

    op = "mse"


class L1Loss(_PairLoss):
    """Mean of |output - target|, the mean absolute error (MAE)."""

    op = "mae"


class HuberLoss(_PairLoss):
    """Quadratic within `delta`, linear beyond (Huber 1964), as PyTorch's HuberLoss."""

    op = "huber"

    def __init__(self, delta: float = 1.0, reduction: str = "mean"):
        super().__init__(reduction)
        if not delta > 0:
            raise OptionError(f"HuberLoss: expected delta > 0, got {delta}")
        self.delta = float(delta)

    def options(self, output: Value) -> dict[str, Any]:
        return {"delta": self.delta}


class BCEWithLogitsLoss(_PairLoss):
    """Binary cross-entropy of logits with targets in [0, 1].

    Args:
        pos_weight: weight of positive targets for each feature.
    """

    op = "bce_with_logits"

    def __init__(self, pos_weight: Sequence[float] | None = None, reduction: str = "mean"):
        super().__init__(reduction)
        self.pos_weight = None if pos_weight is None else np.asarray(pos_weight, np.float64)

    def options(self, output: Value) -> dict[str, Any]:
        weight = self.pos_weight
        return {
            "pos_weight": None if weight is None else output.graph.constant(weight, name="weight")
        }


class KLDivLoss(_PairLoss):
    """Kullback-Leibler divergence of log-probabilities `output` from `target`.

    Args:
        reduction: "batchmean" (the divergence, averaged over rows), "mean" (over all elements, as
            PyTorch's default) or "sum".
        log_target: whether the target holds log-probabilities.
    """

    def __init__(self, reduction: str = "batchmean", log_target: bool = False):
        super().__init__("mean" if reduction == "batchmean" else reduction)
        self.batchmean = reduction == "batchmean"
        self.op = "kl_div_log" if log_target else "kl_div"

    def scale(self, output: Value) -> float:
        return 1.0 if self.batchmean else super().scale(output)


#: losses by the names that a trainer accepts
LOSSES: dict[str, type[Loss]] = {
    "cross_entropy": CrossEntropyLoss,
    "nll": NLLLoss,
    "mse": MSELoss,
    "mae": L1Loss,
    "huber": HuberLoss,
    "bce_with_logits": BCEWithLogitsLoss,
    "kl_div": KLDivLoss,
}
