"""Predictions: one path, whatever the number of batches and the kind of output."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastnn import nn, ops
from fastnn.engine.arrays import as_arrays
from fastnn.graph.graph import Graph
from fastnn.graph.trace import trace
from fastnn.plan.lower import Lowering
from fastnn.plan.samples import Samples

RANDOM = np.random.default_rng(0)
N = 23
VECTORS = RANDOM.normal(size=(N, 6)).astype(np.float32)
SEQUENCES = RANDOM.normal(size=(N, 5, 3)).astype(np.float32)
IDS = RANDOM.integers(0, 9, (N, 4))
Pair = namedtuple("Pair", ["mean", "spread"])


class Function(nn.Module):
    """A model that is a function, with some layers to use."""

    def __init__(self, function: Callable[..., Any], **layers: nn.Module):
        self.__dict__.update(layers)
        self.function = function

    def forward(self, *inputs: Any) -> Any:
        return self.function(self, *inputs)


def loop(model: Any, x: Any) -> Any:
    def step(x_t: Any, h: Any) -> Any:
        h = ops.tanh(model.mix(ops.concatenate(x_t, h)))
        return h, h

    return ops.loop(step, x, ops.zeros_state(x, 4))[0]


def attend(x: Any) -> Any:
    """Each sample is made of all of them."""
    return ops.linear(ops.linear(x, ops.reshape(x, x.shape[-1], -1)), x)


def linear() -> nn.Module:
    return nn.Linear(6, 4)


#: name -> (model, inputs, the outputs by NumPy from those for single samples; None: from the whole)
MODELS: dict[str, tuple[Callable[[], nn.Module], Any, bool]] = {
    "linear": (linear, VECTORS, True),
    "as it came": (lambda: Function(lambda m, x: x), VECTORS, True),
    "ids as they came": (lambda: Function(lambda m, x: x), IDS, True),
    "reshaped ids": (lambda: Function(lambda m, x: ops.reshape(x, -1, 2, 2)), IDS, True),
    "loop": (lambda: Function(loop, mix=nn.Linear(7, 4)), SEQUENCES, True),
    "lstm": (lambda: Function(lambda m, x: m.rnn(x)[0], rnn=nn.LSTM(3, 4)), SEQUENCES, True),
    "steps as rows": (lambda: Function(lambda m, x: ops.reshape(x, -1, 3)), SEQUENCES, True),
    "embedding": (lambda: nn.Embedding(9, 3), IDS, True),
    "time first inside": (
        lambda: Function(
            lambda m, x: ops.swap_time(ops.tanh(m.fc(ops.swap_time(x)))), fc=nn.Linear(3, 2)
        ),
        SEQUENCES,
        True,
    ),
    "mean": (lambda: Function(lambda m, x: ops.mean(m.fc(x)), fc=linear()), VECTORS, False),
    "attention to the others": (lambda: Function(lambda m, x: attend(x)), VECTORS, False),
    "time first": (
        lambda: Function(lambda m, x: m.rnn(x)[0], rnn=nn.GRU(3, 4, batch_first=False)),
        SEQUENCES,
        False,
    ),
    "swapped": (lambda: Function(lambda m, x: ops.swap_time(x)), SEQUENCES, False),
    "two orders of rows": (
        lambda: Function(
            lambda m, x: ops.add(ops.reshape(ops.swap_time(x), -1, 3), ops.reshape(x, -1, 3))
        ),
        SEQUENCES,
        False,
    ),
    "mixed samples beside their own": (
        lambda: Function(lambda m, x: ops.concatenate(attend(x), x)), VECTORS, False
    ),
    "swapped, samples and columns in one": (
        lambda: Function(lambda m, x: ops.reshape(ops.swap_time(x), x.shape[1], -1)),
        SEQUENCES,
        False,
    ),
    "swapped and computed": (
        lambda: Function(lambda m, x: m.fc(ops.swap_time(x)), fc=nn.Linear(3, 2)),
        SEQUENCES,
        False,
    ),
    "scalar and rows": (
        lambda: Function(lambda m, x: (ops.total(x), m.fc(x)), fc=linear()), VECTORS, False
    ),
    "by the batch's size": (
        lambda: Function(lambda m, x: m.fc(x) / x.shape[0], fc=linear()), VECTORS, False
    ),
    "an option by the batch's size": (
        lambda: Function(lambda m, x: ops.leaky_relu(m.fc(x), 1 / x.shape[0]), fc=linear()),
        VECTORS,
        False,
    ),
    "an option of the model's own": (
        lambda: Function(lambda m, x: ops.leaky_relu(m.fc(x), 0.25), fc=linear()), VECTORS, True
    ),
    "places among the samples": (
        lambda: Function(lambda m, x: x + np.arange(x.shape[0])[:, None]), VECTORS, False
    ),
    "an array that is the same for each sample": (
        lambda: Function(lambda m, x: x * np.tile(np.arange(6.0), (len(x), 1))), VECTORS, True
    ),
    "gradient of a mean": (
        lambda: Function(lambda m, x: ops.gradient(ops.mean(ops.square(x)), x)), VECTORS, False
    ),
    "gradient of a mean with a factor that is computed": (
        lambda: Function(
            lambda m, x: ops.gradient(ops.mean(ops.square(x)) * ops.sum(m.fc.bias), x), fc=linear()
        ),
        VECTORS,
        False,
    ),
    "gradient of a sum": (
        lambda: Function(lambda m, x: ops.gradient(ops.sum(ops.square(x)), x)), VECTORS, True
    ),
    "a parameter": (
        lambda: Function(lambda m, x: (ops.as_value(x.graph, m.fc.bias), m.fc(x)), fc=linear()),
        VECTORS,
        False,
    ),
}  # fmt: skip


def leaves(found: Any) -> list[np.ndarray]:
    return list(found) if isinstance(found, tuple) else [found]


@pytest.mark.parametrize("name", MODELS)
def test_results_do_not_depend_on_the_batch_size(name: str) -> None:
    make, x, by_sample = MODELS[name]
    model = make()
    want = leaves(model.predict(x, batch_size=N))
    if by_sample:
        single = np.concatenate([model.predict(row[None]) for row in x])
        np.testing.assert_allclose(want[0], single, rtol=1e-5, atol=1e-6)
    for batch in range(1, N + 2):
        found = leaves(model.predict(x, batch_size=batch))
        assert [a.shape for a in found] == [a.shape for a in want]
        assert [a.dtype for a in found] == [a.dtype for a in want]
        for a, b in zip(found, want, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_the_run_over_gathered_batches(name: str) -> None:
    """What a GPU does, on the CPU."""
    make, x, _ = MODELS[name]
    model = make()
    want = leaves(model.predict(x))
    predictor, data = model.predictor(), as_arrays(x, "x", "inputs")
    joins = predictor.joins(data.specs)
    for batch in (1, 4, 8, N) if set(joins) == {"first"} else (N,):
        found = leaves(predictor.on_gpu(data, batch))
        for a, b in zip(found, want, strict=True):
            assert (a.shape, a.dtype) == (b.shape, b.dtype)
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_integers_stay_integers_for_any_number_of_batches() -> None:
    ids = np.arange(5000)[:, None]
    model = Function(lambda m, x: (x, m.table(x)), table=nn.Embedding(5000, 2))
    found, _ = model.predict(ids)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, ids)


def test_large_arrays_that_are_outputs() -> None:
    """Such an array is read where it lies: the program's own input memory is never written."""
    x = np.random.default_rng(1).normal(size=(4000, 8)).astype(np.float32)
    found = Function(lambda m, x: x).predict(x, batch_size=4000)
    np.testing.assert_array_equal(found, x)
    found[:] = 0.0
    assert x.any()


