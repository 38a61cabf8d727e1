"""The record of a training run, as Keras's `History`."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from fastnn import files
from fastnn.errors import DataError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class History(Mapping[str, list[float]]):
    """Values of each epoch by name: a mapping from "loss", "val_loss", "accuracy", … to lists.

    - ``history``: the lists in a dict; ``history["loss"]`` of this object is the same list;
    - ``epoch``: the numbers of the epochs, from 0, one for each value;
    - ``params``: what the run was called with (epochs, batch_size, steps, …);
    - ``stopped``: why the run ended: "completed", "interrupted", "early stopping", …; "" while it
    is running.

    >>> record = History({"epochs": 2})
    >>> record.append(0, {"loss": 0.7, "val_loss": 0.8})
    >>> record.append(1, {"loss": 0.5, "val_loss": 0.7})
    >>> record["loss"]
    [0.7, 0.5]
    >>> record.stopped = "completed"
    >>> record
    History(2 epochs, completed: loss 0.5, val_loss 0.7)
    """

    def __init__(self, params: Mapping[str, Any] | None = None) -> None:
        self.history: dict[str, list[float]] = {}
        self.epoch: list[int] = []
        self.params: dict[str, Any] = dict(params or {})
        self.stopped = ""

    def append(self, epoch: int, logs: Mapping[str, float]) -> None:
        """Add an epoch's values. Missing values are NaN, so all lists keep the same length."""
        row = {name: float(value) for name, value in logs.items()}
        for name in row:
            self.history.setdefault(name, [math.nan] * len(self.epoch))
        for name, values in self.history.items():
            values.append(row.get(name, math.nan))
        self.epoch.append(epoch)  # last: see `even`

    def even(self) -> None:
        """Leave out an epoch that was not added whole, because Ctrl-C came between."""
        count = len(self.epoch)
        for name in [n for n, values in self.history.items() if len(values) < count]:
            del self.history[name]
        for values in self.history.values():
            del values[count:]

    def __getitem__(self, name: str) -> list[float]:
        if name not in self.history:
            there = ", ".join(self.history) or "nothing yet"
            raise KeyError(f"the history has no {name!r}; it has {there}")
        return self.history[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.history)

    def __len__(self) -> int:
        return len(self.history)

    def __repr__(self) -> str:
        count = len(self.epoch)
        head = f"{count} epoch{'s' if count != 1 else ''}"
        if self.stopped:
            head += f", {self.stopped}"
        last = ", ".join(f"{name} {values[-1]:.4g}" for name, values in self.items())
        return f"History({head}: {last})" if last else f"History({head})"

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write a table with the columns epoch, loss, …; one row per epoch, empty for NaN."""
        import csv  # not for those who write none

        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(["epoch", *self.history])
        for epoch, *values in zip(self.epoch, *self.history.values(), strict=True):
            writer.writerow([epoch, *("" if math.isnan(v) else v for v in values)])
        files.write_text(files.as_path(path), text.getvalue(), "table")

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Draw the learning curves: a panel for the loss and one for each metric.

        Training and validation ("val_" before the name) share a panel. With a path the picture is
        saved there, in the format given by its extension; the figure is returned either way. No
        display is needed. Raises ImportError if matplotlib is missing, DataError if there is no
        epoch.
        """
        if not self.epoch:
            raise DataError("there is nothing to plot: no epoch has ended")
        panels = list(dict.fromkeys(name.removeprefix("val_") for name in self.history))
        figure = files.new_figure(4.8 * len(panels), 3.6)
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for panel, ax in zip(panels, axes, strict=True):
            self._draw(panel, ax)
        if path is not None:
            files.save_figure(figure, path)
        return figure

    def _draw(self, panel: str, ax: Axes) -> None:
        for name, label in ((panel, "training"), (f"val_{panel}", "validation")):
            points = [
                (epoch + 1, value)
                for epoch, value in zip(self.epoch, self.history.get(name, ()), strict=False)
                if not math.isnan(value)
            ]
            if points:
                ax.plot(
                    *zip(*points, strict=True), marker="." if len(points) < 40 else "", label=label
                )
        ax.set_title(panel.replace("_", " "))
        ax.set_xlabel("epoch")
        ax.locator_params(axis="x", integer=True)
        ax.grid(alpha=0.3)
        ax.legend()
