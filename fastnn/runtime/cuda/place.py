"""Memory on a device, and where a kernel's operands lie in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastnn.kernels.declare import Array, CudaKernel
from fastnn.plan.program import Count, moved


@dataclass(frozen=True)
class Piece:
    """Memory on a device: an address, a size in bytes, and whoever keeps it alive."""

    address: int
    size: int
    owner: Any


@dataclass(frozen=True)
class Place:
    """An array on a device: where it begins in a piece, its sizes and NumPy type name.

    `strides` are the bytes by which it moves on in each step of the loops around its call, the
    outermost first; () where it stays.
    """

    piece: Piece
    offset: int
    dims: tuple[int, ...]
    dtype: str
    strides: tuple[int, ...] = ()

    @property
    def address(self) -> int:
        return self.piece.address + self.offset

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.dims, dtype=np.int64)) * np.dtype(self.dtype).itemsize

    def at(self, steps: Sequence[int]) -> Place:
        """Where it lies in one step of the loops."""
        return replace(self, offset=moved(self.offset, self.strides, steps), strides=())


#: operands by parameter: an array's place, a number, or None for an absent array
Operands = Mapping[str, Place | Count | float | int | None]
#: a kernel that is ready to be launched: called with the steps of the loops around its call
Launch = Callable[..., None]


def sizes_of(kernel: CudaKernel, operands: Operands) -> dict[str, int]:
    """What a kernel's `launch` is told: dimension letters and integer parameters, apart from those
    that differ from step to step: a launch is the same in all steps of a loop."""
    sizes: dict[str, int] = {}
    for name, parameter in kernel.params.items():
        value = operands[name]
        if not isinstance(parameter, Array):
            if parameter.kind == "int" and not isinstance(value, Count):
                sizes[name] = int(value)  # type: ignore[arg-type]
        elif isinstance(value, Place):
            sizes.update(zip(parameter.dims, value.dims, strict=True))
        else:
            for letter in parameter.dims:
                sizes.setdefault(letter, 0)
    return sizes


def argument_numbers(kernel: CudaKernel) -> dict[str, int]:
    """By parameter, which of the compiled function's arguments is its address or number (an
    array's sizes follow its address)."""
    found: dict[str, int] = {}
    count = 0
    for name, parameter in kernel.params.items():
        found[name] = count
        count += 1 + (len(parameter.dims) if isinstance(parameter, Array) else 0)
    return found


def moving_of(operands: Operands) -> dict[str, Place | Count]:
    """The operands that differ from step to step."""
    return {n: v for n, v in operands.items() if isinstance(v, Place | Count) and v.strides}


def nothing(*steps: int) -> None:
    """The launch of a kernel over no items."""
