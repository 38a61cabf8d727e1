"""Parameters in a module's `forward`: what is computed from them follows them, and trains them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops
from fastnn.errors import ShapeError
from fastnn.graph.graph import Graph
from fastnn.graph.tracing import traced
from fastnn.nn import structure

RNG = np.random.default_rng(0)
A = RNG.uniform(0.5, 1.5, 4)
B = RNG.uniform(0.5, 1.5, (3, 4))
ROW = RNG.uniform(0.5, 1.5, 4)
RANDOM = RNG.normal(size=4)


class Weighted(nn.Module):
    """x times what a function makes of two parameters."""

    def __init__(self, function: Callable[[Any, Any], Any]):
        self.a, self.b = nn.Parameter((4,)), nn.Parameter((3, 4))
        self.function = function

    def forward(self, x: Any) -> Any:
        return ops.sum(x) * ops.sum(self.function(self.a, self.b) * RANDOM)


#: what is computed, and the same by NumPy, where that is written otherwise
FUNCTIONS: dict[str, tuple[Callable[[Any, Any], Any], ...]] = {
    "a + b": (lambda a, b: a + b,),
    "b - a": (lambda a, b: b - a,),
    "a * b": (lambda a, b: a * b,),
    "a / b": (lambda a, b: a / b,),
    "a ** b": (lambda a, b: a**b,),
    "numbers": (lambda a, b: (2.0 * a + 1.0) / 3.0 - (1.0 - b) ** 2 + 2.0 / a + 2.0**b,),
    "-a, abs": (lambda a, b: -a * abs(-b),),
    "array on the left": (lambda a, b: ROW * a + ROW - b + ROW / a + ROW**b,),
    "array on the right": (lambda a, b: a * ROW + (b - ROW) / ROW,),
    "products": (lambda a, b: b @ np.ones((4, 4)) * a + ROW[:3] @ b,),
    "NumPy's functions": (lambda a, b: np.exp(a) * np.tanh(b) + np.sqrt(a) - np.log(b),),
    "indices": (lambda a, b: a[2] * b[1] + b[:, ::-1] * b[0, 3],),
    "functions": (
        lambda a, b: ops.exp(a) * ops.tanh(b) + ops.negate(b),
        lambda a, b: np.exp(a) * np.tanh(b) - b,
    ),
    "shapes": (
        lambda a, b: ops.reshape(b, 2, 6)[:, :4] * ops.expand(a, 2, 4) + ops.flip(a),
        lambda a, b: b.reshape(2, 6)[:, :4] * a + a[::-1],
    ),
    "reductions": (
        lambda a, b: ops.mean(b, 0) * ops.max(a) + ops.sum(b, 0),
        lambda a, b: b.mean(0) * a.max() + b.sum(0),
    ),
    "comparison": (
        lambda a, b: ops.where(a < b, a, b * 2.0),
        lambda a, b: np.where(a < b, a, b * 2.0),
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_value_and_gradient(name: str) -> None:
    function, *other = FUNCTIONS[name]
    oracle = other[0] if other else function
    model = Weighted(function).to("float64")

    def numbers(a: np.ndarray, b: np.ndarray) -> float:
        model.a.value, model.b.value = a, b
        return float(model.predict(np.ones((2, 1))))

    step = fnn.compile(model, lambda output, target: output, "sgd", dtype="float64", device="cpu")
    value = numbers(A, B)
    found = step.gradients(np.ones((2, 1)))
    assert value == pytest.approx(2.0 * (oracle(A, B) * RANDOM).sum(), rel=1e-7)
    for place, (key, array) in enumerate({"a": A, "b": B}.items()):
        for index in np.ndindex(array.shape):
            ends = []
            for change in (1e-6, -1e-6):
                arrays = [A.copy(), B.copy()]
                arrays[place][index] += change
                ends.append(numbers(*arrays))
            slope = (ends[0] - ends[1]) / 2e-6
            assert found[key][index] == pytest.approx(slope, rel=1e-6, abs=1e-6)
    assert np.abs(found["a"]).sum() + np.abs(found["b"]).sum() > 0.1


def test_array_given_to_a_layer_is_a_constant_and_the_layer_is_trained() -> None:
    """Places for an embedding: they once were predicted, and its weights stood still."""

    class Model(nn.Module):
        def __init__(self) -> None:
            self.words, self.places = nn.Embedding(9, 4), nn.Embedding(5, 4)
            self.scale = nn.Linear(2, 4)

        def forward(self, ids: Any) -> Any:
            x = self.words(ids) + self.places(np.arange(ids.shape[1]))
            return x * self.scale(np.full((5, 2), 0.5))

    model = Model()
    ids, targets = RNG.integers(0, 9, (6, 5)), RNG.normal(size=(6, 5, 4)).astype(np.float32)
    words, places = model.words.weight.value, model.places.weight.value
    factor = model.scale.weight.value.sum(1) * 0.5 + model.scale.bias.value
    x = words[ids] + places
    np.testing.assert_allclose(model.predict(ids), x * factor, rtol=1e-5, atol=1e-6)
    found = fnn.compile(model, "mse", "sgd").gradients(ids, targets)
    dy = 2.0 * (x * factor - targets) / targets.size
    np.testing.assert_allclose(found["places.weight"], (dy * factor).sum(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["scale.bias"], (dy * x).sum((0, 1)), rtol=1e-4, atol=1e-6)


TAKEN: dict[str, Callable[[Any], Any]] = {
    "value": lambda p: p.value,
    "np.asarray": np.asarray,
    "np.mean": np.mean,
    "np.concatenate": lambda p: np.concatenate([p, p]),
}


@pytest.mark.parametrize("way", TAKEN)
def test_numbers_taken_in_forward_are_refused(way: str) -> None:
    """They would stay what they are, whatever training makes of the parameter."""

    class Model(nn.Module):
        def __init__(self) -> None:
            self.scale = nn.Parameter((4,), 1.0)

        def forward(self, x: Any) -> Any:
            return x * TAKEN[way](self.scale)

    with pytest.raises(ShapeError, match=r"numbers are taken while forward is traced.*detach"):
        Model().predict(np.ones((2, 4), np.float32))


def test_outside_of_forward() -> None:
    layer = nn.LayerNorm(4)
    assert np.exp(layer.bias).tolist() == [1.0] * 4
    assert np.add(layer.bias, layer.weight).tolist() == [1.0] * 4
    assert layer.weight[1] == 1.0
    for function in (lambda p: p * 2, lambda p: 2 * p, lambda p: -p, lambda p: p + p):
        with pytest.raises(ShapeError, match=r"Parameter\(weight, .*belongs in a module's forward"):
            function(layer.weight)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: np.concatenate([x, x]), r"np.concatenate computes.*fastnn.ops.concatenate"),
        (lambda x: np.mean(x), "np.mean computes.*fastnn.ops.mean"),
        (lambda x: np.arctan(x), "np.arctan computes.*operators and functions of fastnn.ops"),
        (lambda x: np.add.reduce(x), "np.add computes"),
        (lambda x: np.exp(x, out=np.zeros(4)), "np.exp computes"),
        (lambda x: np.asarray(x), "has no numbers yet"),
    ],
)
def test_functions_of_numpy_that_need_numbers_name_the_remedy(function: Any, message: str) -> None:
    class Model(nn.Module):
        def forward(self, x: Any) -> Any:
            return function(x)

    with pytest.raises(ShapeError, match=message):
        Model().predict(np.ones((2, 4), np.float32))


def test_numpys_functions_on_symbolic_values() -> None:
    class Model(nn.Module):
        def forward(self, x: Any) -> Any:
            return np.tanh(x) + np.maximum(x, 0.5) * np.abs(x)

    x = RNG.normal(size=(3, 4))
    got = Model().to("float64").predict(x)
    np.testing.assert_allclose(got, np.tanh(x) + np.maximum(x, 0.5) * np.abs(x), rtol=1e-7)


def test_a_trace_that_ctrl_c_cut_off_is_over() -> None:
    """Even where the exception came before the context could be left."""

    def cut_off(depth: int) -> None:
        context = Graph(1).inside_scope("layer")
        context.__enter__()
        left.append(context)  # else it would be left when it is thrown away
        assert traced() is not None
        if depth:
            cut_off(depth - 1)
            assert traced() is context.gen.gi_frame.f_locals["self"]
        raise KeyboardInterrupt

    left: list[Any] = []
    for depth in (0, 2):
        with contextlib.suppress(KeyboardInterrupt):
            cut_off(depth)
        assert traced() is None
        layer = nn.Linear(3, 2)
        assert layer.weight.value.shape == (2, 3)
        before = structure.changes.count
        layer.bias.trainable = False
        assert structure.changes.count > before


def test_a_trace_within_a_trace() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            self.scale = nn.Parameter((3,), 2.0)

        def forward(self, x: Any) -> Any:
            graph = traced()
            with Graph(1).inside_scope("other"):
                assert traced() is not graph
            assert traced() is graph is x.graph
            return x * self.scale

    assert Model().predict(np.ones((2, 3))).tolist() == [[2.0] * 3] * 2
    assert traced() is None
