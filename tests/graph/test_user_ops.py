"""Users' own ops: defined, trained, refused, compiled anew when they change."""

from __future__ import annotations

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops
from fastnn.errors import OptionError, ShapeError
from fastnn.graph.op import OPS
from fastnn.testing import gradcheck
from tests.graph.user_ops import Snake, X, pick, snake, snake_forward


def naive_snake(x, a=1.0):
    return x + np.sin(a * x) ** 2 / a


@pytest.mark.parametrize("shape", [(9, 5), (4, 3, 5)])
@pytest.mark.parametrize("a", [1.0, 0.3])
def test_values_and_gradients(shape, a):
    x = np.random.default_rng(1).normal(size=shape)
    np.testing.assert_allclose(Snake(a).predict(x), naive_snake(x, a), rtol=1e-5, atol=1e-6)
    assert gradcheck(Snake(a), x)
    assert gradcheck(lambda v: ops.tanh(snake(v, a)) * snake(v), x)


def test_it_is_a_row_of_the_table_and_trains():
    assert OPS["test_snake"].inputs == ("x",)
    assert repr(snake) == "test_snake(x, a=1.0)"
    model = nn.Sequential(nn.Linear(5, 16), Snake(), nn.Linear(16, 1))
    step = fnn.compile(model, "mse", fnn.optim.Adam(lr=0.01))
    x = X.astype(np.float32)
    y = (x[:, :1] * x[:, 1:2]).astype(np.float32)
    losses = [step(x, y) for _ in range(300)]
    assert losses[-1] < 0.05 * losses[0]


@fnn.kernel
def wrong_backward(dy: "in rows f[N,C]", dx: "out rows f[N,C]", lo: "begin", hi: "end"):
    for i in range(lo, hi):
        for j in range(dy.shape[1]):
            dx[i, j] = dy[i, j]


def test_a_wrong_gradient_is_found():
    wrong = fnn.define_op("test_wrong_snake", snake_forward, wrong_backward)
    with pytest.raises(AssertionError, match="gradcheck: input 0"):
        gradcheck(lambda v: wrong(v, 1.0), X)


@pytest.mark.parametrize("lead", [(9,), (4, 3)])
def test_several_inputs_and_outputs(lead):
    rng = np.random.default_rng(2)
    x, ids = rng.normal(size=(*lead, 5)), rng.integers(0, 6, lead)
    w = nn.Parameter((5, 6), "normal")
    shapes = []

    def function(ids, x, w):
        y, chosen = pick(ids, x, w)
        shapes[:] = y.shape, chosen.shape
        return y, ops.tanh(chosen)

    assert gradcheck(function, ids, x, w)
    assert shapes == [(*lead, 6), lead]


def test_the_same_bits_for_any_number_of_workers():
    class Model(nn.Module):
        def __init__(self):
            self.w = nn.Parameter((5, 6), "normal")

        def forward(self, x, ids):
            return pick(ids, snake(x), self.w)[0]

    rng = np.random.default_rng(3)
    x, ids = rng.normal(size=(40, 5)).astype(np.float32), rng.integers(0, 6, 40)
    y = rng.normal(size=(40, 6)).astype(np.float32)
    results = []
    for workers in (1, 2, 3):
        model = Model()
        step = fnn.compile(model, "mse", "adam", workers=workers)
        for _ in range(5):
            step((x, ids), y)
        results.append(model.w.value.tobytes())
    assert len(set(results)) == 1


def test_a_shape_of_its_own():
    @fnn.kernel(name="test_twice_forward")
    def forward(x: "in rows f[N,C]", y: "out rows f[N,D]", times: "int", lo: "begin", hi: "end"):
        for i in range(lo, hi):
            for j in range(y.shape[1]):
                y[i, j] = x[i, j // times]

    with pytest.raises(OptionError, match="no input has the dimension D; pass shape="):
        fnn.define_op("test_twice", forward)

    def shape(inputs, attributes):
        *lead, c = inputs["x"]
        return (*lead, attributes["times"] * c)

    op = fnn.define_op("test_twice", forward, shape=shape, defaults={"times": 2})

    class Twice(nn.Module):
        def forward(self, x):
            return op(x, times=3)

    np.testing.assert_allclose(Twice().predict(X), np.repeat(X, 3, axis=1), rtol=1e-6)
    with pytest.raises(ShapeError, match="'test_twice' has no gradient"):
        gradcheck(Twice(), X)
    bad = fnn.define_op("test_twice", forward, shape=lambda *_: {"z": 3}, defaults={"times": 2})
    with pytest.raises(ShapeError, match=r"expected shape= to return a shape for each of \['y'\]"):
        gradcheck(bad, X)
