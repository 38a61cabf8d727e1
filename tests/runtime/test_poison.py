"""Memory filled with NaN before each step: it changes no bit, and shows what nobody wrote."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim
from fastnn.errors import ProgramError
from fastnn.graph.graph import Graph
from fastnn.kernels.declare import KERNELS, Array
from fastnn.ops.declare import apply_effect
from fastnn.plan import planner, verify
from fastnn.plan.program import Operand
from fastnn.runtime import poison
from fastnn.runtime.cpu import poison as cpu_poison
from fastnn.runtime.cpu.execute import BoundProgram, allocate


class Everything(nn.Module):
    """A loop with cells and values from outside, a fused layer, norms, columns, an embedding."""

    def __init__(self) -> None:
        self.embed, self.context = nn.Embedding(11, 6), nn.Linear(3, 5)
        self.cell, self.gru = nn.LSTMCell(6 + 5, 7), nn.GRUCell(7, 7)
        self.layer, self.norm = nn.LSTM(7, 8, bidirectional=True), nn.LayerNorm(16)
        self.batch_norm, self.head = nn.BatchNorm(16), nn.Linear(16, 4)

    def forward(self, ids: Any, c: Any, lengths: Any) -> Any:
        def step(x: Any, state: Any) -> Any:
            h, cell, g = state
            h, cell = self.cell(ops.concatenate(self.context(c), x), (h, cell))
            g = self.gru(h, g)
            return ops.add(h, g), (h, cell, g)

        x = self.embed(ids)
        zeros = ops.zeros_state(x, 7)
        y, _ = ops.loop(step, x, (zeros, zeros, zeros), lengths=lengths)
        y = self.norm(self.layer(y, lengths=lengths)[0])
        return self.head(ops.relu(self.batch_norm(y)))


def trained(workers: int) -> tuple[dict[str, np.ndarray], np.ndarray, list[float]]:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 11, (53, 5)), rng.normal(size=(53, 3)), rng.integers(1, 6, 53)
    y = rng.integers(0, 4, (53, 5))
    model = Everything()
    trainer = fnn.Trainer(
        model, "cross_entropy", optim.Adam(lr=0.01, clip_global_norm=1.0), workers=workers
    )
    history = trainer.fit(x, y, epochs=2, batch_size=16, verbose=False)
    step = fnn.compile(model, "cross_entropy", optim.SGD(lr=0.1), workers=workers)
    losses = [step(tuple(a[:9] for a in x), y[:9]) for _ in range(2)]
    return model.state_dict(), model.predict(*x, batch_size=20), [*history["loss"], *losses]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_no_bit_changes(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert poison.enabled()  # in all tests
    state, rows, losses = trained(workers)
    monkeypatch.setenv("FASTNN_POISON", "0")
    other, same_rows, same_losses = trained(1)
    assert losses == same_losses
    np.testing.assert_array_equal(rows, same_rows)
    for name, value in state.items():
        assert np.isfinite(value).all()
        np.testing.assert_array_equal(value, other[name])


def test_the_pattern_is_nan_and_an_absurd_number() -> None:
    for count in (1, 2, 7):
        single, double, whole = (
            np.zeros(count, kind) for kind in (np.float32, np.float64, np.int64)
        )
        for array in (single, double, whole):
            poison.fill(array)
        assert np.isnan(single).all()
        assert np.isnan(double).all()
        assert (whole > 1 << 62).all()


def test_where_it_is_off_nothing_of_it_is_in_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    def rows() -> int:
        step = fnn.compile(nn.Linear(3, 2), "mse", "sgd")
        step(np.zeros((4, 3)), np.zeros((4, 2)))
        ready = next(iter(step._ready.values()))
        return len(ready.bound.rows)

    on = rows()
    monkeypatch.setenv("FASTNN_POISON", "0")
    assert rows() == on - 1


def without(kernel: str, nth: int) -> Callable[[Any, Any], Any]:
    """A planner that leaves out a call."""

    def look(graph: Any, places: Any) -> Any:
        found = [c for c in graph.calls if c.kernel == kernel]
        graph.calls.remove(found[nth])
        return planner.look(graph, places)

    return look


@pytest.mark.parametrize("kernel", ["insert_columns", "affine", "tanh_forward"])
@pytest.mark.parametrize("nth", [0, 1])
def test_what_nobody_wrote_shows(kernel: str, nth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the verifier off, a missing call makes NaN: in the loss or the gradients."""
    from fastnn.engine import plans

    monkeypatch.setattr(plans, "look", without(kernel, nth))
    monkeypatch.setattr(planner, "verify", lambda program: None)
    rng = np.random.default_rng(0)
    x = rng.integers(0, 11, (9, 5)), rng.normal(size=(9, 3)), np.full(9, 5)
    step = fnn.compile(Everything(), "cross_entropy", "sgd")
    found = step.gradients(x, rng.integers(0, 4, (9, 5)))
    assert any(np.isnan(g).any() for g in found.values())


