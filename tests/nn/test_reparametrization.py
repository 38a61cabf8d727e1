"""Weights with their length apart or limited, beside PyTorch's."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, testing
from fastnn.errors import OptionError

RNG = np.random.default_rng(2)
X = RNG.normal(size=(9, 5))


def wrapped(kind: str, **options: Any) -> Any:
    layer = nn.Linear(5, 4)
    return nn.WeightNorm(layer) if kind == "weight" else nn.SpectralNorm(layer, **options)


@pytest.mark.peers
def test_weight_norm_is_pytorchs() -> None:
    torch = pytest.importorskip("torch")
    ours = wrapped("weight")
    ours.to("float64")
    for p in ours.named_arrays().values():
        p.value = RNG.normal(size=p.shape)
    theirs = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(5, 4).double())
    given = theirs.parametrizations.weight
    with torch.no_grad():
        given.original0.copy_(torch.tensor(ours.gain.value[:, None]))
        given.original1.copy_(torch.tensor(np.array(ours.layer.weight.value)))
        theirs.bias.copy_(torch.tensor(np.array(ours.layer.bias.value)))
    target = RNG.normal(size=(9, 4))
    loss = torch.nn.functional.mse_loss(theirs(torch.tensor(X)), torch.tensor(target))
    loss.backward()
    found = fnn.compile(ours, "mse", dtype="float64").gradients(X, target)
    np.testing.assert_allclose(ours.predict(X), theirs(torch.tensor(X)).detach(), rtol=1e-12)
    np.testing.assert_allclose(found["gain"], given.original0.grad[:, 0], rtol=1e-10)
    np.testing.assert_allclose(found["layer.weight"], given.original1.grad, rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(found["layer.bias"], theirs.bias.grad, rtol=1e-10)


@pytest.mark.peers
@pytest.mark.parametrize("iterations", [1, 3])
def test_spectral_norm_is_pytorchs(iterations: int) -> None:
    """Over several steps, in which the vectors go on; and in evaluation."""
    torch = pytest.importorskip("torch")
    ours = wrapped("spectral", iterations=iterations)
    ours.to("float64")
    for p in ours.named_parameters().values():
        p.value = RNG.normal(size=p.shape)
    theirs = torch.nn.Linear(5, 4).double()
    with torch.no_grad():
        theirs.weight.copy_(torch.tensor(np.array(ours.layer.weight.value)))
        theirs.bias.copy_(torch.tensor(np.array(ours.layer.bias.value)))
    theirs = torch.nn.utils.parametrizations.spectral_norm(theirs, n_power_iterations=iterations)
    part = theirs.parametrizations.weight
    ours.u.value, ours.v.value = part[0]._u.numpy(), part[0]._v.numpy()
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1)
    step = fnn.compile(ours, "mse", fnn.optim.SGD(lr=0.1), dtype="float64")
    for _ in range(4):
        target = RNG.normal(size=(9, 4))
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(theirs(torch.tensor(X)), torch.tensor(target))
        loss.backward()
        optimizer.step()
        assert step(X, target) == pytest.approx(loss.item(), rel=1e-10)
    np.testing.assert_allclose(ours.layer.weight.value, part.original.detach(), rtol=1e-9)
    np.testing.assert_allclose(ours.u.value, part[0]._u, rtol=1e-9)


@pytest.mark.parametrize("kind", ["weight", "spectral"])
def test_gradients(kind: str) -> None:
    """In evaluation the spectral vectors stand still, so differences mean something where u is the
    singular vector itself."""
    model = wrapped(kind)
    model.to("float64")
    for p in model.named_parameters().values():
        p.value = RNG.normal(size=p.shape)
    if kind == "spectral":
        left, _, right = np.linalg.svd(model.layer.weight.value)
        model.u.value, model.v.value = left[:, 0], right[0]
    assert testing.gradcheck(model, X, training=False)


def test_spectral_norm_finds_the_largest_singular_value() -> None:
    model = wrapped("spectral")
    step = fnn.compile(model, "mse", fnn.optim.SGD(lr=0.0))
    x = X.astype(np.float32)
    for _ in range(200):
        step(x, x[:, :4])
    weight = model.layer.weight.value
    mapped = model.predict(np.eye(5, dtype=np.float32)) - model.layer.bias.value
    np.testing.assert_allclose(mapped.T, weight / np.linalg.svd(weight)[1][0], rtol=1e-4)


def test_in_the_beginning_a_length_is_that_of_the_weight() -> None:
    """Whatever chooses the seed, and wherever the layer is."""
    model = nn.Sequential(wrapped("weight"), nn.Tanh(), wrapped("weight"))
    lengths = []
    for seed in (0, 5):
        fresh = nn.Sequential(wrapped("weight"), nn.Tanh(), wrapped("weight"))
        fnn.Trainer(fresh, "mse", seed=seed)
        for layer in (fresh[0], fresh[2]):
            norms = np.linalg.norm(layer.layer.weight.value, axis=1)
            np.testing.assert_allclose(layer.gain.value, norms, rtol=1e-6)
        lengths.append(np.array(fresh[0].gain.value))
    assert (lengths[0] != lengths[1]).any()
    looked = np.array(model[0].gain.value)  # before anybody chooses
    np.testing.assert_array_equal(looked, lengths[0])
    layer = nn.Linear(5, 4)
    layer.weight.value = np.full((4, 5), 2.0)
    np.testing.assert_allclose(nn.WeightNorm(layer).gain.value, np.sqrt(20.0))


def recurrent() -> nn.Module:
    return nn.WeightNorm(nn.LSTM(4, 3), "weight_hh_l0")


def test_a_recurrent_layer_with_weight_norm_computes_what_it_did() -> None:
    x = RNG.normal(size=(2, 6, 4))
    model = recurrent()
    model.to("float64")
    np.testing.assert_allclose(model.predict(x)[0], model.layer.predict(x)[0], rtol=1e-12)
    model.gain.value = model.gain.value * 2
    plain = copy.deepcopy(model.layer)
    plain.weight_hh_l0.value = plain.weight_hh_l0.value * 2
    np.testing.assert_allclose(model.predict(x)[0], plain.predict(x)[0], rtol=1e-12)

    class Last(nn.Module):
        def __init__(self) -> None:
            self.lstm = model

        def forward(self, x: Any) -> Any:
            return self.lstm(x)[0]

    assert testing.gradcheck(Last(), x)
    model.lstm = None
    assert nn.Sequential(recurrent(), nn.Linear(3, 1)).predict(x).shape == (2, 6, 1)


@pytest.mark.parametrize("kind", ["weight", "spectral"])
def test_bits_copies_and_files(kind: str, tmp_path: Path) -> None:
    x = X.astype(np.float32)
    states = []
    for workers in (1, 2, 3):
        model = nn.Sequential(wrapped(kind), nn.Tanh(), nn.Linear(4, 2))
        fnn.Trainer(model, "mse", workers=workers).fit(
            x, x[:, :2], epochs=3, batch_size=4, verbose=False
        )
        states.append(model.state_dict())
    for state in states[1:]:
        for name, array in state.items():
            np.testing.assert_array_equal(array, states[0][name])
    model.save(tmp_path / "model")
    loaded = nn.Sequential(wrapped(kind), nn.Tanh(), nn.Linear(4, 2)).load(tmp_path / "model")
    for other in (loaded, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(other.predict(x), model.predict(x))
    fresh = pickle.loads(pickle.dumps(wrapped(kind)))
    assert fresh.predict(x).shape == (9, 4)


def test_what_has_no_such_weight_is_refused() -> None:
    for bad in (nn.Tanh(), 3, nn.BatchNorm(4)):
        with pytest.raises(OptionError, match="two axes or more"):
            nn.WeightNorm(bad)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="another name"):
        nn.SpectralNorm(nn.LSTM(3, 4))
    with pytest.raises(OptionError, match="iterations"):
        nn.SpectralNorm(nn.Linear(3, 4), iterations=0)