def test_a_recurrent_net_over_time_first_is_not_cut_along_time() -> None:
    x = np.random.default_rng(0).normal(size=(2, 300, 3)).astype(np.float32)
    models = [
        Function(lambda m, x: m.rnn(x)[0], rnn=nn.GRU(3, 4, batch_first=first))
        for first in (True, False)
    ]
    for model in models:
        model.store()
    models[1].load_state_dict(models[0].state_dict())
    want = models[0].predict(x)
    found = models[1].predict(np.ascontiguousarray(x.swapaxes(0, 1)), batch_size=7)
    np.testing.assert_array_equal(found.swapaxes(0, 1), want)


STRUCTURES: dict[str, tuple[Callable[[Any, Any], Any], Any]] = {
    "tuple": (lambda a, b: (a, b), (0, 1)),
    "list": (lambda a, b: [a, b], [0, 1]),
    "dict": (lambda a, b: {"up": a, "down": b}, {"up": 0, "down": 1}),
    "nested": (lambda a, b: {"all": (a, {"b": [b, a]})}, {"all": (0, {"b": [1, 0]})}),
    "named tuple": (Pair, Pair(0, 1)),
    "one of one": (lambda a, b: (b,), 1),
}


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("batch", [4, N])
def test_outputs_keep_their_structure(name: str, batch: int) -> None:
    make, want = STRUCTURES[name]
    model = Function(lambda m, x: make(ops.tanh(x), ops.exp(x)))
    parts = np.tanh(VECTORS), np.exp(VECTORS)

    def same(found: Any, want: Any) -> None:
        if isinstance(want, int):
            np.testing.assert_allclose(found, parts[want], rtol=1e-6)
            return
        assert type(found) is type(want)
        if isinstance(want, dict):
            assert list(found) == list(want)
            found, want = list(found.values()), list(want.values())
        assert len(found) == len(want)
        for a, b in zip(found, want, strict=True):
            same(a, b)

    same(model.predict(VECTORS, batch_size=batch), want)


