"""Weights in 16 bits beside the parameters, which the updates of some programs write as well.

Within a run the updates keep them (`plan/halves.py`). Before a program's first step of a run, and
after anything else that may have changed parameters, they are copied from these.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastnn.kernels.cuda.half import LETTERS
from fastnn.kernels.declare import CUDA_KERNELS
from fastnn.plan.halves import BETWEEN, HALVES
from fastnn.plan.program import Operand, PlannedCall
from fastnn.runtime.cuda.place import Launch

if TYPE_CHECKING:
    from fastnn.runtime.cuda.bound import CudaProgram


class Copies:
    """Whose copies are up to date, of a session's programs."""

    def __init__(self) -> None:
        self._fresh: set[CudaProgram] = set()

    def forget(self) -> None:
        """Somebody may have changed parameters."""
        self._fresh.clear()

    def before(self, bound: CudaProgram) -> None:
        """This program's step is launched next."""
        if bound.spoils_copies:
            self._fresh.clear()
        elif bound.copies and bound not in self._fresh:
            for launch in bound.copies:
                launch()
            self._fresh.add(bound)


def copying(bound: CudaProgram) -> list[Launch]:
    """The launches that copy the weights which a program's products take from "halves"."""
    if HALVES not in bound.used:
        return []
    kinds = {letter: kind for kind, letter in LETTERS.items()}
    return [
        bound.prepared(
            CUDA_KERNELS[f"to_{kinds[letter]}"],
            {
                "x": bound.place(Operand("params", 4 * begin, (1, end - begin), "f")),
                "y": bound.place(Operand(HALVES, 2 * begin, (1, end - begin), letter)),
            },
        )
        for begin, end, letter in _spans(bound.calls)
    ]


def _spans(calls: Sequence[PlannedCall]) -> list[tuple[int, int, str]]:
    """Which elements products take, those near each other together, and their type's letter."""
    read = {
        (o.offset // 2, o.offset // 2 + math.prod(o.dims), o.dtype)
        for call in calls
        for _, parameter, o in call.arrays()
        if o.segment == HALVES and not parameter.writes
    }
    found: list[tuple[int, int, str]] = []
    for begin, end, letter in sorted(read):
        if found and begin <= found[-1][1] + BETWEEN:
            found[-1] = found[-1][0], max(found[-1][1], end), letter
        else:
            found.append((begin, end, letter))
    return found
