"""Telling data from batches, in what `fit` and `evaluate` are given.

- With `y`, or where `x` is an array, a dict or a tuple: **data**. A tuple, a list of arrays and a
  dict are several inputs (the dict's keys are the names of `forward`'s arguments).
- A list of pairs (inputs, targets), or of triples (inputs, targets, sample weights), of arrays is a
  list of **batches**, be it two of them; inputs and targets may themselves be tuples.
- Any other list is one array.
- Anything else that can be iterated gives batches: pairs or triples.

What could be either is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from fastnn.engine.arrays import is_array
from fastnn.errors import DataError


def gives_batches(x: Any, y: Any) -> bool:
    """Whether `x` gives batches, and is no data itself.

    Raises DataError where it could be either, saying how to write what is meant.
    """
    if hasattr(x, "toarray"):  # a sparse matrix, which is refused as data
        return False
    if y is not None or is_array(x) or isinstance(x, (Mapping, str, bytes, np.generic)):
        return y is not None and _is_stream(x)
    if isinstance(x, tuple):
        if any(_holds_arrays(item) for item in x):
            raise DataError(
                "x: expected a tuple of arrays (several inputs), got a tuple of "
                f"{type(x[0]).__name__}s of arrays; write batches as a list [(inputs, targets), "
                "...], or data as x=..., y=..."
            )
        return False
    if isinstance(x, list):
        return _list_of_batches(x)
    return isinstance(x, Iterable)


def _is_stream(x: Any) -> bool:
    return isinstance(x, Iterable) and not (
        is_array(x) or isinstance(x, (list, tuple, Mapping, str, bytes, np.ndarray, np.generic))
    )


def _holds_arrays(item: Any) -> bool:
    """Whether this is a tuple, list or dict with an array in it, at any depth."""
    if isinstance(item, Mapping):
        item = list(item.values())
    return isinstance(item, (tuple, list)) and any(is_array(p) or _holds_arrays(p) for p in item)


def _list_of_batches(x: list[Any]) -> bool:
    held = [_holds_arrays(item) for item in x]
    if not any(held):
        pairs = [item for item in x if isinstance(item, tuple) and len(item) in (2, 3)]
        if pairs and any(isinstance(part, (list, tuple)) for part in pairs[0]):
            raise DataError(
                "x: a list of tuples of lists may be data or batches; write np.asarray(x) for "
                "data, or batches as pairs of arrays [(inputs, targets), ...]"
            )
        return False
    if not all(held) or any(isinstance(item, Mapping) or not 1 <= len(item) <= 3 for item in x):
        raise DataError(
            "x: expected a list of batches (inputs, targets) or (inputs, targets, sample weights), "
            f"got items of kinds {sorted({type(item).__name__ for item in x})}; write every batch "
            "as a tuple of arrays"
        )
    if all(isinstance(item, list) for item in x) and _rectangular(x):
        raise DataError(
            "x: a list of lists of arrays of one shape may be data or batches; write batches as "
            "tuples [(inputs, targets), ...], or np.asarray(x) for data"
        )
    return True


def _rectangular(x: list[Any]) -> bool:
    try:
        return np.asarray(x).ndim > 1
    except Exception:  # of whatever library the arrays are
        return False


def batch_of(item: Any) -> tuple[Any, Any, Any]:
    """Inputs, targets and sample weights of a batch; None for what it lacks.

    Raises DataError for anything but a pair, a triple, or inputs alone in a tuple.
    """
    if not isinstance(item, (tuple, list)) or not 1 <= len(item) <= 3:
        size = f" of {len(item)}" if isinstance(item, (tuple, list)) else ""
        raise DataError(
            "batches: expected pairs (inputs, targets) or triples (inputs, targets, sample "
            f"weights), got {type(item).__name__}{size}"
        )
    x, y, weight = (*item, None, None)[:3]
    return x, y, weight
