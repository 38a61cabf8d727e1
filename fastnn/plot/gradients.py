"""How the gradient flows: by layer, and through time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fastnn.diagnostics.signals import signals
from fastnn.errors import OptionError
from fastnn.nn.module import Module
from fastnn.plot._figure import Path, done, grid
from fastnn.train.time_gradients import time_gradients

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def gradient_flow(
    model: Module, x: Any, y: Any, loss: str | Callable[..., Any], path: Path = None
) -> Figure:
    """Draw the size of the loss's gradient at each layer's outputs, and at each time step of
    recurrent layers, for a mini-batch.

    Bars (or curves) that fall by orders of magnitude with the distance from the loss show a
    vanishing gradient: layers far from the loss learn nothing. The model is unchanged.

    Args:
        model, x, y, loss: as for `fastnn.diagnostics.signals`.
        path: where the picture is saved.

    Raises:
        OptionError: the loss depends on no layer.

    >>> import numpy as np
    >>> import fastnn as fnn
    >>> from fastnn import nn
    >>> x = np.random.default_rng(0).normal(size=(8, 20, 4)).astype(np.float32)
    >>> class Last(nn.Module):
    ...     def __init__(self):
    ...         self.rnn, self.out = nn.RNN(4, 8), nn.Linear(8, 1)
    ...     def forward(self, x):
    ...         return self.out(self.rnn(x)[0][:, -1])
    >>> figure = fnn.plot.gradient_flow(Last(), x, np.zeros((8, 1)), "mse")
    >>> [ax.get_title() for ax in figure.axes]
    ['by layer', 'by time step']
    """
    found = [s for s in signals(model, x, y, loss).layers if not math.isnan(s.gradient_rms)]
    if not found:
        raise OptionError("gradient_flow: expected a loss that depends on a layer, found none")
    try:
        times = time_gradients(model, x, y, loss)
    except OptionError:  # no recurrent layer
        times = {}
    figure, axes = grid(2 if times else 1, max(4.8, 0.4 * len(found) + 2), 3.8)
    axes[0].bar(range(len(found)), [s.gradient_rms for s in found])
    axes[0].set_xticks(range(len(found)), [s.name for s in found], rotation=60, ha="right")
    axes[0].set_ylabel("gradient of a sample, root mean square")
    axes[0].set_title("by layer")
    if times:
        for name, norms in times.items():
            axes[1].plot(range(1, len(norms) + 1), norms, label=name)
        axes[1].set_xlabel("time step")
        axes[1].set_ylabel("norm")
        axes[1].set_title("by time step")
        axes[1].legend(fontsize="small")
    for ax in axes:
        ax.set_yscale("log")
        ax.grid(alpha=0.3)
    return done(figure, path)
