"""Features derived from features, ``(frames, features)``: changes over time, and normalisation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnn.errors import DataError

Floats: TypeAlias = NDArray[np.floating[Any]]
Features: TypeAlias = NDArray[np.float32]


def deltas(features: ArrayLike, width: int = 2) -> Features:
    """The slope of each feature over time.

    d[t] = Σ n · (x[t+n] − x[t−n]) / (2 · Σ n²) for n = 1 … width: the slope of the straight line
    that best fits 2 · width + 1 frames; the first and last frame are repeated beyond the ends (the
    HTK book, 5.6). Deltas of deltas are accelerations.

    Args:
        features: shape ``(frames, features)``.
        width: number of frames on either side.

    Returns float32, shape ``(frames, features)``.

    Raises DataError for a `width` below 1, and for features of another shape.

    >>> fnn.data.deltas(np.arange(5.0)[:, None])[2:3]
    array([[1.]], dtype=float32)
    """
    x = as_floats(features)
    if width < 1 or x.ndim != 2 or len(x) == 0:
        raise DataError(
            f"deltas: expected width 1 or more and features (frames, features), got {width} and "
            f"{x.shape}"
        )
    n = len(x)
    wide = np.pad(x, ((width, width), (0, 0)), mode="edge")
    slope = np.zeros_like(x)
    for k in range(1, width + 1):
        slope += k * (wide[width + k : width + k + n] - wide[width - k : width - k + n])
    slope /= 2 * sum(k * k for k in range(1, width + 1))
    return slope.astype(np.float32, copy=False)


def with_deltas(features: ArrayLike, order: int = 2, width: int = 2) -> Features:
    """Features, their deltas, and the deltas of the deltas, concatenated.

    Args:
        features: shape ``(frames, features)``.
        order: 0 for the features alone, 1 with deltas, 2 with deltas of deltas, and so on.
        width: see `deltas`.

    Returns float32, shape ``(frames, (order + 1) * features)``.

    >>> from fastnn.data import mfcc
    >>> with_deltas(mfcc(np.sin(np.arange(8000) / 3), rate=8000)).shape
    (98, 39)
    """
    parts = [as_floats(features)]
    for _ in range(order):
        parts.append(deltas(parts[-1], width))
    return np.concatenate(parts, axis=1).astype(np.float32, copy=False)


def normalise(features: ArrayLike, *, variance: bool = True) -> Features:
    """Scale one utterance's features to mean 0 and, with `variance`, standard deviation 1.

    This removes the effect of microphone and loudness. A constant feature becomes 0. Input and
    output have shape ``(frames, features)``; the output is float32.

    >>> fnn.data.normalise(np.array([[1.0], [3.0]]))
    array([[-1.],
           [ 1.]], dtype=float32)
    """
    return Normaliser.fit([features], variance=variance)(features)


@dataclass(frozen=True)
class Normaliser:
    """Scales features to mean 0 and standard deviation 1 over the training data.

    Attributes:
        mean: shape ``(features,)``, float32.
        scale: the factor, 1 / standard deviation, shape ``(features,)``, float32.

    Raises DataError when it is called with another number of features.

    >>> normaliser = Normaliser.fit([[[1.0], [2.0]], [[3.0]]])
    >>> normaliser([[2.0], [2.0]])
    array([[0.],
           [0.]], dtype=float32)
    """

    mean: Features
    scale: Features

    @classmethod
    def fit(cls, utterances: Iterable[ArrayLike], *, variance: bool = True) -> Normaliser:
        """Compute mean and standard deviation over all frames of all utterances.

        Args:
            utterances: features of the training utterances, shape ``(frames, features)`` each.
            variance: whether to scale the standard deviation to 1.

        Raises DataError if there are no frames.
        """
        arrays = [np.asarray(u, np.float64) for u in utterances]
        count = sum(len(a) for a in arrays)
        if count == 0:
            raise DataError("normalise: expected at least one frame, got none")
        mean = np.sum([a.sum(axis=0) for a in arrays], axis=0) / count
        scale = np.ones_like(mean)
        if variance:
            spread = np.sum([np.square(a - mean).sum(axis=0) for a in arrays], axis=0) / count
            # what is left of a constant by rounding is not to be blown up to 1
            least = (1e-6 * np.maximum(1e-6, np.abs(mean))) ** 2
            scale = np.where(spread > least, 1 / np.sqrt(np.maximum(spread, least)), 0)
        return cls(mean.astype(np.float32), scale.astype(np.float32))

    def __call__(self, features: ArrayLike) -> Features:
        """Features of an utterance, shape ``(frames, features)``, normalised; float32."""
        x = np.asarray(features, np.float32)
        if x.shape[-1:] != self.mean.shape:
            raise DataError(f"normalise: expected {len(self.mean)} features, got shape {x.shape}")
        return np.asarray((x - self.mean) * self.scale, np.float32)


def as_floats(values: ArrayLike) -> Floats:
    """An array of float32 or float64: as it is, or as float32."""
    x = np.asarray(values)
    return x if x.dtype in (np.float32, np.float64) else x.astype(np.float32)
