"""The verifier finds the faults that are put into valid programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fastnn import nn, optim
from fastnn.errors import ProgramError
from fastnn.kernels.declare import KERNELS, Array
from fastnn.plan.coverage import Coverage
from fastnn.plan.program import Operand, PlannedCall, PlannedPhase, Program
from fastnn.plan.verify import verify
from tests.plan.models import training_program


def valid() -> Program:
    model = nn.Sequential(
        nn.Linear(6, 16), nn.BatchNorm(16), nn.ReLU(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 3)
    )
    return training_program(model, (6,), 16, optim.Adam(clip_global_norm=1.0))[1]


def change_calls(program: Program, change: Callable[[PlannedCall], PlannedCall | None]) -> Program:
    """The program with each call changed; None leaves it out."""

    def all_of(calls: Any) -> tuple[PlannedCall, ...]:
        return tuple(new for c in calls if (new := change(c)) is not None)

    phases = tuple(
        PlannedPhase(
            tuple(replace(g, calls=all_of(g.calls)) for g in phase.groups), all_of(phase.serial)
        )
        for phase in program.phases
    )
    return replace(program, phases=phases)


def change_operand(
    program: Program, kernel: str, name: str, change: Callable[[Operand], Any], nth: int = 0
) -> Program:
    """The program with one operand of the n-th call of a kernel changed."""
    seen = -1

    def on(call: PlannedCall) -> PlannedCall:
        nonlocal seen
        if call.kernel != kernel:
            return call
        seen += 1
        if seen != nth:
            return call
        index = list(KERNELS[kernel].params).index(name)
        operands = list(call.operands)
        assert isinstance(operands[index], Operand)
        operands[index] = change(operands[index])  # type: ignore[arg-type]
        return replace(call, operands=tuple(operands))

    changed = change_calls(program, on)
    assert seen >= nth, f"there is no call {nth} of {kernel}"
    assert changed != program
    return changed


def rejected(program: Program, words: str) -> None:
    with pytest.raises(ProgramError, match=words):
        verify(program)


def test_valid_program_passes() -> None:
    verify(valid())


def operand_of(program: Program, kernel: str, name: str, nth: int = 0) -> Operand:
    calls = [c for c in program.calls() if c.kernel == kernel]
    operand = calls[nth].operands[list(KERNELS[kernel].params).index(name)]
    assert isinstance(operand, Operand)
    return operand


def test_two_outputs_at_one_place() -> None:
    program = valid()
    other = operand_of(program, "tanh_forward", "x")
    rejected(
        change_operand(program, "tanh_forward", "y", lambda o: replace(o, offset=other.offset + 8)),
        "reads work memory|without a barrier",
    )


def test_swapped_offsets() -> None:
    """Two buffers of one program change places in one call only."""
    program = valid()
    y = operand_of(program, "tanh_forward", "y")
    rejected(
        change_operand(program, "tanh_forward", "x", lambda o: replace(o, offset=y.offset + 64)),
        "reads work memory",
    )


def test_every_dropped_barrier_is_found() -> None:
    """Two phases become one, wherever the first has something that the second needs."""
    program = valid()
    assert len(program.phases) > 3
    for number in range(len(program.phases) - 1):
        first, second = program.phases[number : number + 2]
        if not first.groups or not second.groups:
            continue
        merged = PlannedPhase(first.groups + second.groups, first.serial + second.serial)
        phases = (*program.phases[:number], merged, *program.phases[number + 2 :])
        rejected(replace(program, phases=phases), "without a barrier|reads work memory")


def test_phases_in_wrong_order() -> None:
    program = valid()
    rejected(replace(program, phases=program.phases[::-1]), "reads work memory")


def test_every_missing_writer_is_found() -> None:
    """Leave out any call whose result in work memory another call needs."""
    program = valid()
    needed: list[PlannedCall] = []
    for call in program.calls():
        wrote = {
            (o.offset, o.dims)
            for p, o in zip(KERNELS[call.kernel].params.values(), call.operands, strict=True)
            if isinstance(p, Array) and isinstance(o, Operand)
            and p.mode == "out" and o.segment == "work"
        }  # fmt: skip
        reads = {
            (o.offset, o.dims)
            for other in program.calls()
            if other is not call
            for p, o in zip(KERNELS[other.kernel].params.values(), other.operands, strict=True)
            if isinstance(p, Array) and isinstance(o, Operand) and p.reads and o.segment == "work"
        }
        writers = sum(
            (o.offset, o.dims) in wrote and p.writes
            for other in program.calls()
            for p, o in zip(KERNELS[other.kernel].params.values(), other.operands, strict=True)
            if isinstance(p, Array) and isinstance(o, Operand) and o.segment == "work"
        )
        if wrote & reads and writers == len(wrote):  # nobody else has written at this place
            needed.append(call)
    assert len(needed) > 10
    for missing in needed:
        rejected(
            change_calls(program, lambda c, missing=missing: None if c is missing else c),
            "reads work memory",
        )


def test_wrong_sizes() -> None:
    program = valid()
    for change in (
        lambda o: replace(o, dims=(o.dims[0], o.dims[1] + 1)),
        lambda o: replace(o, dims=(o.dims[0] + 1, o.dims[1])),
    ):
        rejected(change_operand(program, "tanh_forward", "x", change), "is 9 and 8|is 17 and 16")


def test_wrong_rank() -> None:
    rejected(
        change_operand(valid(), "tanh_forward", "x", lambda o: replace(o, dims=(2, *o.dims))),
        "tanh_forward, x: expected",
    )


def test_number_for_an_array() -> None:
    rejected(change_operand(valid(), "tanh_forward", "x", lambda o: 3.0), "expected an array")


def test_wrong_item_count() -> None:
    """A group that runs fewer items than its calls have would leave rows out."""
    program = valid()
    phases = []
    for phase in program.phases:
        groups = tuple(replace(g, items=g.items - 1) if g.items > 1 else g for g in phase.groups)
        phases.append(replace(phase, groups=groups))
    rejected(replace(program, phases=tuple(phases)), "its group has")


def test_wrong_multiplier() -> None:
    rejected(
        change_calls(
            valid(), lambda c: replace(c, multiplier=2) if c.kernel == "tanh_forward" else c
        ),
        "tanh_forward",
    )


def test_reads_before_it_is_written() -> None:
    program = valid()
    phases = []
    for phase in program.phases:
        groups = tuple(replace(g, calls=g.calls[::-1]) for g in phase.groups)
        phases.append(replace(phase, groups=groups))
    rejected(replace(program, phases=tuple(phases)), "reads work memory")


def test_memory_beyond_the_segment() -> None:
    program = valid()
    sizes = {**program.sizes, "work": program.sizes["work"] - 64}
    rejected(replace(program, sizes=sizes), "beyond|outside")


def test_negative_offset() -> None:
    program = valid()
    first = operand_of(program, "gather_rows", "y")

    def moved(call: PlannedCall) -> PlannedCall:
        operands = tuple(
            replace(o, offset=-64) if isinstance(o, Operand) and o == first else o
            for o in call.operands
        )
        return replace(call, operands=operands)

    rejected(change_calls(program, moved), "beyond|outside")


def test_unknown_kernel() -> None:
    rejected(
        change_calls(
            valid(), lambda c: replace(c, kernel="no_such") if c.kernel == "tanh_forward" else c
        ),
        "no_such",
    )


def test_a_call_must_not_overlap_itself() -> None:
    """A kernel that reads a whole array may not write a part of it on several workers."""
    program = valid()
    w = operand_of(program, "linear_backward_weight", "x", 0)
    rejected(
        change_operand(
            program, "linear_backward_weight", "dw", lambda o: replace(o, segment="work",
                                                                       offset=w.offset)
        ),
        "without a barrier|reads work memory",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("shares", "whole"),
    [
        ([(0, 2, 4), (2, 4, 4)], True),
        ([(2, 4, 4), (0, 3, 4)], True),
        ([(0, 1, 4), (2, 4, 4)], False),
        ([(1, 4, 4)], False),
        ([(0, 3, 4)], False),
        ([(0, 1, 2), (2, 4, 4)], False),
        ([None, None], False),
    ],
)
def test_parts_make_up_the_whole_if_none_is_missing(shares: list[Any], whole: bool) -> None:
    cover = Coverage()
    for share in shares:
        cover.write_share(0, 64, 1, share)
    assert (cover.missing(0, 64, 1, False) is None) == whole
