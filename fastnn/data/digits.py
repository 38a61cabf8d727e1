"""Handwritten digits that come with scikit-learn: real data without a download."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastnn.errors import OptionError

Split: TypeAlias = tuple[NDArray[np.float32], NDArray[np.int64]]


def load_digits(test_fraction: float = 0.2, seed: int = 0) -> tuple[Split, Split]:
    """1,797 images of 8×8 pixels of the digits 0 to 9, split for training and testing.

    Returns ``(x_train, y_train), (x_test, y_test)``: images as rows of 64 pixels, float32 in
    [0, 1], shape ``(N, 64)`` (``x.reshape(-1, 8, 8)`` are pictures), and labels, int64, shape
    ``(N,)``. The split is stratified: of each digit `test_fraction` of the images, rounded, are for
    testing, chosen at random by `seed`; with the defaults 1,438 and 359 images. The same arguments
    give the same split on every machine.

    Raises ImportError if scikit-learn is missing, OptionError for a `test_fraction` that is not
    between 0 and 1.

    The images are the test part of Alpaydin and Kaynak, "Optical recognition of handwritten
    digits", UCI machine learning repository, 1998.

    >>> (x_train, y_train), (x_test, y_test) = load_digits()
    >>> x_train.shape, x_test.shape
    ((1438, 64), (359, 64))
    """
    if not 0 < test_fraction < 1:
        raise OptionError(f"test_fraction must lie between 0 and 1, got {test_fraction}")
    try:
        from sklearn import datasets
    except ImportError:
        raise ImportError(
            "the digits come with scikit-learn, which is not installed: pip install scikit-learn"
        ) from None
    pixels, labels = datasets.load_digits(return_X_y=True)
    x = (pixels / 16).astype(np.float32)
    y = labels.astype(np.int64)
    order = np.argsort(np.random.default_rng(seed).random(len(y)))
    is_test = np.zeros(len(y), bool)
    for digit in range(10):
        places = order[y[order] == digit]
        is_test[places[: round(test_fraction * len(places))]] = True
    return (x[~is_test], y[~is_test]), (x[is_test], y[is_test])
