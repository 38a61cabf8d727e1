"""Bad input is refused before anything is trained, in words: where, expected, got, remedy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim
from fastnn.errors import DataError, FastnnError, OptionError, ShapeError
from tests.train.bad_input import X, Y, but
from tests.train.models import Tagger, mlp, sentences, state

IDS, TAGS = sentences(24)

REAL = np.eye(4, dtype=np.float32)[Y]


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
    "no targets": (mlp, (X, None), {}, ShapeError, r"^y: expected targets, got none; pass y\."),
    "no targets for ids": (
        Tagger,
        (IDS, None),
        {},
        DataError,
        r"0\.\.3, got .* pass targets \(y\)",
    ),
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
    "dropout": (lambda: nn.Dropout(1.5), r"Dropout: expected p in \[0, 1\), got 1.5"),
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
    "a list of layers": (
        lambda: nn.Sequential([nn.Linear(2, 2)]),  # type: ignore
        r"place 0: .*got list; write a star",
    ),
    "a function among layers": (
        lambda: nn.Sequential(nn.Linear(2, 2), lambda x: x),  # type: ignore
        r"place 1: .*got <lambda>; a function of your own goes into the forward",
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
