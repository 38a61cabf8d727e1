"""Regularisers on the device (or in the simulator) beside the CPU's, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import callbacks, nn, optim

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(5, 3)), RNG.normal(size=(5, 2))
SEQUENCES, STEPS = RNG.normal(size=(3, 2, 3)), RNG.normal(size=(3, 2, 2))


def both(make: Any, x: Any, y: Any, optimizer: Any = optim.Adam, calls: Any = (), **more: Any):
    found = []
    for device in ("cpu", "cuda"):
        trainer = fnn.Trainer(make(), "mse", optimizer(), device=device, dtype="float64", **more)
        trainer.fit(x, y, epochs=1, batch_size=3, verbose=False, callbacks=calls)
        found.append(trainer.get_parameters())
    for name, value in found[0].items():
        np.testing.assert_allclose(found[1][name], value, rtol=1e-9, atol=1e-12, err_msg=name)


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.AnnealedDropout(0.3), nn.Linear(4, 2))


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: optim.Adam(lr=0.1, max_norm=0.5, proximal_l1=0.1),
        lambda: optim.VSGD(initial=1),
        lambda: optim.VSGDfd(initial=1),
        lambda: optim.AdaSecant(),
        lambda: optim.SGD(lr=0.1, gradient_noise=0.3, max_norm=0.5, clip_norm=0.1),
        lambda: optim.LAMB(lr=0.1, gradient_noise=0.3, proximal_l1=0.1, accumulate=2),
    ],
)
def test_beside_an_update(optimizer: Any) -> None:
    both(net, X, Y, optimizer)


def test_dropout_penalties_and_mixup() -> None:
    penalties = [nn.ElasticNetPenalty(0.01, 0.02), nn.OrthogonalPenalty(0.03)]
    both(net, X, Y, calls=[callbacks.AnnealDropout(3)], mixup=0.3, penalties=penalties)


def test_zoneout_and_weight_drop() -> None:
    def made() -> nn.Module:
        return nn.Sequential(nn.LSTM(3, 4, zoneout=0.2, weight_drop=0.3), nn.Linear(4, 2))

    both(made, SEQUENCES, STEPS)
