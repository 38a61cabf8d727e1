"""Attention as an op: gradients, second gradients, memory, errors, bits over workers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops
from fastnn.errors import DataError, OptionError, ShapeError
from fastnn.testing import gradcheck
from fastnn.testing.null import null_device
from tests.graph.test_second_gradients import first
from tests.naive_attention import attention, laid_out

LENGTHS = np.array([4, 0, 5, 1, 3])
OPTIONS: list[dict[str, Any]] = [
    {},
    {"heads": 2},
    {"heads": 3, "causal": True},
    {"causal": True, "first": 2, "scale": 0.3},
    {"heads": 2, "dropout": 0.4},
]


def arrays(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(2)
    return [rng.normal(size=s) for s in shapes]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_gradient(options: Any) -> None:
    q, k, v = arrays((5, 4, 6), (5, 7, 6), (5, 7, 12))
    assert gradcheck(lambda q, k, v: ops.attention(q, k, v, **options), q, k, v)


@pytest.mark.parametrize("options", OPTIONS[:4], ids=str)
def test_second_gradient(options: Any) -> None:
    q, k, v = arrays((5, 3, 6), (5, 4, 6), (5, 4, 6))
    assert gradcheck(first(lambda q, k, v: ops.attention(q, k, v, **options)), q, k, v)


def test_gradients_with_lengths() -> None:
    q, k, v = arrays((5, 5, 4), (5, 6, 4), (5, 6, 4))

    def function(q: Any, k: Any, v: Any, n: Any, m: Any) -> Any:
        return ops.attention(q, k, v, heads=2, key_lengths=n, query_lengths=m, causal=True)

    assert gradcheck(function, q, k, v, LENGTHS, LENGTHS[::-1].copy())
    assert gradcheck(first(function), q, k, v, LENGTHS, LENGTHS[::-1].copy())


@pytest.mark.parametrize("options", [OPTIONS[1], OPTIONS[2], OPTIONS[4]], ids=str)
def test_self_attention(options: Any) -> None:
    """What joined queries, keys and values give is what they give taken apart, bit for bit."""

    def joined(x: Any, n: Any) -> Any:
        return ops.self_attention(x, lengths=n, **options)

    def apart(x: Any, n: Any) -> Any:
        return ops.attention(*ops.split(x, 3), key_lengths=n, query_lengths=n, **options)

    (x,) = arrays((5, 5, 18))
    assert gradcheck(joined, x, LENGTHS)
    if "dropout" not in options:
        assert gradcheck(first(joined), x, LENGTHS)
    one, other = (Called(f).predict(x.astype(np.float32), LENGTHS) for f in (joined, apart))
    assert one.tobytes() == other.tobytes()
    with pytest.raises(ShapeError, match=r"3 \* heads \* size\) with heads=2"):
        Called(lambda x, n: ops.self_attention(x, heads=2)).predict(x[..., :9], LENGTHS)


class Called(nn.Module):
    def __init__(self, function: Any):
        self.function = function

    def forward(self, *inputs: Any) -> Any:
        return self.function(*inputs)


def test_gradient_with_an_axis_of_heads() -> None:
    q, k, v = arrays((5, 2, 3, 4), (5, 2, 6, 4), (5, 2, 6, 3))
    assert gradcheck(lambda q, k, v: ops.attention(q, k, v, causal=True), q, k, v)
    assert gradcheck(lambda q, k, v, n: ops.attention(q, k, v, key_lengths=n), q, k, v, LENGTHS)


class Attention(nn.Module):
    def __init__(self, **options: Any):
        self.options = options

    def forward(self, q: Any, k: Any, v: Any) -> Any:
        return ops.attention(q, k, v, **self.options)


def test_layouts_agree() -> None:
    q, k, v = (x.astype(np.float32) for x in arrays((3, 2, 9, 4), (3, 2, 8, 4), (3, 2, 8, 5)))
    want = attention(q, k, v, scale=0.5)
    apart = Attention().predict((q, k, v))
    beside = Attention(heads=2).predict(tuple(laid_out(x, 0) for x in (q, k, v)))
    np.testing.assert_allclose(apart, want, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(beside, laid_out(apart, 0))


def test_second_gradient_with_dropout_is_refused() -> None:
    (x,) = arrays((5, 4, 6))
    with pytest.raises(
        OptionError, match=r"no dropout of weights for a gradient of a gradient, got dropout=0\.5"
    ):
        gradcheck(first(lambda x: ops.attention(x, x, x, dropout=0.5)), x)


class SelfAttention(nn.Module):
    def __init__(self, size: int, **options: Any):
        self.project, self.out = nn.Linear(size, 3 * size), nn.Linear(size, size)
        self.options = options

    def forward(self, x: Any) -> Any:
        q, k, v = ops.split(self.project(x), 3)
        return self.out(ops.attention(q, k, v, **self.options))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_bits_over_workers(dropout: float) -> None:
    x = np.random.default_rng(0).normal(size=(7, 70, 8)).astype(np.float32)
    found = []
    for workers in (1, 2, 3):
        model = SelfAttention(8, heads=2, causal=True, dropout=dropout)
        model.initialize(seed=1)
        trainer = fnn.Trainer(model, "mse", optimizer="adam", workers=workers)
        trainer.fit(x, x, epochs=2, batch_size=7, shuffle=False, verbose=0)
        found.append(np.concatenate([p.ravel() for p in model.state_dict().values()]))
    for other in found[1:]:
        assert other.tobytes() == found[0].tobytes()


def planned_bytes(kind: str, steps: int) -> int:
    """Bytes of memory of a training step on two sequences of so many steps."""
    x = np.zeros((2, steps, 8), np.float32)
    with null_device(kind) as null:
        trainer = fnn.Trainer(SelfAttention(8, heads=2, causal=True), "mse", optimizer="sgd")
        trainer.fit(x, x, epochs=1, batch_size=2, verbose=0)
    program = max(null.programs, key=lambda p: p.sizes["work"])
    assert any(call.kernel == "attention_backward" for call in program.calls())
    return sum(program.sizes[n] for n in ("work", "local", "constant"))


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_memory_is_linear_in_time(kind: str) -> None:
    """4,096 steps take twice the memory of 2,048; all weights of one head would be 64 MiB."""
    few, many = planned_bytes(kind, 2048), planned_bytes(kind, 4096)
    assert many < 2.05 * few
    assert many < 2 * 4096 * 8 * 4 * 30  # thirty arrays as large as the input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 4}, "multiples of heads=4"),
        ({"heads": 0}, "heads to be a whole number >= 1"),
        ({"first": -1}, "first to be a whole number >= 0"),
        ({"scale": 0.0}, "a scale above 0"),
        ({"dropout": 1.0}, r"dropout in \[0, 1\)"),
        ({"key_lengths": 3}, "expected key_lengths as an input of the model"),
    ],
)
def test_wrong_options(options: Any, message: str) -> None:
    x = np.zeros((3, 5, 6), np.float32)
    with pytest.raises((OptionError, ShapeError), match=message):
        Attention(**options).predict((x, x, x))


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((3, 5, 6), (3, 5, 5), (3, 5, 6)), "keys as wide as queries"),
        (((3, 5, 6), (3, 4, 6), (3, 5, 6)), "as many keys as values"),
        (((3, 6), (3, 6), (3, 6)), r"of shape \(batch, steps, heads \* size\)"),
    ],
)
def test_wrong_shapes(shapes: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        Attention().predict(tuple(np.zeros(s, np.float32) for s in shapes))


def test_lengths_beyond_the_data() -> None:
    class WithLengths(nn.Module):
        def forward(self, x: Any, lengths: Any) -> Any:
            return ops.attention(x, x, x, key_lengths=lengths)

    x = np.zeros((2, 5, 6), np.float32)
    with pytest.raises(DataError, match="6"):
        WithLengths().predict((x, np.array([5, 6])))
