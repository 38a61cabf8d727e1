"""Properties of planned programs, checked without the verifier's or the planner's own code."""

from __future__ import annotations

import itertools
import textwrap
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastnn import nn, optim
from fastnn.graph.graph import Graph
from fastnn.kernels.declare import KERNELS, Array
from fastnn.kernels.matmul import cpu_turned
from fastnn.ops.declare import apply_effect
from fastnn.plan.instruction import instructions_of
from fastnn.plan.planner import plan
from fastnn.plan.products import chosen
from fastnn.plan.program import Operand, PlannedCall, Program
from fastnn.plan.schedule import schedule
from tests.plan.models import (
    RandomModel,
    optimizer_called,
    optimizers,
    recipes,
    training_program,
)

SETTINGS = settings(
    max_examples=60, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip
programs = given(
    recipe=recipes,
    features=st.integers(1, 9),
    batch=st.sampled_from([2, 3, 8, 17, 64]),
    optimizer=optimizers,
    dtype=st.sampled_from(["float32", "float64"]),
)


def program_of(
    recipe: Any, features: int, batch: int, optimizer: str, dtype: str
) -> tuple[Any, Program]:
    model = RandomModel(features, recipe)
    return training_program(model, (features,), batch, optimizer_called(optimizer), dtype)


Touch = tuple[str, int, int, bool, bool, Any]  # segment, begin, end, reads, writes, split


def touches(program: Program, call: PlannedCall, group: Any) -> list[Touch]:
    """The bytes that a call touches, and how they are split among workers (None: not at all)."""
    found: list[Touch] = []
    for parameter, operand in zip(KERNELS[call.kernel].params.values(), call.operands, strict=True):
        if not isinstance(parameter, Array) or not isinstance(operand, Operand):
            continue
        item = 4 if operand.dtype == "f" and program.dtype == "float32" else 8
        size = item * int(np.prod(operand.dims))
        split = None
        if group is not None and parameter.axis != "whole":
            # item i has the i-th of so many equal parts, of all bytes or of each row's
            split = (group.items, group.grain, parameter.axis, operand.offset, size)
            parts = operand.dims[0] if parameter.axis == "rows" else operand.dims[-1]
            assert parts == group.items * call.multiplier
        found.append(
            (operand.segment, operand.offset, operand.offset + size, parameter.reads,
             parameter.writes, split)
        )  # fmt: skip
    return found


def overlap(a: Touch, b: Touch) -> bool:
    return a[0] == b[0] and a[1] < b[2] and b[1] < a[2]


@SETTINGS
@programs
def test_live_buffers_never_overlap(**drawn: Any) -> None:
    """A buffer is a byte range of work memory from its first write to its last read; where two
    ranges overlap, one has to end in an earlier phase than the other begins."""
    _, program = program_of(**drawn)
    lives: list[list[int]] = []  # begin, end, first phase, last phase
    current: dict[tuple[int, int], list[int]] = {}
    for number, phase in enumerate(program.phases):
        calls = [(c, g) for g in phase.groups for c in g.calls] + [(c, None) for c in phase.serial]
        for call, group in calls:
            for segment, begin, end, _, writes, _ in touches(program, call, group):
                if segment != "work" or begin == end:
                    continue
                assert 0 <= begin < end <= program.sizes["work"]
                assert begin % 64 == 0
                life = current.get((begin, end))
                if life is None:
                    assert writes, f"{call.kernel} reads what nobody has written"
                    for span in [s for s in current if s[0] < end and begin < s[1]]:
                        del current[span]  # taken over: nobody may read it from here on
                    life = current[begin, end] = [begin, end, number, number]
                    lives.append(life)
                life[3] = number
    for a, b in itertools.combinations(lives, 2):
        if a[0] < b[1] and b[0] < a[1]:
            assert a[3] < b[2] or b[3] < a[2], f"{a} and {b} live at the same time"


@SETTINGS
@programs
def test_no_unsynchronised_access(**drawn: Any) -> None:
    """Within a phase two calls touch the same bytes, one writing, only if split in the same way;
    serial calls run alone and after all."""
    _, program = program_of(**drawn)
    for phase in program.phases:
        mine = [(c, t) for g in phase.groups for c in g.calls for t in touches(program, c, g)]
        for (a, x), (b, y) in itertools.combinations(mine, 2):
            if a is b:
                same = [t for t in (x, y) if t[4]]
                assert not (same and overlap(x, y)) or x[5] == y[5] is not None
            elif overlap(x, y) and (x[4] or y[4]):
                assert x[5] is not None, f"{a.kernel} {x} {b.kernel} {y}"
                assert x[5] == y[5], f"{a.kernel} {x} {b.kernel} {y}"


@SETTINGS
@programs
def test_dependent_calls_keep_their_order(**drawn: Any) -> None:
    """Of two calls that touch a value, one writing it, the earlier in the graph runs earlier."""
    builder, program = program_of(**drawn)
    instructions = instructions_of(chosen(builder.lowered), builder.lowered.batch)
    place = {}
    for number, phase in enumerate(schedule(instructions)):
        for g, group in enumerate(phase.groups):
            for k, instruction in enumerate(group.instructions):
                place[id(instruction)] = (number, 0, g, k)
        for k, instruction in enumerate(phase.serial):
            place[id(instruction)] = (number, 1, 0, k)
    assert len(place) == len(instructions) == len(program.calls())
    for i, j in itertools.combinations(range(len(instructions)), 2):
        a, b = instructions[i], instructions[j]
        if any(x.root is y.root and (x.writes or y.writes) for x in a.accesses for y in b.accesses):
            assert place[id(a)] < place[id(b)], f"{a.kernel.name} comes after {b.kernel.name}"


@SETTINGS
@programs
def test_updates_come_after_the_check(**drawn: Any) -> None:
    """No parameter changes in a phase that the check of the loss has not closed."""
    _, program = program_of(**drawn)
    checked = next(
        n for n, p in enumerate(program.phases) if any(c.kernel == "check_finite" for c in p.serial)
    )
    for number, phase in enumerate(program.phases):
        for group in phase.groups:
            for call in group.calls:
                for touch in touches(program, call, group):
                    if touch[0] == "params" and touch[4]:
                        assert number > checked
    assert program.phases[-1].serial[-1].kernel == "advance"


def buffers_of(program: Program) -> int:
    """Bytes of all buffers, had each its own memory: those that differ by phase and place."""
    seen = set()
    for number, phase in enumerate(program.phases):
        for group in (*phase.groups, None):
            for call in group.calls if group else phase.serial:
                for segment, begin, end, _, writes, _ in touches(program, call, group):
                    if segment == "work" and writes:
                        seen.add((number, begin, end))
    return sum(end - begin for _, begin, end in seen)


def test_memory_is_reused_across_phases() -> None:
    """Batch norm cuts a net into phases: what lies between two of them is free afterwards."""

    def net(blocks: int) -> Program:
        parts: list[nn.Module] = []
        for _ in range(blocks):
            parts += [nn.Linear(32, 32), nn.BatchNorm(32), nn.Tanh(), nn.Dropout(0.1)]
        return training_program(
            nn.Sequential(*parts, nn.Linear(32, 3)), (32,), 64, optim.SGD(lr=0.1)
        )[1]

    assert net(12).sizes["work"] < 0.8 * buffers_of(net(12))
    growth = net(24).sizes["work"] / net(12).sizes["work"]
    assert growth < 2.05


def small() -> Program:
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 3))
    return training_program(model, (3,), 8, optim.SGD(lr=0.1))[1]


