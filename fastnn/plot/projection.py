"""Vectors of many dimensions in the plane: their two principal components."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.engine.numbers import numbers
from fastnn.errors import DataError, ShapeError
from fastnn.nn.parameter import Parameter
from fastnn.plot._figure import Path, check_each, done, grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: beyond so many points their names would cover each other
NAMED = 200


def embedding(
    vectors: Any,
    labels: Any = None,
    names: Sequence[str] | None = None,
    path: Path = None,
) -> Figure:
    """Draw vectors by their two principal components (Pearson 1901; Hotelling 1933).

    Args:
        vectors: shape (count, dimensions): codes of samples, or the weight of an `nn.Embedding`.
        labels: a class for each, shown as its colour.
        names: a word for each, written next to it, for the first 200.
        path: where the picture is saved.

    The axes are labelled with their share of the variance: if it is small, points that are close in
    the picture need not be close in reality.

    Raises:
        ShapeError: `vectors` is not a matrix, or the number of labels or names differs. DataError:
            numbers are not finite, or there are fewer than two vectors.

    >>> import fastnn as fnn
    >>> figure = fnn.plot.embedding(fnn.nn.Embedding(5, 8).weight, names=list("abcde"))
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['a', 'b', 'c', 'd', 'e']
    """
    given = vectors.value if isinstance(vectors, Parameter) else vectors
    values = numbers(given, "embedding").astype(np.float64)
    if values.ndim != 2 or not values.shape[1]:
        raise ShapeError(f"embedding: expected shape (count, dimensions), got {values.shape}")
    if len(values) < 2 or not np.isfinite(values).all():
        raise DataError(
            "embedding: expected at least two vectors of finite numbers, got "
            f"{len(values) if len(values) < 2 else 'some that are not finite'}"
        )
    check_each("embedding", len(values), labels=labels, names=names)
    centred = values - values.mean(axis=0)
    _, sizes, directions = np.linalg.svd(centred, full_matrices=False)
    shares = sizes**2 / max(float((sizes**2).sum()), np.finfo(np.float64).tiny)
    places = centred @ directions[:2].T
    if places.shape[1] < 2:  # one dimension
        places, shares = np.hstack([places, np.zeros_like(places)]), np.append(shares, 0.0)
    figure, (ax,) = grid(1, 6.0, 5.0)
    if labels is None:
        ax.scatter(*places.T, s=10)
    else:
        kinds = np.asarray(labels)
        for kind in np.unique(kinds):
            ax.scatter(*places[kinds == kind].T, s=10, label=str(kind))
        ax.legend(fontsize="small")
    for name, place in list(zip(names or (), places, strict=False))[:NAMED]:
        ax.annotate(name, place, xytext=(3, 3), textcoords="offset points", fontsize="small")
    ax.set_xlabel(f"first component, {shares[0]:.0%} of the variance")
    ax.set_ylabel(f"second component, {shares[1]:.0%}")
    ax.grid(alpha=0.3)
    return done(figure, path)
