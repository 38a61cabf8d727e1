"""What is launched for a program's phases, and what of it serves programs of other sizes again.

A program within a larger one (`plan/sizes.py`) has the same phases in the same memory. A phase
whose calls are the same has the larger one's launch. Of any other phase the operands that differ
are placed anew, and the launch is prepared from the larger one's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastnn.kernels.cuda import joined
from fastnn.kernels.declare import Array, CudaKernel
from fastnn.plan.program import Operand, PlannedCall
from fastnn.runtime.cuda import counterpart
from fastnn.runtime.cuda.place import Launch, Place, nothing
from fastnn.runtime.segment import Segment

if TYPE_CHECKING:
    from fastnn.runtime.cuda.gpu import Gpu
    from fastnn.runtime.cuda.simulated import SimulatedGpu

#: where an operand lies, for a parameter of so many dimensions
Placing = Callable[[Operand, int], Place]
#: what every program of a session has in the same place
_FIXED = frozenset({"control", "totals"})


@dataclass(eq=False)
class Made:
    """What is launched for the calls of a phase.

    Attributes:
        calls: the calls.
        parts: their kernels.
        kernel, data, operands: what is launched, the element type of the user's data in it, and
            its operands.
        launch: the launch; None: it is to be prepared.
        like, changed: the launch that it is prepared from, but for these operands.
    """

    calls: tuple[PlannedCall, ...]
    parts: list[CudaKernel]
    kernel: CudaKernel
    data: str
    operands: dict[str, Any]
    launch: Launch | None = None
    like: Launch | None = None
    changed: tuple[str, ...] = ()

    def prepare(self, gpu: Gpu | SimulatedGpu, dtype: str) -> Launch:
        """The launch, which is prepared if it is not yet."""
        if self.launch is None:
            given = self.kernel, dtype, self.data, self.operands
            self.launch = gpu.prepared(*given, self.like, self.changed)
        return self.launch


def made(calls: tuple[PlannedCall, ...], place: Placing) -> Made:
    """What is to be launched for calls."""
    parts = [counterpart.find(call.kernel, call.scope) for call in calls]
    operands: dict[str, Any] = {}
    data = ""
    for k, (call, kernel) in enumerate(zip(calls, parts, strict=True)):
        for (name, own), operand in zip(names_of(parts, k).items(), call.operands, strict=True):
            operands[own] = _placed(kernel, name, operand, place)
            parameter = kernel.params[name]
            if isinstance(parameter, Array) and parameter.dtype == "d" and operand is not None:
                data = operands[own].dtype
    return Made(calls, parts, joined.joined(parts), data, operands)


def names_of(parts: Sequence[CudaKernel], number: int) -> dict[str, str]:
    """The names that the parameters of one of the kernels have in what is launched."""
    if len(parts) == 1:
        return {name: name for name in parts[0].params}
    return joined.named(parts[number], number)


def _placed(kernel: CudaKernel, name: str, operand: Any, place: Placing) -> Any:
    parameter = kernel.params[name]
    if isinstance(parameter, Array) and isinstance(operand, Operand):
        return place(operand, len(parameter.dims))
    return operand


class Before:
    """What a larger program launches, phase by phase.

    Args:
        sent: of its phases; empty: there is no such program.
        theirs, mine: its memory, and that of the program within it.
    """

    def __init__(
        self, sent: Sequence[Made], theirs: Mapping[str, Segment], mine: Mapping[str, Segment]
    ):
        self._sent = iter(sent)
        self._same = _FIXED | {n for n, segment in mine.items() if theirs.get(n) is segment}

    def made(self, calls: tuple[PlannedCall, ...], place: Placing) -> Made:
        """What is to be launched for the calls of the next phase."""
        known = next(self._sent, None)
        if known is None or [c.kernel for c in calls] != [c.kernel for c in known.calls]:
            return made(calls, place)
        changed: dict[str, Any] = {}
        for k, (call, like) in enumerate(zip(calls, known.calls, strict=True)):
            pairs = zip(names_of(known.parts, k).items(), call.operands, like.operands, strict=True)
            for (name, own), operand, before in pairs:
                if self._is_same(operand, before):
                    continue
                parameter = known.parts[k].params[name]
                if isinstance(parameter, Array) and parameter.dtype == "d":
                    return made(calls, place)  # the data's type is the kernel's
                changed[own] = _placed(known.parts[k], name, operand, place)
        if not changed:
            return known
        operands = {**known.operands, **changed}
        like_launch = None if known.launch is nothing else known.launch
        return Made(
            calls, known.parts, known.kernel, known.data, operands, None, like_launch,
            tuple(changed),
        )  # fmt: skip

    def _is_same(self, operand: Any, before: Any) -> bool:
        if operand is not before and (type(operand) is not type(before) or operand != before):
            return False
        return type(operand) is not Operand or operand.segment in self._same
