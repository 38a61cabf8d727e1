"""Gradients of one number everywhere, as those of sums and means: no array is made of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim
from fastnn.graph.gradient import differentiate
from fastnn.graph.graph import Graph
from fastnn.plan.planner import plan
from fastnn.testing import gradcheck
from tests.graph.test_gradients import away
from tests.graph.test_symbolic import compute

#: loss, and its gradient to a
CASES: dict[str, tuple[Callable[..., Any], Callable[..., np.ndarray]]] = {
    "squares": (lambda a, b: ops.sum(ops.square(a)), lambda a, b: 2 * a),
    "mean of squares": (lambda a, b: ops.mean(ops.square(a - b)), lambda a, b: 2 * (a - b) / 12),
    "products": (lambda a, b: ops.sum(a * b), lambda a, b: b),
    "mean of products": (
        lambda a, b: ops.mean(a * ops.tanh(a)),
        lambda a, b: (np.tanh(a) + a * (1 - np.tanh(a) ** 2)) / 12,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_no_array_and_right_gradients(name: str) -> None:
    loss, derivative = CASES[name]
    graph = Graph(4)
    inputs = [graph.input(n, (3,)) for n in ("a", "b")]
    (found,) = differentiate(graph, loss(*inputs), inputs[:1])
    assert found is not None
    assert plan(graph, {"da": found}).sizes["constant"] == 0
    to_a = lambda a, b: ops.gradient(loss(a, b), a) + 0.0 * b  # noqa: E731
    a, b = away((4, 3)), away((4, 3), 1)
    np.testing.assert_allclose(compute(to_a, a, b), derivative(a, b), rtol=1e-12)
    assert gradcheck(to_a, a, b)


def test_parameters_that_are_each_others_gradients() -> None:
    """Each is updated by what the other was before the step."""

    class Product(nn.Module):
        def __init__(self) -> None:
            self.p, self.q = nn.Parameter((2, 3), 2.0), nn.Parameter((2, 3), 3.0)

        def forward(self, x: Any) -> Any:
            return self.p * self.q

    model = Product()
    step = fnn.compile(model, lambda y, _: ops.sum(y), optim.SGD(lr=0.5))
    step(np.zeros((2, 3)), np.zeros(2))
    np.testing.assert_array_equal(model.p.value, 2.0 - 0.5 * 3.0)
    np.testing.assert_array_equal(model.q.value, 3.0 - 0.5 * 2.0)


def test_a_constant_of_one_number_takes_the_memory_of_one() -> None:
    """Until it is bound; there each place has it."""
    graph = Graph(2, dtype="float64")
    x = graph.input("x", (1000, 1000))
    ones = graph.full((2, 1000, 1000), 1.5, batched=True)
    program = plan(graph, {"y": ops.exp(x * ones)})
    for data in (ones.data, *(data for _, data in program.constants)):
        assert data.shape == (2, 1000, 1000)
        assert not any(data.strides)
