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
from fastnn.graph.value import Value
from fastnn.kernels.declare import KERNELS
from fastnn.ops.operands import as_value
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

    work(3)  # what is done once
    few, many = work(12), work(1200)
    assert many <= 1.01 * few


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


class Outside(nn.Module):
    """Every way in which a body can use what comes from outside of it."""

    def __init__(self, features: int, hidden: int, way: str):
        self.hidden, self.way = hidden, way
        self.a, self.b = nn.Linear(features, hidden), nn.Linear(4, hidden)
        self.both = nn.Linear(features + 4, hidden)
        self.gain = nn.Parameter((hidden,), "ones")
        self.matrix = nn.Parameter((hidden, hidden), "xavier_uniform")
        self.square = nn.Parameter((hidden, hidden), "xavier_uniform", transposed=True)
        self.norm, self.batch_norm = nn.LayerNorm(hidden), nn.BatchNorm(hidden)

    def forward(self, x, c):
        way = self.way

        def step(x_t, h):
            if way == "concatenate first":
                return self.next(self.both(ops.concatenate(c, x_t)), h)
            if way == "concatenate last":
                return self.next(self.both(ops.concatenate(x_t, c)), h)
            if way == "linear":
                return self.next(ops.add(self.a(x_t), self.b(c)), h)
            if way == "norm outside":
                return self.next(ops.add(self.a(x_t), self.norm(self.b(c))), h)
            if way == "product":
                return self.next(ops.multiply(self.a(x_t), self.b(c)), h)
            if way == "scaled weight":
                return self.next(
                    ops.linear(h, ops.multiply(as_value(h.graph, self.matrix), 2.0)), self.a(x_t)
                )
            if way == "weight twice":
                h = self.next(ops.linear(h, self.square), self.a(x_t))[1]
                h = ops.multiply(h, self.gain)
                return self.next(ops.multiply(h, self.gain), ops.linear(h, self.square))
            if way == "mean of the batch":  # the gradient of the mean is a sum of rows of the step
                h = ops.add(self.a(x_t), h)
                return self.next(h, ops.mean(ops.tanh(h), axis=0))
            if way == "batch norm":
                return self.next(self.batch_norm(self.a(x_t)), h)
            if way == "columns":
                wide = ops.concatenate(self.a(x_t), self.b(c))
                return self.next(ops.columns(wide, 1, 1 + self.hidden), h)
            if way == "returned":
                h = self.next(self.a(x_t), h)[1]
                return (self.b(c), h), h
            if way == "returned as it is":
                return (x_t, h), h
            assert way == "new state from outside"
            h = self.next(self.a(x_t), h)[1]
            return h, self.b(c)

        y, last = ops.loop(step, x, ops.zeros_state(x, self.hidden))
        return (*y, last) if isinstance(y, tuple) else (y, last)

    def next(self, a, b):
        h = ops.tanh(ops.add(a, b))
        return h, h


WAYS = [
    "concatenate first", "concatenate last", "linear", "norm outside", "product", "scaled weight",
    "weight twice", "mean of the batch", "batch norm", "columns", "returned", "returned as it is",
    "new state from outside",
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("batch", "steps"), [(1, 3), (3, 1), (9, 4)])
def test_gradients_with_values_from_outside(way: str, batch: int, steps: int) -> None:
    if way == "batch norm" and batch == 1:
        batch = 2
    rng = np.random.default_rng(4)
    x, c = rng.normal(size=(batch, steps, 5)), rng.normal(size=(batch, 4))
    assert gradcheck(Outside(5, 3, way), x, c, training=way == "batch norm")


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_concatenated_with_a_value_from_outside(workers: int) -> None:
    class Both(nn.Module):
        def forward(self, x, c):
            def step(x_t, h):
                return (ops.concatenate(c, x_t), ops.concatenate(x_t, c), c), h

            return ops.loop(step, x, ops.zeros_state(x, 1))[0]

    x, c = np.arange(18.0).reshape(2, 3, 3) + 100, np.array([[7.0, 8], [9, 10]])
    first, last, alone = Both().predict(x, c)
    every = np.repeat(c[:, None], 3, axis=1)
    np.testing.assert_array_equal(first, np.concatenate([every, x], axis=-1))
    np.testing.assert_array_equal(last, np.concatenate([x, every], axis=-1))
    np.testing.assert_array_equal(alone, every)


