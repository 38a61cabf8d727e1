"""What `fit`, `evaluate` and `predict` take for data, and how batches are told apart from it."""

from __future__ import annotations

import array
import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim
from fastnn.errors import DataError, FastnnError, OptionError
from fastnn.optim.schedule import Schedule, Sequential
from fastnn.optim.schedules import LinearWarmup, StepDecay
from fastnn.train.batches import gives_batches
from tests.train.models import fresh, vectors

X, Y = vectors(24)
QUIET = dict(verbose=False)


class Like:
    """An array of somebody else's library, with one of the protocols."""

    def __init__(self, data: np.ndarray, protocol: str):
        self.data = data
        if protocol == "__array__":
            self.__class__ = type("WithArray", (Like,), {
                "__array__": lambda s, dtype=None, copy=None: s.data})  # fmt: skip
        else:
            self.__class__ = type("WithDlpack", (Like,), {
                "__dlpack__": lambda s, **more: s.data.__dlpack__(**more),
                "__dlpack_device__": lambda s: s.data.__dlpack_device__()})  # fmt: skip

    def __iter__(self) -> Iterator[Any]:
        return iter(self.data)


def torch_tensor(data: np.ndarray) -> Any:
    torch = pytest.importorskip("torch", reason="PyTorch is one of the libraries")
    return torch.tensor(data, requires_grad=data.dtype.kind == "f")


def frame(data: np.ndarray) -> Any:
    pandas = pytest.importorskip("pandas", reason="pandas is one of the libraries")
    return pandas.DataFrame(data) if data.ndim > 1 else pandas.Series(data, index=range(9, 33))


KINDS: dict[str, Callable[[np.ndarray], Any]] = {
    "list": lambda a: a.tolist(),
    "__array__": lambda a: Like(a, "__array__"),
    "DLPack": lambda a: Like(a, "__dlpack__"),
    "memoryview": lambda a: memoryview(np.ascontiguousarray(a)),
    "array module": lambda a: array.array("q", a.tolist()) if a.ndim == 1 else a,
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "long double": lambda a: a.astype(np.longdouble) if a.dtype.kind == "f" else a,
    "torch": torch_tensor,
    "pandas": frame,
}


@pytest.mark.parametrize("kind", KINDS)
def test_arrays_of_any_library(kind: str) -> None:
    trainer, other = fresh("mlp", optimizer="sgd"), fresh("mlp", optimizer="sgd")
    x, y = KINDS[kind](X), KINDS[kind](Y)
    history = trainer.fit(x, y, batch_size=8, validation=(x, y), **QUIET)
    assert dict(history) == dict(other.fit(X, Y, batch_size=8, validation=(X, Y), **QUIET))
    assert trainer.evaluate(x, y) == other.evaluate(X, Y)
    np.testing.assert_array_equal(trainer.predict(x), other.predict(X))
    step = fnn.compile(nn.Linear(6, 4), "cross_entropy", "sgd")
    assert step.evaluate(x, y) == step.evaluate(X, Y)


def test_autoencoders_take_arrays_of_any_library() -> None:
    want = fnn.Trainer(nn.Linear(6, 6), "mse", "sgd").fit(X, **QUIET)["loss"]
    for kind in ("__array__", "DLPack", "memoryview"):
        trainer = fnn.Trainer(nn.Linear(6, 6), "mse", "sgd")
        assert trainer.fit(KINDS[kind](X), **QUIET)["loss"] == want


INTEGERS = ["uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", ">i4", ">u2"]


@pytest.mark.parametrize("dtype", [*INTEGERS, "bool"])
def test_ids_of_every_width(dtype: str) -> None:
    ids = np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 11, (12, 5))
    given = ids.astype(dtype)
    trainer, other = fresh("tagger", optimizer="sgd"), fresh("tagger", optimizer="sgd")
    want = other.fit(ids, ids % 4, batch_size=4, **QUIET)["loss"]
    assert trainer.fit(given, ids % 4, batch_size=4, **QUIET)["loss"] == want
    np.testing.assert_array_equal(trainer.predict(given), other.predict(ids))
    step = fnn.compile(nn.Embedding(11, 4), "cross_entropy", optim.SGD(lr=0.0))
    assert step(given, ids % 4) == step(ids, ids % 4)


def test_small_integers_are_what_each_input_needs() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            self.table, self.fc = nn.Embedding(5, 3), nn.Linear(4, 3)

        def forward(self, ids: Any, pixels: Any) -> Any:
            return self.table(ids) + self.fc(pixels)

    model = Both()
    ids, pixels = np.arange(5, dtype=np.uint8), np.arange(20, dtype=np.uint8).reshape(5, 4)
    want = model.predict(ids.astype(np.int64), pixels.astype(np.float32))
    np.testing.assert_array_equal(model.predict(ids, pixels), want)