def test_what_belongs_to_a_sample() -> None:
    """The analysis itself, on values of each kind."""
    graph = Graph(7)
    x = graph.input("x", (5, 3))
    with_time = Function(
        lambda m, x: {
            "apart": m.fc(x),
            "loop": m.loop(x),
            "steps": ops.tanh(ops.swap_time(x)),
            "recurrent over samples": m.rnn(ops.swap_time(x))[0],
            "mean": ops.mean(x),
            "attention to the others": ops.tanh(attend(ops.flatten(x))),
            "none": ops.as_value(x.graph, m.fc.bias),
        },
        fc=nn.Linear(3, 2),
        rnn=nn.LSTM(3, 2),
        loop=Function(loop, mix=nn.Linear(7, 4)),
    )
    with_time.store()
    names = [
        "apart",
        "loop",
        "steps",
        "recurrent over samples",
        "mean",
        "attention to the others",
        "none",
    ]
    values = dict(zip(names, trace(with_time, graph, x), strict=True))
    samples = Samples(Lowering(graph), [x])
    assert {n for n, v in values.items() if samples.apart(v)} == {"apart", "loop"}
    assert {n for n, v in values.items() if samples.steps(v)} == {"steps"}
    assert {n for n, v in values.items() if not samples.depends(v)} == {"none"}


@pytest.mark.parametrize("width", [3, 48, 700, 2100])
def test_layers_keep_samples_apart_whatever_their_size(width: int) -> None:
    """Other sizes are computed by other kernels."""
    model = nn.Sequential(
        nn.Linear(width, width), nn.ReLU(), nn.LayerNorm(width), nn.Dropout(0.5),
        nn.Linear(width, 3 * width), nn.Maxout(3), nn.BatchNorm(width), nn.Softmax(),
    )  # fmt: skip
    sequences = [nn.RNN(width, 5), nn.LSTM(5, width, bidirectional=True), nn.GRU(2 * width, 6)]
    for batch in (2, 7, 40):
        graph = Graph(batch)
        x, ids = graph.input("x", (width,)), graph.input("ids", (4,), "i")
        found = [*trace(model, graph, x)]
        value = trace(nn.Embedding(9, width), graph, ids)[0]
        for layer in sequences:
            value = trace(layer, graph, value)[0]
            found.append(value)
        samples = Samples(Lowering(graph), [x, ids])
        assert [samples.apart(v) for v in found] == [True] * 4
