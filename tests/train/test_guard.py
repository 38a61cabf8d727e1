"""A step that would make a parameter non-finite is undone to the last bit, whatever it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim
from fastnn.errors import NonFiniteError
from fastnn.kernels import control_block
from fastnn.train.callbacks import EarlyStopping, ModelCheckpoint

OPTIMIZERS: dict[str, Callable[..., optim.Optimizer]] = {
    "sgd": lambda **m: optim.SGD(lr=0.1, **m),
    "nesterov": lambda **m: optim.SGD(lr=0.1, momentum=0.9, nesterov=True, **m),
    "adagrad": lambda **m: optim.Adagrad(lr=0.1, **m),
    "rmsprop": lambda **m: optim.RMSprop(lr=0.1, momentum=0.5, centered=True, **m),
    "adadelta": lambda **m: optim.Adadelta(lr=0.1, **m),
    "adam": lambda **m: optim.Adam(lr=0.1, **m),
    "amsgrad": lambda **m: optim.Adam(lr=0.1, amsgrad=True, **m),
    "adamw": lambda **m: optim.AdamW(lr=0.1, **m),
}
CLIPS = [{}, {"clip_value": 0.5}, {"clip_norm": 1.0}, {"clip_global_norm": 1.0}]


class Rooted(nn.Module):
    """A net whose loss stays finite while a gradient does not: the root of 0."""

    def __init__(self) -> None:
        self.first, self.norm, self.last = nn.Linear(4, 40), nn.BatchNorm(40), nn.Linear(40, 3)

    def forward(self, x: Any) -> Any:
        return ops.sqrt(ops.square(self.last(ops.tanh(self.norm(self.first(x))))))


def batch(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(32, 4)).astype(np.float32), np.ones((32, 3), np.float32)


def state(step: Any) -> dict[str, np.ndarray]:
    memory = step.session.memory
    names = ["params", "buffers", *(n for n in memory if n.startswith("slots/"))]
    return {name: np.array(memory[name]) for name in names}


def same(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> bool:
    return all(before[name].tobytes() == after[name].tobytes() for name in before)


def ruin(model: Rooted) -> None:
    """Weights from which the output is 0, so that its root has no gradient."""
    model.last.weight.value[...] = 0
    model.last.bias.value[...] = 0


@pytest.mark.parametrize("clip", CLIPS, ids=str)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_refused_step_changes_nothing(name: str, clip: dict[str, Any]) -> None:
    model = Rooted()
    step = fnn.compile(model, "mse", OPTIMIZERS[name](**clip), device="cpu", workers=2)
    step(*batch())
    kept = step.model.state_dict()
    ruin(model)
    before = state(step)
    with pytest.raises(NonFiniteError, match=r"the update of step 2 made parameter .*first such"):
        step(*batch(1))
    assert same(before, state(step))
    assert step.steps == 1
    model.load_state_dict(kept)
    assert np.isfinite(step(*batch(2)))
    assert all(np.isfinite(a).all() for a in state(step).values())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_that_is_too_large_changes_nothing(name: str) -> None:
    x, y = batch()
    model = nn.Sequential(nn.Linear(4, 40), nn.BatchNorm(40), nn.Linear(40, 3))
    step = fnn.compile(model, "mse", OPTIMIZERS[name](), device="cpu")
    for _ in range(3):
        step(x, y)
    before = state(step)
    step.learning_rate = 1e300  # infinite in float32
    with pytest.raises(NonFiniteError, match="the step is too large"):
        step(x, y)
    assert same(before, state(step))
    step.learning_rate = 0.01
    step(x, y)


@pytest.mark.parametrize(
    "optimizer", [optim.Adam(accumulate=2), optim.LAMB(), optim.Muon()], ids=lambda o: o.name
)
def test_looking_for_the_first_such_number_changes_nothing(optimizer: optim.Optimizer) -> None:
    """Calls are made again for it, those that write slots and no parameters, too."""
    x, y = batch()
    step = fnn.compile(nn.Linear(4, 3), "mse", optimizer, device="cpu")
    for _ in range(3):
        step(x, y)
    before = state(step)
    step.learning_rate = 1e300
    with pytest.raises(NonFiniteError, match="are those before this step"):
        step(x, y)
    assert same(before, state(step))


@pytest.mark.parametrize("every", [1, 3])
def test_a_doubt_stays_until_the_step_that_updates(every: int) -> None:
    """Weights that decay beyond zero grow, until an update breaks them; no gradient is large."""
    optimizer = optim.SGD(lr=10.0, weight_decay=1000.0, accumulate=every)
    step = fnn.compile(nn.Linear(4, 3, bias=False), "mse", optimizer, device="cpu")
    x, y = batch()
    for _ in range(10 * every - 1):  # each update multiplies them by some -10,000
        step(0 * x, y)
    before = state(step)
    with pytest.raises(NonFiniteError, match="are those before this step"):
        step(0 * x, y)
    assert same(before, state(step))


def test_gradients_that_overflow_in_the_sum() -> None:
    """Finite factors, infinite sums of products: what the checks bound."""
    model = nn.Linear(4, 3)
    step = fnn.compile(model, lambda o, _: ops.mean(o * 1e25), optim.SGD(lr=1e-3), device="cpu")
    x = np.full((64, 4), 1e16, np.float32)
    model.weight.value[...] = 0
    before = state(step)
    with pytest.raises(NonFiniteError):
        step(x, np.zeros((64, 3), np.float32))
    assert same(before, state(step))


def test_steps_beyond_doubt_make_no_copies() -> None:
    step = fnn.compile(nn.Linear(4, 3), "mse", optim.Adam(), device="cpu")
    for _ in range(3):
        step(*batch())
    guard = step.session.memory["guard"]
    assert guard[control_block.SAVED] == guard[control_block.DOUBT] == 0
    step(batch()[0] * 1e10, batch()[1])
    assert guard[control_block.SAVED] == 1


def test_a_training_that_begins_makes_no_copies(tmp_path: Path) -> None:
    """Their memory is the system's still; a state that was loaded, and huge weights, are copied."""

    def begun(weight: float, load: str = "", **more: Any) -> Any:
        model = nn.Linear(4, 3)
        trainer = fnn.Trainer(model, "mse", optim.Adam(**more), device="cpu")
        model.bias.value[...] = weight
        if load:
            trainer.load(load)
        trainer.fit(*batch(), epochs=1, batch_size=32, verbose=False)
        return trainer

    saved = "params", "slots/exp_avg", "slots/exp_avg_sq"
    fresh, huge = begun(1.0), begun(1e15)
    fresh.save(tmp_path / "state")
    loaded = begun(1.0, str(tmp_path / "state"))
    many = begun(1.0, amsgrad=True, accumulate=2)  # more arrays than one call looks at
    for trainer, copied in ((fresh, False), (huge, True), (loaded, True), (many, True)):
        memory = trainer.session.memory
        assert memory["guard"][control_block.SAVED] == copied
        assert any(memory[f"saved/{name}"].any() for name in saved) == copied


