"""Trainings that are saved, for tests."""

import numpy as np
from safetensors.numpy import load_file, save_file

from fastnn import nn, optim
from fastnn.optim import schedules
from fastnn.train.callbacks import Callback
from fastnn.train.trainer import Trainer

SAMPLES, BATCH = 44, 8  # the last batch of an epoch is smaller

RNG = np.random.default_rng(5)

X = RNG.normal(size=(SAMPLES, 6)).astype(np.float32)

Y = RNG.integers(0, 3, SAMPLES)


def make_model():
    return nn.Sequential(
        nn.Linear(6, 9), nn.BatchNorm(9), nn.ReLU(), nn.Dropout(0.3), nn.Linear(9, 3)
    )


def make_optimizer(**changes):
    options = dict(
        lr=0.02,
        schedule=schedules.LinearWarmup(4) * schedules.StepDecay(1, gamma=0.7, unit="epoch"),
        groups={"*.bias": {"weight_decay": 0.01}},
        clip_global_norm=1.0,
    )
    return optim.Adam(**{**options, **changes})


def make_trainer(workers=2, seed=7, optimizer=None, **more):
    more = {"metrics": ["accuracy"], **more}
    return Trainer(
        make_model(), "cross_entropy", optimizer or make_optimizer(), workers=workers, seed=seed,
        **more,
    )  # fmt: skip


def fit(trainer, epochs, callbacks=(), **more):
    return trainer.fit(
        X, Y, epochs=epochs, batch_size=BATCH, verbose=False, callbacks=callbacks,
        validation=(X[:16], Y[:16]), **more,
    )  # fmt: skip


def assert_same(first, second):
    assert set(first) == set(second)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def rewritten(path, arrays=None, **texts):
    """Changes metadata and arrays (None: removes) of a file, with a right checksum."""
    from safetensors import safe_open

    from fastnn.engine.container import checksum

    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    found = {**load_file(path), **(arrays or {})}
    found = {name: array for name, array in found.items() if array is not None}
    metadata = {k: v for k, v in {**metadata, **texts}.items() if v is not None}
    metadata.pop("checksum")
    metadata["checksum"] = checksum(found, metadata)
    save_file(found, path, metadata)


def state(trainer):
    """Everything that training changes."""
    arrays = trainer.model.state_dict()
    for slot in trainer.optimizer.slots:
        for name, parameter in trainer.model.named_parameters().items():
            flat = trainer.session.memory[f"slots/{slot}"]
            arrays[f"{slot}.{name}"] = trainer.store.view(flat, parameter).copy()
    arrays["place"] = np.array([trainer.step, *trainer.place])
    return arrays


class StopAfter(Callback):
    """Ctrl-C after so many steps of an epoch: as if it came while the step ran."""

    def __init__(self, epoch, steps):
        self.epoch, self.steps = epoch, steps

    def on_train_batch_end(self, batch, logs):
        if (self.trainer.epoch, batch + 1) == (self.epoch, self.steps):
            raise KeyboardInterrupt
