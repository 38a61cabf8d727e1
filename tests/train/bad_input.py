"""Models and data that can't be trained with, for tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.train.models import vectors

X, Y = vectors(24)


def but(array: np.ndarray, index: Any, value: Any) -> np.ndarray:
    changed = array.copy()
    changed[index] = value
    return changed
