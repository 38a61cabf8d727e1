"""Sampled softmax: the whole one in evaluation, an estimate of it in training."""

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim
from fastnn.errors import DataError, OptionError, ShapeError
from fastnn.testing import gradcheck

RNG = np.random.default_rng(0)
V, C, N = 12, 5, 16
X, TARGET = RNG.standard_normal((N, C)).astype(np.float32), RNG.integers(0, V, N)


def layer(samples, augmented=0.0):
    softmax = nn.SampledSoftmax(C, V, samples, augmented)
    softmax.weight.value = np.random.default_rng(1).standard_normal((V, C))
    softmax.bias.value = np.random.default_rng(2).standard_normal(V)
    return softmax


def whole(softmax, x=X, target=TARGET):
    """Losses, and gradients of their mean to weight and bias."""
    logits = x @ softmax.weight.value.T.astype(np.float64) + softmax.bias.value
    p = np.exp(logits - np.logaddexp.reduce(logits, 1)[:, None])
    error = (p - np.eye(V)[target]) / len(x)
    return -np.log(p[np.arange(len(x)), target]), error.T @ x, error.sum(0)


def test_evaluation_looks_at_all_classes():
    softmax = layer(3)
    np.testing.assert_allclose(softmax.predict(X, TARGET), whole(softmax)[0], rtol=1e-5)
    shaped = softmax.predict(X.reshape(2, 8, C), TARGET.reshape(2, 8))
    np.testing.assert_allclose(shaped.ravel(), whole(softmax)[0], rtol=1e-5)


def step_of(softmax):
    """What a step of plain descent adds to the parameters, and its loss."""
    before = softmax.weight.value.copy(), softmax.bias.value.copy()
    trainer = fnn.Trainer(softmax, lambda output, _: ops.mean(output), optim.SGD(lr=1.0), workers=1)
    history = trainer.fit((X, TARGET), TARGET, epochs=1, batch_size=N, verbose=False)
    return history["loss"][0], before[0] - softmax.weight.value, before[1] - softmax.bias.value


def test_a_large_sample_gives_the_whole_softmax_and_its_gradient():
    """Of classes drawn otherwise than is corrected for, no sample is large enough."""
    loss, weight, bias = whole(layer(1))
    found = step_of(layer(60000))
    assert found[0] == pytest.approx(loss.mean(), rel=0.02)
    np.testing.assert_allclose(found[1], weight, atol=0.02)
    np.testing.assert_allclose(found[2], bias, atol=0.01)


def test_what_is_added_is_the_variance_of_what_is_apart_from_the_target():
    """Over the distribution that classes are drawn from, the target's weights being a constant."""
    factor, softmax = 0.5, layer(1)
    q = np.log((np.arange(V) + 2) / (np.arange(V) + 1)) / np.log(V + 1)
    weights = softmax.weight.value.astype(np.float64)
    apart = (X - weights[TARGET]) @ weights.T
    apart -= apart @ q[:, None]
    plain, found = step_of(layer(60000)), step_of(layer(60000, factor))
    wanted = factor * (apart**2 @ q).mean()
    assert found[0] - plain[0] == pytest.approx(wanted, rel=0.02)
    gradient = 2 * factor * q[:, None] * (apart.T @ X) / N
    np.testing.assert_allclose(found[1] - plain[1], gradient, atol=0.02 * np.abs(gradient).max())
    np.testing.assert_allclose(found[2], plain[2], atol=1e-6)  # biases have no part in it
    evaluated = layer(3, factor).predict(X, TARGET)
    np.testing.assert_array_equal(evaluated, layer(3).predict(X, TARGET))
    assert "samples=3, augmented=0.5" in repr(layer(3, factor))


def test_training_can_take_all_classes():
    """And change over between epochs."""
    loss, weight, bias = whole(layer(1))
    softmax = layer(2, 0.5)
    softmax.full = True
    found = step_of(softmax)
    assert found[0] == pytest.approx(loss.mean(), rel=1e-6)
    np.testing.assert_allclose(found[1], weight, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(found[2], bias, rtol=1e-4, atol=1e-7)
    softmax, losses = layer(2), []
    trainer = fnn.Trainer(softmax, lambda output, _: ops.mean(output), optim.SGD(lr=1e-9))
    for softmax.full in (False, True, False):
        history = trainer.fit((X, TARGET), TARGET, epochs=1, batch_size=N, verbose=False)
        losses.append(history["loss"][0])
    assert losses[1] == pytest.approx(loss.mean(), rel=1e-5)
    assert min(abs(losses[k] - losses[1]) for k in (0, 2)) > 1e-3


def test_a_small_sample_leaves_classes_alone():
    _, weight, _ = step_of(layer(2))
    touched = {k for k in range(V) if weight[k].any()}
    assert set(TARGET) <= touched
    assert len(touched) <= len(set(TARGET)) + 2


def test_a_model_learns_with_it():
    class Next(nn.Module):
        def __init__(self):
            self.vectors, self.softmax = nn.Embedding(40, 8), nn.SampledSoftmax(8, 40, 10)

        def forward(self, ids, target):
            return self.softmax(self.vectors(ids), target)

    ids = RNG.integers(0, 40, 256)
    target = (3 * ids + 1) % 40
    trainer = fnn.Trainer(
        Next(), lambda output, _: ops.mean(output), optim.Adam(lr=0.05), workers=1, seed=1
    )
    trainer.fit((ids, target), target, epochs=30, batch_size=32, verbose=False)
    assert trainer.model.predict(ids, target).mean() < 0.5


def test_wrong_use_is_refused():
    with pytest.raises(OptionError, match="samples"):
        nn.SampledSoftmax(4, 10, 0)
    for augmented in (-0.1, float("nan")):
        with pytest.raises(OptionError, match="augmented"):
            nn.SampledSoftmax(4, 10, 3, augmented)
    with pytest.raises(ShapeError, match="in_features"):
        nn.SampledSoftmax(4, V).predict(X, TARGET)
    with pytest.raises(ShapeError, match="target of integers"):
        layer(2).predict(X, TARGET[:, None])
    with pytest.raises(DataError, match=r"0\.\.11"):
        layer(2).predict(X, TARGET + 12)


def test_the_gradient_is_that_of_differences():
    gradcheck(layer(6), X[:4].astype(np.float64), TARGET[:4])
    gradcheck(layer(6), X[:4].astype(np.float64), TARGET[:4], training=False)
