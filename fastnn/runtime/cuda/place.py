"""Memory on a device, and where a kernel's operands lie in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastnn.kernels.declare import Array, CudaKernel


@dataclass(frozen=True)
class Piece:
    """Memory on a device: an address, a size in bytes, and whoever keeps it alive."""

    address: int
    size: int
    owner: Any


@dataclass(frozen=True)
class Place:
    """An array on a device: where it begins in a piece, its sizes and NumPy type name."""

    piece: Piece
    offset: int
    dims: tuple[int, ...]
    dtype: str

    @property
    def address(self) -> int:
        return self.piece.address + self.offset

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.dims, dtype=np.int64)) * np.dtype(self.dtype).itemsize


#: operands by parameter: an array's place, a number, or None for an absent array
Operands = Mapping[str, Place | float | int | None]
Launch = Callable[[], None]


def sizes_of(kernel: CudaKernel, operands: Operands) -> dict[str, int]:
    """What a kernel's `launch` is told: dimension letters and integer parameters."""
    sizes: dict[str, int] = {}
    for name, parameter in kernel.params.items():
        value = operands[name]
        if not isinstance(parameter, Array):
            if parameter.kind == "int":
                sizes[name] = int(value)  # type: ignore[arg-type]
        elif isinstance(value, Place):
            sizes.update(zip(parameter.dims, value.dims, strict=True))
        else:
            for letter in parameter.dims:
                sizes.setdefault(letter, 0)
    return sizes


def nothing() -> None:
    """The launch of a kernel over no items."""
