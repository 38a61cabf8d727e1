"""The variational autoencoder against exact marginals, finite differences and formulas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastnn import nn, testing
from fastnn.errors import DataError, OptionError, ShapeError
from fastnn.generative import VAE, Joined
from fastnn.generative.vae import Bound

RNG = np.random.default_rng(3)
FEATURES, LATENT, STD = 5, 2, 0.7


def linear_model() -> tuple[VAE, np.ndarray, np.ndarray]:
    """A VAE whose posterior is exact: x = W z + b + noise, W's columns at right angles.

    Also data, and their exact log likelihood.
    """
    basis, _ = np.linalg.qr(RNG.normal(size=(FEATURES, LATENT)))
    weight, bias = basis * np.array([1.5, 0.4]), RNG.normal(size=FEATURES)
    precision = 1.0 + (weight**2).sum(axis=0) / STD**2
    vae = VAE(
        nn.Linear(FEATURES, 2 * LATENT), nn.Linear(LATENT, FEATURES), LATENT, "gaussian", std=STD
    )
    vae.to("float64")
    back = (weight / STD**2 / precision).T  # to the posterior's mean
    vae.encoder.weight.value = np.concatenate([back, np.zeros((LATENT, FEATURES))])
    vae.encoder.bias.value = np.concatenate([-back @ bias, -np.log(precision)])
    vae.decoder.weight.value, vae.decoder.bias.value = weight, bias
    x = RNG.normal(size=(37, LATENT)) @ weight.T + bias + STD * RNG.normal(size=(37, FEATURES))
    covariance = weight @ weight.T + STD**2 * np.eye(FEATURES)
    apart = x - bias
    exact = -0.5 * (
        (apart @ np.linalg.inv(covariance) * apart).sum(axis=1)
        + np.linalg.slogdet(covariance)[1]
        + FEATURES * np.log(2 * np.pi)
    )
    return vae, x, exact


def test_with_the_exact_posterior_every_draw_weighs_the_likelihood() -> None:
    vae, x, exact = linear_model()
    for draws in (1, 3):
        assert vae.bound(x, draws=draws) == pytest.approx(exact.mean(), rel=1e-9)
    several = VAE(vae.encoder, vae.decoder, LATENT, "gaussian", std=STD, draws=4)
    assert several.bound(x, draws=6, batch_size=10) == pytest.approx(exact.mean(), rel=1e-9)


def test_more_draws_come_nearer_to_the_likelihood() -> None:
    vae, x, exact = linear_model()
    vae.encoder.bias.value = vae.encoder.bias.value + 0.4
    bounds = [vae.bound(x, draws=k) for k in (1, 8, 4000)]
    assert bounds[0] < bounds[1] < bounds[2]
    assert bounds[2] == pytest.approx(exact.mean(), abs=0.03)
    # with one draw it is, on average, short of it by the divergence of the posteriors
    terms = np.mean([vae.bound(x, seed=s) for s in range(200)])
    assert terms == pytest.approx(exact.mean() - _posteriors_apart(vae), abs=0.05)


def _posteriors_apart(vae: VAE) -> float:
    """KL of the shifted q and the exact posterior: the shift is 0.4 in mean and log variance."""
    variance = np.exp(vae.encoder.bias.value[LATENT:] - 0.4)
    return float((0.5 * (np.exp(0.4) + 0.4**2 / variance - 1.0 - 0.4)).sum())


def small(**options: Any) -> VAE:
    vae = VAE.mlp(4, [6], 3, activation=nn.Tanh, **options)
    vae.to("float64")
    rng = np.random.default_rng(0)
    for p in vae.named_arrays().values():
        p.value = rng.normal(size=p.shape) * 0.5
    return vae


@pytest.mark.parametrize("output", ["bernoulli", "gaussian"])
def test_the_parts_of_the_bound(output: str) -> None:
    """By formulas in NumPy, from the codes that were drawn."""
    vae = small(output=output, std=0.6) if output == "gaussian" else small()
    x = RNG.random((9, 4))

    class Shown(nn.Module):
        def __init__(self) -> None:
            self.vae = vae

        def forward(self, x: Any) -> Any:
            terms = Bound(self.vae)(x)
            return terms["loss"], terms["reconstruction"], terms["divergence"]

    loss, apart, divergence = Shown().predict(x)
    hidden = np.tanh(x @ vae.encoder[0].weight.value.T + vae.encoder[0].bias.value)
    code = hidden @ vae.encoder[2].weight.value.T + vae.encoder[2].bias.value
    mu, log_var = code[:, :3], code[:, 3:]
    wanted = 0.5 * (mu**2 + np.exp(log_var) - 1 - log_var).sum(axis=1)
    np.testing.assert_allclose(divergence, wanted, rtol=1e-12)
    np.testing.assert_allclose(loss, apart + divergence, rtol=1e-12)
    np.testing.assert_allclose(vae.encode(x), mu, rtol=1e-12)
    np.testing.assert_allclose(vae.reconstruct(x), vae.decode(mu), rtol=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"beta": 3.0},
        {"free_bits": 0.1},
        {"draws": 3},
        {"output": "gaussian", "std": 0.5},
        {"classes": 2},
        {"classes": 2, "draws": 2},
    ],
    ids=str,
)
def test_gradients(options: dict[str, Any]) -> None:
    vae = small(**options)
    x = RNG.random((5, 4))
    given = (x, np.arange(5) % 2) if options.get("classes") else (x,)

    class Loss(nn.Module):  # without what is shown alone
        def __init__(self) -> None:
            self.inner = Bound(vae)

        def forward(self, *given: Any) -> Any:
            return self.inner(*given)["loss"]

    assert testing.gradcheck(Loss(), *given)


def still(mu: Any, log_var: Any, inputs: int = 3) -> nn.Linear:
    """An encoder that gives every sample the same distribution."""
    encoder = nn.Linear(inputs, 2 * len(mu))
    encoder.to("float64")
    encoder.weight.value, encoder.bias.value = 0.0 * encoder.weight.value, [*mu, *log_var]
    return encoder


def test_codes_are_drawn_with_the_variance_that_the_encoder_gives() -> None:
    """The decoder hands the codes on; data are their means, so what is apart is what was drawn."""
    mu, log_var = [0.5, -1.0, 2.0], [-2.0, 0.0, 1.0]
    vae = VAE(still(mu, log_var), nn.Identity(), 3, output="gaussian")
    x = np.tile(mu, (8000, 1))
    history = vae.fit(x, epochs=1, batch_size=8000, dtype="float64", lr=0.0, verbose=False)
    apart = 2.0 * (history["reconstruction"][0] - 1.5 * np.log(2.0 * np.pi))
    assert apart == pytest.approx(np.exp(log_var).sum(), rel=0.05)


def test_free_bits_are_of_the_batchs_average() -> None:
    """Some samples lie above and some below; the average of a number of the code does not."""
    x = RNG.normal(size=(40, 4)) * 3
    vae = small(output="gaussian", free_bits=0.4)
    hidden = np.tanh(x @ vae.encoder[0].weight.value.T + vae.encoder[0].bias.value)
    code = hidden @ vae.encoder[2].weight.value.T + vae.encoder[2].bias.value
    each = 0.5 * (code[:, :3] ** 2 + np.exp(code[:, 3:]) - 1 - code[:, 3:])
    assert ((each.min(0) < 0.4) & (each.max(0) > 0.4)).any()
    history = vae.fit(x, epochs=1, batch_size=40, dtype="float64", lr=0.0, verbose=False)
    wanted = history["reconstruction"][0] + np.maximum(each.mean(0), 0.4).sum()
    assert history["loss"][0] == pytest.approx(wanted, rel=1e-9)


def test_each_draw_is_decoded_with_its_own_samples_class() -> None:
    """The decoder sees the class alone, and posterior and prior are the same: all draws weigh what
    the class says; the loss of several draws is the bound's."""

    class OfClass(nn.Module):
        def __init__(self) -> None:
            self.table = nn.Linear(3, 2, bias=False)

        def forward(self, z: Any, y: Any) -> Any:
            return self.table(y)

    class Code(nn.Module):
        def __init__(self) -> None:
            self.inner = still([0.0] * 2, [0.0] * 2, 2)

        def forward(self, x: Any, y: Any) -> Any:
            return self.inner(x)

    decoder, x, y = OfClass(), RNG.random((7, 2)), np.arange(7) % 3
    decoder.to("float64")
    decoder.table.weight.value = RNG.normal(size=(2, 3))
    vae = VAE(Code(), decoder, 2, draws=3, classes=3)
    z = decoder.table.weight.value.T[y]
    wanted = (x * z - np.logaddexp(0.0, z)).sum(axis=1).mean()
    assert vae.bound(x, y, draws=3) == pytest.approx(wanted, rel=1e-9)
    history = vae.fit(x, y, epochs=1, batch_size=7, dtype="float64", lr=0.0, verbose=False)
    assert history["loss"][0] == pytest.approx(-wanted, rel=1e-9)


