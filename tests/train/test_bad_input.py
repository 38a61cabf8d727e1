"""Bad input is refused before anything is trained, in words: where, expected, got, remedy."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim
from fastnn.errors import DataError, FastnnError, OptionError, ShapeError
from fastnn.train.callbacks import LambdaCallback
from tests.train.models import Tagger, fresh, mlp, sentences, state, vectors

X, Y = vectors(24)
IDS, TAGS = sentences(24)
REAL = np.eye(4, dtype=np.float32)[Y]


def but(array: np.ndarray, index: Any, value: Any) -> np.ndarray:
    changed = array.copy()
    changed[index] = value
    return changed


class Forgets(nn.Module):
    """Its forward returns something else than a symbolic value."""

    def __init__(self, result: Any):
        self.layer, self.result = nn.Linear(6, 4), result

    def forward(self, x: Any) -> Any:
        self.layer(x)
        return self.result


NOBODYS = nn.Parameter((4,), 0.0)


class Foreign(nn.Module):
    """Uses a parameter that is not its own."""

    def __init__(self) -> None:
        self.layer = nn.Linear(6, 4)

    def forward(self, x: Any) -> Any:
        return self.layer(x) + NOBODYS


def wrong_size() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(9, 4))


#: name -> (model, data, options of fit, error, words)
FIT: dict[str, tuple[Callable[[], nn.Module], tuple[Any, ...], dict[str, Any], type, str]] = {
    "features": (
        mlp,
        (X[:, :5], Y),
        {},
        ShapeError,
        r"layer '0'.*expected.*6.*got \(8, 5\).*change",
    ),
    "features, one layer": (
        lambda: nn.Linear(6, 4),
        (X[:, :5], Y),
        {},
        ShapeError,
        r"Linear.*got \(8, 5\)",
    ),
    "dimensions": (mlp, (X.reshape(24, 2, 3), Y), {}, ShapeError, "layer '0'.*flatten the input"),
    "a vector": (mlp, (X[:, 0], Y), {}, ShapeError, r"layer '0'.*got \(8,\)"),
    "between layers": (wrong_size, (X, Y), {}, ShapeError, r"layer '2'.*9.*got \(8, 8\)"),
    "integers into a linear layer": (
        mlp,
        (X.astype(np.int64), Y),
        {},
        ShapeError,
        "layer '0'.*floating-point.*astype",
    ),
    "floats into an embedding": (
        Tagger,
        (IDS.astype(np.float32), TAGS),
        {},
        ShapeError,
        "layer 'embed'.*integer ids.*astype",
    ),
    "strings": (mlp, (X.astype(str), Y), {}, DataError, "expected numbers, got element type <U"),
    "objects": (mlp, (X.astype(object), Y), {}, DataError, "element type object.*astype"),
    "complex": (mlp, (X.astype(complex), Y), {}, DataError, "element type complex128"),
    "ragged": (mlp, ([[1.0, 2.0], [3.0]], Y[:2]), {}, DataError, "rectangular array"),
    "one number": (mlp, (np.float32(3.0), Y), {}, FastnnError, "expected"),
    "a string": (mlp, ("data.csv", Y), {}, FastnnError, "expected"),
    "None": (mlp, (None, Y), {}, FastnnError, "expected"),
    "no samples": (mlp, (X[:0], Y[:0]), {}, DataError, "expected at least one sample, got none"),
    "lengths": (mlp, (X, Y[:20]), {}, DataError, "as many targets as inputs, got 24 inputs and 20"),
    "label too large": (mlp, (X, but(Y, 7, 4)), {}, DataError, r"targets: .* in 0\.\.3, got 4"),
    "negative label": (mlp, (X, but(Y, 7, -1)), {}, DataError, r"targets: .* in 0\.\.3, got -1"),
    "id too large": (
        Tagger,
        (but(IDS, (3, 2), 11), TAGS),
        {},
        DataError,
        r"'embed'.*0\.\.10, got 11",
    ),
    "negative id": (
        Tagger,
        (but(IDS, (3, 2), -1), TAGS),
        {},
        DataError,
        r"'embed'.*0\.\.10, got -1",
    ),
    "NaN in inputs": (mlp, (but(X, (5, 0), np.nan), Y), {}, DataError, "inputs.*sample 5; clean"),
    "NaN in targets": (mlp, (X, but(REAL, (6, 0), np.nan)), {}, DataError, "targets.*sample 6"),
    "shape of labels": (mlp, (X, Y[:, None]), {}, ShapeError, r"loss.*\(8,\).*got \(8, 1\)"),
    "one-hot of the wrong width": (
        mlp,
        (X, REAL[:, :3]),
        {},
        ShapeError,
        r"\(8, 4\), got \(8, 3\)",
    ),
    "labels as floats": (mlp, (X, Y.astype(np.float32)), {}, ShapeError, "pass integers.*astype"),
    "no batch": (mlp, (X, Y), {"batch_size": 0}, OptionError, "batch_size: .*>= 1, got 0"),
    "half a batch": (mlp, (X, Y), {"batch_size": 2.5}, OptionError, "batch_size: .*got 2.5"),
    "negative epochs": (mlp, (X, Y), {"epochs": -1}, OptionError, "epochs: .*>= 0, got -1"),
    "epochs as text": (mlp, (X, Y), {"epochs": "two"}, OptionError, "epochs: .*got 'two'"),
    "validation share": (
        mlp,
        (X, Y),
        {"validation": 1.5},
        OptionError,
        r"share in \(0, 1\), got 1.5",
    ),
    "validation of a kind": (
        mlp,
        (X, Y),
        {"validation": "last"},
        OptionError,
        r"validation: .*\(x, y\)",
    ),
    "validation of three": (
        mlp,
        (X, Y),
        {"validation": (X, Y, Y, Y)},
        OptionError,
        r"\(x, y\).*got tuple of 4",
    ),
    "validation lengths": (mlp, (X, Y), {"validation": (X, Y[:3])}, DataError, "24 inputs and 3"),
    "validation labels": (mlp, (X, Y), {"validation": (X, Y + 9)}, DataError, r"0\.\.3, got"),
    "validation features": (mlp, (X, Y), {"validation": (X[:, :2], Y)}, ShapeError, "layer '0'"),
    "empty iterable": (mlp, (iter([]), None), {}, DataError, "expected at least one batch"),
    "iterable of arrays": (mlp, (iter([X]), None), {}, DataError, r"pairs \(inputs, targets\)"),
    "iterable and targets": (mlp, (iter([(X, Y)]), Y), {}, OptionError, "expected y=None"),
    "two inputs for one": (mlp, ((X, X), Y), {}, ShapeError, "forward.*2 inputs"),
    "one input for two": (nn.Add, ((X, X[:, :3]), Y), {}, ShapeError, "cannot combine shapes"),
    "sequences of several lengths": (
        mlp,
        ([np.ones(n) for n in (3, 4, 5)] * 8, Y),
        {},
        DataError,
        r"lengths from 3 to 5; pad them with fastnn\.data\.pad .* fastnn\.data\.Buckets",
    ),
    "objects of several lengths": (
        mlp,
        (np.array([[1] * (3 + k % 3) for k in range(24)], object), Y),
        {},
        DataError,
        r"lengths from 3 to 5; pad them",
    ),
    "several lengths, beside them": (
        mlp,
        (([[1] * (3 + k % 3) for k in range(24)], Y), Y),
        {},
        DataError,
        r"inputs\[0\]: expected a rectangular array, got lengths",
    ),
    "lengths of two inputs": (
        nn.Add,
        ((X, X[:9]), Y),
        {},
        DataError,
        r"equal length, got \[24, 9\]",
    ),
    "forward returns an array": (
        lambda: Forgets(np.zeros(3)),
        (X, Y),
        {},
        ShapeError,
        "Forgets.forward.*symbolic.*ndarray",
    ),
    "forward returns nothing": (
        lambda: Forgets(None),
        (X, Y),
        {},
        ShapeError,
        "Forgets.forward.*symbolic.*NoneType",
    ),
    "a parameter of nobody": (Foreign, (X, Y), {}, ShapeError, "does not belong.*assign it"),
    "batch norm of one": (
        lambda: nn.Sequential(nn.Linear(6, 4), nn.BatchNorm(4)),
        (X, Y),
        {"batch_size": 1},
        ShapeError,
        "layer '1'.*at least 2 samples.*drop_last",
    ),
    "batch norm of a last one": (
        lambda: nn.Sequential(nn.Linear(6, 4), nn.BatchNorm(4)),
        (X, Y),
        {"batch_size": 23},
        ShapeError,
        "layer '1'.*at least 2 samples.*drop_last",
    ),
    "nothing to train": (nn.ReLU, (X[:, :4], Y), {}, OptionError, "has no parameters"),
}


@pytest.mark.parametrize("name", FIT)
def test_fit_refuses(name: str) -> None:
    make, (x, y), options, error, words = FIT[name]
    trainer = fnn.Trainer(make(), "cross_entropy", seed=1)
    before = state(trainer)
    batches = y is None and not isinstance(x, (np.ndarray, list))
    size = {} if batches else {"batch_size": 8}
    with pytest.raises(error, match=words) as caught:
        trainer.fit(x, y, **{**size, "verbose": False, **options})
    assert isinstance(caught.value, FastnnError)
    assert state(trainer) == before
    assert (trainer.epoch, trainer.cursor) == (0, 0)
    if make in (mlp, Tagger):  # and the trainer still works
        good = (X, Y) if make is mlp else (IDS, TAGS)
        trainer.fit(*good, batch_size=8, verbose=False)


TRAINER: dict[str, tuple[Callable[[], Any], str]] = {
    "model": (lambda: fnn.Trainer(3, "mse"), "model: expected an nn.Module, got int"),
    "model class": (lambda: fnn.Trainer(nn.ReLU, "mse"), "model: expected an nn.Module"),
    "loss": (
        lambda: fnn.Trainer(mlp(), "crossentropy"),
        "unknown loss 'crossentropy'; expected one of .*'cross_entropy'",
    ),
    "loss class": (lambda: fnn.Trainer(mlp(), nn.MSELoss), r"got a class; write MSELoss\(\)"),
    "loss number": (lambda: fnn.Trainer(mlp(), 3), "loss: expected one of"),
    "optimizer": (
        lambda: fnn.Trainer(mlp(), "mse", "adamm"),
        "unknown optimizer 'adamm'; expected one of .*'adam'",
    ),
    "optimizer class": (lambda: fnn.Trainer(mlp(), "mse", optim.Adam), r"write Adam\(\)"),
    "optimizer function": (
        lambda: fnn.Trainer(mlp(), "mse", lambda p: p),
        "optimizer: expected one from",
    ),
    "metric": (
        lambda: fnn.Trainer(mlp(), "mse", metrics=["acuracy"]),
        "unknown metric 'acuracy'; expected",
    ),
    "metric number": (lambda: fnn.Trainer(mlp(), "mse", metrics=[3]), "metric: expected a name"),
    "metric twice": (lambda: fnn.Trainer(mlp(), "mse", metrics=["mae", "mae"]), "different names"),
    "top 0": (lambda: fnn.Trainer(mlp(), "mse", metrics=["top_0_accuracy"]), "k >= 1, got 0"),
    "device": (lambda: fnn.Trainer(mlp(), "mse", device="tpu"), "device: expected .*got 'tpu'"),
    "workers": (
        lambda: fnn.Trainer(mlp(), "mse", workers=0),
        "workers: expected 'auto' or .*>= 1, got 0",
    ),
    "workers as text": (lambda: fnn.Trainer(mlp(), "mse", workers="many"), "workers: .*got 'many'"),
    "seed": (lambda: fnn.Trainer(mlp(), "mse", seed=-1), "seed: expected .*got -1"),
    "seed as a float": (lambda: fnn.Trainer(mlp(), "mse", seed=1.5), "seed: expected .*got 1.5"),
    "dtype": (
        lambda: fnn.Trainer(mlp(), "mse", dtype="float16"),
        "dtype: expected 'float32' or 'float64', got 'float16'",
    ),
    "layer size": (lambda: nn.Linear(0, 3), "Linear: expected in_features .*>= 1, got 0"),
    "layer size as a float": (lambda: nn.Linear(2.5, 3), "in_features.*got 2.5"),
    "dropout": (lambda: nn.Dropout(1.5), r"Dropout: expected p in \[0, 1\], got 1.5"),
    "padding": (lambda: nn.Embedding(5, 2, padding_idx=5), r"padding_idx in 0\.\.4, got 5"),
    "gelu": (lambda: nn.GELU("erf"), "approximate 'none' or 'tanh', got 'erf'"),
    "softplus": (lambda: nn.Softplus(0.0), "beta > 0, got 0"),
    "maxout": (lambda: nn.Maxout(0), "a whole number >= 1, got 0"),
    "smoothing": (
        lambda: nn.CrossEntropyLoss(label_smoothing=2.0),
        r"label_smoothing in \[0, 1\], got 2.0",
    ),
    "class weights": (lambda: nn.CrossEntropyLoss([-1.0]), "weight .* finite numbers >= 0"),
    "reduction": (lambda: nn.MSELoss("max"), "reduction 'mean', 'sum' or 'none', got 'max'"),
    "rows as a loss": (
        lambda: fnn.Trainer(mlp(), nn.MSELoss("none")),
        "'none' gives rows.*use 'mean' or 'sum'",
    ),
    "huber": (lambda: nn.HuberLoss(0.0), "delta > 0, got 0"),
    "NaN for a class": (lambda: nn.CrossEntropyLoss([1.0, np.nan]), "weight to be .* finite"),
    "an infinite class": (lambda: nn.NLLLoss([1.0, np.inf]), "weight to be .* finite"),
    "words for classes": (lambda: nn.NLLLoss("ab"), "weight to be .* finite"),  # type: ignore
    "NaN for a feature": (lambda: nn.BCEWithLogitsLoss([np.nan]), "pos_weight to be .* finite"),
    "a feature that takes": (lambda: nn.BCEWithLogitsLoss([-1.0]), "pos_weight to be .*>= 0"),
    "half a class": (lambda: nn.CrossEntropyLoss(ignore_index=1.5), "got 1.5"),  # type: ignore
    "a class among layers": (
        lambda: nn.Sequential(nn.Linear(2, 2), nn.ReLU),
        r"place 1: .*write nn.ReLU\(\)",
    ),
}


@pytest.mark.parametrize("name", TRAINER)
def test_construction_refuses(name: str) -> None:
    make, words = TRAINER[name]
    with pytest.raises(FastnnError, match=words):
        make()


LOSS: dict[str, tuple[Any, Any, str]] = {
    "integers for mse": ("mse", Y, "floating-point target|output's shape"),
    "integers of the shape for mse": ("mse", REAL.astype(np.int64), "floating-point.*astype"),
    "shape for mse": ("mse", REAL[:, :1], r"output's shape \(8, 4\), got \(8, 1\); reshape"),
    "floats for nll": ("nll", REAL, "class indices.*CrossEntropyLoss"),
    "weights": (nn.CrossEntropyLoss([1.0, 2.0]), Y, "expected 4 class weights, got"),
    "pos_weight": (nn.BCEWithLogitsLoss([1.0]), REAL, r"expected 4 pos_weight, got \(1,\)"),
    "a loss of many numbers": (
        lambda o, t: o - t,
        REAL,
        r"single number, got \(8, 4\); take ops.mean",
    ),
    "a loss that is no value": (lambda o, t: 3.0, REAL, "single number, got float"),
    "a constant loss": (lambda o, t: ops.mean(ops.square(t)), REAL, "does not depend"),
}


@pytest.mark.parametrize("name", LOSS)
def test_losses_refuse(name: str) -> None:
    loss, y, words = LOSS[name]
    trainer = fnn.Trainer(mlp(), loss, seed=1)
    before = state(trainer)
    with pytest.raises(FastnnError, match=words):
        trainer.fit(X, y, batch_size=8, verbose=False)
    assert state(trainer) == before


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
