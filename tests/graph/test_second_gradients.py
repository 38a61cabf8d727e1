"""Gradients of gradients: each op's against central differences of its first one."""

from __future__ import annotations

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops
from fastnn.errors import ShapeError
from fastnn.graph.value import Value
from fastnn.nn.parameter import Parameter
from fastnn.testing import gradcheck
from tests.graph.test_gradients import CASES, SHAPES, randomized

ONE_CASE = [(op, k) for op, found in CASES.items() for k in range(len(found))]


def first(function):
    """The gradients of a function's outputs, weighted at random, to its float inputs and trained
    parameters; with the inputs' squares, so that something depends on each."""

    def gradients(*inputs):
        wanted = [
            x for x in inputs
            if (x.trainable if isinstance(x, Parameter) else x.dtype == "f")
        ]  # fmt: skip
        outputs = function(*inputs)
        outputs = outputs if isinstance(outputs, (tuple, list)) else [outputs]
        rng, number = np.random.default_rng(7), 0.0
        for y in outputs:
            number = ops.sum(ops.multiply(y, rng.normal(size=y.shape))) + number
        found = ops.gradient(number, wanted)
        return tuple(
            ops.add(g, ops.square(x)) if isinstance(x, Value) else ops.affine(g, 2.0, 1.0)
            for g, x in zip(found, wanted, strict=True)
        )

    return gradients


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    ("op", "number"), ONE_CASE, ids=[f[0] for found in CASES.values() for f in found]
)
def test_second_gradient_of_each_op(op, number, shape):
    _, function, make, training = CASES[op][number]
    assert gradcheck(first(function), *make(shape), training=training)


