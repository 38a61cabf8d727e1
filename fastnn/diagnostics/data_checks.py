"""What is wrong with data, looked at as a whole before a training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn.engine.arrays import Arrays, is_array
from fastnn.errors import DataError
from fastnn.nn.loss import CrossEntropyLoss, NLLLoss

GOOD, LOOK, BAD = "good", "look", "bad"


@dataclass(frozen=True)
class Finding:
    """One check's result.

    Attributes:
        check: what was looked at.
        verdict: "good", "look" (may be meant) or "bad".
        found: what was found, with numbers.
        advice: what to do; empty where the verdict is "good".
    """

    check: str
    verdict: str
    found: str
    advice: str = ""


def each(data: Any, change: Callable[[NDArray[Any]], NDArray[Any]]) -> Any:
    """Inputs or targets, alone or several in a tuple, list or dict, each array changed."""
    if isinstance(data, Mapping):
        return {key: each(part, change) for key, part in data.items()}
    several = isinstance(data, list) and data and all(is_array(part) for part in data)
    if isinstance(data, tuple) or several:
        return tuple(each(part, change) for part in data)
    return change(np.asarray(data))


def inputs(x: Arrays) -> Finding:
    """Whether inputs are finite and normalised; small integers count as their specs say."""
    check = "inputs"
    said = []
    verdict, advice = GOOD, ""
    for array, spec in zip(x.arrays, x.specs, strict=True):
        values = np.asarray(array)
        if spec.dtype != "f":
            said.append(f"ids from {values.min()} to {values.max()}")
            continue
        if unsound := not_finite(check, values):
            return unsound
        width = values.shape[-1] if values.ndim > 1 else 1
        flat = values.reshape(-1, width).astype(np.float64)
        means, stds = flat.mean(axis=0), flat.std(axis=0)
        said.append(f"mean {flat.mean():.3g}, standard deviation {flat.std():.3g}")
        if len(flat) == 1:  # nothing to compare it with
            continue
        constant = int((stds == 0).sum())
        if constant:
            said.append(f"{constant} of {len(stds)} features constant")
        if constant == len(stds):
            return Finding(check, BAD, "; ".join(said), "every sample is the same: check the data")
        spread = stds[stds > 0]
        wide = len(spread) and (spread.max() > 10 or spread.max() < 0.1)
        uneven = len(spread) and spread.max() > 100 * np.median(spread)
        if wide or uneven or np.abs(means).max() > 3 * max(float(flat.std()), 1.0):
            verdict = LOOK
            advice = (
                "bring every feature to mean 0 and standard deviation 1, by numbers of the "
                "training data alone"
            )
    return Finding(check, verdict, "; ".join(said), advice)


def not_finite(check: str, values: NDArray[Any]) -> Finding | None:
    """What is said of an array with numbers that are not finite."""
    wrong = ~np.isfinite(values)
    if not wrong.any():
        return None
    rows = np.flatnonzero(wrong.reshape(len(values), -1).any(axis=1))
    found = f"{int(wrong.sum())} of {values.size} numbers are not finite"
    return Finding(check, BAD, found, f"remove or mend them: the first is in sample {rows[0]}")


def targets(y: Arrays, loss: Any) -> list[Finding]:
    """Whether targets are finite, and classes balanced."""
    arrays = [np.asarray(a) for a in y.arrays]
    for values in arrays:
        if unsound := not_finite("targets", values):
            return [unsound]
    if len(arrays) != 1 or arrays[0].dtype.kind not in "iub":
        return []
    ignored = None
    if isinstance(loss, str):
        of_classes = loss in ("cross_entropy", "nll")
    else:
        of_classes = isinstance(loss, (CrossEntropyLoss, NLLLoss))
        ignored = getattr(loss, "ignore_index", None)
    if not of_classes:
        return []
    labels = arrays[0].reshape(-1)
    if ignored is not None:
        labels = labels[labels != ignored]
    labels = labels[labels >= 0]
    if not labels.size:
        raise DataError("diagnose: expected class indices among the targets, found none from 0 on")
    return [_classes(labels)]


def _classes(labels: NDArray[Any]) -> Finding:
    kinds, counts = np.unique(labels, return_counts=True)
    shares = counts / counts.sum()
    count = int(kinds[-1]) + 1
    # the lowest that are missing; there may be more than memory holds
    missing = np.setdiff1d(np.arange(min(count, len(kinds) + 6)), kinds)
    found = f"{count} classes, the most frequent one {shares.max():.1%}"
    if absent := count - len(kinds):
        found += f", none of {', '.join(map(str, missing[:5]))}" + " ..." * (absent > 5)
    uneven = shares.max() > 3 * shares.min()
    advice = ""
    if len(kinds) == 1:
        found = f"class {kinds[0]} alone"
        advice = "there is nothing to tell apart: check the targets"
    elif uneven:
        advice = (
            f"accuracy begins at {shares.max():.1%}: look at the recall of each class, draw "
            'batches with shuffle="balanced", or weigh the classes in the loss'
        )
    elif absent:
        advice = "check the numbers of the classes: they are to be 0, 1, 2, ..."
    return Finding("labels", LOOK if advice else GOOD, found, advice)
