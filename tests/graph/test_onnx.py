"""ONNX's node tests for every operator that fastnn has.

Of ONNX's node tests of one node, those of 69 operators (see `tests/onnx`) are taken; the
cases that fastnn can't express are listed there by reason, and are few.
"""

from __future__ import annotations

import functools
from collections import Counter

import numpy as np
import pytest

from fastnn import nn, ops
from fastnn.engine.session import Session
from fastnn.graph.graph import Graph
from fastnn.graph.value import Value
from fastnn.plan.planner import plan
from tests.onnx.cases import OPS, Case, cases, reason
from tests.onnx.layers import places_in_tensor

pytest.importorskip("onnx", reason="pip install onnx (the test extra has it)")


@functools.cache
def all_cases() -> list[Case]:
    """ONNX computes their results when they are asked for, which takes seconds: not while tests are
    collected, which each process does."""
    return cases()


def computed(case: Case) -> list[np.ndarray]:
    """fastnn's results: the first float input is a batch, the others are constants."""
    arrays = [x for x in case.inputs if isinstance(x, np.ndarray)]
    floats = [x for x in arrays if x.dtype.kind == "f"]
    dtype = "float64" if any(x.dtype == np.float64 for x in floats) else "float32"
    first = next(k for k, x in enumerate(case.inputs) if x is not None and _symbolic(case, k))
    x = case.inputs[first]
    training = case.op == "Dropout" and len(case.inputs) > 2 and bool(case.inputs[2])
    graph = Graph(len(x) if x.ndim else 1, training=training, dtype=dtype)
    value = graph.input("x", x.shape[1:], "f" if x.dtype.kind == "f" else "i")
    value = ops.reshape(value, ()) if not x.ndim else value
    given = [value if k == first else v for k, v in enumerate(case.inputs)]
    results = OPS[case.op](case, *given)
    results = list(results) if isinstance(results, (tuple, list)) else [results]
    wanted = {k: results[k] for k in case.outputs}
    places = {f"y{k}": v for k, v in wanted.items() if isinstance(v, Value)}
    session = Session(nn.Linear(1, 1).store(dtype), (), 0, 1)
    bound = session.bind(plan(graph, {"x": value.root, **places}))
    session.memory["work"][:] = 0xFF
    bound.view("x")[...] = x
    description = session.team(bound.program).describe([(bound, 1)], session.control)
    session.team(bound.program).prepare(description)()
    return [
        bound.view(f"y{k}").reshape(v.shape) if isinstance(v, Value) else v
        for k, v in wanted.items()
    ]


def _symbolic(case: Case, k: int) -> bool:
    """Whether an input may be the symbolic value."""
    return k == 1 if case.op == "Where" else not isinstance(case.inputs[k], list)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("op", OPS)
def test_nodes(op: str) -> None:
    expressed = [c for c in all_cases() if c.op == op and reason(c) is None]
    assert expressed
    for case in expressed:
        for place, got in zip(case.outputs, computed(case), strict=True):
            want = case.outputs[place]
            if case.op == "MaxPool" and place == 1:
                got = places_in_tensor(case, got)
            assert got.shape == want.shape, case.name
            np.testing.assert_allclose(
                got, want.astype(float), rtol=case.rtol, atol=case.atol, err_msg=case.name
            )


def test_almost_all_are_expressed() -> None:
    left = Counter(reason(c) for c in all_cases() if reason(c))
    assert sum(left.values()) / len(all_cases()) < 90 / 429, left