OTHERS = {
    "clip": lambda x: ops.clip(x, -0.5, 0.7),
    "erf": ops.erf,
    "sin": ops.sin,
    "expand": lambda x: ops.multiply(ops.expand(ops.unsqueeze(x, 1), -1, 3, -1), 2.0) ** 2,
    "gather": lambda x: ops.take(x, [[0, 2], [1, 1]]) ** 3,
    "logsumexp": ops.logsumexp,
    "matmul": lambda x: ops.matmul(ops.reshape(x, -1, 2, 2), ops.reshape(ops.tanh(x), -1, 2, 2)),
    "max": lambda x: ops.max(x, -1) ** 2,
    "maximum": lambda x: ops.maximum(x, x[:, ::-1]) ** 3,
    "minimum": lambda x: ops.minimum(x, x[:, ::-1]) ** 3,
    "pad": lambda x: ops.pad(x, [(0, 0), (1, 2)]) ** 3,
    "power": lambda x: ops.power(ops.square(x) + 0.5, ops.tanh(x)),
    "prod": lambda x: ops.prod(x, -1),
    "cumsum": lambda x: ops.cumsum(x) ** 3,
    "steps": lambda x: x[:, ::-2] ** 3,
    "sum of rows": lambda x: ops.sum(x, 0) ** 3 * np.ones((5, 1)),
    "transpose": lambda x: ops.transpose(x, 1, 0) ** 3,
    "where": lambda x: ops.where(x < 0.1, ops.exp(x), ops.square(x)),
    "twice the same": lambda x: ops.multiply(x, x) * x,
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_ops(name):
    x = np.random.default_rng(3).normal(size=(5, 4))
    assert gradcheck(lambda x: _over_the_batch(first(OTHERS[name])(x)[0], x), x)


def _over_the_batch(y, x):
    assert y.shape == x.shape
    return y


CELLS = [
    (kind, options, lengths)
    for kind, options in [
        ("RNN", {}), ("RNN", {"nonlinearity": "relu"}), ("LSTM", {}), ("LSTM", {"peepholes": True}),
        ("LSTM", {"bidirectional": True}), ("GRU", {}), ("GRU", {"reset": "before"}),
    ]
    for lengths in (False, True)
]  # fmt: skip


@pytest.mark.parametrize(("kind", "options", "lengths"), CELLS, ids=str)
def test_recurrent_nets(kind, options, lengths):
    rng = np.random.default_rng(2)

    class Net(nn.Module):
        def __init__(self):
            self.net = getattr(nn, kind)(3, 4, **options)

        def forward(self, x, lengths=None):
            y = self.net(x, lengths=lengths)[0]
            number = ops.sum(y * rng0(y.shape))
            wanted = [x, *self.net.parameters()]
            found = ops.gradient(number, wanted)
            others = sum((ops.sum(ops.square(g)) for g in found[1:]), 0.0 * number)
            return found[0] + others

    def rng0(shape):
        return np.random.default_rng(5).normal(size=shape)

    x = rng.normal(size=(3, 4, 3))
    inputs = (x, np.array([4, 1, 3])) if lengths else (x,)
    assert gradcheck(Net(), *inputs)


def test_gradients_of_all_outputs_of_a_layer_arrive():
    class All(nn.Module):
        def __init__(self):
            self.net = nn.LSTM(2, 2)

        def forward(self, x):
            y, ((h, c),) = self.net(x)
            return ops.gradient(ops.sum(ops.square(y)) + ops.sum(h * ops.square(c)), x)

    assert gradcheck(All(), np.random.default_rng(3).normal(size=(2, 3, 2)))


class Elman(nn.Module):
    """A loop with a layer on the step, one on something from outside, and several states."""

    def __init__(self):
        self.mix, self.outside = nn.Linear(3 + 4, 4), nn.Linear(2, 4)

    def forward(self, x, c):
        def step(x_t, states):
            h, total = states
            h = ops.tanh(self.mix(ops.concatenate(x_t, h)) + self.outside(c))
            return (h, total), (h, total + h * h)

        zeros = ops.zeros_state(x, 4)
        (y, _), (last, total) = ops.loop(step, x, (zeros, zeros))
        number = ops.sum(ops.square(y)) + ops.sum(total * last)
        found = ops.gradient(number, [x, c, *self.parameters()])
        others = sum((ops.sum(ops.square(g)) for g in found[1:]), 0.0 * number)
        return found[0] + others


def test_a_loop():
    rng = np.random.default_rng(4)
    assert gradcheck(Elman(), rng.normal(size=(3, 5, 3)), rng.normal(size=(3, 2)))


def test_loops_in_loops():
    class Nested(nn.Module):
        def __init__(self):
            self.mix = nn.Linear(3, 3)

        def forward(self, x):
            def outer(x_t, h):
                def inner(part, g):
                    g = ops.tanh(self.mix(g) + part + h)
                    return g, g

                _, g = ops.loop(inner, ops.reshape(x_t, -1, 2, 3), h)
                return g, g

            y, _ = ops.loop(outer, x, ops.zeros_state(x, 3))
            weight, slope = ops.gradient(ops.sum(ops.square(y)), [self.mix.weight, x])
            return slope + ops.sum(ops.square(weight))

    assert gradcheck(Nested(), np.random.default_rng(4).normal(size=(2, 3, 6)))


def test_third_gradient():
    def third(x):
        y = ops.sum(ops.tanh(x))
        for _ in range(2):
            y = ops.sum(ops.gradient(y, x))
        return ops.gradient(y, x)

    x = np.random.default_rng(0).normal(size=(4, 3))
    assert gradcheck(third, x)


# ---------------------------------------------------------------- products with the Hessian


class HessianProduct(nn.Module):
    """The product of vectors with the Hessian of a net's loss to its parameters."""

    def __init__(self, net, vectors):
        self.net, self.vectors = net, vectors

    def forward(self, x):
        y = self.net(x)
        loss = ops.mean(ops.square(y if isinstance(y, Value) else y[0]))
        parameters = list(self.net.parameters())
        first = ops.gradient(loss, parameters)
        along = sum((ops.sum(g * v) for g, v in zip(first, self.vectors, strict=True)), 0.0 * loss)
        return tuple(ops.gradient(along, parameters))


class Slopes(nn.Module):
    """The gradients of the same loss."""

    def __init__(self, net):
        self.net = net

    def forward(self, x):
        y = self.net(x)
        loss = ops.mean(ops.square(y if isinstance(y, Value) else y[0]))
        return tuple(ops.gradient(loss, list(self.net.parameters())))


class Own(nn.Module):
    def __init__(self):
        self.mix = nn.Linear(3 + 4, 4)

    def forward(self, x):
        def step(x_t, h):
            h = ops.tanh(self.mix(ops.concatenate(x_t, h)))
            return h, h

        return ops.loop(step, x, ops.zeros_state(x, 4))[0]


NETS = {
    "mlp": (lambda: nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)), (6, 3)),
    "lstm": (lambda: nn.LSTM(3, 4), (4, 5, 3)),
    "loop": (Own, (4, 5, 3)),
}


@pytest.mark.parametrize("name", NETS)
def test_hessian_vector_products(name):
    """Against central differences of gradients along the vector, in float64."""
    make, shape = NETS[name]
    rng = np.random.default_rng(1)
    x, net = rng.normal(size=shape), make()
    slopes = Slopes(net)
    slopes.to("float64")
    slopes.predict(x)
    parameters = list(net.parameters())
    vectors = [rng.normal(size=p.shape) for p in parameters]
    kept = [p.value.copy() for p in parameters]

    def gradients(step):
        for p, value, v in zip(parameters, kept, vectors, strict=True):
            p.value[...] = value + step * v
        found = slopes.predict(x)
        return found if isinstance(found, tuple) else (found,)

    above, below = gradients(1e-5), gradients(-1e-5)
    gradients(0.0)
    product = HessianProduct(net, vectors)
    found = product.predict(x)
    for got, a, b in zip(found, above, below, strict=True):
        want = (a - b) / 2e-5
        assert np.abs(want).max() > 1e-3
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7)


