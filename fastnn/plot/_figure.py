"""What all pictures share."""

from __future__ import annotations

import math
import os
from collections.abc import Sized
from typing import TYPE_CHECKING, Any

from fastnn import files
from fastnn.errors import OptionError, ShapeError, is_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Path = str | os.PathLike[str] | None


def grid(count: int, width: float, height: float, columns: int = 4) -> tuple[Figure, list[Any]]:
    """A figure with so many panels of a size in inches, in rows; and the panels."""
    across = min(count, columns)
    down = -(-count // across)
    figure = files.new_figure(width * across, height * down)
    axes = list(figure.subplots(down, across, squeeze=False).flat)
    for ax in axes[count:]:
        ax.remove()
    return figure, axes[:count]


def done(figure: Figure, path: Path) -> Figure:
    """The figure, saved where there is a path."""
    if path is not None:
        files.save_figure(figure, path)
    return figure


def check_shape(owner: str, shape: Any, pixels: int) -> None:
    """Raise OptionError unless this is the height and width of images of so many pixels."""
    pair = isinstance(shape, (tuple, list)) and len(shape) == 2
    if not pair or not all(is_whole(n, 1) for n in shape) or math.prod(shape) != pixels:
        raise OptionError(
            f"{owner} shape: expected height and width with a product of {pixels}, got {shape!r}"
        )


def check_each(owner: str, count: int, **given: Any) -> None:
    """Raise ShapeError for what is given but is not one for each of so many vectors."""
    for what, several in given.items():
        if several is None or (isinstance(several, Sized) and len(several) == count):
            continue
        got = len(several) if isinstance(several, Sized) else repr(several)
        raise ShapeError(f"{owner}: expected {count} {what}, one for each vector, got {got}")
