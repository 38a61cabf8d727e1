"""What calls, some of them in loops, read that no call before them has written."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import Any

from fastnn.errors import ProgramError, where
from fastnn.graph.fold import fold
from fastnn.graph.value import Counter, Value
from fastnn.kernels.declare import Array, CudaKernel, Kernel, kernel_of
from fastnn.plan.call import Call, nested
from fastnn.plan.coverage import Moving, Share, share_of
from fastnn.plan.history import History, masks_followed
from fastnn.plan.strides import Strides, strides_of


def follow(
    history: History, calls: Sequence[Call], visit: Callable[[Call], None], depth: int = 0
) -> None:
    """Visit calls in order, those in loops as often as the proof needs it."""
    for item in nested(calls, depth):
        if isinstance(item, Call):
            visit(item)
        else:
            loop, body = item
            history.follow(
                loop.length,
                lambda: follow(history, body, visit, depth + 1),  # noqa: B023
                None if loop.running is None else id(loop.running.root),
                loop.reverse,
            )


def unwritten(
    calls: Sequence[Call], touched: Callable[[Call, str, Array, Value], bool], depth: int = 0
) -> tuple[Call, str] | None:
    """A call, and its operand, that reads what no call before has written; None if there is none.

    Args:
        calls: in order; what they touch holds nothing before.
        touched: whether the memory of an operand matters.
        depth: how many loops around the calls are left out: it is one step of them.
    """
    history = History()
    faults: list[tuple[Call, str]] = []

    def visit(call: Call) -> None:
        kernel = kernel_of(call.kernel)
        mine = [found for found in call.arrays() if touched(call, *found)]
        for name, parameter, value in mine:
            begin, moving = value.shift, strides_of(value, call, depth)
            ends = masks_followed(parameter, (id(v.root) for _, _, v in call.arrays()))
            if parameter.reads and faults == [] and history.missing(
                id(value.root), begin, begin + value.size, 0, parameter.gaps, moving, ends
            ) is not None:  # fmt: skip
                faults.append((call, name))
        for _, parameter, value in mine:
            share = _share(kernel, call, depth) if parameter.mode == "part" else None
            begin, moving = value.shift, strides_of(value, call, depth)
            history.note(id(value.root), parameter, begin, begin + value.size, 0, share, moving)

    follow(history, calls, visit, depth)
    return faults[0] if faults else None


def check_written(
    calls: Sequence[Call], local: Container[Value], given: Sequence[Value], what: str
) -> None:
    """Prove that a step of a loop reads of its own memory only what it has written before.

    Args:
        calls: the step's calls, in order.
        local: the memory that belongs to the step.
        given: what of it is there before the step begins.

    Raises:
        ProgramError: a call reads what no call before it has written.
    """
    known = set(given)

    def touched(call: Call, name: str, parameter: Array, value: Value) -> bool:
        root = value.root
        own = root in local or parameter.mode == "scratch"
        return own and root not in known and root.segment == "work"

    fault = unwritten(calls, touched)
    if fault is not None:
        call, name = fault
        raise ProgramError(
            f"{where(call.scope)}{what}: {call.kernel} reads {name} before the step has "
            "written all of it"
        )


def _share(kernel: Kernel | CudaKernel, call: Call, depth: int) -> Share | Moving | None:
    """Which part of its arrays a call writes, in the loops but the `depth` outermost ones."""
    found: dict[str, Any] = {}
    moving: dict[str, Strides] = {}
    for name, parameter in kernel.params.items():
        value = call.operands[name]
        if isinstance(value, Counter):
            found[name] = value.first
            moving[name] = tuple(value.strides.get(loop, 0) for loop in call.repeats[depth:])
        elif not isinstance(parameter, Array):
            found[name] = value
        elif isinstance(value, Value):
            found.update(zip(parameter.dims, fold(value.shape, len(parameter.dims)), strict=True))
    return share_of(kernel, found, {name: by for name, by in moving.items() if any(by)})
