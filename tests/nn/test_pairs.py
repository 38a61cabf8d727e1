"""Weights of recurrent layers in pairs of bfloat16 numbers: predictions with parameters that stay
as they are, at precision "bf16"."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastnn import nn
from fastnn.kernels.cpu import tile_unit
from fastnn.kernels.recurrent.pairs import in_pairs
from fastnn.nn.method import fixed
from fastnn.tasks.language import LanguageModel
from fastnn.tasks.sampling import sample

X = np.random.default_rng(0).normal(size=(1, 3, 5)).astype(np.float32)


@pytest.fixture(autouse=True)
def without_tile_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of one sequence are float32 with the unit, if weights are not in pairs."""
    monkeypatch.setattr(tile_unit, "most_parts", lambda: 0)


def test_words_hold_two_columns_each() -> None:
    weight = np.arange(128, dtype=np.float32).reshape(2, 64) + 1 / 3
    words = in_pairs(weight)
    assert words is not None
    assert words.shape == (2, 32)
    halves = words.view(np.uint32)
    upper = (halves & np.uint32(0xFFFF0000)).view(np.float32)
    lower = (halves << np.uint32(16)).view(np.float32)
    np.testing.assert_allclose(upper[1, 16:], weight[1, 32:48], rtol=2**-8)
    np.testing.assert_allclose(lower[1, 16:], weight[1, 48:], rtol=2**-8)
    assert in_pairs(np.where(weight == weight[1, 2], np.float32(3.4e38), weight)) is None


@pytest.mark.parametrize(
    "layer",
    [
        lambda: nn.LSTM(5, 32, 2, bidirectional=True),
        lambda: nn.GRU(5, 32),
        lambda: nn.GRU(5, 64, reset="before"),
        lambda: nn.RNN(5, 32, 2),
    ],
)
def test_bits_are_those_of_weights_that_are_rounded_in_each_call(layer: Any) -> None:
    model = nn.Sequential(layer())
    want = model.predict(X, precision="bf16")
    got = fixed(model)(X, precision="bf16")
    for a, b in zip(_arrays(got), _arrays(want), strict=True):
        assert a.tobytes() == b.tobytes()
    assert not np.array_equal(_arrays(want)[0], _arrays(model.predict(X))[0])


def test_parameters_stay_until_it_is_asked_for_again() -> None:
    model = nn.Sequential(nn.GRU(5, 32))
    before = _arrays(fixed(model)(X, precision="bf16"))[0]
    (weight,) = (p for n, p in model.named_parameters().items() if "weight_hh" in n)
    weight.value = -weight.value
    kept = _arrays(model.__dict__["_methods"]["forward, fixed"][1](X, precision="bf16"))[0]
    assert kept.tobytes() == before.tobytes()
    renewed = _arrays(fixed(model)(X, precision="bf16"))[0]
    assert renewed.tobytes() == _arrays(model.predict(X, precision="bf16"))[0].tobytes()
    assert renewed.tobytes() != before.tobytes()


def test_what_other_threads_have_made_is_renewed_too() -> None:
    model = nn.Sequential(nn.GRU(5, 32))
    predictor = fixed(model)
    predictor(X, precision="bf16")
    mine = predictor._idle.pop()  # this one is in use: another thread's has memory of its own
    predictor(X, precision="bf16")
    predictor._idle.appendleft(mine)
    for parameter in model.parameters():
        parameter.value = -parameter.value
    want = _arrays(model.predict(X, precision="bf16"))[0]
    for one in (fixed(model), predictor):
        assert _arrays(one(X, precision="bf16"))[0].tobytes() == want.tobytes()


def test_buffers_are_read_in_each_call() -> None:
    """They may change in any call: a weight that is one is no constant of the program."""
    layer = nn.GRU(5, 32)
    weight = layer.weight_hh_l0
    buffer = nn.Parameter(weight.shape, transposed=weight.transposed, trainable=False)
    buffer.value, layer.weight_hh_l0 = weight.value, buffer
    model = nn.Sequential(layer)
    predictor, drawn = fixed(model), []
    for factor in (1.0, -2.0):
        buffer.value *= factor
        drawn.append(_arrays(predictor(X, precision="bf16"))[0])
        want = _arrays(model.predict(X, precision="bf16"))[0]
        assert drawn[-1].tobytes() == want.tobytes()
    assert drawn[0].tobytes() != drawn[1].tobytes()


def test_others_read_the_weights_as_they_are() -> None:
    """Units that are no multiple of a group, several sequences, another precision."""
    odd, model = nn.Sequential(nn.LSTM(5, 12)), nn.Sequential(nn.LSTM(5, 32))
    several = np.concatenate([X, -X])
    for net, x, precision in ((odd, X, "bf16"), (model, several, "bf16"), (model, X, "highest")):
        got, want = fixed(net)(x, precision=precision), net.predict(x, precision=precision)
        for a, b in zip(_arrays(got), _arrays(want), strict=True):
            assert a.tobytes() == b.tobytes()


def test_a_text_at_bf16_is_nearly_that_of_float32() -> None:
    model = LanguageModel(9, embedding=4, hidden=32, layers=2, dropout=0.0, streams=1)
    model.store()
    exact = [model.reader().feed(3)]
    near = [model.reader("bf16").feed(3)]
    np.testing.assert_allclose(near, exact, atol=5e-3)
    assert not np.array_equal(near, exact)
    drawn = sample(model, [0], 20, seed=1, precision="bf16")
    assert drawn == sample(model, [0], 20, seed=1, precision="bf16")
    model.logits.bias.value = np.where(np.arange(9) == 5, 50.0, 0.0)
    assert sample(model, [0], 3, precision="bf16") == [5, 5, 5]


def _arrays(found: Any) -> list[np.ndarray]:
    """The arrays of what a model returns."""
    if isinstance(found, np.ndarray):
        return [found]
    return [array for part in found for array in _arrays(part)]
