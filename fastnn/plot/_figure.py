"""What all pictures share."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from fastnn import files

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
