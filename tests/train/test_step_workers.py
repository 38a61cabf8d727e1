"""Single steps: workers, interrupts, and what a call costs."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim
from fastnn.errors import OptionError
from tests.runtime import interrupting
from tests.train.steps import X, Y, net, state

# ---------------------------------------------------------------- workers and overhead


def test_helpers_end_with_the_interpreter():
    """Awake or asleep, they keep no process from ending."""
    program = (
        "import numpy as np, fastnn as fnn, time, sys\n"
        "step = fnn.compile(fnn.nn.Linear(6, 3), 'mse', workers=3)\n"
        "x = np.ones((30, 6), np.float32)\n"
        "for _ in range(20): step(x, x[:, :3])\n"
        "time.sleep(float(sys.argv[1]))\n"
        "print('done')\n"
    )
    for wait in ("0", "0.01"):
        done = subprocess.run(
            [sys.executable, "-c", program, wait], capture_output=True, text=True, timeout=120,
            check=True,
        )  # fmt: skip
        assert done.stdout == "done\n"
        assert "rror" not in done.stderr


def test_many_teams_at_once():
    """More workers than cores, awake and asleep in turn: nobody waits for ever."""
    models = [net() for _ in range(3)]
    steps = [fnn.compile(m, "cross_entropy", workers=4) for m in models]
    for k in range(60):
        losses = [step(X, Y) for step in steps]
        assert len(set(losses)) == 1
        if k % 20 == 0:
            time.sleep(0.002)


@pytest.mark.parametrize("workers", [1, 3])
def test_ctrl_c_at_every_instruction(workers):
    """A step is done or not, and counted or not; what follows is as if nothing had been."""
    model, undisturbed = net(0.3), net(0.3)
    decay = optim.schedules.StepDecay(40, gamma=0.9)
    options = optim.Adam(lr=0.01, schedule=decay)
    step = fnn.compile(model, "cross_entropy", options, workers=workers)
    step(X, Y)
    total = interrupting.moments(lambda: step(X, Y))
    for moment in range(total):
        before = step.steps
        interrupting.interrupt_at(lambda: step(X, Y), moment)
        assert step.steps - before in (0, 1)
    step(X, Y)
    other = fnn.compile(undisturbed, "cross_entropy", options, workers=1)
    for _ in range(step.steps):
        other(X, Y)
    assert state(model) == state(undisturbed)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_call_is_little_python(workers):
    """Once a step is ready a call looks it up, writes the batch and runs: whatever the model.

    (What that costs in microseconds `benchmarks/test_calls.py` measures.)
    """

    def calls(model: nn.Module) -> list[str]:
        step = fnn.compile(model, "cross_entropy", optim.SGD(lr=1e-6), workers=workers)
        for _ in range(3):
            step(X, Y)
        seen: list[str] = []

        def note(frame, event, argument):
            if event == "call":
                seen.append(frame.f_code.co_name)
            elif event == "c_call":
                seen.append(argument.__name__)

        sys.setprofile(note)
        try:
            step(X, Y)
        finally:
            sys.setprofile(None)
        return seen[:-1]  # without the call that ends the profile

    small, large = calls(nn.Linear(6, 3)), calls(net(0.3))
    assert small == large
    assert len(small) <= 30, small


def test_the_trainer_trains_some_parameters_and_notices_a_move():
    model = net()
    trainer = fnn.Trainer(model, "cross_entropy", parameters=model[4])
    before = model.state_dict()
    trainer.fit(X, Y, epochs=1, batch_size=8, verbose=False)
    changed = {n for n, a in model.state_dict().items() if (a != before[n]).any()}
    assert changed - {"1.running_mean", "1.running_var"} == {"4.weight", "4.bias"}
    nn.Sequential(model[4], nn.Linear(3, 3)).store()
    with pytest.raises(OptionError, match="have moved into another model's memory"):
        trainer.fit(X, Y, epochs=1, batch_size=8, verbose=False)


@pytest.mark.parametrize("batch", [1, 3, 7, 64])
def test_predictions_in_batches_of_any_size(batch: int) -> None:
    """Some go batch by batch, some through the compiled loop."""
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))
    x = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    want = np.concatenate([model.predict(row[None]) for row in x])
    got = model.predict(x, batch_size=batch)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(got, model.predict(x, batch_size=batch))


def test_a_prediction_is_not_overwritten_by_the_next() -> None:
    model = nn.Linear(5, 3)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 4, 5)).astype(np.float32)
    first = model.predict(x[0])
    kept = first.copy()
    model.predict(x[1])
    np.testing.assert_array_equal(first, kept)
    model.weight.value[...] = 0.0
    model.bias.value[...] = 1.0
    np.testing.assert_array_equal(model.predict(x[0]), np.ones((4, 3), np.float32))


def test_ctrl_c_after_a_step_does_not_shift_the_learning_rates():
    """Each step has the rate of its number, whatever was cut off after the kernels were done."""
    schedule = optim.schedules.Polynomial(duration=600)
    model = nn.Linear(2, 1)
    step = fnn.compile(
        model, lambda out, _: ops.mean(out), optim.SGD(lr=0.5, schedule=schedule), workers=1,
        dtype="float64",
    )  # fmt: skip
    x, y = np.ones((4, 2)), np.zeros((4, 1))
    step(x, y)
    (ready,) = {id(r): r for r in step._ready.values()}.values()
    run = ready.run

    def cut(arrays):
        run(arrays)
        raise KeyboardInterrupt

    expected = schedule.rates(0.5, 0, 600, 1)
    for number in range(1, 540):
        before = model.bias.value.copy()
        ready.run = cut if number % 7 == 1 else run
        try:
            step(x, y)
        except KeyboardInterrupt:
            assert number % 7 == 1
        assert step.steps == number + 1
        np.testing.assert_allclose(before - model.bias.value, expected[number], rtol=1e-9)
    step.learning_rate = 0.25
    ready.run, before = run, model.bias.value.copy()
    step(x, y)
    np.testing.assert_allclose(before - model.bias.value, expected[540] / 2, rtol=1e-9)
