"""Gradient health: do gradients vanish or explode, in which layer, after how many steps?

Gradients of a recurrent net are products of as many factors as there are steps, so they shrink or
grow like a power of the number of steps. Bengio, Simard and Frasconi, "Learning long-term
dependencies with gradient descent is difficult", 1994; Pascanu, Mikolov and Bengio, "On the
difficulty of training recurrent neural networks", 2013.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn import files
from fastnn.errors import DataError, OptionError
from fastnn.train.hooks import Callback, Logs
from fastnn.train.time_gradients import Norms, time_gradients

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: below this share of the largest step's norm a gradient has vanished
VANISHED = 1e-4
#: beyond this multiple of the norm at the end that the loss is nearest to, it has exploded
EXPLODED = 1e3


class GradientHealth(Callback):
    """Records norms of gradients after each epoch, and shows them as numbers and as a picture.

    The norm of all gradients together, in the last step of the epoch and before clipping, is logged
    as "gradient_norm".

    Args:
        x, y: a mini-batch on which to measure the norms at each time step of recurrent layers (see
            `time_gradients`); None measures only layers.
        loss: the loss for it; by default the trainer's.

    Attributes:
        epochs: numbers of the epochs.
        layers: norms by layer, one for each epoch.
        times: norms at each time step by recurrent layer, one array for each epoch.

    Raises OptionError for x without y or y without x.

    >>> from fastnn.train.callbacks import GradientHealth
    >>> GradientHealth().layers
    {}
    """

    needs_gradients = True

    def __init__(self, x: Any = None, y: Any = None, loss: Any = None) -> None:
        if (x is None) != (y is None):
            raise OptionError("GradientHealth: expected both x and y, or neither")
        self.x, self.y, self.loss = x, y, loss
        self._reset()

    def _reset(self) -> None:
        self.epochs: list[int] = []
        self.layers: dict[str, list[float]] = {}
        self.times: dict[str, list[Norms]] = {}

    def on_train_begin(self, logs: Logs) -> None:
        self._reset()

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        squares: dict[str, float] = {}
        for name, parameter in self.model.named_parameters().items():
            layer = name.rpartition(".")[0] or name
            gradient = parameter.grad
            if gradient is not None:
                square = float((np.asarray(gradient, np.float64) ** 2).sum())
                squares[layer] = squares.get(layer, 0.0) + square
        self.epochs.append(epoch)
        for layer, square in squares.items():
            self.layers.setdefault(layer, []).append(math.sqrt(square))
        logs["gradient_norm"] = math.sqrt(sum(squares.values()))
        if self.x is not None:
            loss = self.loss or getattr(self.trainer, "losses")  # noqa: B009  (not in TrainerLike)
            for layer, norms in time_gradients(self.model, self.x, self.y, loss).items():
                self.times.setdefault(layer, []).append(norms)

    def verdict(self, layer: str) -> str:
        """ "vanishing", "exploding" or "healthy", judged by a recurrent layer's last norms over
        time."""
        norms = self.times[layer][-1]
        top = float(norms.max())
        if not math.isfinite(top):
            return "exploding"
        end = float(norms[0] if layer.endswith("_reverse") else norms[-1])
        if end > 0 and top > EXPLODED * end:
            return "exploding"
        return "vanishing" if float(norms.min()) < VANISHED * top else "healthy"

    def __str__(self) -> str:
        """The last epoch's norms as a table."""
        if not self.epochs:
            return "no epoch has ended"
        width = max(len(name) for name in ("layer", *self.layers, *self.times))
        lines = [f"{'layer':{width}}  gradient norm after epoch {self.epochs[-1] + 1}"]
        lines += [f"{name:{width}}  {norms[-1]:.3g}" for name, norms in self.layers.items()]
        for name, all_norms in self.times.items():
            norms = all_norms[-1]
            lines.append(
                f"{name:{width}}  first step {norms[0]:.3g}, last step {norms[-1]:.3g}, largest "
                f"{norms.max():.3g} at step {norms.argmax() + 1}: {self.verdict(name)}"
            )
        return "\n".join(lines)

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Draw the layers' norms over epochs, and the recurrent layers' over time steps.

        With a path the picture is saved there; the figure is returned either way. Raises
        ImportError where matplotlib is missing, DataError where no epoch has ended.
        """
        if not self.epochs:
            raise DataError("there is nothing to plot: no epoch has ended")
        panels = 2 if self.times else 1
        figure = files.new_figure(4.8 * panels, 3.6)
        axes: Any = figure.subplots(1, panels, squeeze=False)[0]
        for layer, values in self.layers.items():
            axes[0].plot([e + 1 for e in self.epochs], values, marker=".", label=layer)
        axes[0].set_xlabel("epoch")
        axes[0].set_ylabel("gradient norm")
        for layer, all_norms in self.times.items():
            steps = np.arange(1, len(all_norms[-1]) + 1)
            first, last = np.maximum(all_norms[0], 1e-30), np.maximum(all_norms[-1], 1e-30)
            (line,) = axes[1].plot(steps, last, label=f"{layer}, {self.verdict(layer)}")
            if len(all_norms) > 1:
                axes[1].plot(steps, first, ":", color=line.get_color())
        if self.times:
            axes[1].set_xlabel("time step")
            axes[1].set_title(f"after epoch {self.epochs[-1] + 1} (dotted: {self.epochs[0] + 1})")
        for ax in axes:
            ax.set_yscale("log")
            ax.grid(alpha=0.3)
            ax.legend()
        if path is not None:
            files.save_figure(figure, path)
        return figure
