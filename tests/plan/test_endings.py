"""What a product on CUDA does in the stead of the calls that follow it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim
from fastnn.graph.graph import Graph
from fastnn.graph.value import Repeat, Value
from fastnn.kernels.declare import CUDA_KERNELS
from fastnn.plan.call import Call
from fastnn.plan.endings import with_endings
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


class Joinable:
    """Calls that become one where nothing stands against it, made by hand."""

    def __init__(self) -> None:
        self.graph = graph = Graph(batch=8)
        self.v = {name: graph.value((8, 4), name=name) for name in ("x", "z", "h", "dh", "dz")}
        self.v |= {"w": graph.value((4, 4)), "dw": graph.value((4, 4)), "db": graph.value((1, 4))}
        self.v |= {"early": graph.value((8, 4)), "sums": graph.value((1, 4))}
        self.kept: list[Value] = []

    def call(self, kernel: str, *repeats: Repeat, **names: Any) -> Call:
        params = CUDA_KERNELS[kernel].params
        values = {p: self.v.get(n, n) if isinstance(n, str) else n for p, n in names.items()}
        return Call(kernel, {p: values.get(p) for p in params}, "", repeats=repeats)

    def forward(self) -> list[Call]:
        return [
            self.call("linear_forward", x="x", w="w", y="z"),
            self.call("relu_forward", x="z", y="h"),
        ]

    def backward(self) -> list[Call]:
        return [
            self.call("relu_forward", x="early", y="h"),
            self.call("linear_backward_input_unpacked", dy="x", w="w", dx="dh"),
            self.call("relu_backward", y="h", dy="dh", dx="dz"),
        ]

    def weight(self) -> list[Call]:
        return [
            self.call("linear_backward_weight", x="x", dy="dz", dw="dw"),
            self.call("sum_rows", x="dz", y="db"),
        ]

    def joined(self, calls: list[Call]) -> bool:
        return len(with_endings(calls, self.kept)) < len(calls)


def kept(j: Joinable) -> list[Call]:
    j.kept = [j.v["z"]]
    return j.forward()


def in_a_loop(j: Joinable) -> list[Call]:
    first, last = j.forward()
    return [first, replace(last, repeats=(Repeat(3),))]


def of_another_part(j: Joinable) -> list[Call]:
    both = j.graph.value((16, 4))
    j.v["z"] = j.graph.view(both, (8, 4))
    calls = j.forward()
    calls[1].operands["x"] = j.graph.view(both, (8, 4), begin=32)
    return calls


def result_read_between(j: Joinable) -> list[Call]:
    first, last = j.forward()
    return [first, j.call("sum_rows", x="h", y="sums"), last]


def result_written_where_the_product_reads(j: Joinable) -> list[Call]:
    j.v["h"] = j.v["x"]
    return j.forward()


def output_written_between(j: Joinable) -> list[Call]:
    output, product, last = j.backward()
    return [j.call("relu_forward", x="x", y="h"), product, output, last]


def output_not_there_yet(j: Joinable) -> list[Call]:
    """As in a loop, whose step before has left it."""
    return j.backward()[1:]


def sums_in_a_loop(j: Joinable) -> list[Call]:
    first, last = j.weight()
    return [first, replace(last, repeats=(Repeat(3),))]


def sums_beside_the_weights(j: Joinable) -> list[Call]:
    both = j.graph.value((5, 4))
    j.v["dw"], j.v["db"] = j.graph.view(both, (4, 4)), j.graph.view(both, (1, 4), begin=16)
    return j.weight()


def sums_read_between(j: Joinable) -> list[Call]:
    first, last = j.weight()
    return [first, j.call("relu_forward", x="db", y="sums"), last]


def gradient_written_between(j: Joinable) -> list[Call]:
    first, last = j.weight()
    return [first, j.call("relu_forward", x="x", y="dz"), last]


@pytest.mark.parametrize("calls", [Joinable.forward, Joinable.backward, Joinable.weight])
def test_such_calls_become_one(calls: Callable[[Joinable], list[Call]]) -> None:
    found = Joinable()
    assert found.joined(calls(found))


@pytest.mark.parametrize(
    "calls",
    [kept, in_a_loop, of_another_part, result_read_between, result_written_where_the_product_reads,
     output_written_between, output_not_there_yet, sums_in_a_loop, sums_beside_the_weights,
     sums_read_between, gradient_written_between],
)  # fmt: skip
def test_calls_stay_apart_where_one_would_compute_something_else(
    calls: Callable[[Joinable], list[Call]],
) -> None:
    found = Joinable()
    assert not found.joined(calls(found))


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