def traced(model: nn.Module, *shapes: tuple[int, ...], batch: int = 8) -> Graph:
    """The graph of a model with the gradients of the mean of its first output."""
    model.store()
    graph = Graph(batch, training=True)
    inputs = [graph.input(f"x{k}", shape) for k, shape in enumerate(shapes)]
    y = trace(model, graph, *inputs)[0]
    used = [p for p in model.parameters() if p in graph.leaves]
    differentiate(graph, ops.mean(y), [graph.leaves[p] for p in used])
    return graph


def test_what_no_step_needs_is_computed_once() -> None:
    """A layer on something from outside stands before the loop, its gradient after it."""
    graph = traced(Outside(5, 6, "linear"), (7, 5), (4,))
    calls = Lowering(graph).calls
    kernels = [c.kernel for c in calls]
    times = [c.repeats[0].length if c.repeats else 1 for c in calls if c.kernel == "linear_forward"]
    assert sorted(times) == [1, 7]
    assert kernels.count("linear_backward_weight") == 2


def test_memory_of_gradients_does_not_grow_with_the_steps() -> None:
    """A large value from outside that each step looks at: one sum, no copy a step."""

    class Dot(nn.Module):
        def forward(self, x, memory):
            def step(x_t, h):
                product = ops.multiply(memory, memory)
                h = ops.add(ops.tanh(ops.add(product, memory)), ops.multiply(h, h))
                return h, h

            return ops.loop(step, x, memory)[0]

    def elements(steps: int) -> int:
        graph = Graph(2, training=True)
        x, memory = graph.input("x", (steps, 1)), graph.input("memory", (1000,))
        (y,) = trace(Dot(), graph, x, memory)
        lowered = Lowering(graph)
        forward = len(lowered.calls)
        differentiate(graph, ops.mean(y), [memory])
        roots = {
            v.root for c in lowered.calls[forward:] for v in c.operands.values()
            if isinstance(v, Value) and v.root.segment == "work"
        }  # fmt: skip
        before = {
            v.root for c in lowered.calls[:forward] for v in c.operands.values()
            if isinstance(v, Value)
        }  # fmt: skip
        return sum(v.size for v in roots - before) // 2000

    # of the output a slice a step and its copy, of the state's gradient one more; then a few sums
    assert elements(40) - elements(20) <= 3 * 20


def test_gradients_are_right_at_sizes_where_weight_gradients_are_packed() -> None:
    """One product over all steps, with its operands packed as large products want it."""
    from fastnn.plan.products import chosen

    class Wide(nn.Module):
        def __init__(self) -> None:
            self.a = nn.Linear(600, 520, bias=False)

        def forward(self, x):
            def step(x_t, h):
                h = ops.add(self.a(x_t), h)
                return h, h

            return ops.loop(step, x, ops.zeros_state(x, 520))[1]

    graph = traced(Wide(), (3, 600), batch=16)
    kernels = [c.kernel for c in chosen(Lowering(graph))]
    assert kernels.count("linear_backward_weight_packed") == 1
    assert kernels.count("pack_panels") == 2
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(16, 3, 600)), rng.normal(size=(16, 520))
    model = Wide()
    step = fnn.compile(model, nn.MSELoss(reduction="sum"), "sgd", dtype="float64")
    got = step.gradients(x, y)["a.weight"]
    out = x.sum(axis=1) @ model.a.weight.value.T
    np.testing.assert_allclose(got, 2 * (out - y).T @ x.sum(axis=1), rtol=1e-11, atol=1e-12)


def test_statistics_of_a_norm_in_the_body_are_the_models() -> None:
    """What a body writes for good (running statistics) is written in each step, in its place."""

    class Normed(nn.Module):
        def __init__(self) -> None:
            self.norm = nn.BatchNorm(3)

        def forward(self, x):
            return ops.loop(lambda x_t, h: (self.norm(x_t), h), x, ops.zeros_state(x, 1))[0]

    rng = np.random.default_rng(6)
    x = rng.normal(size=(8, 4, 3)).astype(np.float32)
    model = Normed()
    fnn.compile(model, "mse", optim.SGD(lr=0.1))(x, x)
    mean = np.zeros(3)
    for t in range(4):
        mean = 0.9 * mean + 0.1 * x[:, t].mean(axis=0)
    np.testing.assert_allclose(model.norm.running_mean.value, mean, rtol=1e-5)


