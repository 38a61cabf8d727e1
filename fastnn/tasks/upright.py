"""Images without slant, which are grouped more by what they show than by the hand that wrote it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: images at a time
SOME = 4096


def upright(images: NDArray[Any], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Images of which each line is moved sideways, in proportion to its distance from the centre of
    brightness, so that bright pixels lean to neither side (their rows and columns have no
    covariance), and all lines together, so that this centre is in the middle.

    Args:
        images: rows of pixels from 0 on, shape (samples, height * width).
        shape: height and width.

    Returns:
        Rows of pixels, interpolated between neighbours; of images without bright pixels, or with
        all of them in one line, the slant stays.
    """
    parts = [images[k : k + SOME] for k in range(0, len(images), SOME)]
    moved = [_moved(part.reshape(-1, *shape).astype(np.float64)) for part in parts]
    found: NDArray[np.float32] = np.concatenate(moved).astype(np.float32).reshape(images.shape)
    return found


def _moved(images: NDArray[np.float64]) -> NDArray[np.float64]:
    height, width = images.shape[1:]
    line, column = np.arange(height)[:, None], np.arange(width)[None, :]
    mass = np.maximum(images.sum(axis=(1, 2)), 1e-12)
    middle = (images * column).sum(axis=(1, 2)) / mass
    below = line - ((images * line).sum(axis=(1, 2)) / mass)[:, None, None]
    spread = (images * below**2).sum(axis=(1, 2))
    lean = (images * below * (column - middle[:, None, None])).sum(axis=(1, 2))
    lean = np.where(spread > 1e-9 * mass, lean / np.maximum(spread, 1e-12), 0.0)
    # where each pixel comes from
    shift = (middle - (width - 1) / 2)[:, None, None] + lean[:, None, None] * below
    place = column + np.where(mass > 1e-9, 1.0, 0.0)[:, None, None] * shift
    left = np.floor(place).astype(np.int64)
    share = place - left
    return (1 - share) * _at(images, left) + share * _at(images, left + 1)


def _at(images: NDArray[np.float64], column: NDArray[np.int64]) -> NDArray[np.float64]:
    """Pixels at these columns of their lines, 0 outside."""
    inside = (column >= 0) & (column < images.shape[2])
    found = np.take_along_axis(images, np.where(inside, column, 0), axis=2)
    return np.where(inside, found, 0.0)
