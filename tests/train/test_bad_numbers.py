"""Numbers and arrays that can't be trained with, wherever they are given."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn
from fastnn.errors import DataError, FastnnError, OptionError, ShapeError
from fastnn.train.callbacks import LambdaCallback
from tests.train.bad_input import X, Y, but
from tests.train.models import fresh, mlp, state


def test_data_beyond_the_element_type_are_refused() -> None:
    x = but(X.astype(np.float64), (3, 1), 1e39)
    trainer = fnn.Trainer(mlp(), "cross_entropy", seed=1)
    for call in (lambda: trainer.fit(x, Y, verbose=False), lambda: trainer.evaluate(-x, Y)):
        with pytest.raises(DataError, match=r"\(x0\): expected .* float32's range.*got 1e\+39"):
            call()
    assert np.isfinite(fnn.Trainer(mlp(), "cross_entropy", dtype="float64").evaluate(x, Y)["loss"])


@pytest.mark.parametrize("size", [1e300, 1e-300])
def test_sample_weights_beyond_the_element_type_are_refused(size: float) -> None:
    weight = np.full(len(X), size)
    weight[3] = 0.0
    trainer = fnn.Trainer(mlp(), "cross_entropy", seed=1)
    with pytest.raises(DataError, match=r"sample_weight: expected 0, or .*float32's range"):
        trainer.evaluate(X, Y, sample_weight=weight)
    step = fnn.compile(mlp(), "cross_entropy", "sgd", device="cpu")
    with pytest.raises(DataError, match=r"sample_weight: expected 0, or .*float32's range"):
        step(X, Y, sample_weight=weight)


def test_metrics_refuse() -> None:
    trainer = fnn.Trainer(mlp(), "cross_entropy", metrics=["mse"])
    with pytest.raises(ShapeError, match="metric mse"):
        trainer.fit(X, Y, batch_size=8, verbose=False)
    trainer = fnn.Trainer(mlp(), "cross_entropy", metrics=["top_9_accuracy"])
    with pytest.raises(FastnnError, match=r"top_9_accuracy.*4"):
        trainer.fit(X, Y, batch_size=8, verbose=False)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda t: t.evaluate(X[:, :5], Y), r"layer '0'.*got \(24, 5\)"),
        (lambda t: t.evaluate(X, Y + 4), r"0\.\.3, got"),
        (lambda t: t.evaluate(X, Y[:3]), "24 inputs and 3 targets"),
        (lambda t: t.evaluate(X[:0], Y[:0]), "at least one sample"),
        (lambda t: t.evaluate(X, Y, batch_size=0), "batch_size.*got 0"),
        (lambda t: t.predict(X[:, :5]), "layer '0'"),
        (lambda t: t.predict(X[:0]), "at least one sample"),
        (lambda t: t.predict(X, batch_size=0), "batch_size.*got 0"),
        (lambda t: t.predict(X, batch_size=True), "batch_size.*got True"),
        (lambda t: t.fit(X, Y, epochs=True), "epochs.*got True"),
        (lambda t: t.set_parameters({"0.weight": np.zeros((20, 6))}), "missing '0.bias'"),
        (lambda t: t.set_parameters({**t.get_parameters(), "9": np.zeros(1)}), "unexpected '9'"),
        (
            lambda t: t.set_parameters({**t.get_parameters(), "0.bias": np.zeros(3)}),
            r"'0.bias': expected shape \(20,\), got \(3,\)",
        ),
    ],
)
def test_other_calls_refuse(call: Callable[[Any], Any], words: str) -> None:
    trainer = fresh("mlp")
    before = state(trainer)
    with pytest.raises(FastnnError, match=words):
        call(trainer)
    assert state(trainer) == before


def test_a_trainer_whose_memory_is_gone() -> None:
    """A second trainer of another float type moves the model's parameters to new memory."""
    model = mlp()
    first = fnn.Trainer(model, "cross_entropy")
    fnn.Trainer(model, "cross_entropy", dtype="float64")
    with pytest.raises(OptionError, match=r"parameters have moved.*one dtype"):
        first.fit(X, Y, batch_size=8, verbose=False)


