"""Autoencoders against formulas, finite differences and principal components."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, testing
from fastnn.errors import DataError, OptionError, ShapeError
from fastnn.generative import Autoencoder
from fastnn.generative.autoencoder import Reconstruction
from fastnn.train.unlabelled import mean_loss

RNG = np.random.default_rng(5)


def small(**options: Any) -> Autoencoder:
    model = Autoencoder.mlp(5, [6], 3, activation=nn.Tanh, **options)
    model.to("float64")
    rng = np.random.default_rng(0)
    for p in model.named_arrays().values():
        p.value = rng.normal(size=p.shape) * 0.6
    return model


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"output": "bernoulli"},
        {"corruption": 0.3},
        {"sparsity": 0.2},
        {"contraction": 0.3},
        {"contraction": 0.3, "corruption": 0.3, "output": "bernoulli"},
    ],
    ids=str,
)
def test_gradients(options: dict[str, Any]) -> None:
    class Loss(nn.Module):  # without what is shown alone
        def __init__(self) -> None:
            self.inner = Reconstruction(small(**options))

        def forward(self, x: Any) -> Any:
            return self.inner(x)["loss"]

    assert testing.gradcheck(Loss(), RNG.random((4, 5)))


def test_loss_and_error() -> None:
    x = RNG.random((7, 5))
    for output in ("gaussian", "bernoulli"):
        model = small(output=output)
        z = model.decoder.predict(model.encode(x))
        mean = z if output == "gaussian" else 1 / (1 + np.exp(-z))
        np.testing.assert_allclose(model.reconstruct(x), mean, rtol=1e-12)
        np.testing.assert_allclose(model.decode(model.encode(x)), mean, rtol=1e-12)
        if output == "gaussian":
            rows = 0.5 * ((x - z) ** 2).sum(axis=1) + 2.5 * np.log(2 * np.pi)
        else:
            rows = -(x * np.log(mean) + (1 - x) * np.log(1 - mean)).sum(axis=1)
        history = model.fit(x, epochs=1, batch_size=7, lr=0.0, dtype="float64", verbose=False)
        assert history["loss"][0] == pytest.approx(rows.mean(), rel=1e-12)
        assert history["reconstruction_error"][0] == pytest.approx(((x - mean) ** 2).mean())


def test_what_is_damaged_is_to_be_restored() -> None:
    """A net that hands its input on misses what was set to 0, and nothing else; evaluation damages
    nothing and has no penalty."""
    x = RNG.uniform(0.5, 1.5, (500, 8))
    same = nn.Linear(8, 8, bias=False)
    same.weight.value = np.eye(8)
    model = Autoencoder(nn.Identity(), same, corruption=0.25)
    seen = model.trainer(lr=0.0, dtype="float64").fit(
        x, epochs=1, batch_size=500, validation=(x, x), verbose=False
    )
    least, half = 4.0 * np.log(2.0 * np.pi), 0.5 * (x**2).sum(axis=1).mean()
    assert seen["loss"][0] - least == pytest.approx(0.25 * half, rel=0.1)
    assert seen["val_loss"][0] == pytest.approx(least)
    pressed = Autoencoder(nn.Identity(), same, sparsity=2.0)
    seen = pressed.trainer(lr=0.0, dtype="float64").fit(
        x, epochs=1, batch_size=500, validation=(x, x), verbose=False
    )
    assert seen["loss"][0] - least == pytest.approx(2.0 * x.sum(axis=1).mean())
    assert seen["val_loss"][0] == pytest.approx(least)


def test_contraction_is_the_jacobians_norm_on_average() -> None:
    x = RNG.random((3, 5))
    model = small(contraction=1.0)
    step = fnn.compile(Reconstruction(model), mean_loss, "sgd", dtype="float64", seed=2)
    step.optimizer.options["lr"] = 0.0
    step.learning_rate = 0.0
    found = np.mean([step(x) for _ in range(3000)])
    plain = step.evaluate(x)  # in evaluation there is none
    hidden = np.tanh(x @ model.encoder[0].weight.value.T + model.encoder[0].bias.value)
    first, second = model.encoder[0].weight.value, model.encoder[2].weight.value
    norms = [np.square(second @ np.diag(1 - h**2) @ first).sum() for h in hidden]
    assert found - plain == pytest.approx(np.mean(norms), rel=0.05)


def test_contraction_counts_what_corruption_leaves_out() -> None:
    """Of the encoder at the damaged input; a decoder of zeros leaves the reconstruction alone."""
    x = RNG.uniform(0.5, 1.5, (500, 8))
    encoder, decoder = (nn.Linear(8, 8, bias=False) for _ in range(2))
    encoder.weight.value, decoder.weight.value = np.eye(8), np.zeros((8, 8))
    model = Autoencoder(encoder, decoder, corruption=0.5, contraction=1.0)
    seen = model.fit(x, epochs=1, batch_size=500, lr=0.0, dtype="float64", verbose=False)
    plain = 4.0 * np.log(2.0 * np.pi) + 0.5 * (x**2).sum(axis=1).mean()
    assert seen["loss"][0] - plain == pytest.approx(8.0, rel=0.1)  # the identity's squared norm


def test_sparsity_makes_codes_small() -> None:
    x = RNG.random((200, 5)).astype(np.float32)
    sizes = []
    for sparsity in (0.0, 1.0):
        model = Autoencoder.mlp(5, [16], 4, sparsity=sparsity)
        model.fit(x, epochs=20, batch_size=20, lr=0.01, verbose=False)
        sizes.append(np.abs(model.encode(x)).mean())
    assert sizes[1] < 0.1 * sizes[0]


def test_linear_autoencoder_finds_the_principal_components() -> None:
    """Its error is that of PCA with as many components (Baldi & Hornik 1989)."""
    x = (
        RNG.normal(size=(500, 6))
        @ np.diag([3.0, 2.0, 1.0, 0.3, 0.2, 0.1])
        @ RNG.normal(size=(6, 6))
    )
    x = (x - x.mean(axis=0)) / x.std()
    values = np.linalg.svd(x, compute_uv=False)
    best = (values[2:] ** 2).sum() / x.size
    model = Autoencoder.mlp(6, [], 2)
    history = model.fit(x, epochs=150, batch_size=50, lr=0.01, validation=x, verbose=False)
    assert best <= history["val_reconstruction_error"][-1] * 1.0001
    assert history["val_reconstruction_error"][-1] < 1.1 * best


@pytest.mark.parametrize("options", [{"corruption": 0.4}, {"contraction": 0.1}], ids=str)
def test_same_bits_on_any_number_of_workers(options: dict[str, Any]) -> None:
    x = RNG.random((61, 5)).astype(np.float32)
    states = []
    for workers in (1, 2, 3):
        model = Autoencoder.mlp(5, [16], 3, **options)
        model.fit(x, epochs=3, batch_size=16, workers=workers, verbose=False)
        states.append(model.state_dict())
    for state in states[1:]:
        for name, array in state.items():
            np.testing.assert_array_equal(array, states[0][name])


def test_what_was_learned_without_labels_starts_a_classifier() -> None:
    x = RNG.random((64, 5)).astype(np.float32)
    model = Autoencoder.mlp(5, [16], 4)
    model.fit(x, epochs=1, verbose=False)
    before = model.encoder[0].weight.value.copy()
    classifier = nn.Sequential(model.encoder, nn.Linear(4, 2))
    np.testing.assert_array_equal(classifier[0][0].weight.value, before)
    trainer = fnn.Trainer(classifier, "cross_entropy")
    trainer.fit(x, (x[:, 0] > 0.5).astype(int), epochs=1, verbose=False)
    assert (classifier[0][0].weight.value != before).any()


def test_bad_options_and_data() -> None:
    with pytest.raises(OptionError, match=r"corruption in \[0, 1\)"):
        Autoencoder.mlp(4, corruption=1.0)
    with pytest.raises(OptionError, match="sparsity and contraction >= 0"):
        Autoencoder.mlp(4, contraction=-0.1)
    with pytest.raises(DataError, match=r"within 0\.\.1"):
        Autoencoder.mlp(4, output="bernoulli").fit(np.full((8, 4), 3.0), verbose=False)
    with pytest.raises(ShapeError, match="data's shape"):
        Autoencoder(nn.Linear(4, 2), nn.Linear(2, 3)).fit(np.zeros((8, 4)), verbose=False)


def test_a_share_of_the_data_is_held_out() -> None:
    x = np.random.default_rng(0).random((40, 6)).astype(np.float32)
    shared, given = (Autoencoder.mlp(6, hidden=[5], latent=2) for _ in range(2))
    options: dict[str, Any] = {"epochs": 2, "batch_size": 8, "verbose": False}
    history = shared.fit(x, validation=0.2, **options)
    assert dict(history) == dict(given.fit(x[:32], validation=x[32:], **options))
