"""Learning curves of one or several runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.engine.numbers import numbers
from fastnn.errors import DataError
from fastnn.plot._figure import Path, done, grid
from fastnn.train.history import History

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def learning_curves(histories: Any, path: Path = None) -> Figure:
    """Draw learning curves: a panel for the loss and one for each metric.

    Args:
        histories: what `Trainer.fit` returned, or a dict of these by label, to compare runs; a
            history may also be a dict of lists with one number for each epoch.
        path: where the picture is saved.

    Validation is drawn solid and training dashed, in one colour for each run.

    Raises:
        DataError: no run has an epoch.

    >>> import fastnn as fnn
    >>> runs = {"sgd": {"loss": [2.3, 1.1]}, "adam": {"loss": [2.3, 0.4], "val_loss": [1.2, 0.6]}}
    >>> len(fnn.plot.learning_curves(runs).axes[0].lines)
    3
    """
    if not isinstance(histories, (Mapping, History)):
        raise DataError(
            f"learning_curves: expected what fit returned, or a dict of it by label, got a "
            f"{type(histories).__name__}"
        )
    single = isinstance(histories, History) or not any(
        isinstance(h, (Mapping, History)) for h in histories.values()
    )
    runs: dict[str, Any] = {"": histories} if single else dict(histories)
    panels = list(dict.fromkeys(n.removeprefix("val_") for run in runs.values() for n in run))
    if not any(np.size(run[name]) for run in runs.values() for name in run):
        raise DataError("learning_curves: expected a history with an epoch, got none")
    figure, axes = grid(len(panels), 4.8, 3.6, 3)
    for panel, ax in zip(panels, axes, strict=True):
        for number, (label, run) in enumerate(runs.items()):
            for name, what, style in (
                (panel, "training", "--"), (f"val_{panel}", "validation", "-"),
            ):  # fmt: skip
                if name in run:
                    values = numbers(run[name], f"learning_curves: {name}").astype(float)
                    own = " ".join(part for part in (label, what) if part)
                    ax.plot(
                        np.arange(1, len(values) + 1), values, style, color=f"C{number}", label=own,
                        marker="." if len(values) < 40 else "",
                    )  # fmt: skip
        ax.set_title(panel.replace("_", " "))
        ax.set_xlabel("epoch")
        ax.locator_params(axis="x", integer=True)
        ax.grid(alpha=0.3)
        ax.legend(fontsize="small")
    return done(figure, path)
