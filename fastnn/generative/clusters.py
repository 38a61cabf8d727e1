"""Groups of alike samples, in the place of labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn.errors import DataError, OptionError, check_whole

#: rounds of k-means, at most
ROUNDS = 50


def clusters(x: Any, count: int, *, components: int = 50, seed: int = 0) -> NDArray[np.int64]:
    """Which of `count` clusters each sample belongs to: k-means from the beginning of Arthur &
    Vassilvitskii (2007), on the first principal components.

    Clusters can stand for the classes of a conditional model where there are no labels (Sage et al.
    2018, "Logo synthesis and manipulation with clustered generative adversarial networks")::

        y = clusters(x, 100)
        shares = np.bincount(y, minlength=100) / len(y)
        GAN.dcgan(shape, classes=100, shares=shares).fit(x, y)

    Args:
        x: samples, shape (samples, ...).
        count: of clusters; at most as many as samples.
        components: principal components that samples are compared by; at most all.
        seed: of the places to begin at.

    Returns:
        Cluster numbers below `count`, shape (samples,). With many equal samples some clusters may
        be empty.

    Raises OptionError for a `count` or `components` below 1 and for more clusters than samples;
    DataError for samples that are no finite numbers.

    >>> import numpy as np
    >>> from fastnn.generative import clusters
    >>> found = clusters(np.array([[0.0], [9.0], [0.1], [9.1]]), 2)
    >>> found[0] == found[2], found[1] == found[3], found[0] == found[1]
    (np.True_, np.True_, np.False_)
    """
    check_whole("clusters", 1, count=count, components=components)
    check_whole("clusters", 0, seed=seed)
    rows = _rows(x)
    if count > len(rows):
        raise OptionError(
            f"clusters count: expected at most {len(rows)}, one a sample, got {count}"
        )
    rows = rows - rows.mean(axis=0)
    _, vectors = np.linalg.eigh(rows.T @ rows)
    rows = rows @ vectors[:, -components:]
    centres = _begin(rows, count, np.random.default_rng(seed))
    found = _nearest(rows, centres)
    for _ in range(ROUNDS):
        sizes = np.bincount(found, minlength=count)
        sums = np.stack([np.bincount(found, column, minlength=count) for column in rows.T], axis=1)
        some = sizes > 0
        centres[some] = sums[some] / sizes[some, None]
        before, found = found, _nearest(rows, centres)
        if np.array_equal(before, found):
            break
    return found


def _rows(x: Any) -> NDArray[np.float64]:
    given = np.asarray(x)
    if given.dtype.kind not in "biuf" or given.ndim < 2 or not given.size:
        raise DataError(
            "clusters: expected an array of numbers of shape (samples, ...), got "
            f"{given.dtype} of shape {given.shape}"
        )
    rows = given.reshape(len(given), -1).astype(np.float64)
    if not np.isfinite(rows).all():
        raise DataError("clusters: expected finite samples, got NaN or infinity; leave them out")
    return rows


def _begin(
    rows: NDArray[np.float64], count: int, random: np.random.Generator
) -> NDArray[np.float64]:
    """Samples to begin at: each is drawn with a probability that grows with the squared distance
    from those before."""
    chosen = [int(random.integers(len(rows)))]
    far = np.square(rows - rows[chosen[0]]).sum(axis=1)
    while len(chosen) < count:
        total = far.sum()
        chances = far / total if total > 0 else None
        chosen.append(int(random.choice(len(rows), p=chances)))
        far = np.minimum(far, np.square(rows - rows[chosen[-1]]).sum(axis=1))
    return rows[chosen]


def _nearest(rows: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.int64]:
    scores = np.square(centres).sum(axis=1) - 2.0 * (rows @ centres.T)
    nearest: NDArray[np.int64] = scores.argmin(axis=1)
    return nearest
