"""Stacks: deep belief nets, their fine-tuning, and denoising autoencoders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, optim
from fastnn.errors import DataError, OptionError, ShapeError
from fastnn.nn.method import Sampler
from fastnn.pretrain import (
    RBM,
    DeepBeliefNet,
    DenoisingAutoencoder,
    StackedDenoisingAutoencoder,
    UpDown,
)
from tests import naive_rbm as naive
from tests.naive_rbm import Machine, sigmoid

RNG = np.random.default_rng(7)
X = RNG.random((203, 12)).astype(np.float32)
STACKS: dict[str, Any] = {
    "belief": lambda: DeepBeliefNet([12, 9, 5, 3]),
    "gaussian belief": lambda: DeepBeliefNet([12, 9, 5], "gaussian"),
    "denoising": lambda: StackedDenoisingAutoencoder([12, 9, 5, 3], 0.25),
    "untied denoising": lambda: StackedDenoisingAutoencoder([12, 9, 5], tied=False),
}


def randomized(module: nn.Module, scale: float = 1.0, seed: int = 0) -> Any:
    """In float64, with parameters from a normal distribution."""
    module.to("float64")
    rng = np.random.default_rng(seed)
    for parameter in module.named_arrays().values():
        parameter.value = rng.normal(size=parameter.shape) * scale
    return module


# -------------------------------------------------------------------- all stacks


@pytest.mark.parametrize("name", STACKS)
def test_layers_learn_one_after_the_other(name: str) -> None:
    """As if each were trained by itself on what the one below gives."""
    stack = STACKS[name]()
    stack.initialize(3)
    alone = STACKS[name]()
    alone.load_state_dict(stack.state_dict())
    histories = stack.fit(X, epochs=2, batch_size=50, lr=0.01, seed=5, verbose=False)
    x: Any = X
    for k, layer in enumerate(alone.layers):
        single = type(alone)(alone.sizes[k : k + 2]).layers[0]
        single.__dict__.update(
            {n: v for n, v in vars(layer).items() if isinstance(v, (str, int, float))}
        )
        if "untied" in name:
            single = StackedDenoisingAutoencoder(alone.sizes[k : k + 2], tied=False).layers[0]
        single.load_state_dict(layer.state_dict())
        history = single.fit(x, epochs=2, batch_size=50, lr=0.01, seed=5, verbose=False)
        assert dict(history) == dict(histories[k])
        for array, parameter in single.state_dict().items():
            np.testing.assert_array_equal(parameter, stack.layers[k].state_dict()[array])
        np.testing.assert_array_equal(stack.below(X, k), x)
        x = single.transform(x)
    np.testing.assert_allclose(stack.transform(X), x, rtol=1e-5)


@pytest.mark.parametrize("name", STACKS)
def test_only_some_layers(name: str) -> None:
    stack = STACKS[name]()
    stack.initialize(1)
    before = stack.state_dict()
    assert len(stack.fit(X, layers=[1], epochs=1, verbose=False)) == 1
    changed = {n.split(".")[1] for n, a in stack.state_dict().items() if (a != before[n]).any()}
    assert changed == {"1"}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", STACKS)
def test_as_the_start_of_a_net(name: str, dtype: str) -> None:
    stack = STACKS[name]()
    stack.fit(X, epochs=1, dtype=dtype, verbose=False)
    net = stack.to_mlp()
    np.testing.assert_allclose(
        net.predict(X), stack.transform(X), rtol=1e-5 if dtype == "float32" else 1e-12
    )
    assert net.predict(X).dtype == dtype
    before = stack.state_dict()
    net = stack.to_mlp(4, nn.ReLU)
    assert [type(layer) for layer in net.layers[-3:]] == [nn.Linear, nn.ReLU, nn.Linear]
    trainer = fnn.Trainer(net, "cross_entropy", dtype=dtype)
    trainer.fit(X, np.arange(203) % 4, epochs=1, verbose=False)
    for n, array in stack.state_dict().items():
        np.testing.assert_array_equal(array, before[n])


@pytest.mark.parametrize("name", STACKS)
def test_saving(name: str, tmp_path: Path) -> None:
    stack, other = STACKS[name](), STACKS[name]()
    stack.initialize(4)
    stack.save(tmp_path / "stack.safetensors")
    other.load(tmp_path / "stack.safetensors")
    np.testing.assert_array_equal(stack.transform(X), other.transform(X))


@pytest.mark.parametrize("name", ["belief", "denoising", "up-down"])
def test_bits_do_not_depend_on_workers(name: str) -> None:
    found = []
    for workers in (1, 2, 3):
        stack = UpDown(STACKS["belief"]()) if name == "up-down" else STACKS[name]()
        stack.fit(X, epochs=1, batch_size=50, workers=workers, lr=0.01, seed=2, verbose=False)
        found.append({n: a.tobytes() for n, a in stack.state_dict().items()})
    assert found[0] == found[1] == found[2]


def test_options_for_each_layer() -> None:
    stack = STACKS["belief"]()
    options = [{"lr": 0.0, "momentum": 0.0}, {}, {"lr": 0.0, "momentum": 0.0}]
    stack.initialize(1)
    before = stack.state_dict()
    histories = stack.fit(X, epochs=[1, 2, 3], layer_options=options, verbose=False)
    assert [len(h.epoch) for h in histories] == [1, 2, 3]
    changed = {n.split(".")[1] for n, a in stack.state_dict().items() if (a != before[n]).any()}
    assert changed == {"1"}


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: DeepBeliefNet([4]), "two layers or more"),
        (lambda: DeepBeliefNet([4, 0]), "two layers or more"),
        (lambda: DeepBeliefNet([4, 3], "poisson"), "units"),
        (lambda: StackedDenoisingAutoencoder(4), "two layers or more"),  # type: ignore[arg-type]
        (lambda: StackedDenoisingAutoencoder([4, 3, 2], [0.1]), "each of 2 layers, got 1"),
        (lambda: DenoisingAutoencoder(4, 3, 1.0), r"corruption in \[0, 1\), got 1"),
        (lambda: DenoisingAutoencoder(4, 3, -0.1, "gaussian"), "corruption >= 0"),
        (lambda: DenoisingAutoencoder(4, 3, noise="rain"), "'mask', 'salt_pepper', 'gaussian'"),
        (lambda: DenoisingAutoencoder(4, 3, 0.1, "salt_pepper", "gaussian"), "within 0..1"),
        (lambda: STACKS["belief"]().fit(X, epochs=[1]), "each of 3 layers, got 1"),
        (lambda: STACKS["belief"]().fit(X, layers=[3]), "0..2, got 3"),
        (lambda: STACKS["belief"]().below(X, -1), "0..2, got -1"),
        (lambda: STACKS["belief"]().to_mlp(2, nn.ReLU()), "such as nn.Sigmoid"),  # type: ignore[arg-type]
        (lambda: UpDown(DeepBeliefNet([4, 3])), "two machines"),
        (lambda: UpDown(RBM(4, 3)), "DeepBeliefNet"),  # type: ignore[arg-type]
        (lambda: UpDown(STACKS["belief"]()).trainer(k=0), "k to be"),
    ],
)
def test_wrong_options(make: Any, text: str) -> None:
    with pytest.raises(OptionError, match=text):
        make()


@pytest.mark.parametrize("name", ["belief", "denoising", "up-down"])
def test_wrong_data(name: str) -> None:
    stack = UpDown(STACKS["belief"]()) if name == "up-down" else STACKS[name]()
    with pytest.raises(DataError, match="divide pixels by 255"):
        stack.fit(X * 255, verbose=False)
    with pytest.raises(ShapeError, match="expected input"):
        stack.fit(X[:, :5], verbose=False)


# -------------------------------------------------------------------- deep belief nets


def test_samples_of_a_deep_belief_net() -> None:
    """Means of the visible units, by a sum over the states of the layers above."""
    net = randomized(DeepBeliefNet([5, 4, 3, 2]))
    machine = Machine(*(np.array(p) for p in _arrays(net.layers[2])))
    share, states = naive.probabilities(machine), naive.states(3)
    for rbm in (net.layers[1], net.layers[0]):
        w, b, _ = (np.array(p) for p in _arrays(rbm))
        means = sigmoid(states @ w + b)
        if rbm is net.layers[0]:
            break
        share, states = share @ naive._bits(means, naive.states(4)), naive.states(4)
    found = net.sample(1 << 14, steps=20, seed=3)
    np.testing.assert_allclose(found.mean(0), share @ means, atol=0.02)
    np.testing.assert_allclose(
        (found.T @ found) / len(found), (share[:, None] * means).T @ means, atol=0.02
    )
    again = randomized(UpDown(net), 0.0)
    again.load_state_dict(UpDown(net).state_dict())
    np.testing.assert_array_equal(again.sample(9, 3, seed=3), net.sample(9, 3, seed=3))


def _arrays(rbm: Any) -> tuple[Any, Any, Any]:
    return rbm.weight, rbm.visible_bias, rbm.hidden_bias


def test_up_down_starts_as_the_net() -> None:
    net = randomized(DeepBeliefNet([12, 9, 5]))
    fine = UpDown(net)
    np.testing.assert_array_equal(fine.transform(X), net.transform(X))
    np.testing.assert_allclose(fine.to_mlp().predict(X), net.to_mlp().predict(X), rtol=1e-12)
    assert fine.to_mlp(3).predict(X).shape == (203, 3)


def test_up_down_gradients_on_average() -> None:
    """Of all weights, upward and downward, against sums over all states."""
    fine = randomized(UpDown(DeepBeliefNet([4, 3, 2, 2])), 1.2, seed=1)
    fine.top.weight.value = [[-3.9, 5.9], [2.1, 2.1]]
    fine.top.visible_bias.value = [0.3, 0.3]
    fine.top.hidden_bias.value = [0.2, 0.3]
    arrays = {n: np.array(p) for n, p in fine.named_arrays().items()}
    data = np.random.default_rng(0).random((2, 4))
    x = np.repeat(data, 1 << 14, axis=0)
    trainer = fine.trainer(k=2, optimizer=optim.SGD(lr=0.0), keep_gradients=True, dtype="float64")
    trainer.fit(x, epochs=1, batch_size=len(x), verbose=False)
    want: dict[str, np.ndarray] = {}

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        return x @ arrays[f"{name}.weight"].T + arrays[f"{name}.bias"]

    def enter(name: str, share: np.ndarray, x: np.ndarray, target: np.ndarray) -> None:
        """The gradient of the layer's cross entropy, over pairs of an input and a target."""
        error = sigmoid(linear(name, x))[:, None] - target[None]
        want[f"{name}.weight"] = np.einsum("ij,ijk,il->kl", share, error, x)
        want[f"{name}.bias"] = np.einsum("ij,ijk->k", share, error)

    share, h = np.full(2, 0.5), data
    for k, size in enumerate((3, 2)):
        above = naive.states(size)
        pair = share[:, None] * naive._bits(sigmoid(linear(f"up.{k}", h)), above)
        enter(f"down.{k}", pair.T, above, h)
        share, h = pair.sum(0), above
    machine = Machine(arrays["top.weight"], arrays["top.visible_bias"], arrays["top.hidden_bias"])
    want |= {f"top.{n}": g for n, g in naive.contrast(machine, share, 2).items()}
    one = naive.contrast(machine, share, 1)  # step, which the test must be able to tell
    assert max(np.abs(g - want[f"top.{n}"]).max() for n, g in one.items()) > 0.04
    share = share @ np.linalg.matrix_power(naive.transition(machine), 2)
    middle = naive.states(3)
    pair = share[:, None] * naive._bits(sigmoid(linear("down.1", h)), middle)
    enter("up.1", pair.T, middle, h)
    means = sigmoid(linear("down.0", middle))
    enter("up.0", np.diag(pair.sum(0)), means, middle)
    assert want.keys() == arrays.keys()
    for name, gradient in want.items():
        found = dict(fine.named_arrays())[name].grad
        np.testing.assert_allclose(found, gradient, atol=0.02, err_msg=name)
        assert np.abs(gradient).max() > 0.03


