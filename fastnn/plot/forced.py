"""Where in time labels stand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.engine.numbers import numbers
from fastnn.errors import ShapeError
from fastnn.plot._figure import Path, done, grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def forced_alignment(
    probabilities: Any, places: Any, labels: Sequence[str], *, path: Path = None
) -> Figure:
    """Draw an alignment by connectionist temporal classification: the probabilities of the labels
    over time, and the frames that each has.

    Args:
        probabilities: of the classes or of the labels, shape (steps, classes).
        places: for each step the number of its label, -1 for a blank (see `ops.ctc_align`).
        labels: the names of the labels, in order.
        path: where the picture is saved.

    Raises ShapeError where they do not fit.

    >>> import fastnn as fnn
    >>> p = [[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.5, 0.0, 0.5]]
    >>> figure = fnn.plot.forced_alignment(p, [-1, 0, 1], ["a", "b"])
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['a', 'b']
    """
    p = np.asarray(numbers(probabilities, "forced_alignment: probabilities"), np.float64)
    where = np.asarray(numbers(places, "forced_alignment: places"))
    if p.ndim != 2 or where.shape != p.shape[:1] or where.max(initial=-1) >= len(labels):
        raise ShapeError(
            "forced_alignment: expected probabilities (steps, classes), a place for each step and "
            f"a name for each label, got {p.shape}, {where.shape} and {len(labels)} names; leave "
            "out what is past the sequence's end"
        )
    figure, (ax,) = grid(1, 2 + 0.06 * min(len(p), 150), 3.0)
    for k in range(p.shape[1]):
        ax.plot(p[:, k], color="0.7" if k == 0 else f"C{k % 10}", linewidth=1)
    for number, name in enumerate(labels):
        frames = np.flatnonzero(where == number)
        if len(frames):
            ax.axvspan(frames[0] - 0.5, frames[-1] + 0.5, color="0.92", zorder=0)
            ax.text(float(frames.mean()), 1.03, name, ha="center")
    ax.set(xlabel="frame", ylabel="probability", ylim=(0, 1.12), xlim=(-0.5, len(p) - 0.5))
    return done(figure, path)
