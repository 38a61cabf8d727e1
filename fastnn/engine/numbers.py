"""Numbers that users hand in: as arrays, within the range of an element type."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn.errors import DataError, refuse_masked


def numbers(given: Any, what: str) -> np.ndarray:
    """A NumPy array of whatever holds one: arrays, lists, tensors of PyTorch (bfloat16, those on a
    GPU and those with a gradient, too). Raises DataError for anything but real numbers."""
    refuse_masked(given, what)
    for step in ("detach", "cpu"):
        if callable(getattr(given, step, None)):
            given = getattr(given, step)()
    if str(getattr(given, "dtype", "")).endswith("bfloat16"):
        given = given.float() if hasattr(given, "float") else given.astype(np.float32)
    try:
        array = np.asarray(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{what}: expected an array of numbers, got {type(given).__name__} ({error})"
        ) from None
    if array.dtype.kind not in "fiub":
        raise DataError(
            f"{what}: expected real numbers, got {type(given).__name__} of {array.dtype}; convert "
            "it with np.asarray(array, np.float32)"
        )
    return array


def check_range(array: np.ndarray, dtype: Any, what: str) -> None:
    """Raise DataError for finite numbers that are infinite in another element type."""
    if array.dtype.kind != "f" or array.itemsize <= np.dtype(dtype).itemsize:
        return
    limit = np.finfo(dtype).max
    beyond = np.isfinite(array) & (np.abs(array) > limit)
    if beyond.any():
        raise DataError(
            f"{what}: expected numbers within {np.dtype(dtype)}'s range, +-{limit:.3g}, got "
            f"{array[beyond].flat[0]:.3g}; scale them, or use float64"
        )