def test_up_down_learns() -> None:
    x = np.kron(np.eye(4)[RNG.integers(0, 4, 200)], np.ones(3)).astype(np.float32)
    net = DeepBeliefNet([12, 8, 6])
    net.fit(x, epochs=20, batch_size=20, lr=0.1, verbose=False)
    fine = UpDown(net)
    history = fine.fit(x, epochs=40, batch_size=20, lr=0.05, verbose=False)
    assert history["downward"][-1] < 0.8 * history["downward"][0]
    samples = fine.sample(200, 200, seed=1).reshape(200, 4, 3)
    assert (samples.round().std(axis=2) == 0).mean() > 0.8  # units of a block agree


# -------------------------------------------------------------------- denoising autoencoders


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("units", ["bernoulli", "gaussian"])
def test_loss_and_gradients_of_an_autoencoder(units: str, tied: bool) -> None:
    """Without damage; gradients against differences along random directions."""
    layer = randomized(DenoisingAutoencoder(5, 3, 0.0, units=units, tied=tied))
    x = RNG.random((6, 5))

    def loss() -> float:
        w, c, b = (np.array(p) for p in (layer.weight, layer.hidden_bias, layer.visible_bias))
        z = sigmoid(x @ w.T + c) @ (w if tied else np.array(layer.decoder).T) + b
        if units == "gaussian":
            return float(0.5 * ((x - z) ** 2).sum(1).mean())
        return float(-(x * np.log(sigmoid(z)) + (1 - x) * np.log(sigmoid(-z))).sum(1).mean())

    trainer = layer.trainer(optimizer=optim.SGD(lr=0.0), keep_gradients=True, dtype="float64")
    history = trainer.fit(x, batch_size=6, verbose=False)
    assert history["loss"][0] == pytest.approx(loss(), rel=1e-12)
    for name, parameter in layer.named_arrays().items():
        before, along = np.array(parameter), RNG.normal(size=parameter.shape)
        found = float((parameter.grad * along).sum())
        ends = []
        for sign in (1, -1):
            parameter.value = before + sign * 1e-5 * along
            ends.append(loss())
        parameter.value = before
        assert found == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-6), name