def outline(program: Program) -> str:
    """The program's text without offsets and sizes of memory, which may change for good reasons."""
    lines = []
    for line in str(program).splitlines()[1:]:
        text, _, scope = line.partition("  # ")
        name = text.partition("(")[0]
        lines.append(f"{name}  # {scope}" if scope or "(" in text else text)
    return "\n".join(lines)


def test_text_of_a_program() -> None:
    text = str(small())
    assert text.splitlines()[0].startswith("program: float32, batch 8, {'work': ")
    assert "data/x0+0[1, 3]" in text
    assert "params+0[3, 5]" in text  # the first weight, transposed
    for line in text.splitlines()[1:]:
        assert line.startswith(("phase ", "    "))


def test_programs_are_reproducible() -> None:
    assert str(small()) == str(small())


def test_few_barriers_for_an_mlp() -> None:
    """Gather, forward, loss and the backward pass before the first barrier (before the second where
    they need packed weights, which are made before the first); then what needs the whole batch."""
    program = small()
    phase_of = {
        c.kernel: n for n, p in enumerate(program.phases) for g in p.groups for c in g.calls
    }
    first = ("gather_rows", "linear_forward", "relu_forward", "cross_entropy_forward")
    assert {phase_of[name] for name in first} == {0}
    batch = program.batch
    unpacked = cpu_turned.pays(batch, 5, 3, 4) or cpu_turned.blocks_pay(batch)
    assert len(program.phases) == 3 - unpacked, textwrap.indent(str(program), "    ")


def test_a_gradient_and_its_update_are_one_group() -> None:
    model = nn.Sequential(nn.Linear(40, 64), nn.ReLU(), nn.Linear(64, 3))
    program = training_program(model, (40,), 32, optim.Adam())[1]
    groups = [[c.kernel for c in g.calls] for p in program.phases for g in p.groups]
    weights = [g for g in groups if any(k.startswith("linear_backward_weight") for k in g)]
    assert len(weights) == 2
    assert all(g[-1] == "adam_update" for g in weights)


@pytest.mark.parametrize("batch", [1, 2, 7, 8, 9])
def test_small_batches(batch: int) -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.Linear(5, 3))
    program = training_program(model, (3,), batch, optim.SGD(lr=0.1))[1]
    assert program.batch == batch


def test_a_buffer_in_halves_and_as_a_whole_has_a_barrier_between() -> None:
    """Item i of a half is another row than item i of the whole."""
    graph = Graph(64)
    x = graph.input("x", (8,))
    buffer, y = graph.value((2, 64, 8)), graph.value((64, 16), batched=True)
    for k in (0, 1):
        apply_effect(
            graph,
            "affine",
            x=x,
            y=graph.view(buffer, x.shape, True, k * x.size),
            scale=2.0,
            shift=0.0,
        )
    apply_effect(graph, "affine", x=graph.view(buffer, y.shape, True), y=y, scale=1.0, shift=0.0)
    program = plan(graph, {"output0": y})
    assert [len(p.groups[0].calls) for p in program.phases] == [2, 1]


def test_places_are_aligned_for_the_device() -> None:
    model = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.LayerNorm(7), nn.Linear(7, 3))
    for device, step in (("cpu", 64), ("cuda", 256)):
        program = training_program(model, (5,), 9, optim.SGD(lr=0.1), device=device)[1]
        offsets = {
            o.offset
            for call in program.calls()
            for o in call.operands
            if isinstance(o, Operand) and o.segment in ("work", "input", "constant")
        }
        assert len(offsets) > 3
        assert all(offset % step == 0 for offset in offsets), device
