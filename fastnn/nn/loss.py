"""Losses of classes, of numbers and of probabilities; their base is in `loss_base.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastnn import ops
from fastnn.errors import OptionError, ShapeError, check_flags, check_numbers, is_whole, where
from fastnn.graph.node import Range
from fastnn.graph.value import Value
from fastnn.nn.loss_base import Loss, checked_weights
from fastnn.public import publish

#: a class index that no data has
NO_CLASS = -100


class _ClassLoss(Loss):
    """A loss on classes, with class weights and an index that is ignored."""

    def __init__(self, weight: Sequence[float] | None, ignore_index: int | None, reduction: str):
        super().__init__(reduction)
        self.weight = checked_weights(weight, f"{type(self).__name__}: expected weight", "class")
        if ignore_index is not None:
            if not is_whole(ignore_index, -(2**63)):
                raise OptionError(
                    f"{type(self).__name__}: expected ignore_index to be a class index, a whole "
                    f"number, or None, got {ignore_index!r}"
                )
            ignore_index = int(ignore_index)
        self.ignored = ignore_index
        self.ignore_index = NO_CLASS if self.ignored is None else self.ignored

    def _weight(self, output: Value) -> Value | None:
        return None if self.weight is None else output.graph.constant(self.weight, name="weight")

    def check(self, output: Value, target: Value) -> None:
        super().check(output, target)
        graph = output.graph
        if target.root.segment == "input" and target.dtype == "i" and output.ndim:
            graph.ranges.append(Range(target.root, 0, output.shape[-1], graph.scope, self.ignored))
        if target.dtype != "i" and self.ignored is not None:
            raise OptionError(
                f"{where(graph.scope)}{type(self).__name__}: ignore_index is for class indices, "
                "and the targets are probabilities; give rows that don't count a sample_weight of 0"
            )

    def weights(self, output: Value, target: Value) -> Value | None:
        if target.dtype != "i" or (self.weight is None and self.ignored is None):
            return None
        return self._target_weight(target, self._weight(output))

    def counted(self, output: Value, target: Value) -> Value | None:
        if target.dtype != "i" or self.ignored is None:
            return None
        return self._target_weight(target, None)

    def _target_weight(self, target: Value, weight: Value | None) -> Value:
        result: Value = target.graph.apply(
            "target_weight", target=target, weight=weight, ignore_index=self.ignore_index
        )
        return result


class CrossEntropyLoss(_ClassLoss):
    """Softmax followed by cross-entropy, computed stably from logits.

    Args:
        weight: weight of each class.
        ignore_index: a class index, for instance of padding, whose rows do not count, not even in
            the denominator of the mean. None means that all rows count; PyTorch's default is -100.
        label_smoothing: share of the target that is spread evenly over the classes (Szegedy et al.
            2016).
        reduction: "mean" (weighted by the targets' class weights, as in PyTorch), "sum" or "none".

    Shapes: output (N, ..., classes), the classes last; target (N, ...) integers, or (N, ...,
    classes) probabilities. A class index outside 0 to classes-1 (other than `ignore_index`) raises
    DataError.

    Raises OptionError for weights, an `ignore_index` or a `label_smoothing` that it cannot have,
    and for an `ignore_index` with targets that are probabilities; the rest as `Loss`.

    >>> testing.apply(nn.CrossEntropyLoss(), np.zeros((2, 4)), np.array([0, 3]))  # log 4
    array(1.38629436)
    """

    def __init__(
        self,
        weight: Sequence[float] | None = None,
        ignore_index: int | None = None,
        label_smoothing: float = 0.0,
        reduction: str = "mean",
    ):
        super().__init__(weight, ignore_index, reduction)
        check_numbers("CrossEntropyLoss", label_smoothing=label_smoothing)
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

    Arguments and shapes are those of `CrossEntropyLoss`, but targets are class indices only.

    Raises OptionError for weights or an `ignore_index` that it cannot have, ShapeError for targets
    that are not integers.

    >>> testing.apply(nn.NLLLoss(), np.log([[0.5, 0.5]]), np.array([1]))
    array(0.69314718)
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
    """A loss of output and target of the same shape, element by element.

    With the reduction "mean" a row is the mean of its elements, with "sum" their sum.
    """

    op = ""

    def scale(self, output: Value) -> float:
        """Factor of the sum over a row's elements."""
        wide = output.ndim > 1 and self.reduction == "mean"
        return 1.0 / output.shape[-1] if wide else 1.0

    def elements(self, output: Value, target: Value) -> Value:
        if output.ndim < 2 or output.shape != target.shape:
            return self.rows(output, target)
        single = [ops.reshape(value, -1, 1) for value in (output, target)]
        return ops.reshape(self.rows(*single), *output.shape)

    def options(self, output: Value) -> dict[str, Any]:
        """Arguments of the loss's op beyond output and target."""
        return {}

    def rows(self, output: Value, target: Value) -> Value:
        return self._apply(
            self.op, output, target, scale=self.scale(output), **self.options(output)
        )


class MSELoss(_PairLoss):
    """Mean of (output - target)**2.

    Shapes: output and target (N, ...), equal. `reduction` is that of `Loss`.

    >>> import fastnn as fnn
    >>> trainer = fnn.Trainer(fnn.nn.Linear(4, 1), loss=fnn.nn.MSELoss())"""

    op = "mse"


class L1Loss(_PairLoss):
    """Mean of |output - target|, the mean absolute error (MAE).

    Shapes: output and target (N, ...), equal. `reduction` is that of `Loss`.

    >>> testing.apply(nn.L1Loss(), [[1.0], [2.0]], [[3.0], [2.0]])
    array(1.)
    """

    op = "mae"


class HuberLoss(_PairLoss):
    """Quadratic for differences up to `delta`, linear beyond (Huber 1964); PyTorch's HuberLoss.

    Shapes: output and target (N, ...), equal. `reduction` is that of `Loss`.

    Raises OptionError for a `delta` that is not above 0.

    >>> testing.apply(nn.HuberLoss(), [[1.0], [2.0]], [[3.0], [2.0]])
    array(0.75)
    """

    op = "huber"

    def __init__(self, delta: float = 1.0, reduction: str = "mean"):
        super().__init__(reduction)
        check_numbers("HuberLoss", delta=delta)
        if not delta > 0:
            raise OptionError(f"HuberLoss: expected delta > 0, got {delta}")
        self.delta = float(delta)

    def options(self, output: Value) -> dict[str, Any]:
        return {"delta": self.delta}


class SmoothL1Loss(_PairLoss):
    """|d| - beta / 2 where the difference |d| > beta, else d**2 / (2 beta). With beta 0, L1Loss.

    This is the Huber loss divided by `beta` (Girshick, "Fast R-CNN", 2015); PyTorch's SmoothL1Loss.

    Shapes: output and target (N, ...), equal. `reduction` is that of `Loss`.

    Raises OptionError for a negative `beta`.

    >>> testing.apply(nn.SmoothL1Loss(), [[1.0], [2.0]], [[3.0], [2.0]])
    array(0.75)
    """

    def __init__(self, beta: float = 1.0, reduction: str = "mean"):
        super().__init__(reduction)
        check_numbers("SmoothL1Loss", beta=beta)
        if not beta >= 0:
            raise OptionError(f"SmoothL1Loss: expected beta >= 0, got {beta}")
        self.beta = float(beta)
        self.op = "huber" if self.beta else "mae"

    def scale(self, output: Value) -> float:
        return super().scale(output) / (self.beta or 1.0)

    def options(self, output: Value) -> dict[str, Any]:
        return {"delta": self.beta} if self.beta else {}


class BCELoss(_PairLoss):
    """Binary cross-entropy of probabilities, for targets in [0, 1].

    Logarithms are clamped to at least -100 and the gradient's denominator to at least 1e-12, as in
    PyTorch's BCELoss. `BCEWithLogitsLoss`, which takes logits, is more accurate. An output outside
    [0, 1] gives NaN.

    Shapes: output and target (N, ...), equal. `reduction` is that of `Loss`.

    >>> testing.apply(nn.BCELoss(), [[0.5], [0.5]], [[1.0], [0.0]])
    array(0.69314718)
    """

    op = "bce"


class BCEWithLogitsLoss(_PairLoss):
    """Binary cross-entropy of logits, for targets in [0, 1].

    Args:
        pos_weight: weight of positive targets, one for each feature (the last dimension).
        reduction: see `Loss`.

    Shapes: output and target (N, ...), equal. `reduction` is that of `Loss`.

    >>> testing.apply(nn.BCEWithLogitsLoss(), [[0.0], [0.0]], [[1.0], [0.0]])
    array(0.69314718)
    """

    op = "bce_with_logits"

    def __init__(self, pos_weight: Sequence[float] | None = None, reduction: str = "mean"):
        super().__init__(reduction)
        self.pos_weight = checked_weights(
            pos_weight, "BCEWithLogitsLoss: expected pos_weight", "feature"
        )

    def elements(self, output: Value, target: Value) -> Value:
        if self.pos_weight is None:
            return super().elements(output, target)
        positive = ops.multiply(target * ops.softplus(-output), self.pos_weight)
        return (1.0 - target) * ops.softplus(output) + positive

    def options(self, output: Value) -> dict[str, Any]:
        weight = self.pos_weight
        return {
            "pos_weight": None if weight is None else output.graph.constant(weight, name="weight")
        }


class KLDivLoss(_PairLoss):
    """Kullback-Leibler divergence of log-probabilities `output` from `target`.

    Args:
        reduction: "batchmean" (the sum of all divergences divided by the number of samples), "mean"
            (over all elements, PyTorch's default), "sum" or "none".
        log_target: whether the target holds log-probabilities.

    Shapes: output and target (N, ..., classes), equal.

    Raises OptionError unless `log_target` is True or False; the rest as `Loss`.

    >>> testing.apply(nn.KLDivLoss(), np.log([[0.5, 0.5]]), [[1.0, 0.0]])
    array(0.69314718)
    """

    def __init__(self, reduction: str = "batchmean", log_target: bool = False):
        check_flags("KLDivLoss", log_target=log_target)
        super().__init__("mean" if reduction == "batchmean" else reduction)
        self.batchmean, self.op = reduction == "batchmean", "kl_div_log" if log_target else "kl_div"

    def scale(self, output: Value) -> float:
        return 1.0 if self.batchmean else super().scale(output)

    def weights(self, output: Value, target: Value) -> Value | None:
        if not self.batchmean or output.ndim < 3:
            return None
        shape = output.shape[:-1]
        return output.graph.full(shape, shape[0] / np.prod(shape), batched=True)


#: losses by the names that a trainer accepts
LOSSES: dict[str, type[Loss]] = {
    "cross_entropy": CrossEntropyLoss,
    "nll": NLLLoss,
    "mse": MSELoss,
    "mae": L1Loss,
    "huber": HuberLoss,
    "smooth_l1": SmoothL1Loss,
    "bce": BCELoss,
    "bce_with_logits": BCEWithLogitsLoss,
    "kl_div": KLDivLoss,
}


publish(globals(), type)
