"""The loop op: values against plain NumPy, gradients, masks, streams, what is taken out of it."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim
from fastnn.engine.specs import Spec
from fastnn.engine.update import Objective
from fastnn.errors import ShapeError
from fastnn.graph.gradient import differentiate
from fastnn.graph.graph import Graph
from fastnn.graph.trace import trace
from fastnn.kernels.declare import KERNELS
from fastnn.plan.lower import Lowering
from fastnn.testing import gradcheck
from fastnn.train.build import StepBuilder


class Elman(nn.Module):
    """The simplest recurrent net, as a user would write it."""

    def __init__(self, features: int, hidden: int, rate: float = 0.0):
        self.hidden, self.rate = hidden, rate
        self.a, self.b = nn.Linear(features, hidden), nn.Linear(hidden, hidden)

    def forward(self, x):
        def step(x_t, h):
            h = ops.tanh(self.a(x_t) + self.b(h))
            return (ops.dropout(h, self.rate) if self.rate else h), h

        return ops.loop(step, x, ops.zeros_state(x, self.hidden))


class Gated(nn.Module):
    """Two states, layer norm, an output that is not a state."""

    def __init__(self, features: int, hidden: int):
        self.hidden = hidden
        self.gate, self.new = nn.Linear(features + hidden, hidden), nn.Linear(features, hidden)
        self.norm = nn.LayerNorm(hidden)

    def forward(self, x, lengths=None):
        def step(x_t, state):
            h, c = state
            z = ops.sigmoid(self.gate(ops.concatenate(x_t, h)))
            k = ops.tanh(self.norm(ops.add(self.new(x_t), ops.multiply(z, h))))
            return ops.add(h, k), (k, ops.add(c, z))

        zero = ops.zeros_state(x, self.hidden)
        y, (_, c) = ops.loop(step, x, (zero, zero), lengths=lengths)
        return y, c


class Attention(nn.Module):
    """A step that looks at something outside that runs over the batch."""

    def __init__(self, features: int, hidden: int):
        self.hidden = hidden
        self.key, self.mix = nn.Linear(features, hidden), nn.Linear(features + hidden, hidden)

    def forward(self, x, memory):
        key = self.key(memory)

        def step(x_t, h):
            h = ops.tanh(ops.add(self.mix(ops.concatenate(x_t, h)), key))
            return h, h

        return ops.loop(step, x, ops.zeros_state(x, self.hidden))[0]


def elman(model: Elman, x: np.ndarray) -> np.ndarray:
    w, u = model.a.weight.value, model.b.weight.value
    h, rows = np.zeros((len(x), model.hidden)), []
    for t in range(x.shape[1]):
        h = np.tanh(x[:, t] @ w.T + model.a.bias.value + h @ u.T + model.b.bias.value)
        rows.append(h)
    return np.stack(rows, axis=1)


@pytest.mark.parametrize(("batch", "steps"), [(1, 1), (3, 5), (17, 2), (2, 33)])
def test_values(batch: int, steps: int) -> None:
    x = np.random.default_rng(0).normal(size=(batch, steps, 4)).astype(np.float32)
    model = Elman(4, 6)
    y, last = model.predict(x)
    expected = elman(model, x)
    np.testing.assert_allclose(y, expected, atol=2e-6)
    np.testing.assert_array_equal(last, y[:, -1])


def test_gradients() -> None:
    rng = np.random.default_rng(1)
    x, lengths = rng.normal(size=(3, 5, 4)), np.array([5, 2, 3])
    assert gradcheck(Elman(4, 6), x)
    assert gradcheck(Elman(4, 6, rate=0.4), x, training=True)
    assert gradcheck(Gated(4, 6), x)
    assert gradcheck(Gated(4, 6), x, lengths)
    assert gradcheck(Attention(4, 5), x, rng.normal(size=(3, 4)))


def test_past_the_end() -> None:
    rng = np.random.default_rng(2)
    x, lengths = rng.normal(size=(3, 6, 4)).astype(np.float32), np.array([6, 1, 4])
    model = Gated(4, 6)
    y, c = model.predict(x, lengths)
    for row, length in enumerate(lengths):
        assert not y[row, length:].any()
        alone, last = model.predict(x[row : row + 1, :length], lengths[row : row + 1])
        np.testing.assert_array_equal(y[row, :length], alone[0])
        np.testing.assert_array_equal(c[row], last[0])


def test_what_stands_past_the_end_reaches_nothing() -> None:
    """Not even NaN: the same bits of outputs, states and gradients."""
    rng = np.random.default_rng(3)
    x, lengths = rng.normal(size=(3, 6, 4)).astype(np.float32), np.array([6, 1, 4])
    beyond = np.arange(6) >= lengths[:, None]
    found = []
    for padding in (0.0, np.nan, np.inf):
        x[beyond] = padding
        model = Gated(4, 6)
        y, c = model.predict(x, lengths)
        step = fnn.compile(model, lambda out, _: ops.mean(ops.square(out[0])), "sgd", device="cpu")
        found.append([y, c, *step.gradients((x, lengths), np.zeros(3, np.float32)).values()])
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


class Memory(nn.Module):
    """The state of a sequence is a matrix with as many rows as there may be sequences."""

    def forward(self, x, lengths):
        def step(x_t, memory):
            memory = memory * 0.5 + ops.reshape(x_t, x_t.shape[0], 3, 1)
            return ops.sum(memory, axis=-1), memory

        zeros = ops.reshape(ops.zeros_state(x, 6), x.shape[0], 3, 2)
        return ops.loop(step, x, zeros, lengths=lengths)


def test_states_of_higher_rank_end_with_their_own_sequence() -> None:
    x = np.random.default_rng(4).normal(size=(3, 5, 3)).astype(np.float32)
    lengths = np.array([5, 2, 3])
    y, memory = Memory().predict(x, lengths)
    for row, length in enumerate(lengths):
        expected = np.zeros((3, 2), np.float32)
        for x_t in x[row, :length]:
            expected = expected * np.float32(0.5) + x_t[:, None]
        np.testing.assert_allclose(memory[row], expected, rtol=1e-6)
        assert not y[row, length:].any()
        np.testing.assert_allclose(y[row, length - 1], expected.sum(-1), rtol=1e-6)


def test_each_step_draws_its_own_mask() -> None:
    model = Elman(4, 64, rate=0.5)
    builder = StepBuilder(model, model.store(), 2, True, "direct")
    builder.outputs(builder.inputs("x", (Spec((3, 4), "f"),)))
    program = builder.finish(False).program
    place = list(KERNELS["dropout"].params).index("stream")
    streams = [c.operands[place] for _, c, _ in program.steps() if c.kernel == "dropout"]
    assert len(set(streams)) == len(streams) == 3


def test_weight_gradients_are_one_product_over_all_steps() -> None:
    model = Elman(4, 6)
    model.store()
    graph = Graph(8, training=True)
    x = graph.input("x", (10, 4))
    y, _ = trace(model, graph, x)
    loss = ops.mean(y)
    differentiate(graph, loss, [graph.leaves[p] for p in model.parameters()])
    kernels = [c.kernel for c in Lowering(graph).calls]
    assert kernels.count("linear_backward_weight") == 2
    assert kernels.count("sum_rows") == 2
    assert kernels.count("tanh_forward") == kernels.count("tanh_backward") == 1
    assert kernels.count("pack_panels_transposed") == 1


def test_same_bits_on_any_number_of_workers() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(37, 7, 4)).astype(np.float32)
    y = rng.integers(0, 3, 37)
    results = []
    for workers in (1, 2, 3):

        class Classifier(nn.Module):
            def __init__(self) -> None:
                self.cell, self.out = Elman(4, 9), nn.Linear(9, 3)

            def forward(self, x):
                return self.out(self.cell(x)[1])

        model = Classifier()
        trainer = fnn.Trainer(model, "cross_entropy", optim.Adam(lr=0.01), workers=workers)
        trainer.fit(x, y, epochs=3, batch_size=8, verbose=False)
        results.append(model.state_dict())
    for other in results[1:]:
        for name, array in results[0].items():
            np.testing.assert_array_equal(array, other[name])


def test_the_work_of_planning_does_not_depend_on_the_steps() -> None:
    """Counted in calls of Python functions."""

    def work(steps: int) -> int:
        model = Gated(4, 8)
        builder = StepBuilder(model, model.store(), 4, True, "direct")
        calls = 0

        def count(frame: object, event: str, argument: object) -> None:
            nonlocal calls
            calls += event in ("call", "c_call")

        sys.setprofile(count)
        try:
            (y, _) = builder.outputs(builder.inputs("x", (Spec((steps, 4), "f"),)))
            loss = builder.loss(lambda out, target: ops.mean(out[0]), (y, y), (y,))
            builder.train(Objective(loss, model.named_parameters(), optim.SGD(lr=0.1)))
            builder.finish(False)
        finally:
            sys.setprofile(None)
        return calls

    work(3), work(12)  # what is done once
    few, many = work(20), work(2000)
    assert abs(many - few) < 100


def test_errors() -> None:
    class Wrong(nn.Module):
        def forward(self, x):
            return ops.loop(lambda x_t, h: (h, x_t), x, ops.zeros_state(x, 3))[0]

    with pytest.raises(ShapeError, match="expected new states of shapes"):
        Wrong().predict(np.zeros((2, 3, 4), np.float32))

    class Flat(nn.Module):
        def forward(self, x):
            return ops.loop(lambda x_t, h: (h, h), x, ops.zeros_state(x, 3))[0]

    with pytest.raises(ShapeError, match="batch, steps"):
        Flat().predict(np.zeros((2,), np.float32))


class Function(nn.Module):
    """A model that is a function of it and its input."""

    def __init__(self, function):
        self.function = function

    def forward(self, x):
        return self.function(self, x)


class Of(nn.Module):
    """A loop of some body, with some initial state."""

    def __init__(self, body, state):
        self.body, self.state = body, state

    def forward(self, x):
        return ops.loop(self.body, x, self.state(x))[0]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (lambda x, h: h, "return a pair, the outputs and the new state of a step, got <state"),
        (lambda x, h: {"y": h}, "return a pair, .* got dict"),
        (lambda x, h: (None, h), "outputs of the body to be symbolic, .* got NoneType"),
        (lambda x, h: ({"y": x}, h), "outputs of the body to be symbolic, .* got dict"),
        (lambda x, h: (x, 0.0), "the new state to be symbolic, .* got float"),
        (lambda x, h: (x, (h, h)), "expected 1 new states of the body, .* got 2"),
    ],
)
def test_what_a_body_returns(body, said: str) -> None:
    with pytest.raises(ShapeError, match=said):
        Of(body, lambda x: ops.zeros_state(x, 4)).predict(np.zeros((2, 3, 4), np.float32))


def test_what_a_loop_is_given() -> None:
    x = np.zeros((2, 3, 4), np.float32)
    with pytest.raises(ShapeError, match=r"the initial state to be symbolic, .* got tuple"):
        Of(lambda x, s: (x, s), lambda x: [(ops.zeros_state(x, 4),) * 2]).predict(x)
    with pytest.raises(ShapeError, match=r"sequences to be symbolic, .* got int"):
        Function(lambda m, x: ops.loop(lambda t, h: (h, h), 5, ops.zeros_state(x, 4))[1]).predict(x)


def test_states_may_be_a_list() -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)

    def body(x_t, state):
        assert isinstance(state, list)
        return [x_t + state[0], x_t], [state[0] + x_t, state[1] + 1.0]

    def forward(m, x):
        outputs, last = ops.loop(body, x, [ops.zeros_state(x, 4), ops.zeros_state(x, 1)])
        assert isinstance(last, list)
        return (*outputs, *last)

    sums, same, total, count = Function(forward).predict(x)
    np.testing.assert_allclose(sums, x.cumsum(1), rtol=1e-6)
    np.testing.assert_array_equal(same, x)
    np.testing.assert_allclose(total, x.sum(1), rtol=1e-6)
    np.testing.assert_array_equal(count, np.full((2, 1), 3.0))
