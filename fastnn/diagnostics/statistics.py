"""Statistics of layers over training: do units saturate or die, do updates have the right size?"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn import files
from fastnn.diagnostics.signals import signals
from fastnn.errors import DataError, OptionError
from fastnn.train.hooks import Callback, Logs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: what is recorded of each layer, as attributes of its signal
RECORDED = ("mean", "std", "saturated", "dead", "gradient_rms")


class LayerStatistics(Callback):
    """Records each layer's activations and gradients on a mini-batch after each epoch, and how far
    the epoch moved its parameters.

    Args:
        x, y: the mini-batch, as for `Trainer.fit`; the same for all epochs.
        loss: the loss for it; by default the trainer's.

    Attributes:
        epochs: numbers of the epochs.
        layers: by layer, lists with one number for each epoch, by name: "mean" and "std" of its
            outputs, "saturated" (the share of them in the flat parts of sigmoid or tanh), "dead"
            (the share of ReLU units that give 0 for all samples), "gradient_rms" (of a sample's
            gradient to them). Values that do not apply are NaN.
        updates: by parameter, the norm of its change in each epoch relative to its norm, divided by
            the number of steps. A healthy step is about 1e-3 of the weights at the beginning of a
            training; if it is far below, the rate is too low or the gradient has vanished; if far
            above, the rate is too high. Steps that go back and forth partly cancel here.

    Nothing of the run is changed.

    Raises OptionError for inputs without targets.

    >>> import numpy as np
    >>> import fastnn as fnn
    >>> from fastnn import nn
    >>> from fastnn.callbacks import LayerStatistics
    >>> x = np.random.default_rng(0).normal(size=(200, 10)).astype(np.float32)
    >>> y = (x[:, 0] > 0).astype(np.int64)
    >>> model = nn.Sequential(nn.Linear(10, 16), nn.Tanh(), nn.Linear(16, 2))
    >>> watch = LayerStatistics(x[:32], y[:32])
    >>> trainer = fnn.Trainer(model, "cross_entropy", "adam")
    >>> _ = trainer.fit(x, y, epochs=2, callbacks=[watch], verbose=False)
    >>> len(watch.layers["1"]["saturated"]), 1e-5 < watch.updates["0.weight"][0] < 1e-1
    (2, True)
    """

    passive = True

    def __init__(self, x: Any, y: Any, loss: Any = None) -> None:
        if y is None:
            raise OptionError("LayerStatistics: expected inputs and targets, got no targets")
        self.x, self.y, self.loss = x, y, loss
        self._reset()

    def _reset(self) -> None:
        self.epochs: list[int] = []
        self.layers: dict[str, dict[str, list[float]]] = {}
        self.updates: dict[str, list[float]] = {}
        self._before: dict[str, np.ndarray] = {}

    def on_train_begin(self, logs: Logs) -> None:
        self._reset()

    def on_epoch_begin(self, epoch: int, logs: Logs) -> None:
        self._before = self._weights()

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        loss = self.loss or getattr(self.trainer, "losses")  # noqa: B009  (not in TrainerLike)
        found = signals(self.model, self.x, self.y, loss)
        self.epochs.append(epoch)
        for signal in found.layers:
            kept = self.layers.setdefault(signal.name, {what: [] for what in RECORDED})
            for what in RECORDED:
                kept[what].append(getattr(signal, what))
        steps = self.params.get("steps") or 1
        for name, after in self._weights().items():
            before = self._before.get(name)
            if before is not None and before.shape == after.shape:
                change, size = np.linalg.norm(after - before), np.linalg.norm(before)
                ratio = float(change / size) / steps if size else math.nan
                self.updates.setdefault(name, []).append(ratio)

    def _weights(self) -> dict[str, np.ndarray]:
        named = self.model.named_parameters().items()
        return {name: np.array(p.value, np.float64) for name, p in named if p.trainable}

    def __str__(self) -> str:
        """The last epoch's statistics as a table."""
        if not self.epochs:
            return "no epoch has ended"
        from tabulate import tabulate

        rows = [
            [name, *(_shown(kept[what][-1]) for what in RECORDED)]
            for name, kept in self.layers.items()
        ]
        head = ("layer", "mean", "std", "saturated", "dead", "gradient")
        updates = [(name, _shown(values[-1])) for name, values in self.updates.items()]
        below = tabulate(updates, ("parameter", "update / weight"), disable_numparse=True)
        return f"{tabulate(rows, head, disable_numparse=True)}\n\n{below}"

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Draw spread, saturation, dead units, gradients and updates over the epochs.

        With a path the picture is saved there; the figure is returned either way. Raises
        ImportError where matplotlib is missing, DataError where no epoch has ended.
        """
        if not self.epochs:
            raise DataError("there is nothing to plot: no epoch has ended")
        panels = {
            "standard deviation of outputs": {n: k["std"] for n, k in self.layers.items()},
            "share of units": {
                f"{n} {what}": k[what]
                for n, k in self.layers.items()
                for what in ("saturated", "dead")
            },
            "gradient of a sample": {n: k["gradient_rms"] for n, k in self.layers.items()},
            "update / weight, a step": self.updates,
        }
        figure = files.new_figure(10.0, 7.0)
        epochs = [epoch + 1 for epoch in self.epochs]
        for ax, (title, curves) in zip(figure.subplots(2, 2).flat, panels.items(), strict=True):
            for name, values in curves.items():
                if not np.isnan(values).all():
                    ax.plot(epochs[-len(values) :], values, marker=".", label=name)
            if title != "share of units":
                ax.set_yscale("log")
            ax.set_title(title)
            ax.set_xlabel("epoch")
            ax.locator_params(axis="x", integer=True)
            ax.grid(alpha=0.3)
            if ax.lines:
                ax.legend(fontsize="small")
        if path is not None:
            files.save_figure(figure, path)
        return figure


def _shown(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3g}"