# ---------------------------------------------------------------- batches or data

A, B = np.zeros((4, 3)), np.ones((2, 3))
LABELS = np.zeros(4, int), np.zeros(2, int)


class Again:
    def __iter__(self) -> Iterator[Any]:
        return iter([(A, LABELS[0])])


TOLD: dict[str, tuple[Any, bool]] = {
    "two batches": ([(A, LABELS[0]), (B, LABELS[1])], True),
    "one batch": ([(A, LABELS[0])], True),
    "with weights": ([(A, LABELS[0], np.ones(4))], True),
    "several inputs": ([((A, A), LABELS[0]), ((B, B), LABELS[1])], True),
    "named inputs": ([({"a": A}, LABELS[0])], True),
    "a loader's lists": ([[A, LABELS[0]], [B, LABELS[1]]], True),
    "inputs alone": ([(A,), (B,)], True),
    "generator": (iter([(A, LABELS[0])]), True),
    "object": (Again(), True),
    "array": (A, False),
    "tuple of arrays": ((A, A), False),
    "list of arrays": ([A, A], False),
    "dict": ({"a": A}, False),
    "numbers": ([[1.0, 2.0], [3.0, 4.0]], False),
    "pairs of numbers": ([(1.0, 2.0), (3.0, 4.0)], False),
    "somebody's array": (Like(A, "__array__"), False),
}


@pytest.mark.parametrize("name", TOLD)
def test_batches_and_data_are_told_apart(name: str) -> None:
    x, batches = TOLD[name]
    assert gives_batches(x, None) is batches


