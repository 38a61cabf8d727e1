"""The loss around a trained model, in a plane of its parameters."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.diagnostics.signals import signals
from fastnn.errors import OptionError, check_numbers, check_whole
from fastnn.nn.module import Module
from fastnn.plot._figure import Path, done, grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def loss_surface(
    model: Module,
    x: Any,
    y: Any,
    loss: str | Callable[..., Any],
    *,
    span: float = 1.0,
    points: int = 21,
    seed: int = 0,
    path: Path = None,
) -> Figure:
    """Draw the loss of some samples around a model, along two random directions.

    (Li, Xu, Taylor, Studer & Goldstein 2018, "Visualizing the loss landscape of neural nets".) Each
    direction is Gaussian, scaled so that its part for each unit has the norm of that unit's
    weights; biases and gains stay as they are. This makes pictures of different models comparable.

    Args:
        model, x, y, loss: as for `fastnn.diagnostics.signals`; all samples at once.
        span: how far to go, in norms of the weights.
        points: the loss is computed points * points times.
        seed: of the directions.
        path: where the picture is saved.

    The model is unchanged.

    Raises:
        OptionError: there is no matrix among the parameters, or an option is not allowed.

    >>> import numpy as np
    >>> import fastnn as fnn
    >>> from fastnn import nn
    >>> x = np.random.default_rng(0).normal(size=(32, 4)).astype(np.float32)
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    >>> figure = fnn.plot.loss_surface(net, x, x[:, :1], "mse", points=5)
    >>> figure.axes[0].get_xlabel()
    'first direction'
    """
    check_numbers("loss_surface", span=span)
    check_whole("loss_surface", 3, points=points)
    if span <= 0:
        raise OptionError(f"loss_surface span: expected more than 0, got {span}")
    own = copy.deepcopy(model)
    start = {
        name: np.array(p.value, np.float64)
        for name, p in own.named_parameters().items()
        if len(p.shape) > 1
    }
    if not start:
        raise OptionError("loss_surface: expected a model with a matrix of weights, found none")
    source = np.random.default_rng(seed)
    directions = [{name: _like(a, source) for name, a in start.items()} for _ in range(2)]
    steps = np.linspace(-span, span, points)
    heights = np.empty((points, points))
    parameters = own.named_parameters()
    for row, column in np.ndindex(points, points):
        for name, a in start.items():
            parameters[name].value = (
                a + steps[column] * directions[0][name] + steps[row] * directions[1][name]
            )
        heights[row, column] = signals(own, x, y, loss).loss
    figure, (ax,) = grid(1, 5.6, 4.6)
    finite = np.where(np.isfinite(heights), heights, np.nan)
    drawn = ax.contourf(steps, steps, finite, 30, cmap="viridis")
    ax.contour(steps, steps, finite, 15, colors="white", linewidths=0.4)
    ax.plot(0, 0, "r+", markersize=10)
    figure.colorbar(drawn, ax=ax, label="loss")
    ax.set_xlabel("first direction")
    ax.set_ylabel("second direction")
    return done(figure, path)


def _like(weight: np.ndarray, source: np.random.Generator) -> np.ndarray:
    """A random direction with the norm of each unit's weights (a row)."""
    direction = source.normal(size=weight.shape)
    axes = tuple(range(1, weight.ndim))
    norms = [np.sqrt((a**2).sum(axis=axes, keepdims=True)) for a in (weight, direction)]
    return np.asarray(direction * norms[0] / np.maximum(norms[1], 1e-30))
