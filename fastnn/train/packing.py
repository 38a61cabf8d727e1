"""What callbacks remember, as a checkpoint keeps it: JSON, and arrays beside it."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

import numpy as np

from fastnn.errors import CheckpointError, refuse_masked

#: marks the place of an array within a state
_ARRAY = "__array__"


def pack(value: Any, name: str, arrays: MutableMapping[str, np.ndarray]) -> Any:
    """A state as JSON can hold it; its arrays go into `arrays`, under names that begin with `name`.

    Raises CheckpointError for what a checkpoint can't hold.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub" and value.dtype.itemsize <= 8:
        refuse_masked(value, name)
        array = np.array(value, dtype=value.dtype.newbyteorder("="), order="C", subok=False)
        arrays[name] = array
        return {_ARRAY: name}
    if isinstance(value, np.generic) and value.dtype.kind in "fiub":
        return value.item()
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: pack(item, f"{name}.{key}", arrays) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [pack(item, f"{name}.{k}", arrays) for k, item in enumerate(value)]
    raise CheckpointError(
        f"{name}: state_dict() gave {type(value).__name__}, which a checkpoint can't hold; "
        "expected numbers, strings, arrays, None, and lists and dicts (with strings as keys) of "
        "them"
    )


def unpack(value: Any, arrays: Mapping[str, np.ndarray], what: str) -> Any:
    """The state that `pack` was given; tuples have become lists."""
    if isinstance(value, dict):
        if set(value) == {_ARRAY}:
            name = value[_ARRAY]
            if not isinstance(name, str) or name not in arrays:
                raise CheckpointError(f"{what}: an array of its state is missing; use another copy")
            return arrays[name]
        return {key: unpack(item, arrays, what) for key, item in value.items()}
    if isinstance(value, list):
        return [unpack(item, arrays, what) for item in value]
    return value
