"""A batch of an iterable that is like one before is looked at quickly, and no less closely."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, optim
from fastnn.errors import DataError

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(6, 3)).astype(np.float32), np.array([0, 1, 2, 0, 1, 2])
W = np.ones(6, np.float32)


def changed(array: np.ndarray, value: Any) -> np.ndarray:
    found = array.copy()
    found.flat[-1] = value
    return found


#: two good batches' contents, a bad third one's, and what is said of it
CASES = {
    "NaN": ((X, Y), (changed(X, np.nan), Y), "NaN or infinity in 1 samples, the first is sample 5"),
    "infinity": ((X, Y), (changed(X, -np.inf), Y), "NaN or infinity"),
    "target too high": ((X, Y), (X, changed(Y, 3)), "expects integers in 0..2, got 3"),
    "target too low": ((X, Y), (X, changed(Y, -7)), "expects integers in 0..2, got -7"),
    "beyond float32": (
        (X.astype(np.float64), Y), (changed(X.astype(np.float64), -1e39), Y), "float32's range",
    ),
    "weight": ((X, Y, W), (X, Y, changed(W, -1)), "sample_weight"),
    "weight of NaN": ((X, Y, W), (X, Y, changed(W, np.nan)), "sample_weight"),
}  # fmt: skip


def trainer() -> fnn.Trainer:
    return fnn.Trainer(nn.Linear(3, 3), "cross_entropy", optim.SGD(lr=0.1), device="cpu")


@pytest.mark.parametrize("name", CASES)
def test_a_bad_one_after_good_ones_is_refused(name: str) -> None:
    good, bad, message = CASES[name]
    made = trainer()
    with pytest.raises(DataError, match=message):
        made.fit(iter([good, good, bad]), epochs=1, verbose=False)
    assert made.step == 2
    with pytest.raises(DataError, match=message):
        made.evaluate(iter([good, good, bad]))


def test_what_may_be_is_accepted() -> None:
    """Targets that do not count are beyond the quick look's limits."""
    loss = nn.CrossEntropyLoss(ignore_index=-7)
    made = fnn.Trainer(nn.Linear(3, 3), loss, optim.SGD(lr=0.1), device="cpu")
    made.fit(iter([(X, Y), (X, Y), (X, changed(Y, -7))]), epochs=1, verbose=False)
    assert made.step == 3