def test_beta_and_free_bits_count_in_training_only() -> None:
    x = RNG.random((20, 4))
    plain, heavy, free = small(), small(beta=5.0), small(free_bits=100.0)
    for one in (heavy, free):
        assert one.bound(x) == plain.bound(x)
    losses = []
    for vae in (plain, heavy, free):
        history = vae.fit(x, epochs=1, batch_size=20, dtype="float64", lr=0.0, verbose=False)
        losses.append({name: history[name][0] for name in history})
    parts = losses[0]["reconstruction"], losses[0]["divergence"]
    assert losses[0]["loss"] == pytest.approx(sum(parts))
    assert losses[1]["loss"] == pytest.approx(parts[0] + 5 * parts[1])
    assert losses[2]["loss"] == pytest.approx(parts[0] + 3 * 100)


@pytest.mark.parametrize("options", [{}, {"draws": 3}, {"classes": 3}], ids=str)
def test_same_bits_on_any_number_of_workers_and_after_a_resume(
    options: dict[str, Any], tmp_path: Path
) -> None:
    x = RNG.random((67, 4)).astype(np.float32)
    y = np.arange(67) % 3 if options.get("classes") else None
    states = []
    for workers in (1, 2, 3):
        vae = VAE.mlp(4, [16], 2, **options)
        vae.fit(x, y, epochs=4, batch_size=16, workers=workers, verbose=False)
        states.append(vae.state_dict())
    vae = VAE.mlp(4, [16], 2, **options)
    trainer = vae.trainer()
    inputs = x if y is None else (x, y)
    trainer.fit(inputs, x, epochs=2, batch_size=16, verbose=False)
    trainer.save(tmp_path / "half")
    again = VAE.mlp(4, [16], 2, **options)
    again.fit(x, y, epochs=4, batch_size=16, resume=tmp_path / "half", verbose=False)
    states.append(again.state_dict())
    for state in states[1:]:
        for name, array in state.items():
            np.testing.assert_array_equal(array, states[0][name])


