"""The same seed gives the same bits: for any number of workers, however the loop is run, and
whatever the work memory held before."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn
from tests.train.models import MODELS, OPTIMIZERS, fresh, state


def train(
    name: str,
    optimizer: str = "adam",
    *,
    samples: int = 53,
    batch: int = 16,
    callbacks: Any = (),
    poison: int | None = None,
    **options: Any,
) -> tuple[dict[str, bytes], dict[str, list[float]]]:
    """The state and the losses after two epochs; 53 samples: the last batch has 5."""
    more = options.pop("optimizer_options", {})
    trainer = fresh(name, optimizer=OPTIMIZERS[optimizer](**more), metrics=["accuracy"], **options)
    x, y = MODELS[name][1](samples)
    fit = dict(batch_size=batch, verbose=False, callbacks=callbacks)
    if poison is not None:
        trainer.fit(x, y, epochs=0, **fit)  # plans, and allocates the memory
        trainer.session.memory["work"].fill(poison)
        assert trainer.session.memory["work"].nbytes > 1000
    history = trainer.fit(x, y, epochs=2, **fit)
    assert len(history.epoch) == 2
    assert all(np.isfinite(v).all() for v in history.values())
    return state(trainer), dict(history)


def assert_equal(got: Any, want: Any) -> None:
    assert got[0].keys() == want[0].keys()
    for name, bits in want[0].items():
        assert got[0][name] == bits, f"{name} differs"
    assert got[1] == want[1]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("batch", [16, 1, 7])
def test_any_number_of_workers(name: str, batch: int) -> None:
    if name == "regularised" and batch == 1:
        batch = 2  # batch norm wants two samples
    samples = 52 if batch == 2 else 53
    if batch == 1:
        samples = 9
    one = train(name, batch=batch, samples=samples, workers=1)
    for workers in (2, 3, 4):
        assert_equal(train(name, batch=batch, samples=samples, workers=workers), one)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_any_optimizer(optimizer: str) -> None:
    more = {"optimizer_options": {"clip_global_norm": 0.5}}
    one = train("regularised", optimizer, workers=1, **more)
    for workers in (2, 3, 4):
        assert_equal(train("regularised", optimizer, workers=workers, **more), one)


@pytest.mark.parametrize(
    "options",
    [
        {"clip_value": 0.01},
        {"clip_norm": 0.05},
        {"clip_global_norm": 0.05, "clip_value": 0.01, "weight_decay": 0.1},
        {"groups": {"*.bias": {"weight_decay": 0.3, "lr": 0.2}, "up.*": {"clip_norm": 0.1}}},
    ],
    ids=lambda o: "+".join(o),
)
def test_any_options(options: dict[str, Any]) -> None:
    one = train("tagger", "adam", workers=1, optimizer_options=options)
    plain = train("tagger", "adam", workers=1)
    assert one[0]["params"] != plain[0]["params"]
    for workers in (2, 3, 4):
        assert_equal(train("tagger", "adam", workers=workers, optimizer_options=options), one)


@pytest.mark.parametrize("name", MODELS)
def test_double_precision(name: str) -> None:
    one = train(name, workers=1, dtype="float64")
    assert len(one[0]["params"]) > len(train(name, workers=1)[0]["params"])
    for workers in (2, 4):
        assert_equal(train(name, workers=workers, dtype="float64"), one)


class EveryBatch(fnn.callbacks.Callback):
    """Makes the trainer come back to Python after every step."""

    def __init__(self) -> None:
        self.steps = 0

    def on_train_batch_end(self, batch: int, logs: dict[str, float]) -> None:
        self.steps += 1


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("workers", [1, 2])
def test_step_by_step_is_in_one_go(name: str, workers: int) -> None:
    counter = EveryBatch()
    schedule = fnn.optim.schedules.StepDecay(3, gamma=0.7)
    more = {"optimizer_options": {"schedule": schedule}}
    single = train(name, workers=workers, callbacks=[counter], **more)
    assert counter.steps == 8
    assert_equal(single, train(name, workers=workers, **more))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("optimizer", ["adam", "momentum"])
def test_poisoned_work_memory(name: str, optimizer: str) -> None:
    more = {"optimizer_options": {"clip_global_norm": 0.5}}
    clean = train(name, optimizer, workers=2, **more)
    for byte in (0x00, 0xFF):
        assert_equal(train(name, optimizer, workers=2, poison=byte, **more), clean)


def test_seeds_differ() -> None:
    a, b = train("regularised", seed=1), train("regularised", seed=2)
    assert a[0]["params"] != b[0]["params"]
    assert_equal(train("regularised", seed=1), a)


def test_dropout_depends_on_the_seed() -> None:
    """From equal parameters and data order, only the masks differ."""

    def run(seed: int) -> bytes:
        model = MODELS["regularised"][0]()
        model.initialize(9)
        trainer = fnn.Trainer(model, "cross_entropy", seed=seed)
        x, y = MODELS["regularised"][1](32)
        trainer.fit(x, y, batch_size=16, shuffle=False, verbose=False)
        return state(trainer)["params"]

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_large_batches_in_blocks() -> None:
    """More rows than fit a block, so that each worker runs several blocks."""
    more = dict(samples=3001, batch=1500)
    one = train("wide", workers=1, **more)
    for workers in (2, 3, 4):
        assert_equal(train("wide", workers=workers, **more), one)


BUSY = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass\n"


def test_more_workers_than_cores() -> None:
    """With cores taken away by other processes a run slows down but goes on."""
    one = train("mlp", samples=2000, batch=16, workers=1)
    rivals = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(2)]
    try:
        assert_equal(train("mlp", samples=2000, batch=16, workers=4), one)
    finally:
        for rival in rivals:
            rival.kill()
            rival.wait()


def test_workers_are_not_part_of_the_state() -> None:
    """Half a run with one worker, half with three: as if nothing had changed."""
    x, y = MODELS["mlp"][1](40)
    whole = fresh("mlp", workers=2)
    whole.fit(x, y, epochs=4, verbose=False)
    parts = fresh("mlp", workers=1)
    parts.fit(x, y, epochs=2, verbose=False)
    parts.session.workers = 3
    parts.fit(x, y, epochs=2, verbose=False)
    assert state(parts) == state(whole)


def test_models_differ_in_kind() -> None:
    """The models above cover the layers that could break the promise."""
    layers = {type(m) for make, _ in MODELS.values() for _, m in make().named_modules()}
    assert {nn.Dropout, nn.BatchNorm, nn.LayerNorm, nn.Embedding, nn.PReLU} <= layers
