"""Codes: drawn, walked between, laid out on a plane."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np

from fastnn.errors import DataError, OptionError, ShapeError, check_numbers, check_whole

#: the least truncation: below it hardly any number that is drawn can stay
LEAST = 0.1


def noise(count: int, latent: int, seed: int, truncation: float | None = None) -> np.ndarray:
    """Normally distributed codes, shape (count, latent); numbers further from 0 than `truncation`
    are drawn again (Brock et al. 2019)."""
    check_whole("sample", 1, count=count)
    check_whole("sample", 0, seed=seed)
    random = np.random.default_rng(seed)
    codes = random.normal(size=(count, latent))
    if truncation is not None:
        check_numbers("sample", truncation=truncation)
        if truncation < LEAST:
            raise OptionError(
                f"sample truncation: expected None or a number of {LEAST} or more, got {truncation}"
            )
        while (far := np.abs(codes) > truncation).any():
            codes[far] = random.normal(size=int(far.sum()))
    return codes.astype(np.float32)


def stacked(y: Any, count: int) -> np.ndarray:
    """Class numbers, one for each of `count` samples."""
    labels = np.asarray(y)
    if labels.ndim == 0:
        labels = np.repeat(labels, count)
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise DataError(
            f"y: expected a class number, or {count} of them, got {labels.dtype} of shape "
            f"{labels.shape}"
        )
    return labels


def interpolate(a: Any, b: Any, steps: int = 8, spherical: bool = False) -> np.ndarray:
    """Codes on the way from one to another.

    Args:
        a, b: codes, shape (latent,).
        steps: how many, the ends included.
        spherical: whether to go along the arc between the directions (Shoemake 1985; White 2016),
            on which codes in many dimensions are as far from 0 as drawn ones, in place of the
            straight line.

    Returns:
        Shape (steps, latent).

    Raises OptionError for `steps` below 2; ShapeError for codes that are not of one shape.

    >>> from fastnn.generative import interpolate
    >>> interpolate([0.0, 1.0], [1.0, 1.0], steps=3)
    array([[0. , 1. ],
           [0.5, 1. ],
           [1. , 1. ]])
    """
    check_whole("interpolate", 2, steps=steps)
    first, last = (np.asarray(code, np.float64) for code in (a, b))
    if first.ndim != 1 or first.shape != last.shape:
        raise ShapeError(
            f"interpolate: expected two codes of one shape (latent,), got {first.shape} and "
            f"{last.shape}"
        )
    t = np.linspace(0.0, 1.0, steps)[:, None]
    norms = np.linalg.norm(first), np.linalg.norm(last)
    if not spherical or 0.0 in norms:
        return first + t * (last - first)
    cosine = np.clip(first @ last / (norms[0] * norms[1]), -1.0, 1.0)
    angle = float(np.arccos(cosine))
    if np.sin(angle) < 1e-6:  # the same direction, or the opposite one: no arc is shortest
        return first + t * (last - first)
    return (np.sin((1.0 - t) * angle) * first + np.sin(t * angle) * last) / np.sin(angle)


def manifold(side: int = 15, within: float = 0.95) -> np.ndarray:
    """Codes of two numbers on a square lattice that is as dense as their normal distribution.

    Each of the two numbers has the distribution's quantiles, evenly spaced in probability, so
    that the decoded lattice shows the whole model (figure 4 of Kingma & Welling 2014).

    Args:
        side: codes along each side.
        within: the probability of each number that the lattice covers, in (0, 1).

    Returns:
        Shape (side * side, 2), row by row; the first number grows to the right, the second upward.

    Raises OptionError for a `side` below 2, and for a `within` outside (0, 1).

    >>> from fastnn.generative import manifold
    >>> manifold(3, within=0.5).shape
    (9, 2)
    """
    check_whole("manifold", 2, side=side)
    check_numbers("manifold", within=within)
    if not 0 < within < 1:
        raise OptionError(f"manifold: expected within in (0, 1), got {within}")
    chances = np.linspace(0.5 - within / 2, 0.5 + within / 2, side)
    places = np.array([NormalDist().inv_cdf(float(chance)) for chance in chances])
    right, up = np.meshgrid(places, places[::-1])
    return np.stack([right.ravel(), up.ravel()], axis=1)
