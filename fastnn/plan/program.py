"""A program: plain data that a runtime can bind and run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

#: what a call and an operand of it take as objects of Python, about
CALL_BYTES, OPERAND_BYTES = 500, 400


@dataclass(frozen=True)
class Operand:
    """An array in memory: segment, byte offset, sizes at the kernel's rank, element type letter.

    `external` arrays belong to the caller; their sizes are taken when the program is bound.
    `buffer` numbers what the planner placed as one piece; views and slices of it have its number.
    `per_item` is not 0 for memory in the segment "local": bytes of one item of the group. Each
    worker has its own, for one block of items; `dims` are those of the whole array.
    """

    segment: str
    offset: int
    dims: tuple[int, ...]
    dtype: str
    external: bool = False
    buffer: int = 0
    per_item: int = 0

    def __str__(self) -> str:
        return f"{self.segment}+{self.offset}{list(self.dims)}"


@dataclass(frozen=True)
class PlannedCall:
    """A kernel by name, with its operands in the order of its parameters.

    An operand is an `Operand`, a number, or None for an absent array.
    """

    kernel: str
    operands: tuple[Operand | float | int | None, ...]
    multiplier: int
    scope: str


@dataclass(frozen=True)
class PlannedGroup:
    items: int
    grain: int
    block: int
    calls: tuple[PlannedCall, ...]


@dataclass(frozen=True)
class PlannedPhase:
    groups: tuple[PlannedGroup, ...]
    serial: tuple[PlannedCall, ...]


@dataclass(frozen=True)
class Program:
    """One step of a computation.

    Attributes:
        phases: what runs between barriers.
        sizes: bytes needed of each segment that the program itself defines ("work", "constant",
            "input", and for each worker "local").
        constants: contents of the constant segment as (offset, array).
        places: where values of interest lie: name -> operand.
        dtype: NumPy name of the float type.
        batch: samples in a step.
        carried: further segments that hold something before a step begins, by name.
    """

    phases: tuple[PlannedPhase, ...]
    sizes: dict[str, int]
    constants: tuple[tuple[int, np.ndarray], ...]
    places: dict[str, Operand]
    dtype: str
    batch: int
    seeds: dict[str, Any] = field(default_factory=dict)
    carried: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int:
        """About how much memory the program's own description takes."""
        operands = sum(len(call.operands) for call in self.calls())
        constants = sum(data.nbytes for _, data in self.constants)
        return CALL_BYTES * len(self.calls()) + OPERAND_BYTES * operands + constants

    def calls(self) -> list[PlannedCall]:
        """All calls in an order in which one worker would run them."""
        found: list[PlannedCall] = []
        for phase in self.phases:
            for group in phase.groups:
                found.extend(group.calls)
            found.extend(phase.serial)
        return found

    def __str__(self) -> str:
        lines = [f"program: {self.dtype}, batch {self.batch}, {self.sizes}"]
        for number, phase in enumerate(self.phases):
            for group in phase.groups:
                lines.append(
                    f"phase {number}: {group.items} items, grain {group.grain}, "
                    f"blocks of {group.block}"
                )
                lines += [f"    {_line(call)}" for call in group.calls]
            lines.append(f"phase {number}: barrier" + (", serial:" if phase.serial else ""))
            lines += [f"    {_line(call)}" for call in phase.serial]
        return "\n".join(lines)


def _line(call: PlannedCall) -> str:
    operands = ", ".join("-" if o is None else str(o) for o in call.operands)
    times = f" x{call.multiplier}" if call.multiplier != 1 else ""
    return f"{call.kernel}({operands}){times}  # {call.scope}"
