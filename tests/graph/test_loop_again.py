"""Loops and recurrent nets differentiated more than once: loops again, of the same steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops
from fastnn.testing import gradcheck
from fastnn.testing.null import null_device
from tests.graph.test_gradients import randomized
from tests.graph.test_second_gradients import first
from tests.graph.test_tangents import tangents_agree

RNG = np.random.default_rng(5)
WEIGHT = RNG.normal(size=(3, 3)) / 2
BATCH, STEPS = 3, 5


def plain(x):
    """The state, something from outside that grows with it, and an input."""

    def step(x_t, h):
        h = ops.tanh(x_t + ops.matmul(h, WEIGHT) + ops.mean(x, axis=1) * h)
        return h * h, h

    return ops.loop(step, x, x[:, 0])


def with_lengths(x, lengths):
    def step(x_t, h):
        return ops.exp(h) * x_t, ops.tanh(x_t + h * h)

    return ops.loop(step, x, x[:, 1], lengths=lengths)


def until(x):
    def step(x_t, h):
        h = ops.tanh(x_t * 2.0 - h * h)
        return h * h, h

    y, h, _ = ops.loop(step, x, x[:, 0], until=lambda y, h: ops.greater(ops.sum(y, axis=1), 1.0))
    return y, h


def several(x):
    """Two sequences, two states, one of which goes into the other's output only."""

    def step(parts, states):
        (a, b), (h, total) = parts, states
        h = ops.tanh(a * h + b)
        return (h * total, a), (h, total + h * h)

    (y, z), (h, total) = ops.loop(step, (x, x**3), (x[:, 0], ops.zeros_state(x, 3)))
    return y, z * z, h, total


def nested(x):
    def outer(x_t, h):
        def inner(part, g):
            g = ops.tanh(g * h + part)
            return g, g

        y, g = ops.loop(inner, ops.reshape(x_t, -1, 3, 1) * ops.reshape(h, -1, 1, 3), h * x_t)
        return ops.sum(y, axis=1) * g, g

    return ops.loop(outer, x, x[:, 0])


def dropped(x):
    """Each step draws numbers of its own: a loop of a loop's steps has to draw the same ones."""
    layer = nn.Dropout(0.4)
    return ops.loop(lambda x_t, h: (h, ops.tanh(layer(x_t * x_t) + h * h)), x, x[:, 0])


def with_gradients(x):
    """A body that differentiates, and differentiates again."""

    def step(x_t, h):
        slope = ops.gradient(ops.sum(ops.tanh(x_t * h) * h), h)
        bent = ops.gradient(ops.sum(slope * x_t), h)
        return ops.tangent(slope, h, x_t), ops.tanh(bent + x_t)

    return ops.loop(step, x, x[:, 0])


LOOPS = {
    f.__name__: f
    for f in (plain, with_lengths, until, several, nested, dropped, with_gradients)
}  # fmt: skip
TWO = [name for name in LOOPS if name != "with_gradients"]


def sequences(steps: int = STEPS) -> np.ndarray:
    return np.random.default_rng(2).normal(size=(BATCH, steps, 3))


def given(lengths: bool, steps: int = STEPS) -> tuple[np.ndarray, ...]:
    return sequences(steps), *([np.array([steps, 0, steps - 1])] if lengths else [])


@pytest.mark.parametrize("steps", [2, STEPS])
@pytest.mark.parametrize("name", TWO)
def test_second_gradients(name, steps):
    """Against central differences of the first ones."""
    data = given(name == "with_lengths", steps)
    assert gradcheck(first(LOOPS[name]), *data, training=True)


def test_one_step():
    def once(x):
        return ops.loop(lambda x_t, h: (h * x_t, ops.tanh(x_t * h)), x[:, :1], x[:, 1])

    assert gradcheck(first(once), sequences())
    assert tangents_agree(once, (sequences(),))


@pytest.mark.parametrize("name", LOOPS)
def test_tangents(name):
    """Of outputs, and of their gradients, against central differences."""
    data = given(name == "with_lengths")
    assert tangents_agree(LOOPS[name], data, second=name != "with_gradients")


@pytest.mark.parametrize("name", ["plain", "with_lengths", "several"])
def test_third_gradients(name):
    assert gradcheck(first(first(LOOPS[name])), *given(name == "with_lengths"), training=True)


# ---------------------------------------------------------------- recurrent nets

NETS: dict[str, Callable[[], nn.Module]] = {
    "rnn": lambda: nn.RNN(3, 4),
    "lstm": lambda: nn.LSTM(3, 4),
    "gru": lambda: nn.GRU(3, 4),
}


OPTIONS = [{}, {"reverse": True}]


def with_options(cell: str, **options: Any) -> Callable[..., Any]:
    """A cell's op of an input, lengths or not, and the parameters, with an initial state."""

    def net(x, *others):
        lengths, *parameters = others if isinstance(others[0], fnn.Value) else (None, *others)
        states = {"h0": ops.concatenate(x[:, 0], x[:, 1, :1])}
        if cell == "lstm":
            states["c0"] = states["h0"] * 2.0
        return getattr(ops, cell)(x, *parameters, **states, lengths=lengths, **options)

    return net


