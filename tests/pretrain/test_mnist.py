"""Pre-training on MNIST, where it is: short runs."""

from __future__ import annotations

import numpy as np
import pytest

from fastnn.data import load_mnist, sources
from fastnn.pretrain import RBM, StackedDenoisingAutoencoder
from tests.data.test_sets import real


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """5,000 training and 1,000 other images as rows."""
    real(sources.MNIST)
    (train, _), (test, _) = load_mnist()
    return train[:5000].reshape(-1, 784), test[:1000].reshape(-1, 784)


@pytest.mark.parametrize("chains", [0, 50])
def test_reconstruction_and_free_energy(digits: tuple[np.ndarray, np.ndarray], chains: int) -> None:
    train, test = digits
    rbm = RBM(784, 64)
    history = rbm.fit(
        train, epochs=5, batch_size=50, lr=0.05, chains=chains, validation=test, verbose=False
    )
    error = np.square(rbm.reconstruct(test) - test).mean()
    assert error < 0.04  # the images' variance around their mean is 0.064
    assert history["val_reconstruction_error"][-1] < 0.045
    gap = rbm.free_energy_gap(train, test)
    assert abs(gap) < 10  # nothing is overfitted after so few steps
    assert rbm.pseudo_log_likelihood(test).mean() > -160  # -543 before


def test_estimated_partition_function(digits: tuple[np.ndarray, np.ndarray]) -> None:
    """Of a machine small enough for the exact one. (One that chains start anew for, from the data,
    gets modes far from them, which annealing misses.)"""
    train, test = digits
    rbm = RBM(784, 12)
    rbm.fit(train, epochs=3, batch_size=20, lr=0.05, chains=100, verbose=False)
    found = rbm.estimate_log_partition(runs=100, temperatures=1000, base=train)
    exact = rbm.log_partition()
    assert abs(found.log_z - exact) < 0.5
    assert rbm.log_likelihood(test, exact).mean() > -230  # uniform: -543


def test_denoising_stack(digits: tuple[np.ndarray, np.ndarray]) -> None:
    train, test = digits
    stack = StackedDenoisingAutoencoder([784, 64, 32], 0.2)
    stack.fit(train, epochs=3, batch_size=50, lr=0.003, verbose=False)
    first = stack.layers[0]
    assert np.square(first.reconstruct(test) - test).mean() < 0.045
    assert stack.transform(test).shape == (1000, 32)
