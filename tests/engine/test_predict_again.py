"""Predictions that go the short way: the same shapes and element types as before."""

import numpy as np
import pytest

from fastnn import nn, ops
from fastnn.engine import predictor
from fastnn.errors import DataError, OptionError, ShapeError
from fastnn.train.stateful import reset_states


@pytest.fixture
def seen(monkeypatch):
    """How often inputs have been looked at from scratch."""
    calls = []
    real = predictor.as_arrays
    monkeypatch.setattr(predictor, "as_arrays", lambda *a: calls.append(a) or real(*a))
    return calls


def _net():
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    rng = np.random.default_rng(0)
    for array in model.parameters():
        array.value = rng.normal(size=array.value.shape)
    return model


def _numbers(shape=(2, 5), dtype=np.float32, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def test_the_second_prediction_of_a_shape_is_short_and_the_same(seen):
    model, other = _net(), _net()
    for seed in range(4):
        x = _numbers(seed=seed)
        found = model.predict(x)
        assert found.tobytes() == other.predict(x.tolist()).tobytes()
    assert sum(call[0] is not None and isinstance(call[0], np.ndarray) for call in seen) == 1


def test_results_are_the_callers_own():
    model = _net()
    model.predict(_numbers())
    first = model.predict(_numbers(seed=1))
    kept = first.copy()
    model.predict(_numbers(seed=2))
    assert np.array_equal(first, kept)


def test_shapes_and_types_that_alternate(seen):
    model, other = _net(), _net()
    kinds = [(n, dtype) for n in (1, 2, 3) for dtype in (np.float32, np.float64, np.uint8)]
    for repeat in range(3):
        for n, dtype in kinds:
            x = np.abs(_numbers((n, 5), np.float64, repeat)) * 3
            x = x.astype(dtype)
            assert np.array_equal(model.predict(x), other.predict(x.astype(np.float64).tolist()))
    assert sum(isinstance(call[0], np.ndarray) for call in seen) == len(kinds)


def test_arrays_of_other_layouts_and_byte_orders_give_the_same():
    model = _net()
    x = _numbers((4, 5))
    wanted = model.predict(x)
    assert np.array_equal(model.predict(np.asfortranarray(x)), wanted)
    assert np.array_equal(model.predict(np.repeat(x, 2, axis=1)[:, ::2]), wanted)
    for _ in range(2):
        assert np.array_equal(model.predict(x.astype(">f4")), wanted)
        assert np.array_equal(model.predict(x.astype(np.float16)), model.predict(
            x.astype(np.float16).astype(np.float32)))  # fmt: skip


def test_wide_inputs_are_read_where_they_are():
    model = nn.Linear(3000, 2)
    wide = [_numbers((2, 3000), seed=seed) for seed in range(3)]
    wanted = [model.predict(x.copy()) for x in wide]
    assert all(np.array_equal(model.predict(x), w) for x, w in zip(wide, wanted, strict=True))
    assert np.array_equal(model.predict(np.asfortranarray(wide[0])), wanted[0])


def test_sizes_that_share_tables_are_copied_and_read_in_place_in_turns():
    """In a recurrent net lengths share the tables that hold an input's address."""
    model = nn.GRU(500, 3)
    whole = [_numbers((1, 12, 500), seed=seed) for seed in range(3)]
    wanted = [model.predict(x.copy())[0] for x in whole]
    for steps in (12, 2, 1, 9, 2, 12, 3):  # up to four steps are copied
        for x, w in zip(whole, wanted, strict=True):
            assert np.array_equal(model.predict(x[:, :steps].copy())[0], w[:, :steps])


def test_parameters_that_have_moved_are_not_read_where_they_were():
    model = _net()
    predictor = model.predictor()
    for _ in range(2):
        first = predictor(_numbers())
    outer = nn.Sequential(model, nn.Tanh()).to("float64")
    outer.store()
    assert np.allclose(model.predict(_numbers()), first)
    with pytest.raises(OptionError, match="moved into another model's memory"):
        predictor(_numbers())


def test_bad_input_is_refused_after_good():
    model = nn.Sequential(nn.Embedding(6, 4), nn.Linear(4, 2))
    ids = np.array([[1, 2], [3, 5]])
    for _ in range(2):
        model.predict(ids)
    with pytest.raises(DataError, match="6"):
        model.predict(ids + 1)
    net = _net()
    for _ in range(2):
        net.predict(_numbers())
    with pytest.raises(DataError):
        net.predict(np.ma.masked_array(_numbers(), mask=True))
    with pytest.raises(DataError, match="range"):
        net.predict(np.full((2, 5), 1e300))
    with pytest.raises(DataError, match="range"):
        net.predict(np.full((2, 5), 1e300))
    with pytest.raises(OptionError, match="batch_size"):
        net.predict(_numbers(), batch_size=0)
    with pytest.raises(OptionError, match="on_device"):
        net.predict(_numbers(), on_device=True)
    with pytest.raises(ShapeError):
        net.predict(_numbers((2, 4)))


def test_a_batch_size_below_the_samples_still_cuts(seen):
    model = _net()
    x = _numbers((6, 5))
    wanted = model.predict(x)
    model.predict(x)
    assert np.array_equal(model.predict(x, batch_size=4), wanted)
    assert sum(isinstance(call[0], np.ndarray) for call in seen) == 2


def test_a_change_of_the_model_is_seen():
    model = _net()
    x = _numbers()
    for _ in range(2):
        model.predict(x)
    model[0].weight.value = np.zeros((7, 5))
    model[0].bias.value = np.zeros(7)
    assert np.allclose(model.predict(x), model[2].bias.value)
    model[1] = nn.ReLU()
    assert np.allclose(model.predict(x), model[2].bias.value)


def test_several_outputs_and_inputs(seen):
    class Two(nn.Module):
        def __init__(self):
            self.a = nn.Linear(3, 2)

        def forward(self, x, y):
            return {"sum": x + y, "pair": (self.a(x), ops.tanh(y))}

    model = Two()
    x, y = _numbers((2, 3)), _numbers((2, 3), seed=1)
    first = model.predict(x, y)
    again = model.predict(x, y)
    assert list(again) == ["sum", "pair"]
    assert isinstance(again["pair"], tuple)
    assert np.array_equal(first["sum"], again["sum"])
    assert np.array_equal(again["sum"], x + y)
    assert np.array_equal(first["pair"][0], again["pair"][0])
    assert len(seen) == 1
    with pytest.raises((DataError, ShapeError)):
        model.predict(x, y[:1])


def test_states_are_carried_by_the_short_way_too(seen):
    model = nn.LSTM(3, 4, stateful=2)
    whole = nn.LSTM(3, 4)
    whole.load_state_dict({n: a for n, a in model.state_dict().items() if "state" not in n})
    x = _numbers((2, 6, 3))
    wanted = whole.predict(x)[0]
    before = len(seen)
    parts = [model.predict(x[:, t : t + 2])[0] for t in (0, 2, 4)]
    assert np.array_equal(np.concatenate(parts, axis=1), wanted)
    assert len(seen) == before + 1
    reset_states(model)
    assert np.array_equal(model.predict(x[:, :2])[0], wanted[:, :2])
