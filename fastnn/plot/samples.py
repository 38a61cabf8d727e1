"""Images side by side: data, reconstructions, samples of a model."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.engine.numbers import numbers
from fastnn.errors import OptionError, ShapeError, check_whole
from fastnn.plot._figure import Path, check_shape, done, grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def samples(
    images: Any,
    shape: tuple[int, int] | None = None,
    *,
    columns: int = 10,
    limits: tuple[float, float] = (0.0, 1.0),
    path: Path = None,
) -> Figure:
    """Draw images side by side in one picture, row by row.

    Args:
        images: of shape (count, height, width) in grey values, (count, height, width, 3) in
            colours, or (count, pixels).
        shape: height and width of an image if `images` has rows of pixels; by default a square.
        columns: images in a row.
        limits: the numbers shown as black and white; numbers beyond them are clipped.
        path: where the picture is saved.

    Raises:
        ShapeError: the images have another shape. OptionError: `shape` has another number of
            pixels, or `limits` are the wrong way round.

    >>> import numpy as np
    >>> import fastnn as fnn
    >>> figure = fnn.plot.samples(np.zeros((12, 64)), columns=6)
    >>> figure.axes[0].images[0].get_array().shape  # two rows of six, one pixel apart
    (17, 53)
    """
    check_whole("samples", 1, columns=columns)
    low, high = limits
    if not low < high:
        raise OptionError(f"samples limits: expected the lower one first, got {limits}")
    values = numbers(images, "images").astype(np.float64)
    if values.ndim == 2 and values.size:
        pixels = values.shape[1]
        side = math.isqrt(pixels)
        if shape is None and side * side != pixels:
            raise OptionError(f"samples: expected the shape of images of {pixels} pixels, got none")
        if shape is not None:
            check_shape("samples", shape, pixels)
        values = values.reshape(-1, *((side, side) if shape is None else shape))
    if not values.size or values.ndim not in (3, 4) or (values.ndim == 4 and values.shape[3] != 3):
        raise ShapeError(
            "samples: expected shape (count, height, width), (count, height, width, 3) or "
            f"(count, pixels), got {np.shape(images)}"
        )
    values = np.clip((values - low) / (high - low), 0.0, 1.0)
    count, height, width = values.shape[:3]
    across = min(columns, count)
    down = -(-count // across)
    sheet = np.ones((down * (height + 1) - 1, across * (width + 1) - 1, *values.shape[3:]))
    for k, image in enumerate(values):
        top, left = (k // across) * (height + 1), (k % across) * (width + 1)
        sheet[top : top + height, left : left + width] = image
    scale = 6.0 / sheet.shape[1]
    figure, axes = grid(1, 6.0, scale * sheet.shape[0])
    axes[0].imshow(sheet, cmap="gray", vmin=0.0, vmax=1.0)
    axes[0].set_axis_off()
    return done(figure, path)
