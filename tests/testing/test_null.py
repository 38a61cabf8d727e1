"""The device that computes nothing: it plans and counts as a real one would."""

from __future__ import annotations

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn
from fastnn.errors import OptionError
from fastnn.kernels import control_block
from fastnn.runtime.cpu import compiler
from fastnn.testing.null import null_device

X = np.ones((20, 3), np.float32)


def fit() -> fnn.Trainer:
    trainer = fnn.Trainer(nn.Linear(3, 2), "mse", "sgd")
    trainer.fit(X, X[:, :2], epochs=2, batch_size=8, verbose=False)
    return trainer


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_runs_are_counted_and_nothing_is_computed(kind: str) -> None:
    compiled = compiler.compiled_count
    with null_device(kind) as null:
        trainer = fit()
        before = trainer.get_parameters()
        assert null.steps == trainer.step == 6  # 8, 8 and 4 samples, twice
        assert [p.batch for p in null.programs] == [8, 4]
        assert null.launches["advance"] == null.launches["gather_rows"] // 2 == 6
        assert sum(n for k, n in null.launches.items() if k.startswith("linear_forward")) == 6
        assert trainer.session.control[control_block.CURSOR] == 20
        fit_again = trainer.fit(X, X[:, :2], batch_size=8, verbose=False)
        assert null.steps == 9
        assert fit_again.epoch == [2]
    after = trainer.get_parameters()
    assert all(np.array_equal(after[name], before[name]) for name in before)
    assert compiler.compiled_count == compiled


def test_programs_and_memory_of_a_runtime() -> None:
    """A program counts once; memory is put back; what is asked of a run is called."""
    with null_device() as null:
        runtime = fit().session.runtime
        count, called = len(null.programs), []
        bound = runtime.bind(null.programs[0])
        runtime.run([(bound, 1)], lambda: called.append("poll"), lambda: called.append("meanwhile"))
        saved = runtime.save(["params"])
        runtime.memory["params"][...] = 7.0
        runtime.restore(saved)
        with pytest.raises(ValueError, match="broadcast"):
            bound.write("loss", np.zeros((2, 3)))
    assert len(null.programs) == count
    assert called == ["meanwhile", "poll"]
    assert not (runtime.memory["params"] == 7.0).any()


def test_steps_and_predictions() -> None:
    with null_device("cuda") as null:
        step = fnn.compile(nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 2)), "mse", "sgd")
        ids = np.zeros(4, np.int64)
        assert step(ids, np.zeros((4, 2), np.float32)) == 0.0
        assert step.steps == 1
        assert null.launches["check_range"] == 1
        assert set(step.gradients(ids, np.zeros((4, 2), np.float32))) == {
            "0.weight", "1.weight", "1.bias",
        }  # fmt: skip
        predicted = nn.Linear(3, 2).to("cuda").predict(X)
    assert predicted.shape == (20, 2)
    assert not predicted.any()


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_a_loops_calls_count_in_each_of_its_steps(kind: str) -> None:
    class Elman(nn.Module):
        def __init__(self) -> None:
            self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 4)

        def forward(self, x: fnn.Value) -> fnn.Value:
            def step(x_t: fnn.Value, h: fnn.Value) -> tuple[fnn.Value, fnn.Value]:
                h = fnn.ops.tanh(self.a(x_t) + self.b(h))
                return h, h

            return fnn.ops.loop(step, x, fnn.ops.zeros_state(x, 4))[0]

    with null_device(kind) as null:
        Elman().predict(np.ones((2, 7, 3), np.float32))
    assert null.launches["tanh_forward"] == 7


def test_afterwards_devices_are_what_they_were() -> None:
    with pytest.raises(ZeroDivisionError), null_device("cuda"):
        _ = 1 / 0
    trainer = fit()
    assert trainer.session.runtime.kind in ("cpu", "cuda")
    assert type(trainer.session.runtime).__name__ != "NullRuntime"


def test_other_kinds_are_refused() -> None:
    with pytest.raises(OptionError, match="expected 'cpu' or 'cuda', got 'tpu'"):
        null_device("tpu").__enter__()
