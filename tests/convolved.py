"""Random convolutions and poolings, and what fastnn computes for a function of several arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastnn import nn
from fastnn.engine.session import Session
from fastnn.graph.gradient import differentiate
from fastnn.graph.graph import Graph
from fastnn.plan.planner import plan

Arrays = dict[str, np.ndarray]


def results(
    function: Callable[..., Any], x: np.ndarray, *others: np.ndarray, seed: np.ndarray | None,
    workers: int = 1,
) -> list[np.ndarray]:  # fmt: skip
    """The value of a function of a batch `x` and of other arrays, and its gradients to all of them,
    where `seed` is the gradient that arrives; without one the value alone."""
    dtype = x.dtype.name
    graph = Graph(len(x), dtype=dtype)
    inputs = [graph.input("x0", x.shape[1:])]
    for k, array in enumerate(others, 1):
        inputs.append(graph.value(array.shape, segment="input", name=f"x{k}"))
    y = function(*inputs)
    places = {f"x{k}": value for k, value in enumerate(inputs)} | {"y": y}
    if seed is not None:
        found = differentiate(graph, y, inputs, graph.constant(seed))
        places |= {f"d{k}": d for k, d in enumerate(found) if d is not None}
    session = Session(nn.Linear(1, 1).store(dtype), (), 0, workers)
    bound = session.bind(plan(graph, places))
    session.memory["work"][:] = 0xFF
    for k, array in enumerate((x, *others)):
        bound.view(f"x{k}")[...] = array
    team = session.team(bound.program)
    description = team.describe([(bound, 1)], session.control)
    team.prepare(description)()
    wanted = ["y", *(f"d{k}" for k in range(len(inputs)) if f"d{k}" in places)]
    return [np.array(bound.view(name)).reshape(places[name].shape) for name in wanted]
