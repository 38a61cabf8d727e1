"""Weights as images: what the units of a first layer look for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.engine.numbers import numbers
from fastnn.errors import DataError, ShapeError, check_whole
from fastnn.nn.parameter import Parameter
from fastnn.plot._figure import Path, check_shape, done, grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def weights(
    weight: Any,
    shape: tuple[int, int] | None = None,
    *,
    count: int = 64,
    columns: int = 8,
    path: Path = None,
) -> Figure:
    """Draw each unit's weights as an image: blue below 0, white at 0, red above.

    Args:
        weight: a parameter or an array. Of shape (units, inputs) as in `nn.Linear`, or
            (units, height, width); one image for each unit.
        shape: height and width of an image if `weight` is a matrix; by default a square, or one
            image of the whole matrix if the number of inputs is not a square.
        count: most units to draw: the first ones.
        columns: images in a row.
        path: where the picture is saved.

    All images share one scale.

    Raises:
        ShapeError: the weights have another shape. DataError: they are not finite numbers.
            OptionError: `shape` does not match the number of inputs.

    >>> import fastnn as fnn
    >>> figure = fnn.plot.weights(fnn.nn.Linear(64, 10).weight)
    >>> figure.axes[0].images[0].get_array().shape
    (8, 8)
    """
    check_whole("weights", 1, count=count, columns=columns)
    given = weight.value if isinstance(weight, Parameter) else weight
    values = numbers(given, "weights").astype(np.float64)
    if values.ndim == 1:
        values = values[None]
    if values.ndim not in (2, 3) or not values.size:
        raise ShapeError(
            f"weights: expected shape (units, inputs) or (units, height, width), got {values.shape}"
        )
    if not np.isfinite(values).all():
        raise DataError("weights: expected finite numbers, got some that are not")
    if values.ndim == 2:
        inputs = values.shape[1]
        side = math.isqrt(inputs)
        if shape is None:
            shape = (side, side) if side * side == inputs else None
        else:
            check_shape("weights", shape, inputs)
        values = values[None] if shape is None else values.reshape(-1, *shape)
    values = values[:count]
    bound = float(np.abs(values).max()) or 1.0
    if len(values) == 1:
        figure, axes = grid(1, 5.0, 4.0)
        image = axes[0].imshow(values[0], cmap="RdBu_r", vmin=-bound, vmax=bound, aspect="auto")
        figure.colorbar(image, ax=axes[0])
        return done(figure, path)
    figure, axes = grid(len(values), 1.1, 1.1, columns)
    for image, ax in zip(values, axes, strict=True):
        ax.imshow(image, cmap="RdBu_r", vmin=-bound, vmax=bound)
        ax.set_axis_off()
    return done(figure, path)