def inputs_of(cell: str, lengths: bool) -> tuple[Any, ...]:
    return *given(lengths), *randomized(NETS[cell]()).parameters()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("cell", NETS)
def test_recurrent_nets(cell, lengths, options):
    net = with_options(cell, **options)
    assert gradcheck(first(net), *inputs_of(cell, lengths))


@pytest.mark.parametrize("cell", NETS)
def test_tangents_of_recurrent_nets(cell):
    assert tangents_agree(with_options(cell, reverse=True), inputs_of(cell, True))


def unrolled(reverse: bool, bptt: int) -> Callable[..., Any]:
    """A simple recurrent net, step by step."""

    def net(x, *others):
        lengths, *parameters = others if isinstance(others[0], fnn.Value) else (None, *others)
        w_ih, w_hh, b_ih, b_hh = parameters
        h, ys = ops.concatenate(x[:, 0], x[:, 1, :1]), []
        for turn in range(x.shape[1]):
            t = x.shape[1] - 1 - turn if reverse else turn
            before = ops.detach(h) if bptt and turn % bptt == 0 else h
            z = x[:, t] @ ops.transpose(w_ih) + b_ih
            after = ops.tanh(z + before @ ops.transpose(w_hh) + b_hh)
            if lengths is None:
                h = after
                ys.append(h)
            else:
                goes_on = ops.greater(ops.reshape(lengths, -1, 1), np.full((1, 1), t))
                h = ops.where(goes_on, after, h)
                ys.append(ops.where(goes_on, h, 0.0))
        return ops.stack(ys[::-1] if reverse else ys, axis=1), h

    return net


class Second(nn.Module):
    """Gradients of gradients, and tangents of them."""

    def __init__(self, net: Callable[..., Any], parameters: list[Any]):
        self.net, self.own = net, parameters

    def forward(self, x, *lengths):
        found = first(self.net)(x, *lengths, *self.own)
        number = sum(ops.sum(ops.square(g)) for g in found)
        along = np.random.default_rng(4).normal(size=x.shape)
        return ops.gradient(number, x), ops.tangent(found[0], x, along)


@pytest.mark.parametrize(
    ("lengths", "reverse", "bptt"),
    [(False, False, 2), (True, False, 2), (False, True, 2), (True, True, 0)],
)
def test_as_step_by_step(lengths, reverse, bptt):
    parameters = list(randomized(nn.RNN(3, 4)).parameters())
    results = []
    for net in (with_options("rnn", reverse=reverse, bptt=bptt), unrolled(reverse, bptt)):
        model = Second(net, parameters)
        model.to("float64")
        results.append(model.predict(given(lengths) if lengths else sequences()))
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13)


# ---------------------------------------------------------------- planning


class Last(nn.Module):
    """The last output of a net, or of a loop."""

    def __init__(self, net: str):
        self.net = NETS[net]() if net in NETS else None
        self.mix, self.out = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        if self.net is not None:
            return self.out(self.net(x)[0][:, -1])

        def step(x_t, h):
            h = ops.tanh(self.mix(ops.concatenate(x_t, h[:, :1])) + h)
            return h, h

        return self.out(ops.loop(step, x, ops.zeros_state(x, 4))[1])


class Bent(nn.Module):
    """The product of ones with the Hessian, by a gradient of the gradient."""

    def __init__(self, net: nn.Module):
        self.net = net

    def forward(self, x):
        found = ops.gradient(ops.mean(ops.square(self.net(x))), list(self.net.parameters()))
        return tuple(ops.gradient(sum(ops.sum(g) for g in found), list(self.net.parameters())))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("way", ["tangent of the gradient", "gradient of the gradient"])
@pytest.mark.parametrize("net", [*NETS, "loop"])
def test_the_plan_of_a_product_has_as_many_calls_for_any_number_of_steps(net, way, device):
    def calls(steps: int) -> list[str]:
        x, model = sequences(steps), Last(net)
        with null_device(device) as null:
            if way == "gradient of the gradient":
                Bent(model).predict(x)
            else:
                products = fnn.autodiff.Products(model, "mse", device=device)
                v = {name: np.ones(p.shape) for name, p in products.parameters.items()}
                products.hvp(x, np.zeros((BATCH, 2)), v)
        return [call.kernel for call in null.programs[-1].calls()]

    assert calls(20) == calls(90)


@pytest.mark.parametrize("net", ["lstm", "loop"])
def test_the_bits_of_a_product_are_the_same_on_any_number_of_workers(net):
    x = np.random.default_rng(6).normal(size=(64, 7, 3)).astype(np.float32)
    model = Last(net)
    found = []
    for workers in (1, 2, 3):
        products = fnn.autodiff.Products(model, "mse", workers=workers)
        v = {name: np.ones(p.shape, np.float32) for name, p in products.parameters.items()}
        found.append(products.hvp(x, np.zeros((64, 2), np.float32), v))
    for other in found[1:]:
        for name, array in found[0].items():
            np.testing.assert_array_equal(array, other[name])