class Twice(nn.Module):
    """A layer without bias, used twice: its gradient is a sum of two sums of products."""

    def __init__(self) -> None:
        self.linear = nn.Linear(4, 3, bias=False)

    def forward(self, x: Any, y: Any) -> Any:
        return self.linear(x) + self.linear(y) * 0.5


@pytest.mark.parametrize(
    ("first", "second", "slope", "doubtful"),
    [
        (1.0, 1.0, 1.0, False),
        (1e12, 1.0, 1.0, True),
        (1.0, 1e12, 1.0, True),
        (1.0, 1.0, 1e12, True),
        (4e8, 1.0, 4e8, True),  # each less than the root of the bound; the sum of 64 products not
    ],
)
def test_all_that_a_gradient_is_made_of_may_make_it_doubtful(
    first: float, second: float, slope: float, doubtful: bool
) -> None:
    model = Twice()
    step = fnn.compile(model, lambda o, _: ops.total(o * slope), optim.SGD(lr=1e-30), device="cpu")
    x, y = (np.full((64, 4), v, np.float32) for v in (first, second))
    for _ in range(2):  # so that slots and parameters come from steps
        step((np.ones_like(x), np.ones_like(y)), np.zeros((64, 3), np.float32))
    guard = step.session.memory["guard"]
    step((x, y), np.zeros((64, 3), np.float32))
    assert bool(guard[control_block.SAVED]) is doubtful


def test_bits_are_the_same_with_copies_and_without() -> None:
    found = []
    for doubt in (False, True):
        step = fnn.compile(Rooted(), "mse", optim.Adam(lr=0.01), device="cpu")
        for _ in range(5):
            if doubt:
                step.session.doubt()
            step(*batch())
        found.append(state(step))
    assert same(*found)


def test_a_rule_that_nobody_knows_is_guarded_too() -> None:
    class Wild(optim.SGD):
        name = "wild"

        def _rule(self) -> Any:
            return lambda p, g, lr, *_: (p + g / (g - g),)

    step = fnn.compile(nn.Linear(4, 3), "mse", Wild(lr=0.1), device="cpu")
    before = state(step)
    with pytest.raises(NonFiniteError, match="the step is too large"):
        step(*batch())
    assert same(before, state(step))


def test_a_rule_with_more_slots_than_one_copy_takes() -> None:
    """Copies are made of three slots at a time."""

    class Counting(optim.SGD):
        name = kernel_name = "counting"
        slots = ("one", "two", "three", "four", "five")

        def _rule(self) -> Any:
            return lambda p, g, a, b, c, d, e, lr, *_: (
                p + g * lr, a + 1.0, b + 2.0, c + 3.0, d + 4.0, e + 5.0,
            )  # fmt: skip

    step = fnn.compile(nn.Linear(4, 3), "mse", Counting(lr=0.1), device="cpu")
    for _ in range(2):
        step(*batch())
    before = state(step)
    assert before["slots/five"].max() == 10.0
    step.learning_rate = 1e300
    with pytest.raises(NonFiniteError, match="the step is too large"):
        step(*batch())
    assert same(before, state(step))