def test_a_condition_is_used() -> None:
    """Class 0 and class 1 are mirror images; the code need not tell them."""
    y = np.arange(400) % 2
    x = np.where(y[:, None] == 0, [0.9, 0.1], [0.1, 0.9]).astype(np.float32)
    vae = VAE.mlp(2, [16], 1, classes=2)
    vae.fit(x, y, epochs=60, batch_size=40, lr=0.01, validation=(x, y), verbose=False)
    made = vae.sample(10, y=1, seed=4)
    assert (made[:, 1] > 0.7).all()
    assert (made[:, 0] < 0.3).all()
    np.testing.assert_array_equal(vae.sample(4, y=[0, 1, 1, 0]).argmax(axis=1), [0, 1, 1, 0])


def test_samples_are_those_of_a_seed() -> None:
    vae = VAE.mlp(4, [8], 2)
    np.testing.assert_array_equal(vae.sample(5, seed=1), vae.sample(5, seed=1))
    assert (vae.sample(5, seed=1) != vae.sample(5, seed=2)).any()


def test_images_of_any_shape() -> None:
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(6, 4))
    decoder = nn.Sequential(nn.Linear(2, 6), nn.Reshape(2, 3))
    vae = VAE(encoder, decoder, 2, draws=2)
    x = RNG.random((10, 2, 3)).astype(np.float32)
    vae.fit(x, epochs=1, validation=x, verbose=False)
    assert vae.sample(3).shape == (3, 2, 3)
    assert np.isfinite(vae.bound(x))


