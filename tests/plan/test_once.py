"""What is computed twice from the same memory is computed once, and with the same bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops
from fastnn.engine.predictor import Predictor
from fastnn.generative import GAN
from fastnn.plan import products
from fastnn.plan.program import calls_of
from fastnn.testing.null import null_device


def twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on everything is computed as often as it is written down."""
    monkeypatch.setattr(products, "computed_once", lambda calls, kept: list(calls))


def played() -> dict[str, np.ndarray]:
    gan = GAN.dcgan((1, 8, 8), channels=(8, 16), latent=4)
    rng = np.random.default_rng(0)
    gan.load_state_dict({name: 0.5 * rng.random(np.shape(value)).astype(np.float32)
                         for name, value in gan.state_dict().items()})  # fmt: skip
    x = rng.random((16, 1, 8, 8)).astype(np.float32)
    gan.fit(x, epochs=2, batch_size=8, verbose=False, seed=3)
    return {name: np.array(value) for name, value in gan.state_dict().items()}


def test_the_discriminator_sees_made_samples_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to its batch normalisation, which changes its running statistics each time."""
    found = played()
    with null_device("cpu") as null:
        played()
    names = [call.kernel for _, call, _ in null.programs[0].steps()]
    assert names.count("convolution_forward") == 2 * 2 + 2  # 2 layers of real ones, 2 of made ones
    assert names.count("batch_norm_forward") == 2 + 3
    twice(monkeypatch)
    with null_device("cpu") as null:
        played()
    names = [call.kernel for _, call, _ in null.programs[0].steps()]
    assert names.count("convolution_forward") == 2 * 3 + 2
    for name, value in played().items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


class Doubles(nn.Module):
    """Outputs that are the same, that differ by a number, a view or a write in between."""

    def __init__(self) -> None:
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Any) -> Any:
        a, b = ops.relu(self.layer(x)), ops.relu(self.layer(ops.detach(x)))
        scaled = [ops.affine(x, 2.0, 0.0), ops.affine(x, 2.0, 1.0), ops.affine(x, 2.0, 0.0)]
        parts = [ops.exp(x[:, :2]), ops.exp(x[:, 2:]), ops.exp(x[:, :2])]
        return ops.add(a, b), ops.add(ops.subtract(scaled[0], scaled[1]), scaled[2]), *parts, a


def test_only_what_is_the_same_is_left_out() -> None:
    model, x = Doubles(), np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    predictor = Predictor(model, 1)
    total, mixed, *parts, a = predictor(x)
    np.testing.assert_array_equal(total, 2 * a)
    right = x @ model.layer.weight.value.T + model.layer.bias.value
    np.testing.assert_allclose(a, np.maximum(right, 0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(mixed, 2 * x - 1, rtol=1e-5, atol=1e-6)
    for part, columns in zip(parts, (x[:, :2], x[:, 2:], x[:, :2]), strict=True):
        np.testing.assert_allclose(part, np.exp(columns), rtol=1e-5)
    (forward,) = predictor._forwards.values()
    names = [call.kernel for call in calls_of(forward.built.program.phases)]
    assert names.count("linear_forward") == names.count("relu_forward") == 1
    assert names.count("affine") == 2


def test_masks_of_dropout_stay_apart() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            self.scale = nn.Linear(8, 8, bias=False, weight_init="ones")

        def forward(self, x: Any) -> Any:
            y = self.scale(x)
            return ops.subtract(ops.dropout(y, 0.5), ops.dropout(y, 0.5))

    step = fnn.compile(Two(), lambda y, _: ops.mean(ops.square(y)))
    x = np.ones((8, 8), np.float32)
    assert float(step(x, x)) > 0.5


def test_steps_with_optimisers_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps share a model that computes parts of it again, some with constant parameters: its
    numbers are those of a program that leaves nothing out, on any number of workers."""

    class Shared(nn.Module):
        def __init__(self) -> None:
            self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)

        def forward(self, x: Any) -> Any:
            a, b = ops.tanh(self.first(x)), ops.tanh(self.second(x))
            again = ops.tanh(self.first(x)) + self.second(a)
            with nn.detached(self.second):
                return ops.dropout(again, 0.3) * b, self.second(a) + self.first(ops.detach(b))

    x = np.random.default_rng(0).normal(size=(8, 6)).astype(np.float32)

    def trained(workers: int) -> list[Any]:
        model = Shared()
        players = [
            fnn.compile(model, loss, optimizer, parameters=part, seed=3, workers=workers)
            for loss, optimizer, part in (
                (lambda out, y: ops.mean(ops.square(out[0] - y)), "adam", "first.*"),
                (lambda out, y: ops.mean(out[0] * ops.square(out[1])), "rmsprop", None),
            )
        ]
        losses = [float(step(x, x)) for _ in range(3) for step in players]
        return [losses, *(p.value.copy() for p in model.parameters())]

    wanted = [trained(1), trained(2)]
    twice(monkeypatch)
    for numbers in zip(*wanted, trained(1), strict=True):
        for found in numbers[1:]:
            np.testing.assert_array_equal(found, numbers[0])