# ---------------------------------------------------------------- what can't be


def test_what_has_no_expression_says_so():
    x = np.random.default_rng(0).normal(size=(4, 3))
    cube = fnn.define_op("test_cube", cube_forward, cube_backward)
    with pytest.raises(ShapeError, match=r"gradient of op 'test_cube' .*give define_op an expr"):
        gradcheck(first(cube), x)
    cube = fnn.define_op("test_cube", cube_forward, cube_backward, expression=lambda x: x**3)
    assert gradcheck(first(cube), x)
    wrong = fnn.define_op("test_cube", cube_forward, cube_backward, expression=lambda x: x[:, :1])
    with pytest.raises(ShapeError, match=r"shapes \[\(4, 3\)\], got \[\(4, 1\)\]"):
        gradcheck(first(wrong), x)


@fnn.kernel
def cube_forward(x: "in rows f[N,C]", y: "out rows f[N,C]", lo: "begin", hi: "end"):
    for i in range(lo, hi):
        for j in range(x.shape[1]):
            y[i, j] = x[i, j] ** 3


@fnn.kernel
def cube_backward(
    x: "in rows f[N,C]", dy: "in rows f[N,C]", dx: "out rows f[N,C]", lo: "begin", hi: "end"
):
    for i in range(lo, hi):
        for j in range(x.shape[1]):
            dx[i, j] = 3 * x[i, j] ** 2 * dy[i, j]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: ops.gradient(x, x), r"expected one number, got shape \(4, 3\)"),
        (
            lambda x: ops.gradient(ops.sum(x), np.ones(3)),
            "parameters as wrt, got ndarray",
        ),
        (lambda x: ops.gradient(x, x, np.ones(3)), r"expected a seed of shape \(4, 3\)"),
    ],
)
def test_errors(call, message):
    class Net(nn.Module):
        def forward(self, x):
            return call(x)

    with pytest.raises(ShapeError, match=message):
        Net().predict(np.ones((4, 3), np.float32))


def test_what_a_number_does_not_depend_on_has_a_gradient_of_zero():
    class Net(nn.Module):
        def __init__(self):
            self.used, self.unused = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x):
            weights = [self.used.weight, self.unused.weight]
            return tuple(ops.gradient(ops.sum(self.used(x)), weights))

    used, unused = Net().predict(np.ones((4, 3), np.float32))
    np.testing.assert_array_equal(used, np.full((2, 3), 4.0, np.float32))
    np.testing.assert_array_equal(unused, np.zeros((2, 3), np.float32))


def test_same_bits_on_any_number_of_workers():
    x = np.random.default_rng(0).normal(size=(37, 5, 3)).astype(np.float32)
    found = []
    for workers in (1, 2, 3):
        model = Penalised(nn.LSTM(3, 4))
        trainer = fnn.Trainer(model, lambda y, t: ops.mean(y), "sgd", seed=1, workers=workers)
        trainer.fit(x, np.zeros((37, 1), np.float32), epochs=2, batch_size=8, verbose=False)
        found.append([p.value.copy() for p in model.parameters()])
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


class Penalised(nn.Module):
    """The square of the gradient's norm for each sample."""

    def __init__(self, net):
        self.net = net

    def forward(self, x):
        slope = ops.gradient(ops.sum(self.net(x)[0]), x)
        return ops.sum(ops.square(slope), (1, 2))


def test_rows_that_do_not_count_are_not_there_for_second_gradients():
    """The padding row of a table, and rows with a label to be ignored."""
    ids = np.array([0, 2, 1, 2])

    class Masked(nn.Module):
        def __init__(self):
            self.table = nn.Embedding(3, 4, padding_idx=2)
            self.w, self.logits = nn.Embedding(4, 4), nn.Embedding(4, 3)

        def forward(self, at, ids):
            rows, w, x = self.table(ids), self.w(at), self.logits(at)
            moved = ops.gradient(ops.total(rows * w), self.table.weight)
            loss = nn.CrossEntropyLoss(ignore_index=2, reduction="sum")(x, ids)
            return ops.total(moved) + ops.total(ops.gradient(loss, x) * np.array([1.0, 2.0, 4.0]))

    model = randomized(Masked())
    step = fnn.compile(model, lambda output, _: output, "sgd", dtype="float64")
    found = step.gradients((np.arange(4), ids), np.zeros(4))
    for name in ("w.weight", "logits.weight"):
        assert (np.abs(found[name]).max(1) > 0).tolist() == (ids != 2).tolist()
