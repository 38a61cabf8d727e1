"""Noise and forms of dropout: what they do in training, and that evaluation is their average."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim, testing
from fastnn.errors import OptionError, ShapeError
from fastnn.graph.value import Value
from fastnn.testing import gradcheck

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3000, 6))
STEPS = RNG.normal(size=(400, 5, 6))


class Seen(nn.Module):
    """Keeps what a layer gives in training."""

    def __init__(self, layer: nn.Module, shape: tuple[int, ...]):
        self.layer, self.seen = layer, nn.Parameter(shape, 0.0, trainable=False)
        self.scale = nn.Parameter((1,), 1.0)

    def forward(self, x: Value) -> Value:
        y = self.layer(x * self.scale)
        if x.graph.training:
            ops.store_state(y, self.seen)
        return y


def trained(
    layer: nn.Module, x: np.ndarray, size: int = 6, seed: int = 0, **options: Any
) -> tuple[np.ndarray, nn.Module]:
    """What a layer gives in a step of training that changes nothing."""
    model = Seen(layer, (*x.shape[:-1], size))
    step = fnn.compile(
        model, lambda y, _: y.sum(), optim.SGD(lr=0.0), dtype="float64", seed=seed, **options
    )
    step(x, x)
    return np.array(model.seen.value), model


def weights(layer: nn.Module) -> dict[str, np.ndarray]:
    return {name: np.array(p.value, np.float64) for name, p in layer.named_parameters().items()}


LAYERS: dict[str, tuple[Callable[[], nn.Module], np.ndarray]] = {
    "GaussianNoise": (lambda: nn.GaussianNoise(0.3), X),
    "AnnealedDropout": (lambda: nn.AnnealedDropout(0.3), X),
    "GaussianDropout": (lambda: nn.GaussianDropout(0.2), X),
    "SpatialDropout": (lambda: nn.SpatialDropout(0.3), STEPS),
    "DropConnect": (lambda: nn.DropConnect(6, 6, 0.4, nn.Tanh()), X),
    "DropConnect, a mask a sample": (
        lambda: nn.DropConnect(6, 6, 0.4, nn.Tanh(), masks="sample"),
        X,
    ),
    "Standout": (lambda: nn.Standout(nn.Tanh(), 0.7, 0.2), X),
    "StochasticDepth": (lambda: nn.StochasticDepth(nn.Linear(6, 6), 0.3), X),
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_same_bits_on_any_number_of_workers(name: str) -> None:
    make, x = LAYERS[name]
    first, _ = trained(make(), x, workers=1)
    other, _ = trained(make(), x, workers=3)
    assert first.tobytes() == other.tobytes()
    assert trained(make(), x, seed=1)[0].tobytes() != first.tobytes()


@pytest.mark.parametrize("name", LAYERS)
def test_gradients(name: str) -> None:
    """The same random numbers in every evaluation of the check."""
    make, x = LAYERS[name]
    model = Always(make())
    assert gradcheck(model, x[:5])


class Always(nn.Module):
    """A layer as it is in training, where it has random numbers."""

    def __init__(self, layer: nn.Module):
        self.layer = layer

    def forward(self, x: Value) -> Value:
        training, x.graph.training = x.graph.training, True
        try:
            return self.layer(x)
        finally:
            x.graph.training = training


def test_gaussian_noise() -> None:
    y, model = trained(nn.GaussianNoise(0.3), X)
    noise = y - X
    assert abs(noise.mean()) < 5 * 0.3 / np.sqrt(X.size)
    assert noise.std() == pytest.approx(0.3, rel=0.03)
    assert abs(np.corrcoef(noise[:, 0], noise[:, 1])[0, 1]) < 0.1
    np.testing.assert_array_equal(model.predict(X), X)


def test_gaussian_dropout() -> None:
    factors = trained(nn.GaussianDropout(0.2), X)[0] / X
    assert factors.mean() == pytest.approx(1.0, abs=0.03)
    assert factors.std() == pytest.approx(0.5, rel=0.03)  # sqrt(0.2 / 0.8)


def test_spatial_dropout_has_one_mask_for_all_steps() -> None:
    y, model = trained(nn.SpatialDropout(0.3), STEPS)
    factors = y / STEPS
    np.testing.assert_allclose(factors, np.broadcast_to(factors[:, :1], factors.shape))
    kept = factors[:, 0] > 0
    np.testing.assert_allclose(factors[:, 0][kept], 1 / 0.7)
    assert kept.mean() == pytest.approx(0.7, abs=0.05)
    np.testing.assert_array_equal(model.predict(STEPS), STEPS)


def test_drop_connect_in_training_has_one_mask_of_weights() -> None:
    layer = nn.DropConnect(6, 6, 0.4, bias=False)
    y, _ = trained(layer, X)
    used = np.linalg.lstsq(X, y, rcond=None)[0].T
    kept = np.abs(used) > 1e-9
    np.testing.assert_allclose(used[kept], weights(layer)["weight"][kept], atol=1e-9)
    assert 0.3 < kept.mean() < 0.9


@pytest.mark.parametrize("classic", [False, True])
@pytest.mark.parametrize("p", [0.2, 0.5])
def test_dropout_in_evaluation_is_the_average_of_sampled_nets(p: float, classic: bool) -> None:
    """Of a linear layer's outputs, within their standard error; and so the geometric mean of what
    softmax makes of them (Hinton et al. 2012)."""
    layer = nn.Sequential(nn.Dropout(p, classic=classic), nn.Linear(40, 3))
    rows, nets = RNG.normal(size=(4, 40)), 4000
    y, model = trained(layer, np.repeat(rows, nets, axis=0), size=3)
    linear = model.layer[1]  # type: ignore[attr-defined]
    w = weights(linear)["weight"]
    scale = 1.0 if classic else 1 / (1 - p)
    spread = scale * np.sqrt(p * (1 - p) * rows**2 @ (w**2).T)  # of one net's output
    means, found = y.reshape(4, nets, 3).mean(axis=1), layer.predict(rows)
    assert (np.abs(means - found) < 5 * spread / nets**0.5).all()
    np.testing.assert_allclose(y.reshape(4, nets, 3).std(axis=1), spread, rtol=0.08)

    def softmax(z: np.ndarray) -> np.ndarray:
        e: np.ndarray = np.exp(z - z.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)

    geometric = np.exp(np.log(softmax(y.reshape(4, nets, 3))).mean(axis=1))
    geometric /= geometric.sum(-1, keepdims=True)
    assert np.abs(geometric - softmax(found)).max() < 5 * spread.max() / nets**0.5


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Tanh()], ids=repr)
def test_drop_connect_in_evaluation_is_the_mean_over_masks(activation: nn.Module) -> None:
    layer = nn.DropConnect(40, 3, 0.5, activation, points=9)
    layer.store("float64")
    x, w = RNG.normal(size=(4, 40)), weights(layer)
    masks = RNG.random((40_000, 1, 40)) < 0.5
    z = np.einsum("nc,mc,kc->mnk", x, masks[:, 0], w["weight"]) + w["bias"]
    want = (np.maximum(z, 0) if isinstance(activation, nn.ReLU) else np.tanh(z)).mean(0)
    got = layer.predict(x)
    np.testing.assert_allclose(got, want, atol=0.02)
    layer.points = 0
    assert np.abs(layer.predict(x) - want).max() > 0.02  # the activation of the mean is another


def test_drop_connect_with_a_mask_for_each_sample_has_the_moments_of_such_masks() -> None:
    layer = nn.DropConnect(40, 3, 0.3, masks="sample")
    x = np.repeat(RNG.normal(size=(2, 40)), 4000, axis=0)
    y, model = trained(layer, x, size=3)
    w = weights(model.layer)
    for row, part in zip(x[::4000], y.reshape(2, 4000, 3), strict=True):
        mean = 0.7 * w["weight"] @ row + w["bias"]
        std = np.sqrt(0.3 * 0.7 * (w["weight"] ** 2 @ row**2))
        np.testing.assert_allclose(part.mean(axis=0), mean, atol=5 * std.max() / 4000**0.5)
        np.testing.assert_allclose(part.std(axis=0), std, rtol=0.06)
        assert abs(np.corrcoef(part.T)[0, 1]) < 0.08  # units have masks of their own


def test_drop_connect_of_an_input_of_zeros_has_finite_gradients() -> None:
    layer = nn.DropConnect(4, 2, 0.5, masks="sample")
    step = fnn.compile(layer, "mse", optim.SGD(lr=0.1), seed=1)
    step(np.zeros((3, 4), np.float32), np.ones((3, 2), np.float32))
    assert np.isfinite(layer.weight.value).all()


def test_standout() -> None:
    y, model = trained(nn.Standout(nn.Tanh(), 0.7, 0.2), X)
    keep = 1 / (1 + np.exp(-(0.7 * X + 0.2)))
    kept = y != 0
    np.testing.assert_allclose(y[kept], np.tanh(X)[kept])
    for low, high in ((0.0, 0.4), (0.4, 0.6), (0.6, 1.0)):
        some = (low <= keep) & (keep < high)
        assert kept[some].mean() == pytest.approx(keep[some].mean(), abs=0.03)
    np.testing.assert_allclose(model.predict(X), np.tanh(X) * keep, rtol=1e-6)


def test_stochastic_depth() -> None:
    layer = nn.StochasticDepth(nn.Linear(6, 6), 0.3)
    y, model = trained(layer, X)
    w = weights(layer)
    block = X @ w["block.weight"].T + w["block.bias"]
    shares = (y - X) / block
    np.testing.assert_allclose(shares, np.broadcast_to(shares[:, :1], shares.shape), atol=1e-6)
    around = np.abs(shares[:, 0]) < 1e-9
    assert around.mean() == pytest.approx(0.3, abs=0.04)
    np.testing.assert_allclose(shares[~around], 1 / 0.7, rtol=1e-6)
    np.testing.assert_allclose(model.predict(X), X + block, rtol=1e-6)


def test_random_numbers_have_no_gradient_and_the_right_moments() -> None:
    class Reparametrised(nn.Module):
        def __init__(self) -> None:
            self.mean, self.spread = nn.Linear(6, 4), nn.Linear(6, 4)

        def forward(self, x: Value) -> Value:
            mean = self.mean(x)
            return mean + ops.exp(self.spread(x)) * ops.normal_like(mean)

    assert gradcheck(Reparametrised(), X[:7])

    class Numbers(nn.Module):
        def forward(self, x: Value) -> Value:
            return ops.concatenate(ops.normal_like(x, 1.0, 2.0), ops.uniform_like(x, -1.0, 3.0))

    y = Numbers().predict(X)
    assert y[:, :6].mean() == pytest.approx(1.0, abs=0.05)
    assert y[:, :6].std() == pytest.approx(2.0, rel=0.03)
    assert y[:, 6:].mean() == pytest.approx(1.0, abs=0.05)
    assert -1 <= y[:, 6:].min() < y[:, 6:].max() <= 3
    y = Numbers().predict(X, batch_size=7)
    assert len(set(y[:, 0])) > 2900  # no batch has the numbers of another


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.GaussianNoise(-0.1), "std >= 0, got -0.1"),
        (lambda: nn.GaussianDropout(1.0), r"p in \[0, 1\), got 1.0"),
        (lambda: nn.SpatialDropout(1.0), r"p in \[0, 1\), got 1.0"),
        (lambda: nn.Dropout(1.0), r"Dropout: expected p in \[0, 1\), got 1.0"),
        (lambda: nn.AnnealedDropout(1.0), r"p in \[0, 1\), got 1.0"),
        (lambda: nn.LSTM(3, 2, num_layers=2, dropout=1.0), r"dropout in \[0, 1\), got 1.0"),
        (lambda: nn.DropConnect(3, 2, 1.0), r"p in \[0, 1\), got 1.0"),
        (lambda: nn.DropConnect(3, 2, points=-1), "points"),
        (
            lambda: nn.DropConnect(3, 2, masks="row"),
            "expected masks 'batch' or 'sample', got 'row'",
        ),
        (lambda: nn.StochasticDepth(nn.Linear(2, 2), -0.5), r"p in \[0, 1\)"),
        (lambda: nn.StochasticDepth(0.5), "expected a module as block, got 0.5"),
        (lambda: nn.Standout(alpha="high"), "alpha"),
    ],
)
def test_bad_options(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        make()


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.SpatialDropout(), r"three or more axes, got .\d+, 6."),
        (nn.DropConnect(5, 2), r"expected input of shape .batch, ..., 5., got .\d+, 6."),
        (nn.StochasticDepth(nn.Linear(6, 5)), r"shape .\d+, 6., got .\d+, 5."),
    ],
    ids=repr,
)
def test_bad_shapes(layer: nn.Module, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        layer.predict(X)


class Sampled(nn.Module):
    """Dropout in evaluation, too (Gal & Ghahramani 2016: a sample of the posterior)."""

    def __init__(self) -> None:
        self.layer = nn.Linear(6, 3)

    def forward(self, x: Value) -> Value:
        return ops.dropout(self.layer(x), 0.5)


def test_predictions_draw_anew() -> None:
    trainer = fnn.Trainer(Sampled(), "mse", optim.SGD(lr=0.01), device="cpu")
    y = RNG.normal(size=(3000, 3))
    trainer.fit(X, y, batch_size=100, verbose=False)  # such a model can be trained on batches
    assert trainer.evaluate(X, y, batch_size=7)["loss"] > 0
    first, second = (trainer.predict(X, batch_size=7) == 0 for _ in range(2))
    assert (first != second).any()
    assert first[:7].tobytes() != first[7:14].tobytes()  # each batch has numbers of its own
    assert first.mean() == pytest.approx(0.5, abs=0.05)


def test_a_rate_of_zero_draws_nothing() -> None:
    """So a method that must not meet random numbers takes it; the scale stays."""

    class Kept(Sampled):
        def forward(self, x: Value) -> Value:
            x = nn.GaussianDropout(0.0)(nn.GaussianNoise(0.0)(nn.Dropout(0.0)(x)))
            return ops.dropout(ops.dropout(self.layer(x), 0.0), 0.0, 3.0)

    trainer = fnn.Trainer(Kept(), "mse", optim.HessianFree(), dtype="float64")
    x, y = X[:50], RNG.normal(size=(50, 3))
    losses = trainer.fit(x, y, epochs=3, verbose=False)["loss"]
    w, b = np.array(trainer.model.layer.weight), np.array(trainer.model.layer.bias)
    np.testing.assert_allclose(trainer.predict(x), 3.0 * (x @ w.T + b), rtol=1e-12)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("rate", [-0.1, 1.5, float("nan"), "half"])
def test_wrong_rate_of_the_op(rate: Any) -> None:
    with pytest.raises(OptionError, match=r"dropout: expected (a rate in|rate to be a number)"):
        testing.apply(lambda x: ops.dropout(x, rate), X)
