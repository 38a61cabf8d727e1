"""Samples of sound as whole numbers: mu-law, which has finer steps where sound is soft."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn.engine.numbers import numbers
from fastnn.errors import DataError, OptionError, is_whole


def mu_law_encode(x: Any, levels: int = 256) -> NDArray[np.int64]:
    """Samples within -1..1 as whole numbers below `levels` by mu-law (ITU-T G.711)::

        f(x) = sign(x) log(1 + mu |x|) / log(1 + mu),  mu = levels - 1
        level = floor((f(x) + 1) / 2 * mu + 1/2)

    Args:
        x: samples of any shape; what lies beyond -1..1 counts as -1 or 1.
        levels: how many, at least 2.

    Raises DataError for samples that are not finite, OptionError for `levels` below 2.

    >>> mu_law_encode([-1.0, 0.0, 0.01, 1.0])
    array([  0, 128, 157, 255])
    """
    mu = _mu("mu_law_encode", levels)
    samples = numbers(x, "mu_law_encode").astype(np.float64)
    if not np.isfinite(samples).all():
        raise DataError(
            "mu_law_encode: expected finite samples, got NaN or infinity; clean the recording"
        )
    samples = np.clip(samples, -1.0, 1.0)
    curved = np.sign(samples) * np.log1p(mu * np.abs(samples)) / np.log1p(mu)
    return np.floor((curved + 1.0) / 2.0 * mu + 0.5).astype(np.int64)


def mu_law_decode(levels_of: Any, levels: int = 256) -> NDArray[np.float32]:
    """The samples within -1..1 that whole numbers below `levels` stand for: the reverse of
    `mu_law_encode`.

    Args:
        levels_of: whole numbers within 0..levels-1, of any shape.
        levels: as of `mu_law_encode`.

    Raises DataError for other numbers, OptionError for `levels` below 2.

    >>> mu_law_decode([0, 200, 255]).astype(float).round(4).tolist()
    [-1.0, 0.0879, 1.0]
    """
    mu = _mu("mu_law_decode", levels)
    given = numbers(levels_of, "mu_law_decode")
    if given.dtype.kind not in "iu" or (given.size and not 0 <= given.min() <= given.max() <= mu):
        raise DataError(
            f"mu_law_decode: expected whole numbers within 0..{mu}, got {given.dtype} "
            f"{given.min():g}..{given.max():g}" if given.size else
            f"mu_law_decode: expected whole numbers, got {given.dtype}"
        )  # fmt: skip
    curved = 2.0 * given / mu - 1.0
    x = np.sign(curved) * np.expm1(np.abs(curved) * np.log1p(mu)) / mu
    return x.astype(np.float32)


def _mu(who: str, levels: int) -> int:
    if not is_whole(levels, 2):
        raise OptionError(f"{who}: expected levels to be a whole number >= 2, got {levels!r}")
    return int(levels) - 1