def test_a_loop_within_a_loop() -> None:
    class Nested(nn.Module):
        def __init__(self) -> None:
            self.inner, self.outer = nn.Linear(2 + 3, 3), nn.Linear(3, 3)

        def forward(self, x, c):
            def inner(x_t, h):
                h = ops.tanh(ops.add(self.inner(ops.concatenate(x_t, h)), c))
                return h, h

            def outer(x_t, h):
                _, last = ops.loop(inner, x_t, h)
                h = ops.tanh(self.outer(last))
                return h, h

            return ops.loop(outer, x, ops.zeros_state(x, 3))[0]

    rng = np.random.default_rng(7)
    assert gradcheck(Nested(), rng.normal(size=(3, 4, 2, 2)), rng.normal(size=(3, 3)))


@pytest.mark.parametrize("way", ["zeros", "state", "input"])
def test_the_last_state_of_a_loop_within_a_loop(way: str) -> None:
    """It lies within the inner loop's memory, and is the outer one's new state as it is."""

    class Nested(nn.Module):
        def forward(self, x):
            def outer(x_t, h):
                def inner(part, g):
                    g = ops.tanh(ops.add(ops.add(g, part), h if way == "input" else 0.0))
                    return g, g

                start = h if way == "state" else ops.zeros_state(x, 3)
                _, last = ops.loop(inner, x_t, start)
                return last, last

            return ops.loop(outer, x, ops.zeros_state(x, 3))[0]

    assert gradcheck(Nested(), np.random.default_rng(4).normal(size=(2, 3, 2, 3)))


def test_a_large_batch_in_inference() -> None:
    """More rows than a block holds: slices of stacks are no local memory."""
    rng = np.random.default_rng(8)
    x, c = rng.normal(size=(700, 3, 5)), rng.normal(size=(700, 4))
    for way in WAYS:
        model = Outside(5, 40, way)
        model.store("float64")
        whole = model.predict(x, c, batch_size=700)
        parts = model.predict(x, c, batch_size=7)
        for a, b in zip(whole, parts, strict=True):
            np.testing.assert_array_equal(a, b)


class Cells(nn.Module):
    """A cell in a loop and the fused layer of the same name, with the same parameters."""

    def __init__(self, kind: str, fused: bool):
        self.kind, self.fused = kind, fused
        self.layer = getattr(nn, kind if fused else f"{kind}Cell")(4, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, x, lengths):
        if self.fused:
            return self.head(self.layer(x, lengths=lengths)[0])

        def step(x_t, state):
            new = self.layer(x_t, state)
            return (new[0] if self.kind == "LSTM" else new), new

        zeros = ops.zeros_state(x, 5)
        state = (zeros, zeros) if self.kind == "LSTM" else zeros
        return self.head(ops.loop(step, x, state, lengths=lengths)[0])


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cells_and_fused_layers_agree(kind: str, dtype: str) -> None:
    rng = np.random.default_rng(9)
    x, lengths = rng.normal(size=(9, 6, 4)).astype(dtype), rng.integers(0, 7, 9)
    y = rng.normal(size=(9, 6, 3)).astype(dtype)
    results = []
    for fused in (False, True):
        model = Cells(kind, fused)
        model.store(dtype, 0)
        if results:
            for name, p in model.named_parameters().items():
                p.value = results[0][0][name.replace("_l0", "")]
        step = fnn.compile(model, "mse", "sgd", dtype=dtype)
        found = {n.replace("_l0", ""): g for n, g in step.gradients((x, lengths), y).items()}
        values = {n: np.array(p) for n, p in model.named_parameters().items()}
        results.append((values, found, model.predict(x, lengths)))
    rtol = 1e-5 if dtype == "float32" else 1e-12
    (_, ours, rows), (_, theirs, expected) = results
    np.testing.assert_allclose(rows, expected, atol=rtol)
    assert len(ours) == len(theirs) == 6
    for name, gradient in theirs.items():
        np.testing.assert_allclose(ours[name], gradient, atol=rtol, err_msg=name)