def test_it_is_guarded_in_steps_without_any_doubt() -> None:
    """By a rule from outside, with numbers that leave no doubt."""

    class Steep(optim.SGD):
        name = "steep"

        def _rule(self) -> Any:
            return lambda p, g, lr, *_: (p + (g * 1e30) * 1e30,)

    model = nn.Linear(4, 3)
    step = fnn.compile(model, "mse", Steep(lr=0.1), device="cpu")
    x, y = batch()
    for _ in range(2):  # no gradients
        step(0 * x, np.tile(model.bias.value, (len(x), 1)))
    before = state(step)
    assert step.session.memory["guard"][control_block.DOUBT] == 0
    with pytest.raises(NonFiniteError, match="the step is too large"):
        step(x, y)
    assert same(before, state(step))


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("batches", [False, True])
def test_the_last_step_of_a_run_and_checkpoints(
    tmp_path: Path, workers: int, batches: bool
) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 4)).astype(np.float32), np.zeros((64, 1), np.float32)
    x[-16:] *= 1e4
    model = nn.Sequential(nn.Linear(4, 1), nn.BatchNorm(1), nn.Linear(1, 1))
    trainer = fnn.Trainer(
        model, lambda o, _: ops.mean(o * o), optim.SGD(lr=1e300), workers=workers, device="cpu"
    )
    before = state(trainer)
    data: tuple[Any, ...] = (x[:16], y[:16])
    options: dict[str, Any] = {"batch_size": 16}
    if batches:
        data = ([(x[:16], y[:16])],)
        options = {}
    hooks = [ModelCheckpoint(str(tmp_path / "best"), "loss"), EarlyStopping("loss")]
    with pytest.raises(NonFiniteError, match=r"the update of epoch 1, step 1 of the epoch"):
        trainer.fit(*data, epochs=1, shuffle=False, verbose=False, callbacks=hooks, **options)
    assert not list(tmp_path.iterdir())
    assert same(before, state(trainer))
    trainer.learning_rate = 1e-3
    trainer.fit(*data, epochs=2, shuffle=False, verbose=False, **options)
    assert all(np.isfinite(a).all() for a in state(trainer).values())


def test_in_the_middle_of_an_epoch_the_good_steps_stay() -> None:
    """The state after a failure is, bit for bit, that of a run of the good steps alone."""
    x, y = (np.concatenate([batch(k)[i] for k in range(4)]) for i in (0, 1))
    bad = y.copy()
    bad[96:] = 3e38  # finite, its square is not
    states = []
    for targets, size in ((y, 96), (bad, 128)):
        model = nn.Sequential(nn.Linear(4, 40), nn.BatchNorm(40), nn.Linear(40, 3))
        trainer = fnn.Trainer(model, "mse", optim.Adam(lr=0.01), device="cpu", workers=2)
        options: dict[str, Any] = {"batch_size": 32, "shuffle": False, "verbose": False}
        if size == 96:
            trainer.fit(x[:96], targets[:96], **options)
        else:
            with pytest.raises(NonFiniteError, match="the loss was not finite in epoch 1, step 4"):
                trainer.fit(x, targets, **options)
        states.append(state(trainer))
    assert same(*states)


def test_unguarded_training_hides_nothing() -> None:
    """stop_on_nonfinite=False: NaN goes on, and is seen."""
    model = Rooted()
    step = fnn.compile(
        model, "mse", optim.SGD(lr=0.1, clip_value=0.5), device="cpu", stop_on_nonfinite=False
    )
    ruin(model)
    step(*batch())
    assert np.isnan(model.last.weight.value).all()
    assert np.isnan(step(*batch()))


@pytest.mark.parametrize("factor", [1.0, 1e8])
@pytest.mark.parametrize("how", ["fit", "compile"])
def test_a_running_statistic_that_leaves_the_range_stops_the_step(how: str, factor: float) -> None:
    """A normalised value of too large a variance is 0, so the loss says nothing of it."""
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm(4), nn.Linear(4, 2))
    x = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32) * np.float32(factor)
    y = np.ones((8, 2), np.float32)
    if how == "fit":
        trainer = fnn.Trainer(model, "mse", optim.Adam(lr=0.1), device="cpu", workers=2)
        train = lambda: trainer.fit(x, y, verbose=False)  # noqa: E731
    else:
        step = fnn.compile(model, "mse", optim.Adam(lr=0.1), device="cpu", workers=2)
        train = lambda: step(x, y)  # noqa: E731
    model[0].weight.value[...] *= np.float32(1e22 / factor)
    before = model.state_dict()
    with pytest.raises(NonFiniteError, match=r"made '1.running_var' not finite: .*batch_norm"):
        train()
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
