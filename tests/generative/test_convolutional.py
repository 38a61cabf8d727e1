"""Convolutional halves of models of images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastnn import nn
from fastnn.errors import OptionError
from fastnn.generative import GAN, VAE, Autoencoder, conv_decoder, conv_encoder

RNG = np.random.default_rng(3)


@pytest.mark.peers
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 9, 14), (2, 4, 5)])
def test_both_halves_are_pytorchs(shape: tuple[int, int, int]) -> None:
    """The nets that DCGAN's authors give, with the same weights, in training mode."""
    torch = pytest.importorskip("torch")
    channels, latent = (4, 6), 5
    (c, h, w), smallest = shape, 6 * (shape[1] // 4) * (shape[2] // 4)
    window = dict(kernel_size=4, stride=2, padding=1)
    odd = [(h // 2 % 2, w // 2 % 2), (h % 2, w % 2)]
    down = torch.nn.Sequential(
        torch.nn.Conv2d(c, 4, **window), torch.nn.ReLU(),
        torch.nn.Conv2d(4, 6, **window), torch.nn.BatchNorm2d(6), torch.nn.ReLU(),
        torch.nn.Flatten(), torch.nn.Linear(smallest, latent),
    )  # fmt: skip
    up = torch.nn.Sequential(
        torch.nn.Linear(latent, smallest), torch.nn.Unflatten(1, (6, h // 4, w // 4)),
        torch.nn.BatchNorm2d(6), torch.nn.ReLU(),
        torch.nn.ConvTranspose2d(6, 4, **window, output_padding=odd[0]),
        torch.nn.BatchNorm2d(4), torch.nn.ReLU(),
        torch.nn.ConvTranspose2d(4, c, **window, output_padding=odd[1]),
    )  # fmt: skip
    hidden = [
        torch.nn.Sequential(torch.nn.Linear(n, 9), torch.nn.BatchNorm1d(9), torch.nn.ReLU())
        for n in (smallest, latent)
    ]
    deep_down = torch.nn.Sequential(*down[:-1], *hidden[0], torch.nn.Linear(9, latent))
    deep_up = torch.nn.Sequential(*hidden[1], torch.nn.Linear(9, smallest), *up[1:])
    pairs: list[tuple[nn.Module, Any, Any]] = [
        (conv_encoder(shape, channels, latent), down, RNG.normal(size=(7, *shape))),
        (conv_decoder(latent, channels, shape), up, RNG.normal(size=(7, latent))),
        (conv_encoder(shape, channels, latent, hidden=9), deep_down, RNG.normal(size=(7, *shape))),
        (conv_decoder(latent, channels, shape, hidden=9), deep_up, RNG.normal(size=(7, latent))),
    ]
    for ours, theirs, x in pairs:
        ours.to("float64")
        theirs.double().eval()
        ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
        with torch.no_grad():
            expected = theirs(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(ours.predict(x), expected, rtol=1e-10, atol=1e-12)


def test_models_train_with_the_same_bits_on_any_number_of_workers() -> None:
    x = RNG.random((40, 1, 9, 12), dtype=np.float32)

    def losses(workers: int) -> list[np.ndarray]:
        models: list[Any] = [
            GAN.dcgan((1, 9, 12), (4, 6), 5, discriminator_units=7, loss="hinge"),
            Autoencoder.convolutional((1, 9, 12), (4, 6), 5, sparsity=0.01),
            VAE.convolutional((1, 9, 12), (4, 6), 3, output="gaussian"),
        ]
        found = []
        for model in models:
            history = model.fit(
                x, epochs=2, batch_size=16, lr=1e-3, seed=1, workers=workers, verbose=False
            )
            found.append(np.array(history["loss"]))
        return found

    for one, two in zip(losses(1), losses(2), strict=True):
        assert np.isfinite(one).all()
        np.testing.assert_array_equal(one, two)


def test_codes_have_the_sizes_of_fully_connected_models() -> None:
    shape = (1, 8, 8)
    for model, flat, each in (
        (Autoencoder.convolutional(shape, (4,)), Autoencoder.mlp(64), 1),
        (VAE.convolutional(shape, (4,)), VAE.mlp(64), 2),
    ):
        last, other = list(model.encoder)[-1], list(flat.encoder)[-1]
        assert last.weight.shape[0] == other.weight.shape[0]
        assert model.decoder.layers[0].weight.shape[1] * each == last.weight.shape[0]


def test_dcgan_begins_with_small_weights_and_leaky_slopes() -> None:
    gan = GAN.dcgan((1, 28, 28), (16, 32), 20, output=nn.Tanh)
    state = gan.state_dict()
    spreads = [float(np.std(v)) for k, v in state.items() if v.ndim == 4]
    assert len(spreads) == 4
    assert all(0.015 < s < 0.025 for s in spreads)
    slopes = [layer for layer in gan.discriminator if isinstance(layer, nn.LeakyReLU)]
    assert len(slopes) == 2
    assert isinstance(gan.generator.layers[-1], nn.Tanh)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: conv_encoder((28, 28)), r"shape: expected \(C, H, W\), got \(28, 28\)"),
        (lambda: conv_encoder((1, 28, 28), ()), r"channels: expected channels of layers"),
        (lambda: conv_encoder((1, 28, 28), (4, 0)), r"got \(4, 0\)"),
        (lambda: conv_decoder(3, (4, 4, 4), (1, 28, 7)), "at least 8 rows and columns"),
        (lambda: conv_encoder((1, 8, 8), (4,), 0), "whole number of numbers"),
        (lambda: GAN.dcgan((1, 8, 8), (4,), 3, classes=-1), "classes to be a whole number >= 0"),
        (lambda: VAE.convolutional((1, 8, 8), (4,), 3, classes=2), "expected no classes"),
        (lambda: Autoencoder.convolutional((1, 8, 8), (4,), 0), "latent to be a whole number >= 1"),
    ],
)
def test_what_does_not_fit_is_refused(make: Any, told: str) -> None:
    with pytest.raises(OptionError, match=told):
        make()
