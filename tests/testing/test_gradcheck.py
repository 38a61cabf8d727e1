"""The gradient check itself: what it accepts, what it finds, what it leaves alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops
from fastnn.errors import DataError, ShapeError
from fastnn.graph.op import OPS
from fastnn.ops.declare import apply_effect
from fastnn.testing import gradcheck
from fastnn.testing.gradcheck import _Check

X = np.random.default_rng(0).normal(size=(6, 4))


def net():
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Dropout(0.5), nn.Linear(5, 2))


@pytest.mark.parametrize("training", [True, False])
def test_modules(training):
    assert gradcheck(net(), X, training=training) is True
    assert gradcheck(net(), X.astype(np.float32), training=training, seed=3)


def test_functions_and_parameters_as_inputs():
    w = nn.Parameter((4,), "normal")
    assert gradcheck(lambda a, b: ops.tanh(a) * b, X, X + 1.0)
    assert gradcheck(lambda a, slope: ops.prelu(a, slope), X, w)
    assert gradcheck(lambda slope, a: ops.prelu(a, slope), w, X)
    assert gradcheck(
        lambda ids, t: ops.embedding(ids, t), np.arange(4), nn.Parameter((4, 3), "normal")
    )


@pytest.fixture
def wrong(monkeypatch):
    """Give an op another op's gradient."""

    def give(name, backward):
        monkeypatch.setitem(OPS, name, dataclasses.replace(OPS[name], backward=(backward,)))

    return give


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("name", "backward"),
    [("tanh", "sigmoid_backward"), ("softmax", "log_softmax_backward"), ("exp", "square_backward")],
)
def test_a_wrong_gradient_is_found(wrong, name, backward, seed):
    function = getattr(ops, name)
    assert gradcheck(function, X, seed=seed)
    wrong(name, backward)
    with pytest.raises(AssertionError, match=r"gradcheck: input 0, index \(\d, \d\): analytic gra"):
        gradcheck(function, X, seed=seed)


def test_what_is_wrong_is_named(wrong):
    class Net(nn.Module):
        def __init__(self):
            self.first, self.last = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x):
            return ops.tanh(self.first(x)) + self.last(x)

    wrong("tanh", "sigmoid_backward")
    with pytest.raises(AssertionError, match=r"gradcheck: (parameter 'first|input 0)"):
        gradcheck(Net(), X)
    with pytest.raises(AssertionError, match="gradcheck: input 0"):
        gradcheck(Net(), X, parameters=False)


def test_a_difference_just_above_the_tolerance_is_found():
    """An output gradient that is 1e-4 too large (a constant times x, not differentiated)."""
    x = np.abs(X) + 1.0
    assert gradcheck(ops.square, x)
    with pytest.raises(AssertionError):
        gradcheck(lambda a: ops.square(a) + ops.square(a.graph.constant(x)) * 0.0 + _leak(a), x)


def _leak(a):
    """1e-4 a, with no gradient."""
    result = a.graph.value(a.shape, batched=True)
    apply_effect(a.graph, "affine", x=a, y=result, scale=1e-4, shift=0.0)
    return result


def test_the_model_stays_as_it_is():
    model = net()
    step = fnn.compile(model, "mse", "sgd")
    x, y = X.astype(np.float32), np.zeros((6, 2), np.float32)
    step(x, y)
    before, store = model.state_dict(), model.store()
    model.predict(x)
    assert gradcheck(model, X)
    assert model.store() is store
    assert store.dtype == "float32"
    assert list(model.named_parameters()) == list(before)
    for name, array in model.state_dict().items():
        assert array.tobytes() == before[name].tobytes(), name
    step(x, y)  # its memory is still the model's


def test_gradients_are_read_before_another_program_works_in_their_memory():
    """The forward program may write wherever it likes between one gradient and the next."""

    def found(spoilt):
        rng = np.random.default_rng(5)
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        check = _Check(model, {"x0": rng.normal(size=(5, 3))}, 5, 0, True)
        gradients = {}
        for name, gradient, _ in check.gradients():
            gradients[name] = gradient.copy()
            if spoilt:
                for segment in ("work", "grads"):
                    check.session.runtime.memory[segment][...] = 0xFF
        return gradients

    once, again = found(False), found(True)
    assert list(once) == ["x0", "0.weight", "0.bias", "2.weight", "2.bias"]
    for name, gradient in once.items():
        assert np.isfinite(gradient).all()
        np.testing.assert_array_equal(again[name], gradient, err_msg=name)


def test_batch_norm_keeps_its_running_statistics():
    model = nn.BatchNorm(4)
    assert gradcheck(model, X, rtol=1e-4)
    assert model.running_mean.value.tolist() == [0.0] * 4


def test_several_outputs_and_scalars():
    assert gradcheck(lambda x: (ops.tanh(x), ops.mean(ops.square(x)), x), X)


def test_wrong_inputs():
    with pytest.raises(DataError, match="equal length, got"):
        gradcheck(lambda a, b: a * b, X, X[:3])
    with pytest.raises(DataError, match="expected arrays of floats or integers"):
        gradcheck(net(), 3.0)
    with pytest.raises(DataError, match="input of a plain function"):
        gradcheck(net(), nn.Parameter((3,)))
    with pytest.raises(ShapeError, match=r"layer '0'.*expected input of shape"):
        gradcheck(net(), X[:, :3])
    with pytest.raises(AssertionError, match="output 0 is not finite"):
        gradcheck(ops.log, -np.abs(X))
