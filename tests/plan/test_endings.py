"""What a product on CUDA does in the stead of the calls that follow it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim
from fastnn.testing.null import null_device

X = np.zeros((8, 6), np.float32)


class Calls(nn.Module):
    def __init__(self, function: Callable[..., Any], **layers: nn.Module) -> None:
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, *inputs: Any) -> Any:
        return self.function(self, *inputs)


def kernels(model: nn.Module, x: Any = X, y: Any = None, **options: Any) -> list[str]:
    """The kernels of a training step, without the suffixes that say a product's shape."""
    target = np.zeros((len(x), 4), np.float32) if y is None else y
    with null_device("cuda") as null:
        trainer = fnn.Trainer(model, "mse", optim.SGD(lr=0.1), **options)
        trainer.fit(x, target, epochs=1, batch_size=len(x), verbose=False)
    names = [call.kernel for call in null.programs[0].calls()]
    return [name.removesuffix("_tiny").removesuffix("_parts") for name in names]


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.Sigmoid])
def test_activations_their_gradients_and_biases_are_part_of_products(activation: Any) -> None:
    found = kernels(nn.Sequential(nn.Linear(6, 20), activation(), nn.Linear(20, 4)))
    assert (
        found.count("linear_forward_activated")
        == found.count("linear_backward_input_activated")
        == 1
    )
    assert found.count("linear_backward_weight_bias") == 2
    assert "sum_rows" not in found
    assert not any(name.split("_")[0] in ("relu", "tanh", "sigmoid") for name in found)


def test_over_steps_of_sequences() -> None:
    found = kernels(
        nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 4)),
        np.zeros((8, 3, 6), np.float32), np.zeros((8, 3, 4), np.float32),
    )  # fmt: skip
    assert {"linear_forward_activated", "linear_backward_input_activated"} <= set(found)


def used_twice(m: Any, x: Any) -> Any:
    h = m.a(x)
    return m.b(ops.relu(h) + h)


def a_part(m: Any, x: Any) -> Any:
    return m.b(ops.relu(m.a(x)[:, :4]))


def gelu(m: Any, x: Any) -> Any:
    return m.b(ops.gelu(m.a(x)))


@pytest.mark.parametrize(
    ("function", "own"),
    [(used_twice, "relu_forward"), (a_part, "relu_forward"), (gelu, "gelu_forward")],
)
def test_what_somebody_else_reads_stays(function: Any, own: str) -> None:
    """The gradient of GELU is of what came before it."""
    model = Calls(function, a=nn.Linear(6, 4 if own[0] == "r" else 5), b=nn.Linear(4, 4))
    if function is a_part:
        model.a = nn.Linear(6, 9)
    if function is gelu:
        model.b = nn.Linear(5, 4)
    found = kernels(model)
    assert own in found
    assert "linear_forward_activated" not in found


def test_an_output_stays() -> None:
    """Predictions are looked at after the step."""
    with null_device("cuda") as null:
        model = nn.Sequential(nn.Linear(6, 4), nn.ReLU()).to("cuda")
        model.predict(X)
        shown = Calls(lambda m, x: _both(m.a(x)), a=nn.Linear(6, 4)).to("cuda")
        shown.predict(X)
    names = [{call.kernel for call in program.calls()} for program in null.programs]
    assert "linear_forward_activated_tiny" in names[0]
    assert {"linear_forward_tiny", "relu_forward"} <= names[-1]


def _both(y: Any) -> Any:
    return y, ops.relu(y)


def test_a_bias_that_two_sums_need_is_summed_by_one_product_each() -> None:
    """An LSTM's two biases have one gradient; each goes with a weight of its own."""
    layer = Calls(lambda m, x: m.net(x)[0], net=nn.LSTM(6, 4))
    x = np.zeros((8, 3, 6), np.float32)
    found = kernels(layer, x, np.zeros((8, 3, 4), np.float32))
    assert found.count("linear_backward_weight_bias") == 2
    assert "sum_rows" not in found


def test_inside_of_a_loop() -> None:
    """A step's activation is its product's; the weights' gradient is one product after the loop."""

    def forward(m: Any, x: Any) -> Any:
        def step(x_t: Any, h: Any) -> Any:
            h = m.b(ops.relu(m.a(x_t))) + h
            return h, h

        return ops.loop(step, x, ops.zeros_state(x, 4))[0]

    model = Calls(forward, a=nn.Linear(6, 5), b=nn.Linear(5, 4))
    x = np.zeros((8, 3, 6), np.float32)
    found = kernels(model, x, np.zeros((8, 3, 4), np.float32))
    assert "relu_forward" not in found


def test_a_loss_whose_own_gradient_is_known_gives_the_logits() -> None:
    """A mean's is; where classes have weights, their sum comes after the loss."""
    y = np.zeros(8, np.int64)
    for loss, at_once in (("cross_entropy", True), (nn.CrossEntropyLoss(np.ones(4)), False)):
        with null_device("cuda") as null:
            trainer = fnn.Trainer(nn.Linear(6, 4), loss, optim.SGD(lr=0.1))
            trainer.fit(X, y, epochs=1, batch_size=8, verbose=False)
        found = {call.kernel for call in null.programs[0].calls()}
        assert ("cross_entropy_scaled" in found) == at_once
        assert ("cross_entropy_backward" in found) != at_once


def test_on_the_cpu_calls_meet_in_the_cache() -> None:
    with null_device("cpu") as null:
        trainer = fnn.Trainer(nn.Sequential(nn.Linear(6, 4), nn.ReLU()), "mse", "sgd")
        trainer.fit(X, np.zeros((8, 4), np.float32), epochs=1, batch_size=8, verbose=False)
    assert {"relu_forward", "sum_rows"} <= {call.kernel for call in null.programs[0].calls()}