@pytest.mark.parametrize("wrap", [lambda a: a, list], ids=["array", "list of rows"])
def test_masked_arrays_are_refused_everywhere(wrap):
    """The numbers under a mask are not data: nobody may train on them, or keep them."""
    x = np.ma.masked_array(np.ones((8, 4), np.float32), mask=np.eye(8, 4, dtype=bool))
    y = np.ma.masked_array(np.zeros(8, np.int64), mask=np.arange(8) == 3)
    plain_x, plain_y = np.ones((8, 4), np.float32), np.zeros(8, np.int64)
    model = nn.Linear(4, 2)
    trainer = fnn.Trainer(model, "cross_entropy", "sgd")
    step = fnn.compile(nn.Linear(4, 2), "cross_entropy", "sgd")
    step(plain_x, plain_y)  # what is known of these shapes does not let masked ones through
    before = model.state_dict()
    for attempt in (
        lambda: trainer.fit(wrap(x), plain_y, batch_size=4, verbose=False),
        lambda: trainer.fit(plain_x, y, batch_size=4, verbose=False),
        lambda: trainer.fit(
            plain_x, plain_y, batch_size=4, verbose=False, validation=(wrap(x), plain_y)
        ),
        lambda: trainer.fit(((plain_x, y) for _ in range(2)), verbose=False),
        lambda: trainer.evaluate(wrap(x), plain_y),
        lambda: model.predict(x),
        lambda: step(plain_x, y),
        lambda: step(x, plain_y),
        lambda: model.load_state_dict({**before, "bias": np.ma.masked_array([1.0, 2.0], [0, 1])}),
        lambda: setattr(model, "bias", np.ma.masked_array([1.0, 2.0], [0, 1])),
    ):
        with pytest.raises(DataError, match="masked array"):
            attempt()
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_data_cannot_be_resized_during_a_run():
    """NumPy would free the memory that the workers read."""
    x, y = np.ones((64, 4), np.float32), np.zeros(64, np.int64)
    refused = []

    def shrink(epoch, logs):
        for array in (x, y):
            try:
                array.resize(2, refcheck=False)
            except ValueError as error:
                refused.append(str(error))

    trainer = fnn.Trainer(nn.Linear(4, 2), "cross_entropy", "sgd")
    trainer.fit(
        x, y, batch_size=16, epochs=2, verbose=False,
        callbacks=[LambdaCallback(on_epoch_begin=shrink)],
    )  # fmt: skip
    assert len(refused) == 4
    assert "cannot resize" in refused[0]


@pytest.mark.skipif(os.name != "posix", reason="Windows refuses to shorten a mapped file")
def test_a_mapped_file_that_was_shortened_is_an_error(tmp_path):
    """Not a bus error, where Python can see it: between epochs."""
    path = tmp_path / "x.bin"
    np.ones((4096, 4), np.float32).tofile(path)
    x = np.memmap(path, np.float32, "r", shape=(4096, 4))
    trainer = fnn.Trainer(nn.Linear(4, 2), "cross_entropy", "sgd")
    callback = LambdaCallback(on_epoch_end=lambda epoch, logs: os.truncate(path, 4096))
    with pytest.raises(DataError, match=r"shortened from 65,536 to 4,096 bytes"):
        trainer.fit(
            x, np.zeros(4096, np.int64), batch_size=64, epochs=2, verbose=False,
            callbacks=[callback],
        )  # fmt: skip


@pytest.mark.parametrize("wrong", [10, -1, 10**7])
def test_ids_that_a_callback_writes_are_named(wrong: int) -> None:
    """They make the loss NaN; the reason is the ids."""
    ids, y = np.arange(32) % 10, np.zeros(32, np.int64)
    model = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 3))
    trainer = fnn.Trainer(model, "cross_entropy", "sgd")

    def write(batch: int, logs: Any) -> None:
        ids[:] = wrong

    with pytest.raises(DataError, match=rf"integers in 0\.\.9, got {wrong}"):
        trainer.fit(
            ids, y, batch_size=8, verbose=False, callbacks=LambdaCallback(on_train_batch_end=write)
        )
    assert all(np.isfinite(a).all() for a in model.state_dict().values())