def test_bad_options_and_data() -> None:
    with pytest.raises(OptionError, match="beta and free_bits >= 0"):
        VAE.mlp(4, beta=-1.0)
    with pytest.raises(OptionError, match="several draws"):
        VAE.mlp(4, draws=2, free_bits=0.5)
    with pytest.raises(OptionError, match="'bernoulli' or 'gaussian'"):
        VAE.mlp(4, output="poisson")
    with pytest.raises(OptionError, match="std"):
        VAE.mlp(4, output="gaussian", std=0.0)
    with pytest.raises(OptionError, match="std"):
        VAE.mlp(4, output="gaussian", std="one")
    with pytest.raises(OptionError, match="hidden: expected units of layers"):
        VAE.mlp(4, 8)  # type: ignore[arg-type]
    vae = VAE.mlp(4)
    with pytest.raises(DataError, match=r"within 0\.\.1"):
        vae.fit(np.full((8, 4), 255.0), verbose=False)
    with pytest.raises(DataError, match=r"within 0\.\.1"):
        vae.bound(np.full((8, 4), -1.0))
    with pytest.raises(DataError, match=r"within 0\.\.1"):
        vae.fit([[0.5, 0.5, 0.5, 3.0]], verbose=False)
    with pytest.raises(DataError, match="at least one sample, got none"):
        vae.bound(np.zeros((0, 4)))
    with pytest.raises(DataError, match="got NaN"):
        VAE.mlp(4, output="gaussian").bound(np.full((8, 4), np.nan))
    with pytest.raises(OptionError, match="seed"):
        vae.bound(np.zeros((8, 4)), seed=-1)
    with pytest.raises(ShapeError, match="no class numbers"):
        vae.fit(np.zeros((8, 4)), np.zeros(8, int), verbose=False)
    conditional = VAE.mlp(4, classes=2)
    x, y = np.zeros((8, 4)), np.zeros(8, int)
    with pytest.raises(DataError, match=r"validation: expected numbers within 0\.\.1"):
        conditional.fit(x, y, validation=(x + 2, y), verbose=False)
    with pytest.raises(DataError, match="a pair"):
        conditional.fit(x, y, validation=x, verbose=False)
    with pytest.raises(ShapeError, match="class numbers below 2"):
        conditional.encode(np.zeros((8, 4)))
    with pytest.raises(DataError, match=r"0\.\.1"):
        conditional.fit(np.zeros((8, 4)), np.full(8, 2), verbose=False)
    with pytest.raises(DataError, match="a class number, or 3"):
        conditional.sample(3, y=[1, 0])
    with pytest.raises(ShapeError, match="mean and log variance"):
        VAE(nn.Linear(4, 3), nn.Linear(2, 4), 2).encode(np.zeros((8, 4)))
    with pytest.raises(ShapeError, match="data's shape"):
        VAE(nn.Linear(4, 4), nn.Linear(2, 3), 2).bound(np.zeros((8, 4)))
    with pytest.raises(ShapeError, match="condition"):
        Joined(nn.Linear(4, 2)).predict(np.zeros((3, 2)), np.zeros(3, np.float32))
