"""What a decoder looked at while it wrote."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.engine.numbers import numbers
from fastnn.errors import OptionError, ShapeError
from fastnn.plot._figure import Path, done, grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def alignment(
    weights: Any,
    source: Sequence[str] | None = None,
    target: Sequence[str] | None = None,
    *,
    path: Path = None,
) -> Figure:
    """Draw the weights of attention: a row for each step of the output, a column for each position
    of the input.

    Args:
        weights: shape (steps, positions). Steps and positions without a symbol are left out.
        source, target: the symbols of input and output.
        path: where the picture is saved.

    Raises:
        ShapeError: weights of another shape.
        OptionError: there are more symbols than steps or positions.

    >>> import fastnn as fnn
    >>> figure = fnn.plot.alignment([[0.9, 0.1], [0.2, 0.8]], ["a", "cat"], ["eine", "Katze"])
    >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
    ['eine', 'Katze']
    """
    found = np.asarray(numbers(weights, "alignment: weights"), np.float64)
    if found.ndim != 2 or found.size == 0:
        raise ShapeError(
            f"alignment: expected weights of shape (steps, positions), got {found.shape}; draw one "
            "sample's"
        )
    for axis, (name, symbols) in enumerate((("target", target), ("source", source))):
        if symbols is not None:
            if not isinstance(symbols, Sequence):
                raise OptionError(f"alignment {name}: expected symbols, got {symbols!r}")
            if not 0 < len(symbols) <= found.shape[axis]:
                raise OptionError(
                    f"alignment: expected 1 to {found.shape[axis]} symbols in {name}, got "
                    f"{len(symbols)}"
                )
            found = found[: len(symbols)] if axis == 0 else found[:, : len(symbols)]
    width, height = 2 + 0.35 * min(found.shape[1], 60), 1.5 + 0.3 * min(found.shape[0], 60)
    figure, (ax,) = grid(1, width, height)
    ax.imshow(found, cmap="Greys", vmin=0.0, vmax=max(1.0, found.max()), aspect="auto")
    if source is not None:
        ax.set_xticks(range(len(source)), [str(s) for s in source], rotation=90)
    if target is not None:
        ax.set_yticks(range(len(target)), [str(s) for s in target])
    ax.set(xlabel="input", ylabel="output")
    return done(figure, path)
