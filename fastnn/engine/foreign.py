"""Weights from files that fastnn did not write, such as PyTorch's safetensors.

The format: 8 bytes (the header's length), a header of JSON, the arrays' bytes. The safetensors
library checks all of it; element types that NumPy has not (bfloat16) are converted here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fastnn import files
from fastnn.errors import CheckpointError

#: element types of the format, as NumPy calls them
TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U8": "u1", "U16": "<u2", "U32": "<u4", "U64": "<u8", "BOOL": "?", "BF16": "<u2",
}  # fmt: skip


def is_own(path: Path) -> bool:
    """Whether fastnn wrote the file, or it is none: then the one that reads it says why."""
    from safetensors import safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return "format_version" in (file.metadata() or {})
    except Exception:
        return True


def read_plain(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a safetensors file by name.

    Raises CheckpointError where it cannot be read, or holds a type that is no real number.
    """
    from safetensors import SafetensorError, deserialize

    content = files.read_bytes(path, "checkpoint", CheckpointError)
    try:
        return {name: _array(name, entry, path) for name, entry in deserialize(content)}
    except CheckpointError:
        raise
    except (
        SafetensorError, ValueError, TypeError, KeyError, ArithmeticError, MemoryError
    ) as error:  # fmt: skip
        raise CheckpointError(
            f"checkpoint {str(path)!r} is not a whole safetensors file "
            f"({files.one_line(error, 120)}): use another copy"
        ) from None


def _array(name: str, entry: dict[str, Any], path: Path) -> np.ndarray:
    kind = entry["dtype"]
    if kind not in TYPES:
        raise CheckpointError(
            f"checkpoint {str(path)!r}: {files.one_line(name, 80)!r} is of type {kind}; expected "
            f"one of {sorted(TYPES)}; convert it to F32 where it was written"
        )
    array = np.frombuffer(entry["data"], TYPES[kind]).reshape(entry["shape"])
    if kind == "BF16":  # the upper half of a float32
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return array
