"""The learning-rate range test: which rates a model can be trained with."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastnn import files, optim
from fastnn.errors import NonFiniteError, OptionError, check_numbers, check_whole
from fastnn.nn.module import Module
from fastnn.train.options import check_options
from fastnn.train.step import compile as compile_step

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: the test ends where the smoothed loss is so many times the lowest
WORSE = 4.0
#: what an earlier loss counts in the smoothed one, relative to the next
SMOOTHING = 0.9


@dataclass(frozen=True)
class RangeTest:
    """What a range test has found.

    Attributes:
        rates: the learning rates, one a step.
        losses: the loss of each step, before its update.
        smoothed: their exponential average, corrected for its start.
        suggestion: the rate at which the smoothed loss falls fastest; None if it never falls.
        diverged: whether the test ended early because the loss rose too far or became NaN.
    """

    rates: NDArray[np.float64]
    losses: NDArray[np.float64]
    smoothed: NDArray[np.float64]
    suggestion: float | None
    diverged: bool

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Draw losses over rates, with the suggestion; with a path the picture is saved there, in
        the format given by its extension. Raises ImportError if matplotlib is missing."""
        figure = files.new_figure(6.0, 4.0)
        ax = figure.subplots()
        ax.plot(self.rates, self.losses, color="0.8", label="loss")
        ax.plot(self.rates, self.smoothed, label="smoothed")
        if self.suggestion is not None:
            label = f"suggestion {self.suggestion:.2g}"
            ax.axvline(self.suggestion, color="C1", linestyle="--", label=label)
        top = max(self.smoothed[0], self.smoothed.min()) * 1.5
        ax.set_ylim(min(self.smoothed.min() * 0.9, self.smoothed.min() - 0.05), top)
        ax.set_xscale("log")
        ax.set_xlabel("learning rate")
        ax.set_ylabel("loss")
        ax.grid(alpha=0.3)
        ax.legend()
        if path is not None:
            files.save_figure(figure, path)
        return figure


def range_test(
    model: Module,
    loss: Any,
    optimizer: str | optim.Optimizer,
    x: Any,
    y: Any = None,
    *,
    low: float = 1e-6,
    high: float = 10.0,
    steps: int = 100,
    batch_size: int = 32,
    seed: int = 0,
    dtype: str = "float32",
    device: str = "auto",
) -> RangeTest:
    """Train a copy of the model for a few steps, at a rate that grows from step to step.

    (Smith 2017, "Cyclical learning rates for training neural networks", section 3.3.) The model,
    the optimiser and the data are left as they were. The optimiser's schedule is ignored; groups
    keep the ratio of their rates to the base rate.

    Args:
        model, loss, optimizer, seed, dtype, device: as for `fastnn.compile`.
        x, y: arrays of samples, as for `Trainer.fit`; batches are drawn from them.
        low, high: the first and the last rate; between them rates grow by a constant factor.
        steps: how many steps.
        batch_size: samples in a step: what you train with.

    Returns:
        Rates, losses, a suggestion, and a picture (`RangeTest.plot`).

    Raises:
        OptionError: an option that is not allowed.

    >>> import numpy as np
    >>> from fastnn import nn, optim
    >>> x = np.random.default_rng(0).normal(size=(256, 4)).astype(np.float32)
    >>> y = (x[:, 0] > 0).astype(np.int64)
    >>> found = range_test(nn.Linear(4, 2), "cross_entropy", optim.SGD(), x, y, high=100.0)
    >>> 0.01 < found.suggestion < 100
    True
    """
    check_numbers("range_test", low=low, high=high)
    check_whole("range_test", 10, steps=steps)
    check_whole("range_test", 1, batch_size=batch_size)
    if not 0 < low < high:
        raise OptionError(f"range_test: expected 0 < low < high, got low={low} and high={high}")
    _, given = check_options(model, loss, optimizer, seed, dtype)
    own = copy.deepcopy(given)
    own.schedule = None
    step = compile_step(copy.deepcopy(model), loss, own, seed=seed, dtype=dtype, device=device)
    xs, ys = np.asarray(x), None if y is None else np.asarray(y)
    size = min(batch_size, len(xs))
    order = np.random.default_rng(seed)
    rates = np.geomspace(low, high, steps)
    losses, smoothed, average, diverged = [], [], 0.0, False
    rows = np.empty(0, np.int64)
    for k, rate in enumerate(rates):
        if len(rows) < size:
            rows = order.permutation(len(xs))
        now, rows = np.sort(rows[:size]), rows[size:]
        step.learning_rate = float(rate)
        try:
            value = step(xs[now], None if ys is None else ys[now])
        except NonFiniteError:
            diverged = True
            break
        average = SMOOTHING * average + (1 - SMOOTHING) * value
        losses.append(value)
        smoothed.append(average / (1 - SMOOTHING ** (k + 1)))
        if k >= 10 and smoothed[-1] > WORSE * abs(min(smoothed)):
            diverged = True
            break
    return _found(rates[: len(losses)], np.array(losses), np.array(smoothed), diverged)


def _found(rates: Any, losses: Any, smoothed: Any, diverged: bool) -> RangeTest:
    """The steepest fall is looked for over a few steps, from the first tenth, of which chance makes
    the most, to the lowest loss after it."""
    suggestion, reach = None, max(len(rates) // 20, 1)
    first = len(rates) // 10 + reach
    lowest = first + int(np.argmin(smoothed[first:])) if first < len(smoothed) else 0
    places = np.arange(first, min(lowest + 1, len(rates) - reach))
    if len(places):
        slopes = smoothed[places + reach] - smoothed[places - reach]
        steepest = int(np.argmin(slopes))
        if slopes[steepest] < 0:
            suggestion = float(rates[places[steepest]])
    return RangeTest(rates, losses, smoothed, suggestion, diverged)
