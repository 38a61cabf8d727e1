"""Forward mode: tangents of each op and of its gradients, against central differences."""

from __future__ import annotations

import numpy as np
import pytest

from fastnn import nn, ops
from fastnn.errors import ShapeError
from fastnn.nn.parameter import Parameter
from fastnn.testing.gradcheck import _as_input, _Check, as_model
from tests.graph.test_gradients import CASES, SHAPES
from tests.graph.test_second_gradients import ONE_CASE, OTHERS


def differentiable(inputs):
    return [x for x in inputs if (x.trainable if isinstance(x, Parameter) else x.dtype == "f")]


def values_and_gradients(function, second=True):
    """A function's outputs, and their gradients to its float inputs and trained parameters."""

    def found(*inputs):
        outputs = function(*inputs)
        outputs = outputs if isinstance(outputs, (tuple, list)) else [outputs]
        outputs = [y for y in outputs if y.dtype == "f"]
        rng, number = np.random.default_rng(7), 0.0
        for y in outputs:
            number = ops.sum(ops.multiply(y, rng.normal(size=y.shape))) + number
        gradients = ops.gradient(number, differentiable(inputs)) if second else []
        return [*outputs, *gradients]

    return found


def tangents_agree(function, inputs, training=True, second=True, eps=1e-6):
    """Whether tangents of values and of gradients are what central differences say."""
    rng = np.random.default_rng(3)
    moved = [
        rng.normal(size=x.shape)
        for x in inputs
        if (x.trainable if isinstance(x, Parameter) else np.asarray(x).dtype.kind == "f")
    ]

    def along(*given):
        found = values_and_gradients(function, second)(*given)
        return [ops.tangent(y, differentiable(given), moved) for y in found]

    arrays = [_as_input(x) for x in inputs if not isinstance(x, Parameter)]

    def outputs(what, step):
        model = as_model(lambda *given: tuple(_wide(y) for y in what(*given)), tuple(inputs))
        model.store("float64", 0)
        steps, parts = iter(moved), []
        k = 0
        for number, x in enumerate(inputs):
            if isinstance(x, Parameter):
                if x.trainable:
                    own = model.named_parameters()[f"input{number}"]
                    own.value = own.value + step * next(steps)
            else:
                part = arrays[k]
                parts.append(part + step * next(steps) if part.dtype.kind == "f" else part)
                k += 1
        check = _Check(model, {f"x{n}": a for n, a in enumerate(parts)}, len(parts[0]), 0, training)
        return [check.forward.view(n).copy() for n in check.douts]

    above, below = (outputs(values_and_gradients(function, second), s) for s in (eps, -eps))
    got = outputs(along, 0.0)
    assert len(got) == len(above)
    for found, a, b in zip(got, above, below, strict=True):
        np.testing.assert_allclose(found, (a - b) / (2 * eps), rtol=2e-5, atol=2e-7)
    return True


def _wide(y):
    """With a first dimension, as outputs have it."""
    return ops.reshape(y, 1) if y.ndim == 0 else ops.affine(y, 1.0, 0.0)


@pytest.mark.parametrize("shape", SHAPES[1:], ids=str)
@pytest.mark.parametrize(
    ("op", "number"), ONE_CASE, ids=[f[0] for found in CASES.values() for f in found]
)
def test_tangents_of_each_op(op, number, shape):
    _, function, make, training = CASES[op][number]
    assert tangents_agree(function, make(shape), training)


def several(op, number):
    """Whether a case of an op has two or more inputs that can be varied."""
    inputs = CASES[op][number][2](SHAPES[1])
    varied = [
        x.trainable if isinstance(x, Parameter) else np.asarray(x).dtype.kind == "f" for x in inputs
    ]
    return sum(varied) > 1


@pytest.mark.parametrize(("op", "number"), [case for case in ONE_CASE if several(*case)])
def test_tangents_along_single_inputs_add_up(op, number):
    """What only one of the inputs contributes: the others have no tangent at all."""
    _, function, make, training = CASES[op][number]
    inputs = make(SHAPES[1])

    def rest(*given):
        varied, rng = differentiable(given), np.random.default_rng(3)
        moved = [rng.normal(size=x.shape) for x in varied]
        outputs = function(*given)
        outputs = outputs if isinstance(outputs, (tuple, list)) else [outputs]
        found = []
        for y in outputs:
            if y.dtype == "f":
                whole = ops.tangent(y, varied, moved)
                for x, direction in zip(varied, moved, strict=True):
                    whole = whole - ops.tangent(y, [x], [direction])
                found.append(_wide(whole))
        return tuple(found)

    model = as_model(rest, tuple(inputs))
    model.store("float64", 0)
    arrays = [_as_input(x) for x in inputs if not isinstance(x, Parameter)]
    named = {f"x{n}": a for n, a in enumerate(arrays)}
    check = _Check(model, named, len(arrays[0]), 0, training)
    for name in check.douts:
        np.testing.assert_allclose(check.forward.view(name), 0.0, atol=1e-12)


@pytest.mark.parametrize("name", OTHERS)
def test_other_ops(name):
    assert tangents_agree(OTHERS[name], (np.random.default_rng(3).normal(size=(5, 4)),))


def test_a_value_twice_in_one_op():
    """What arrives at a gradient node may be one of the node's inputs."""

    class Net(nn.Module):
        def forward(self, x):
            slope = ops.gradient(ops.tanh(x), x, seed=x)  # x (1 - tanh(x)^2)
            return ops.tangent(slope, x, np.ones(x.shape))

    x = np.array([[0.3, -1.2]])
    model = Net()
    model.store("float64")
    t = np.tanh(x)
    wanted = (1 - t**2) - 2 * x * t * (1 - t**2)
    np.testing.assert_allclose(model.predict(x), wanted, rtol=1e-12)


def test_what_a_second_derivative_depends_on():
    """The gradient that arrives, and the direction, may depend on what a third one is taken to."""

    def bent(x):
        a, h = x[:, :2], x[:, 2:]
        slope = ops.gradient(ops.sum(ops.tanh(a * h) * h), h, seed=ops.sum(a * a))
        return ops.tangent(slope, h, a)

    def of_a_mean(x):
        along = ops.expand(ops.mean(x, axis=0, keepdims=True), *x.shape)
        return ops.tangent(ops.tanh(x) * x, x, along)

    x = np.random.default_rng(3).normal(size=(3, 4))
    for function in (bent, of_a_mean):
        assert tangents_agree(function, (x,))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: ops.tangent(x, np.ones(3), np.ones(3)), "parameters as wrt, got ndarray"),
        (lambda x: ops.tangent(x, x, np.ones(3)), r"direction of shape \(4, 3\), got \(3,\)"),
        (lambda x: ops.tangent(x, [x], []), "expected 1 directions, one for each"),
    ],
)
def test_errors(call, message):
    class Net(nn.Module):
        def forward(self, x):
            return call(x)

    with pytest.raises(ShapeError, match=message):
        Net().predict(np.ones((4, 3), np.float32))


def test_what_does_not_depend_has_a_tangent_of_zero():
    class Net(nn.Module):
        def forward(self, x):
            return ops.tangent(x * 2.0, ops.tanh(x), np.ones(x.shape))

    np.testing.assert_array_equal(Net().predict(np.ones((4, 3), np.float32)), np.zeros((4, 3)))
