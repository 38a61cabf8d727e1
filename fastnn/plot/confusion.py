"""Which classes are confused with which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.engine.numbers import numbers
from fastnn.errors import DataError, OptionError, ShapeError
from fastnn.plot._figure import Path, done, grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: beyond so many classes the numbers are not written into the fields
WRITTEN = 20
#: classes of which a picture can show anything
MOST = 10_000


def confusion_matrix(
    targets: Any,
    predictions: Any,
    classes: Sequence[str] | None = None,
    *,
    normalize: bool = False,
    path: Path = None,
) -> Figure:
    """Draw how often each class was predicted for each: rows are the true classes, columns the
    predicted ones.

    Args:
        targets: class indices of any shape; those below 0 are ignored.
        predictions: class indices of the same shape, or scores with one more dimension, whose
            largest gives the class.
        classes: names of the classes.
        normalize: shares of each row instead of counts.
        path: where the picture is saved.

    Raises:
        ShapeError: targets and predictions do not fit. DataError: targets are no whole numbers, are
            10,000 or more, or all are ignored. OptionError: there are more classes than names.

    >>> import fastnn as fnn
    >>> figure = fnn.plot.confusion_matrix([0, 0, 1], [0, 1, 1], ["cat", "dog"])
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['1', '1', '0', '1']
    """
    wanted = numbers(targets, "confusion_matrix: targets")
    found = numbers(predictions, "confusion_matrix: predictions")
    if found.ndim == wanted.ndim + 1:
        found = found.argmax(axis=-1)
    if wanted.shape != found.shape:
        raise ShapeError(
            f"confusion_matrix: expected predictions of shape {wanted.shape}, or with one more "
            f"dimension for scores, got {np.shape(predictions)}"
        )
    for what, array in (("targets", wanted), ("predictions", found)):
        if array.size and array.dtype.kind not in "iub":
            raise DataError(
                f"confusion_matrix: expected class indices, whole numbers, as {what}, got "
                f"{array.dtype}"
            )
    counted = wanted >= 0
    wanted, found = wanted[counted].astype(np.int64), found[counted].astype(np.int64)
    if not wanted.size or found.min() < 0:
        raise DataError("confusion_matrix: expected class indices from 0 on, got none, or below 0")
    size = int(max(wanted.max(), found.max())) + 1
    if size > MOST:
        raise DataError(
            f"confusion_matrix: expected class indices below {MOST}, got {size - 1}; leave out "
            "what is no class, or give the classes numbers from 0 on"
        )
    if classes is not None:
        if not isinstance(classes, Sequence):
            raise OptionError(f"confusion_matrix classes: expected names, got {classes!r}")
        if len(classes) < size:
            raise OptionError(
                f"confusion_matrix classes: expected a name for each of {size}, got {len(classes)}"
            )
        size = len(classes)
    counts = np.bincount(wanted * size + found, minlength=size * size).reshape(size, size)
    table = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1) if normalize else counts
    side = min(max(3.2, 0.45 * size + 1.6), 12.0)
    figure, (ax,) = grid(1, side + 0.8, side)
    image = ax.imshow(table, cmap="Blues", vmin=0)
    figure.colorbar(image, ax=ax, fraction=0.045)
    if size <= WRITTEN:
        for row, column in np.ndindex(size, size):
            value = table[row, column]
            text = f"{value:.2f}" if normalize else f"{value}"
            dark = value > table.max() / 2
            ax.text(
                column, row, text, ha="center", va="center", fontsize="small",
                color="white" if dark else "black",
            )  # fmt: skip
    names = list(classes) if classes is not None else [str(k) for k in range(size)]
    places = range(0, size, max(1, size // 40))
    ax.set_xticks(places, [names[k] for k in places], rotation=0 if size <= 10 else 90)
    ax.set_yticks(places, [names[k] for k in places])
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")
    return done(figure, path)
