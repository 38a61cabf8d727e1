"""Local memory: which buffers are in it, and that it changes no bit."""

from __future__ import annotations

import functools
import gc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, optim
from fastnn.errors import NonFiniteError, ProgramError
from fastnn.graph.graph import Graph
from fastnn.ops.declare import apply_effect
from fastnn.plan import memory
from fastnn.plan.planner import plan
from fastnn.plan.program import Operand, Program
from fastnn.plan.verify import verify
from fastnn.runtime.cpu import layout
from fastnn.runtime.cpu.execute import BoundProgram
from fastnn.runtime.cpu.single import CpuSingle
from tests.plan.models import training_program
from tests.runtime import interrupting

SIZES = (700, 96, 5)


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(SIZES[0], SIZES[1]), nn.ReLU(), nn.Linear(SIZES[1], SIZES[2]))


def program(**options: Any) -> Program:
    return training_program(model(), SIZES[:1], 8, optim.Adam(**options))[1]


def local_operands(of: Program) -> list[Operand]:
    return [
        o for c in of.calls() for o in c.operands if isinstance(o, Operand) and o.segment == "local"
    ]


def test_a_gradient_that_only_the_update_reads_is_local() -> None:
    found = program()
    kernels = [
        c.kernel
        for c in found.calls()
        if any(isinstance(o, Operand) and o.segment == "local" for o in c.operands)
    ]
    assert kernels == ["linear_backward_weight", "adam_update"]
    (group,) = [g for p in found.phases for g in p.groups if g.items == SIZES[0]]
    assert group.block < group.items
    assert found.sizes["local"] == group.block * SIZES[1] * 4


def test_a_gradient_that_clipping_reads_is_not() -> None:
    assert not local_operands(program(clip_global_norm=1.0))


def test_local_memory_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "LOCAL_BYTES", 8192)
    assert program().sizes["local"] == 8192 // (SIZES[1] * 4 * 8) * 8 * SIZES[1] * 4


def test_slices_of_a_buffer_are_not_local() -> None:
    """Items of a slice are no rows of the buffer, whoever uses it."""
    graph = Graph(4096)
    x = graph.input("x", (64,))
    buffer, y = graph.value((2, 4096, 64)), graph.value(x.shape, batched=True)
    first, second = (graph.view(buffer, x.shape, True, k * x.size) for k in (0, 1))
    apply_effect(graph, "affine", x=x, y=first, scale=2.0, shift=0.0)
    apply_effect(graph, "affine", x=first, y=second, scale=2.0, shift=0.0)
    apply_effect(graph, "add_forward", a=first, b=second, y=y)
    whole = graph.value(x.shape, batched=True)
    apply_effect(graph, "affine", x=y, y=whole, scale=1.0, shift=1.0)
    planned = plan(graph, {"output0": whole})
    assert {o.dims for o in local_operands(planned)} == {x.shape}  # that of y alone
    assert len({o.buffer for o in local_operands(planned)}) == 1


def trained(workers: int, keep: bool, steps: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((8, SIZES[0])).astype(np.float32), rng.integers(0, SIZES[2], 8)
    net = model()
    step = fnn.compile(net, "cross_entropy", optim.Adam(), workers=workers, keep_gradients=keep)
    for _ in range(steps):
        step(x, y)
    return {name: np.array(p) for name, p in net.named_parameters().items()}


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_no_bit_changes(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    want = trained(1, keep=True)
    for limit in (1, 20_000, memory.LOCAL_BYTES):
        monkeypatch.setattr(memory, "LOCAL_BYTES", limit)
        for name, value in trained(workers, keep=False).items():
            np.testing.assert_array_equal(value, want[name], err_msg=f"{name}, {limit}")


def test_inference_keeps_no_layers_output_of_the_whole_batch() -> None:
    """Each worker's rows pass through all layers block by block."""
    net = nn.Sequential(*[nn.Linear(64, 64) for _ in range(8)])
    trainer = fnn.Trainer(net, "mse", "sgd", workers=1)
    x = np.random.default_rng(0).standard_normal((4096, 64)).astype(np.float32)
    y = net.predict(x, batch_size=4096)
    assert y.shape == x.shape
    trainer.evaluate(x, y, batch_size=4096)
    assert trainer._evaluation is not None
    held = trainer._evaluation.session.memory["work"].nbytes
    assert held < 3 * x.nbytes, f"{held / x.nbytes:.1f} layers' outputs are held"


def test_what_is_not_finite_is_found_in_local_memory() -> None:
    net = model()
    step = fnn.compile(net, "cross_entropy", optim.SGD(lr=0.1))
    x = np.full((8, SIZES[0]), np.inf, np.float32)
    with pytest.raises(NonFiniteError, match=r"linear_forward_taking in 0"):
        step(x, np.zeros(8, np.int64))


def test_ctrl_c_while_local_memory_is_provided() -> None:
    """Whatever instruction it comes before, the next run finds whole tables."""
    step = fnn.compile(model(), "cross_entropy", optim.Adam(), workers=1)
    step(np.zeros((8, SIZES[0]), np.float32), np.zeros(8, np.int64))
    (single,) = [o for o in gc.get_objects() if type(o) is CpuSingle and o.store is step.store]
    made: BoundProgram = single.description.segments[-1][0]

    def bound() -> BoundProgram:
        found = BoundProgram(made.program, made.memory)
        found.segment(1, 1)
        return found

    first = bound()
    assert first.placed.local
    many = interrupting.moments(lambda: first.segment(1, 2))
    for moment in range(many):
        found = bound()
        assert interrupting.interrupt_at(functools.partial(found.segment, 1, 2), moment)
        found.segment(1, 1)
        tables = iter(found.placed.placing)
        for number in found.placed.local:
            table = next(tables)
            assert found.calls[number, 1] == found.records[number].ctypes.data
            assert found.calls[number, 3] == table.ctypes.data
            place = table[layout.PLACED_WORDS + 1] - found.placed.memory.ctypes.data
            assert 0 <= place < found.placed.size
    assert many > 50


def changed(of: Program, number: int, **change: Any) -> Program:
    """The program with one local operand (counted) changed."""
    seen = -1

    def on(operand: Any) -> Any:
        nonlocal seen
        if not (isinstance(operand, Operand) and operand.segment == "local"):
            return operand
        seen += 1
        return replace(operand, **change) if seen == number else operand

    phases = tuple(
        replace(
            p,
            groups=tuple(
                replace(
                    g,
                    calls=tuple(replace(c, operands=tuple(map(on, c.operands))) for c in g.calls),
                )
                for g in p.groups
            ),
        )
        for p in of.phases
    )
    return replace(of, phases=phases)


def test_verifier() -> None:
    good = program()
    verify(good)
    with pytest.raises(ProgramError, match="outside 'local'"):
        verify(changed(good, 0, offset=64))
    with pytest.raises(ProgramError, match="reads local memory"):
        verify(changed(good, 1, buffer=10_000))
    with pytest.raises(ProgramError, match="rows of a group's items"):
        verify(changed(good, 1, per_item=4))
