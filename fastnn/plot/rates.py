"""Learning rates over a training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.errors import OptionError, check_numbers, check_whole
from fastnn.optim.schedule import Schedule
from fastnn.plot._figure import Path, done, grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def schedules(
    given: Mapping[str, Any],
    steps: int = 1000,
    *,
    steps_per_epoch: int = 100,
    lr: float = 1.0,
    path: Path = None,
) -> Figure:
    """Draw learning-rate schedules, a panel for each: the rate of each step.

    Args:
        given: schedules of `fastnn.optim.schedules`, by label.
        steps: number of steps.
        steps_per_epoch: steps in an epoch, for schedules that count epochs.
        lr: the base rate.
        path: where the picture is saved.

    Raises:
        OptionError: there is no schedule, or something else among them.

    >>> import fastnn as fnn
    >>> from fastnn.optim import schedules
    >>> halves = schedules.StepDecay(30, 0.5)
    >>> figure = fnn.plot.schedules({"halves": halves}, 100, lr=0.1)
    >>> [float(rate) for rate in figure.axes[0].lines[0].get_ydata()[[0, 30, 99]]]
    [0.1, 0.05, 0.0125]
    """
    check_whole("schedules", 1, steps=steps, steps_per_epoch=steps_per_epoch)
    check_numbers("schedules", lr=lr)
    if not isinstance(given, Mapping) or not given:
        raise OptionError(f"schedules: expected a dict of schedules by label, got {given!r}")
    for label, schedule in given.items():
        if not isinstance(schedule, Schedule):
            raise OptionError(
                f"schedules {label!r}: expected one of fastnn.optim.schedules, got {schedule!r}"
            )
    figure, axes = grid(len(given), 2.6, 2.0)
    times = np.arange(steps)
    for (label, schedule), ax in zip(given.items(), axes, strict=True):
        ax.plot(times, schedule(times, lr, steps_per_epoch=steps_per_epoch))
        ax.set_ylim(bottom=0.0)
        ax.set_title(label, fontsize="medium")
        ax.grid(alpha=0.3)
    return done(figure, path)
