"""Loops whose body uses values from outside, and loops within loops."""

from __future__ import annotations

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim
from fastnn.graph.gradient import differentiate
from fastnn.graph.graph import Graph
from fastnn.graph.trace import trace
from fastnn.graph.value import Value
from fastnn.ops.operands import as_value
from fastnn.plan.lower import Lowering
from fastnn.testing import gradcheck


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
    assert kernels.count("linear_backward_weight_own") == 1
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
