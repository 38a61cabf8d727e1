"""Where a step's time and memory go; and nothing is changed by looking."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim
from fastnn.errors import NonFiniteError, OptionError, ShapeError
from fastnn.kernels import control_block
from fastnn.plan.program import PlannedCall
from fastnn.runtime.cpu.bound import CpuProgram
from fastnn.testing.null import null_device
from fastnn.train.profile import Timing, _timing

X = np.random.default_rng(0).normal(size=(32, 6)).astype(np.float32)
Y = np.arange(32) % 3


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 20), nn.BatchNorm(20), nn.ReLU(), nn.Linear(20, 3))


def made(kind: str, **options: Any) -> Any:
    make: Any = fnn.compile if kind == "step" else fnn.Trainer
    return make(model(), "cross_entropy", optim.Adam(lr=0.01), device="cpu", **options)


def state(training: Any) -> dict[str, bytes]:
    memory = training.session.memory
    names = ["params", "buffers", *(n for n in memory if n.startswith("slots/"))]
    found = {name: memory[name].tobytes() for name in names}
    return found | {n: getattr(training.session, n).tobytes() for n in ("control", "totals")}


@pytest.mark.parametrize("kind", ["step", "trainer"])
def test_times_by_layer_and_kernel_and_memory_by_segment(kind: str) -> None:
    found = fnn.profile(made(kind), X, Y, repeats=3)
    layers = found.by_layer()
    assert set(layers) == {"0", "1", "2", "3", "loss", "(step)"}
    assert list(layers.values()) == sorted(layers.values(), reverse=True)
    assert sum(layers.values()) == pytest.approx(sum(call.seconds for call in found.calls))
    assert "adam_update" in found.by_kernel()
    assert all(0 <= call.least <= call.seconds for call in found.calls)
    assert found.step > 0
    size = 4 * found_size(model())
    assert found.memory["params"] >= size
    assert found.memory["slots/exp_avg"] == found.memory["params"]
    assert found.memory["work"] > 0
    text = str(found)
    assert all(word in text for word in ("layer", "kernel", "memory", "cross_entropy_forward"))


def found_size(net: nn.Module) -> int:
    return sum(p.size for p in net.named_parameters().values())


@pytest.mark.parametrize("kind", ["step", "trainer"])
def test_training_goes_on_as_if_nobody_had_looked(kind: str) -> None:
    looked, other = made(kind, seed=3), made(kind, seed=3)
    for training in (looked, other):
        _train(training)
    before = state(looked)
    fnn.profile(looked, X[:8], Y[:8], repeats=2)
    assert state(looked) == before
    for training in (looked, other):
        _train(training)
    assert state(looked) == state(other)


def _train(training: Any) -> None:
    if isinstance(training, fnn.Trainer):
        training.fit(X, Y, epochs=1, batch_size=8, verbose=False)
    else:
        for begin in range(0, 32, 8):
            training(X[begin : begin + 8], Y[begin : begin + 8])


@pytest.mark.parametrize("kind", ["step", "trainer"])
def test_every_repeat_is_the_same_step(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The schedule has one row, and the data one mini-batch. The next step is not beyond doubt:
    parameters were put back."""
    training, seen = made(kind), []
    control = training.session.control

    def noting(function: Any) -> Any:
        def noted(*given: Any) -> Any:
            seen.append(int(control[control_block.RUN_STEP]))
            return function(*given)

        return noted

    module = importlib.import_module("fastnn.train.profile")
    ready_of = module._ready

    def ready(*given: Any) -> Any:
        single, arrays = ready_of(*given)
        monkeypatch.setattr(single, "run", noting(single.run))
        return single, arrays

    monkeypatch.setattr(module, "_ready", ready)
    monkeypatch.setattr(CpuProgram, "timed", noting(CpuProgram.timed))
    fnn.profile(training, X, Y, repeats=3)
    assert seen == [seen[0]] * (1 + 3 + 3)
    assert training.session.memory["guard"][control_block.DOUBT]


def test_a_launch_of_several_calls_counts_to_all_of_their_layers() -> None:
    calls = [
        PlannedCall(kernel, (), 1, scope)
        for kernel, scope in (("mean", "loss"), ("add", "0, time step 3"), ("latch", ""))
    ]
    found = _timing(calls, [1.0, 9.0, 2.0])
    assert found == Timing("mean+add+latch", "loss + 0", 2.0, 1.0)
    assert _timing(calls[2:], [1.0]).layer == "(step)"


def test_a_loops_steps_count_to_their_layer() -> None:
    class Loop(nn.Module):
        def __init__(self) -> None:
            self.cell = nn.RNNCell(6, 3)

        def forward(self, x: Any) -> Any:
            def step(x_t: Any, h: Any) -> Any:
                h = self.cell(x_t, h)
                return h, h

            return ops.loop(step, x, ops.zeros_state(x, 3))[0]

    step = fnn.compile(Loop(), "mse", "sgd", device="cpu")
    x = np.zeros((4, 5, 6), np.float32)
    found = fnn.profile(step, x, np.zeros((4, 5, 3), np.float32), repeats=2)
    assert any(layer.startswith("cell") for layer in found.by_layer())
    assert not any("time step" in layer for layer in found.by_layer())


def test_what_cannot_be_looked_at_is_refused() -> None:
    step = made("step")
    with pytest.raises(OptionError, match=r"a step of fastnn.compile or a Trainer, got Sequential"):
        fnn.profile(model(), X, Y)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="repeats: expected a whole number >= 1, got 0"):
        fnn.profile(step, X, Y, repeats=0)
    with pytest.raises(ShapeError):
        fnn.profile(step, X[:, :5], Y)
    step(X, Y)
    before = state(step)
    with pytest.raises(NonFiniteError, match="profile: expected a step that can be made"):
        fnn.profile(step, np.full_like(X, 3e38), Y)
    assert state(step) == before
    assert np.isfinite(step(X, Y))


def test_on_a_gpu_a_launch_is_timed_with_all_its_calls() -> None:
    with null_device("cuda"):
        step = fnn.compile(model(), "cross_entropy", "adam")
        found = fnn.profile(step, X, Y, repeats=2)
    assert found.device == "cuda:0"
    assert {"loss", "(step)"} <= set(found.by_layer())


def test_without_the_package_ranges_are_refused() -> None:
    code = "from fastnn.runtime import _cuda; _cuda.ranges()"
    environment = {**os.environ, "FASTNN_NVTX": "1"}
    hidden = "import sys; sys.modules['nvtx'] = None\n" + code
    done = subprocess.run(
        [sys.executable, "-c", hidden], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "FASTNN_NVTX=1: expected the package nvtx" in done.stderr
