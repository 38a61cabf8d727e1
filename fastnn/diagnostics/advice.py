"""What to try next, by how a model does on training and on validation data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastnn.errors import DataError, OptionError, check_numbers

#: what to try, by what is wrong, the most promising first
REMEDIES: dict[str, tuple[str, ...]] = {
    "diverging": (
        "a learning rate of a third to a tenth (fastnn.range_test suggests one)",
        "clip the norm of the gradients (clip_norm=1.0)",
        "normalise the inputs; fastnn.diagnose(model, x, y) looks at them",
    ),
    "training": (
        "fastnn.diagnose(model, x, y): can it learn one batch by heart?",
        "another learning rate (fastnn.range_test), then a schedule for it",
        "an adaptive optimiser or momentum (optim.Adam, optim.SGD(momentum=0.9))",
        "ReLU, GELU or maxout for sigmoid and tanh; normalisation between the layers",
        "a wider or a deeper model, with residual connections where it is deep",
        "less regularisation (dropout, weight decay), until training data are learned",
    ),
    "unfinished": (
        "more epochs: the loss was still falling",
        "a higher learning rate with warm-up, or one-cycle",
    ),
    "validation": (
        "stop early (callbacks.EarlyStopping), and keep the best epoch",
        "more data, or augmented ones (noise, shifts, mixup)",
        "dropout, then weight decay (AdamW), label smoothing",
        "a smaller model, or one that shares weights (convolution, recurrence)",
        "an average of the parameters (optim.EMA, optim.SWA)",
    ),
    "good": ("measure on test data, once; then keep this model",),
}
CASES = tuple(REMEDIES)


@dataclass(frozen=True)
class Advice:
    """What `advise` says; print it for the whole text.

    Attributes:
        case: "diverging", "training" (bad on training data), "unfinished" (still falling),
            "validation" (good on training data, bad on validation data) or "good".
        reason: the numbers behind it.
        remedies: what to try, the most promising first.
    """

    case: str
    reason: str
    remedies: tuple[str, ...]

    def __str__(self) -> str:
        """The reason, and a numbered list."""
        lines = [f"{k}. {text}" for k, text in enumerate(self.remedies, 1)]
        return "\n".join([f"{self.case}: {self.reason}", *lines])


def advise(history: Any, goal: float, *, monitor: str = "loss", mode: str = "min") -> Advice:
    """What to try next, by the recipe that courses teach.

    Is the model good enough on the training data? If not, the training or the model has to change,
    and regularisation would make things worse. If it is, but not on validation data, it overfits.
    The order matters: a model that is bad on validation data may simply be bad.

    Args:
        history: what `Trainer.fit` returns, or a dict of lists of numbers, with the keys `monitor`
            and, for validation data, "val_" followed by its name.
        goal: what is good enough.
        monitor: the loss or a metric.
        mode: "min" or "max": which direction is better.

    Raises:
        OptionError: an option is not allowed. DataError: there is no epoch, or no such monitor.

    >>> from fastnn.diagnostics import advise
    >>> found = advise({"loss": [2.3, 0.6, 0.1], "val_loss": [2.2, 0.9, 1.1]}, goal=0.5)
    >>> found.case
    'validation'
    >>> print(found.reason)
    loss 0.1 in training, 0.9 at best in validation, wanted 0.5
    """
    check_numbers("advise", goal=goal)
    if mode not in ("min", "max"):
        raise OptionError(f"advise mode: expected 'min' or 'max', got {mode!r}")
    found: Mapping[str, Sequence[float]] = getattr(history, "history", history)
    if not isinstance(found, Mapping) or monitor not in found or not len(found[monitor]):
        got = (list(found) or "an empty one") if isinstance(found, Mapping) else repr(found)
        got = "no epoch of it" if isinstance(found, Mapping) and monitor in found else got
        raise DataError(f"advise: expected a history with {monitor!r}, got {got}")
    sign = 1.0 if mode == "min" else -1.0
    training = sign * np.asarray(found[monitor], np.float64)
    validation = sign * np.asarray(found.get(f"val_{monitor}", ()), np.float64)
    validation = validation[~np.isnan(validation)]
    first, last, target = float(training[0]), float(training[-1]), sign * goal
    reason = f"{monitor} {sign * last:.4g} in training"
    if len(validation):
        reason += f", {sign * validation.min():.4g} at best in validation"
    reason += f", wanted {goal:.4g}"
    best = float(np.nanmin(training)) if not np.isnan(training).all() else math.nan
    if not math.isfinite(last) or (last > first and last > best + 0.2 * max(abs(first), 1e-30)):
        case = "diverging"
    elif last <= target:
        late = len(validation) and validation.min() > target
        case = "validation" if late else "good"
    elif _falling(training):
        case = "unfinished"
    else:
        case = "training"
    return Advice(case, reason, REMEDIES[case])


def _falling(values: np.ndarray) -> bool:
    """Whether the last fifth of the epochs still brought 2 % of all that was gained."""
    if len(values) < 3:
        return len(values) == 2 and bool(values[1] < values[0])
    recent = values[-max(len(values) // 5, 2) :]
    gained = float(values[0] - values.min())
    return bool(recent[0] - recent[-1] > 0.02 * gained)
