"""Slopes of element-wise functions, for second gradients: those of the functions."""

from __future__ import annotations

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops
from fastnn.kernels.elementwise.rows import TABLE
from tests.graph.test_symbolic import Function


class SlopeOf(nn.Module):
    """The gradient of f(x) * w to x: linear in w, so that w's gradient is f's slope."""

    def __init__(self, function, x):
        self.f = function
        self.x, self.w = nn.Embedding(len(x), 1), nn.Embedding(len(x), 1)
        self.x.weight.value = x[:, None]

    def forward(self, ids):
        x = self.x(ids)
        return ops.gradient(ops.total(self.f(x) * self.w(ids)), x)


def slopes(function, x, dtype="float64"):
    model = SlopeOf(function, x)
    step = fnn.compile(model, lambda output, _: ops.total(output), "sgd", dtype=dtype)
    return step.gradients(np.arange(len(x)), np.zeros(len(x)))["w.weight"][:, 0]


#: functions of one array
FUNCTIONS = [name for name, f in TABLE.items() if f.inputs == ("x",)]
ATTRS = {"leaky_relu": (0.3,), "elu": (0.7,), "clip": (-0.5, 0.5)}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_slopes_are_those_of_the_function(name):
    op, more = ("gelu", ("tanh",)) if name == "gelu_tanh" else (name, ATTRS.get(name, ()))

    def function(x):
        return getattr(ops, op)(x, *more)

    x = np.array([0.3, 0.9, 1.7] if name in ("log", "sqrt") else [-2.1, -0.4, 0.3, 0.9, 1.7])
    model = Function(function)
    model.store("float64")
    near = [model.predict(x[:, None] + d)[:, 0] for d in (-1e-6, 1e-6)]
    np.testing.assert_allclose(slopes(function, x), (near[1] - near[0]) / 2e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["maximum", "minimum"])
def test_slopes_at_a_tie_are_shared(name):
    found = slopes(lambda x: getattr(ops, name)(x, np.ones(1)), np.array([0.5, 1.0, 1.5]))
    np.testing.assert_array_equal(found, [0, 0.5, 1] if name == "maximum" else [1, 0.5, 0])


@pytest.mark.parametrize("name", ["elu", "selu"])
def test_slopes_far_left(name):
    """They are no differences of what is nearly equal, also where a gradient depends on them."""
    x = np.array([-1.0, -5.0, -10.0, -17.0, -30.0, 2.0])
    scale, alpha = (1.0507009873554805, 1.6732632423543772) if name == "selu" else (1.0, 1.0)
    wanted = scale * np.where(x > 0, 1.0, alpha * np.exp(x))
    np.testing.assert_allclose(slopes(getattr(ops, name), x, "float32"), wanted, rtol=1e-6)
