"""Pre-training and layers that normalise, on the device (or in the simulator) beside the CPU's, in
float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn
from fastnn.pretrain import RBM, DeepBeliefNet, DenoisingAutoencoder, UpDown

RNG = np.random.default_rng(0)
X = RNG.random((5, 3))


def both(make: Any, **options: Any) -> None:
    found = []
    for device in ("cpu", "cuda"):
        module = make()
        trainer = module.trainer(device=device, dtype="float64", **options)
        history = trainer.fit(X, epochs=1, batch_size=3, verbose=False)
        found.append({**trainer.get_parameters(), **history, "h": module.transform(X)})
    for name, value in found[0].items():
        np.testing.assert_allclose(found[1][name], value, rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("options", [{"k": 2}, {"chains": 2, "sparsity": 0.2}], ids=str)
@pytest.mark.parametrize("units", ["bernoulli", "gaussian"])
def test_boltzmann_machine(units: str, options: dict[str, Any]) -> None:
    both(lambda: RBM(3, 2, units), **options)


def test_up_down() -> None:
    both(lambda: UpDown(DeepBeliefNet([3, 2, 2])), k=1)


def test_denoising() -> None:
    both(lambda: DenoisingAutoencoder(3, 2, 0.4, "salt_pepper"))


def test_samples_and_energies() -> None:
    found = []
    for device in ("cpu", "cuda"):
        rbm = RBM(3, 2).to("float64").to(device)
        found.append((rbm.sample(4, 3, seed=1), rbm.free_energy(X), rbm.reconstruct(X)))
    for cpu, cuda in zip(*found, strict=True):
        np.testing.assert_allclose(cuda, cpu, rtol=1e-9)


def test_normalising() -> None:
    found = []
    for device in ("cpu", "cuda"):
        layers = [nn.Standardize(3), nn.MinMaxScale(3, clip=True), nn.RobustScale(3)]
        layers += [nn.Whiten(3), nn.UnitNorm()]
        for layer in layers[:-1]:
            layer.adapt(X)
        net = nn.Sequential(*layers, nn.Linear(3, 2))
        trainer = fnn.Trainer(net, "mse", device=device, dtype="float64")
        trainer.fit(X, X[:, :2], epochs=1, batch_size=3, verbose=False)
        found.append((net.predict(X), trainer.evaluate(X, X[:, :2])["loss"]))
    for cpu, cuda in zip(*found, strict=True):
        np.testing.assert_allclose(cuda, cpu, rtol=1e-9)