def test_damage() -> None:
    x = RNG.random((1 << 10, 64)).astype(np.float32) * 0.5 + 0.25

    def damaged(noise: str, p: float) -> np.ndarray:
        layer = DenoisingAutoencoder(64, 3, p, noise)
        found: np.ndarray = Sampler(layer, "damaged", 3)(0, x)
        return found

    masked = damaged("mask", 0.3)
    assert (masked == 0).mean() == pytest.approx(0.3, abs=0.01)
    assert (masked[masked != 0] == x[masked != 0]).all()
    peppered = damaged("salt_pepper", 0.4)
    assert (peppered == 0).mean() == pytest.approx(0.2, abs=0.01)
    assert (peppered == 1).mean() == pytest.approx(0.2, abs=0.01)
    rest = (peppered > 0) & (peppered < 1)
    assert (peppered[rest] == x[rest]).all()
    noise = damaged("gaussian", 2.0) - x
    assert noise.mean() == pytest.approx(0.0, abs=0.03)
    assert noise.std() == pytest.approx(2.0, abs=0.03)


def test_undamaged_in_evaluation() -> None:
    layer = DenoisingAutoencoder(12, 5, 0.5)
    trainer = layer.trainer()
    trainer.fit(X, epochs=1, verbose=False)
    want = np.square(layer.reconstruct(X) - X).mean()
    assert trainer.evaluate(X)["reconstruction_error"] == pytest.approx(want, rel=1e-5)


def test_it_removes_noise() -> None:
    x = np.kron(np.eye(4)[RNG.integers(0, 4, 400)], np.ones(6)).astype(np.float32)
    layer = DenoisingAutoencoder(24, 10, 0.3, "salt_pepper")
    layer.fit(x, epochs=60, batch_size=20, lr=0.01, verbose=False)
    damaged = np.where(RNG.random(x.shape) < 0.2, RNG.random(x.shape) < 0.5, x).astype(np.float32)
    before, after = np.square(damaged - x).mean(), np.square(layer.reconstruct(damaged) - x).mean()
    assert after < 0.3 * before