@pytest.mark.parametrize("kernel", ["insert_columns", "affine", "tanh_forward"])
@pytest.mark.parametrize("nth", [0, 1])
def test_the_verifier_finds_it(kernel: str, nth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastnn.engine import plans

    monkeypatch.setattr(plans, "look", without(kernel, nth))
    rng = np.random.default_rng(0)
    x = rng.integers(0, 11, (9, 5)), rng.normal(size=(9, 3)), np.full(9, 5)
    with pytest.raises(ProgramError, match="was not written"):
        fnn.compile(Everything(), "cross_entropy", "sgd").gradients(x, rng.integers(0, 4, (9, 5)))


def test_outputs_are_written_completely(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call of a step, made twice, on outputs of other contents: what it declares as "out" is
    the same bits after both; what has gaps, or is scratch, has to be declared so."""
    monkeypatch.setenv("FASTNN_POISON", "0")
    rng = np.random.default_rng(0)
    x = rng.integers(0, 11, (19, 5)), rng.normal(size=(19, 3)), rng.integers(1, 6, 19)
    step = fnn.compile(Everything(), "cross_entropy", optim.Adam(clip_global_norm=1.0), workers=1)
    step(x, rng.integers(0, 4, (19, 5)))
    ready = next(iter(step._ready.values()))
    bound, checked = ready.bound, set()
    for number, call in enumerate(bound.planned):
        kernel = KERNELS[call.kernel]
        operands = {
            name: operand
            for (name, parameter), operand in zip(
                kernel.params.items(), call.operands, strict=True
            )
            if isinstance(parameter, Array) and isinstance(operand, Operand)
        }  # fmt: skip
        if any(kernel.params[n].mode == "inout" or o.external for n, o in operands.items()):
            bound.run_call(number)
            continue
        outputs = {
            n: bound.read(o) for n, o in operands.items()
            if kernel.params[n].mode == "out" and not kernel.params[n].gaps
        }  # fmt: skip
        inputs = [bound.read(o) for n, o in operands.items() if kernel.params[n].reads]
        if any(np.shares_memory(a, b) for a in outputs.values() for b in inputs):
            bound.run_call(number)
            continue
        results = []
        for byte in (0x00, 0xFF):
            for array in outputs.values():
                array.reshape(-1).view(np.uint8)[:] = byte
            bound.run_call(number)
            results.append({n: array.tobytes() for n, array in outputs.items()})
        assert results[0] == results[1], call.kernel
        checked.add(call.kernel)
    assert {"lstm_forward", "lstm_backward", "affine", "sum_rows", "pack_panels"} <= checked


def test_a_segment_that_nobody_declared_is_refused() -> None:
    graph = Graph(2)
    y = graph.leaf("mine", (2, 3), "mine", offset=0)
    apply_effect(graph, "affine", x=graph.full((2, 3), 1.0), y=y, scale=1.0, shift=0.0)
    with pytest.raises(ProgramError, match="expected memory in one of the segments"):
        planner.plan(graph, {})
    program = planner.plan(graph, {}, carried=["mine"])
    verify.verify(program)


@pytest.mark.parametrize(("offset", "elements"), [(6, 6), (0, 5)])
def test_a_program_beside_its_memory_is_refused(offset: int, elements: int) -> None:
    graph = Graph(2)
    y = graph.leaf("mine", (2, 3), "mine", offset=offset)
    apply_effect(graph, "affine", x=graph.full((2, 3), 1.0), y=y, scale=1.0, shift=0.0)
    program = planner.plan(graph, {}, carried=["mine"])
    memory = {"mine": np.zeros(elements, np.float32)}
    allocate(program, memory)
    with pytest.raises(ProgramError, match=rf"affine, y: bytes .* of 'mine', .* {4 * elements}"):
        BoundProgram(program, memory)


@pytest.mark.parametrize(
    ("strides", "reach"),
    [((), (32, 56)), ((8,), (32, 72)), ((-16, 4), (0, 72)), ((0, 24), (32, 152))],
)
def test_where_an_operand_is_in_all_steps(strides: tuple[int, ...], reach: tuple[int, int]) -> None:
    operand = Operand("work", 32, (2, 3), "f", strides=strides)
    assert cpu_poison._reach(operand, [3, 5], 4) == reach
    assert cpu_poison._reach(replace(operand, dims=(0, 3)), [3, 5], 4)[1] == reach[0]