AMBIGUOUS: dict[str, tuple[Any, str]] = {
    "a tuple of pairs": (((A, LABELS[0]), (B, LABELS[1])), "write batches as a list"),
    "lists of one shape": ([[A, A], [A, A]], "as tuples.*np.asarray"),
    "pairs of lists": ([([1, 2], [0]), ([3, 4], [1])], "np.asarray.*pairs of arrays"),
    "some are pairs": ([(A, LABELS[0]), B], "every batch as a tuple"),
    "a batch of four": ([(A, A, A, A)], "every batch as a tuple"),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_what_could_be_either_is_refused(name: str) -> None:
    x, words = AMBIGUOUS[name]
    with pytest.raises(DataError, match=words):
        fresh("mlp").fit(x, **QUIET)
    with pytest.raises(DataError, match=words):
        fresh("mlp").evaluate(x)


def test_lists_of_batches_of_several_inputs() -> None:
    z = X[::-1].copy()
    batches = [((X[k : k + 12], z[k : k + 12]), Y[k : k + 12]) for k in (0, 12)]

    def trainer() -> fnn.Trainer:
        class Two(nn.Module):
            def __init__(self) -> None:
                self.a, self.b = nn.Linear(6, 4), nn.Linear(6, 4)

            def forward(self, x: Any, z: Any) -> Any:
                return ops.tanh(self.a(x)) + self.b(z)

        return fnn.Trainer(Two(), "cross_entropy", "sgd", ["accuracy"])

    arrays = trainer().fit(
        (X, z), Y, batch_size=12, shuffle=False, validation=((X, z), Y), epochs=2, **QUIET
    )
    found = trainer().fit(batches, validation=batches, epochs=2, **QUIET)
    assert {n: pytest.approx(v) for n, v in found.items()} == dict(arrays)


def test_options_that_do_not_apply_to_batches() -> None:
    batches = [(X[:12], Y[:12]), (X[12:], Y[12:])]
    for options in (
        {"batch_size": 8}, {"shuffle": True}, {"drop_last": True}, {"sample_weight": np.ones(24)},
        {"validation": 0.2}, {"validation": iter(batches)}, {"validation": "last"},
        {"validation": True}, {"validation": 3},
    ):  # fmt: skip
        with pytest.raises(OptionError, match=next(iter(options)).split("_")[0]):
            fresh("mlp").fit(batches, **options, **QUIET)
    with pytest.raises(OptionError, match="graphs: it is for GPUs"):
        fnn.compile(nn.Linear(2, 2), "mse", device="cpu", graphs=False)
    with pytest.raises(OptionError, match="steps_per_epoch: expected a whole number >= 1"):
        fnn.compile(nn.Linear(2, 2), "mse", steps_per_epoch=0)


@pytest.mark.parametrize("by_steps", [None, StepDecay(3), LinearWarmup(2) * StepDecay(3)])
def test_steps_per_epoch_needs_a_schedule_that_counts_epochs(by_steps: Schedule | None) -> None:
    adam = optim.Adam(lr=0.1, schedule=by_steps)
    with pytest.raises(OptionError, match="steps_per_epoch: expected a learning rate with a sch"):
        fnn.compile(nn.Linear(6, 4), "cross_entropy", adam, steps_per_epoch=2)
    decay = StepDecay(1, gamma=0.5, unit="epoch")
    for by_epochs in (decay, Sequential([decay, decay], [4]), LinearWarmup(1, start=1) * decay):
        sgd = optim.SGD(lr=0.1, schedule=by_epochs)
        step = fnn.compile(nn.Linear(X.shape[1], 4), "cross_entropy", sgd, steps_per_epoch=2)
        before = step.model.state_dict()["bias"].copy()
        changes = []
        for _ in range(4):
            gradient = step.gradients(X, Y)["bias"]
            step(X, Y)
            after = step.model.state_dict()["bias"].copy()
            changes.append(float(np.mean((before - after) / gradient)))
            before = after
        np.testing.assert_allclose(changes, [0.1, 0.1, 0.05, 0.05], rtol=1e-3)


def test_a_batch_larger_than_the_data_is_cut_with_a_note(caplog: Any) -> None:
    trainer, other = fresh("mlp", optimizer="sgd"), fresh("mlp", optimizer="sgd")
    with caplog.at_level(logging.WARNING, "fastnn"):
        history = trainer.fit(X, Y, batch_size=25, **QUIET)
    assert "batch_size 25 is more than the 24 samples" in caplog.text
    assert dict(history) == dict(other.fit(X, Y, batch_size=24, **QUIET))
    assert history.params["batch_size"] == 24
    caplog.clear()
    fresh("mlp").fit(X, Y, **QUIET)  # the default is no wish
    assert not caplog.records


@pytest.mark.parametrize(
    ("x", "words"),
    [
        ("data.csv", "got str"),
        (b"1234", "got bytes"),
        (np.array(["a", "b"]), "element type <U1"),
        (np.ma.masked_array(X, X > 0), "masked"),
        ([[1.0, 2.0], [3.0]], "rectangular"),
        ((), "at least one array"),
        ({}, "at least one array"),
        (np.array([1 + 2j]), "complex128"),
        (np.zeros(3, "M8[s]"), "datetime64"),
        (3, "one number"),
    ],
)
def test_no_data(x: Any, words: str) -> None:
    for call in (
        lambda: fresh("mlp").fit(x, Y, **QUIET),
        lambda: fresh("mlp").evaluate(x, Y),
        lambda: nn.Linear(6, 4).predict(x),
    ):
        with pytest.raises(FastnnError, match=words):
            call()


def test_progress_without_a_stream(monkeypatch: Any) -> None:
    """Where there is no standard error (under pythonw), nothing is shown."""
    monkeypatch.setattr("sys.stderr", None)
    assert fresh("mlp").fit(X, Y, epochs=1).stopped == "completed"


def test_what_is_wrong_is_shown_with_a_remedy() -> None:
    """A generator function instead of its batches, weights that mean nothing."""

    def batches() -> Any:
        yield np.zeros((2, 3), np.float32), np.zeros((2, 1), np.float32)

    trainer = fnn.Trainer(nn.Linear(3, 1), "mse")
    with pytest.raises(DataError, match=r"got the function 'batches'; call it"):
        trainer.fit(batches, verbose=False)
    x, y = next(batches())
    with pytest.raises(DataError, match=r"sample_weight: expected finite numbers >= 0, got -1\.0"):
        trainer.fit(x, y, sample_weight=np.array([1.0, -1.0]), verbose=False)


def test_negative_labels_are_padding_perhaps() -> None:
    """PyTorch ignores -100 without being told; here the loss says what it leaves out."""
    x, y = np.zeros((2, 3), np.float32), np.array([1, -100])
    with pytest.raises(DataError, match=r"got -100; .* give the loss ignore_index=-100"):
        fnn.Trainer(nn.Linear(3, 2), "cross_entropy").fit(x, y, verbose=False)
    loss = nn.CrossEntropyLoss(ignore_index=-100)
    fnn.Trainer(nn.Linear(3, 2), loss).fit(x, y, verbose=False)


def test_callbacks_may_be_one_or_none() -> None:
    x, y = np.zeros((2, 3), np.float32), np.zeros((2, 1), np.float32)
    trainer, seen = fnn.Trainer(nn.Linear(3, 1), "mse"), []
    trainer.fit(x, y, verbose=False, callbacks=None)
    count = fnn.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(epoch))
    trainer.fit(x, y, verbose=False, callbacks=count)
    trainer.fit(x, y, verbose=False, callbacks=(c for c in [count]))  # iterated once
    assert seen == [1, 2]
    with pytest.raises(OptionError, match="callbacks: expected instances"):
        trainer.fit(x, y, verbose=False, callbacks=fnn.callbacks.EarlyStopping)
