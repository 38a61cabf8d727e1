"""Models that make their trainer: a rate is the default optimiser's, and refused beside another."""

from __future__ import annotations

from typing import Any

import pytest

from fastnn import nn, optim, pretrain
from fastnn.errors import OptionError
from fastnn.generative import GAN, VAE, Autoencoder, WaveNet


def makers() -> dict[str, tuple[Any, float]]:
    """Each model, with the default rate of its trainer."""
    net = pretrain.DeepBeliefNet([4, 3, 2])
    return {
        "RBM": (pretrain.RBM(4, 3), 0.05),
        "UpDown": (pretrain.UpDown(net), 0.01),
        "DenoisingAutoencoder": (pretrain.DenoisingAutoencoder(4, 3), 1e-3),
        "Autoencoder": (Autoencoder(nn.Linear(4, 2), nn.Linear(2, 4)), 1e-3),
        "VAE": (VAE.mlp(4, [5], 2), 1e-3),
        "GAN": (GAN(nn.Linear(2, 4), nn.Linear(4, 1), 2), 2e-4),
        "WaveNet": (WaveNet(4, layers=1, cycle=1), 1e-3),
    }


@pytest.mark.parametrize("name", makers())
def test_a_rate_is_of_the_default_optimizer_alone(name: str) -> None:
    model, rate = makers()[name]
    assert model.trainer().optimizer.options["lr"] == rate
    assert model.trainer(lr=0.5).optimizer.options["lr"] == 0.5
    for optimizer in ("adam", optim.RMSprop(lr=0.1)):
        model.trainer(optimizer=optimizer)
        with pytest.raises(OptionError, match=rf"{name}.trainer: expected lr .*optim.Adam\(lr"):
            model.trainer(optimizer=optimizer, lr=0.5)


@pytest.mark.parametrize("given", [{"momentum": 0.0}, {"weight_decay": 0.0}])
def test_options_of_sgd_are_not_those_of_another(given: dict[str, float]) -> None:
    rbm = pretrain.RBM(4, 3)
    assert rbm.trainer(**given).optimizer.options.items() >= given.items()
    with pytest.raises(OptionError, match=next(iter(given))):
        rbm.trainer(optimizer="adam", **given)
