"""Operators and functions of symbolic values: NumPy's results, gradients, and errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastnn import nn, ops
from fastnn.engine.session import Session
from fastnn.errors import FastnnError, ShapeError
from fastnn.graph.graph import Graph
from fastnn.graph.value import Value
from fastnn.plan.planner import plan
from fastnn.runtime.cpu.execute import view
from fastnn.testing import gradcheck
from tests.naive import erf, logsumexp


def values(*arrays: np.ndarray) -> list[Value]:
    """Symbolic inputs of these shapes."""
    graph = Graph(len(arrays[0]))
    return [graph.input(f"x{k}", a.shape[1:], _kind(a)) for k, a in enumerate(arrays)]


def _kind(array: np.ndarray) -> str:
    return "f" if array.dtype.kind == "f" else "i"


class Function(nn.Module):
    """A function as a model, with a parameter so that it has memory."""

    def __init__(self, function: Callable[..., Any]):
        self.function, self.unused = function, nn.Parameter((1,))

    def forward(self, *inputs: Any) -> Any:
        return self.function(*inputs)


def compute(
    function: Callable[..., Any], *arrays: np.ndarray, dtype: str = "float64", workers: int = 1
) -> np.ndarray:
    """What a function of symbolic inputs computes."""
    graph = Graph(len(arrays[0]), dtype=dtype)
    inputs = [graph.input(f"x{k}", a.shape[1:], _kind(a)) for k, a in enumerate(arrays)]
    result = function(*inputs)
    if result.root.segment != "work":  # a view of an input: nothing is computed
        result = ops.affine(result, 1.0, 0.0) if result.dtype == "f" else result
    places = {f"x{k}": x for k, x in enumerate(inputs)} | {"y": result}
    session = Session(nn.Linear(1, 1).store(dtype), (), 0, workers)
    bound = session.bind(plan(graph, places))
    session.memory["work"][:] = 0xFF
    for k, array in enumerate(arrays):
        bound.view(f"x{k}")[...] = array
    team = session.team(bound.program)
    description = team.describe([(bound, 1)], session.control)
    team.prepare(description)()
    place = bound.program.places["y"]
    found = view(bound.program, place, bound.memory)
    return np.array(found).reshape(result.shape)


RNG = np.random.default_rng(0)
X = RNG.permutation(np.linspace(-2.0, 2.0, 60)).reshape(3, 4, 5)  # all different, none 0
Y = RNG.permutation(np.linspace(-1.9, 2.1, 60)).reshape(3, 4, 5)
POSITIVE = np.abs(X) + 0.3
M = RNG.normal(size=(4, 5))

#: what is the same in NumPy: label -> (function, inputs)
SAME: dict[str, tuple[Callable[..., Any], tuple[np.ndarray, ...]]] = {
    "x + y": (lambda x, y: x + y, (X, Y)),
    "array + x": (lambda x: M + x, (X,)),
    "x - column": (lambda x: x - M[:, :1], (X,)),
    "array - x": (lambda x: M - x, (X,)),
    "number - x": (lambda x: 2.0 - x, (X,)),
    "x * array of more axes": (lambda x: x * np.arange(1.0, 7.0).reshape(2, 3, 1, 1), (X,)),
    "outer product": (lambda x, y: x[:, :, None, :1] * y[:, None], (X, Y)),
    "x + middle": (lambda x, y: x + y[:, :1], (X, Y)),
    "x + one number each": (lambda x, y: x + y[:, :1, :1], (X, Y)),
    "x / y": (lambda x, y: x / y, (X, POSITIVE)),
    "2 / x": (lambda x: 2 / x, (X,)),
    "array / x": (lambda x: M / x, (X,)),
    "x / row": (lambda x: x / M[0], (X,)),
    "x / 3": (lambda x: x / 3, (X,)),
    "-x": (lambda x: -x, (X,)),
    "+x": (lambda x: +x * 2.0, (X,)),
    "abs(x)": (lambda x: abs(x), (X,)),
    "x ** 2": (lambda x: x**2, (X,)),
    "x ** 3": (lambda x: x**3, (X,)),
    "x ** 4": (lambda x: x**4, (X,)),
    "x ** -2": (lambda x: x**-2.0, (X,)),
    "x ** -1": (lambda x: x**-1.0, (X,)),
    "x ** 5": (lambda x: x**5, (X,)),
    "x ** 0": (lambda x: x**0, (X,)),
    "x ** 0.5": (lambda x: x**0.5, (POSITIVE,)),
    "x ** 1.7": (lambda x: x**1.7, (POSITIVE,)),
    "x ** y": (lambda x, y: x**y, (POSITIVE, Y)),
    "x ** row": (lambda x: x ** np.array([1.0, 2.0, 3.0, 4.0, -1.0]), (X,)),
    "2 ** x": (lambda x: 2.0**x, (X,)),
    "x @ matrix": (lambda x: x @ M.T, (X,)),
    "matrix @ x": (lambda x: M.T @ x, (X,)),
    "x @ vector": (lambda x: x @ M[0], (X,)),
    "vector @ x": (lambda x: M[:, 0] @ x, (X,)),
    "x @ y": (lambda x, y: x @ y.T.transpose(2, 0, 1), (X, Y)),
    "products that broadcast": (lambda x: x[:, None] @ M.reshape(2, 5, 2), (X,)),
    "x[:, 0]": (lambda x: x[:, 0] * 1.0, (X,)),
    "x[..., -1]": (lambda x: x[..., -1] * 1.0, (X,)),
    "x[:, 1:3]": (lambda x: x[:, 1:3] * 1.0, (X,)),
    "x[:, 1:, 2:4]": (lambda x: x[:, 1:, 2:4] * 1.0, (X,)),
    "x[..., ::2]": (lambda x: x[..., ::2] * 1.0, (X,)),
    "x[:, ::-1, 4:0:-2]": (lambda x: x[:, ::-1, 4:0:-2] * 1.0, (X,)),
    "x[1]": (lambda x: x[1] * 1.0, (X,)),
    "x[1:, None, 2]": (lambda x: x[1:, None, 2] * 1.0, (X,)),
    "x[::2]": (lambda x: x[::2] * 1.0, (X,)),
    "x[0, 1, 2]": (lambda x: x[0, 1, 2] * 1.0, (X,)),
    "x.T": (lambda x: x.T * 1.0, (X,)),
    "x.sum()": (lambda x: x.sum(), (X,)),
    "x.prod(1)": (lambda x: x.prod(1), (X,)),
    "x.prod(keepdims)": (lambda x: x.prod(axis=(1, 2), keepdims=True), (X,)),
    "x.cumsum(1)": (lambda x: x.cumsum(1), (X,)),
    "x.clip(low, high)": (lambda x: x.clip(-0.7, 0.9), (X,)),
    "x.clip(low)": (lambda x: x.clip(0.1), (X,)),
    "x.clip(None, row)": (lambda x: x.clip(None, M[0]), (X,)),
    "x.swapaxes(0, 1)": (lambda x: x.swapaxes(0, 1) * 1.0, (X,)),
    "x.swapaxes(-1, 1)": (lambda x: x.swapaxes(-1, 1) * 1.0, (X,)),
    "x.flatten()": (lambda x: x.flatten() * 1.0, (X,)),
    "x.squeeze(1)": (lambda x: x[:, :1].squeeze(1) * 1.0, (X,)),
    "x.mean(axis=1)": (lambda x: x.mean(axis=1), (X,)),
    "x.max(-1, keepdims)": (lambda x: x.max(axis=-1, keepdims=True), (X,)),
    "x.min((0, 2))": (lambda x: x.min(axis=(0, 2)), (X,)),
    "x.sum(0)": (lambda x: x.sum(axis=0), (X,)),
    "x.mean(0, keepdims)": (lambda x: x.mean(axis=0, keepdims=True), (X,)),
}
#: without a gradient
MASKS: dict[str, tuple[Callable[..., Any], tuple[np.ndarray, ...]]] = {
    "x < y": (lambda x, y: x < y, (X, Y)),
    "x <= 0.5": (lambda x: x <= 0.5, (X,)),
    "array < x": (lambda x: np.add(M, 0.1) < x, (X,)),
    "x > row": (lambda x: x > M[0], (X,)),
    "x >= y": (lambda x, y: x >= y, (X, Y)),
    "x == x[:, :1]": (lambda x: x == x[:, :1], (X,)),
    "array != x": (lambda x: np.eye(4, 5) != x * 0.0, (X,)),
    "ids == 2": (lambda ids: ids == 2, (np.arange(12).reshape(3, 4) % 5,)),
    "ids >= 3": (lambda ids: ids >= 3, (np.arange(12).reshape(3, 4) % 5,)),
    "ids[:, ::2] != 0": (lambda ids: ids[:, ::2] != 0, (np.arange(12).reshape(3, 4) % 5,)),
    "ids == other": (
        lambda a, b: a == b,
        (np.arange(12).reshape(3, 4) % 5, np.arange(12).reshape(3, 4) % 4),
    ),
    "ids < column": (
        lambda ids: ids < np.array([[1], [2], [3]]),
        (np.arange(12).reshape(3, 4) % 5,),
    ),
    "ids.astype": (lambda ids: ids.astype("float32") * 0.5, (np.arange(12).reshape(3, 4),)),
    "ids.float()": (
        lambda ids: ids.float() if hasattr(ids, "float") else ids * 1.0,
        (np.arange(12).reshape(3, 4) - 6,),
    ),
    "x.astype": (lambda x: x.astype("float64") * 0.5, (X,)),
    "sum by lengths": (
        lambda x, n: x.sum(1) / n.astype(np.float32).reshape(-1, 1),
        (X, np.arange(1, len(X) + 1)),
    ),
    "ids.T[1:] < 4": (lambda ids: ids.T[1:] < 4, (np.arange(12).reshape(3, 4) % 5,)),
}
INDEX = RNG.integers(-4, 4, (3, 6, 5))
#: name -> (function, inputs, the same in NumPy)
OTHERS: dict[str, tuple[Callable[..., Any], tuple[np.ndarray, ...], Callable[..., Any]]] = {
    "maximum": (ops.maximum, (X, Y), np.maximum),
    "minimum of a number": (lambda x: ops.minimum(x, 0.4), (X,), lambda x: np.minimum(x, 0.4)),
    "clip": (lambda x: ops.clip(x, -1.0, 0.7), (X,), lambda x: np.clip(x, -1.0, 0.7)),
    "clip by arrays": (lambda x: ops.clip(x, M - 1, M), (X,), lambda x: np.clip(x, M - 1, M)),
    "where": (lambda x, y: ops.where(x > 0.3, x, y * 2), (X, Y),
              lambda x, y: np.where(x > 0.3, x, y * 2)),
    "where of numbers": (lambda x: ops.where(M > 0, x, 3.0), (X,), lambda x: np.where(M > 0, x, 3)),
    "erf": (ops.erf, (X,), erf),
    "transpose": (lambda x: ops.transpose(x, 2, 0, 1), (X,), lambda x: x.transpose(2, 0, 1)),
    "permute": (lambda x: ops.permute(x, (0, 2, 1)), (X,), lambda x: x.transpose(0, 2, 1)),
    "transpose, last two": (ops.transpose, (X,), lambda x: x.transpose(0, 2, 1)),
    "concatenate": (lambda x, y: ops.concatenate(x, y[:, :2], x, axis=1), (X, Y),
                    lambda x, y: np.concatenate([x, y[:, :2], x], 1)),
    "concatenate, axis 0": (lambda x, y: ops.concatenate([x, y], axis=0), (X, Y),
                            lambda x, y: np.concatenate([x, y])),
    "stack": (lambda x, y: ops.stack(x, y, axis=2), (X, Y), lambda x, y: np.stack([x, y], 2)),
    "stack, last": (lambda x, y: ops.stack(x, y, axis=-1), (X, Y),
                    lambda x, y: np.stack([x, y], -1)),
    "split": (lambda x: ops.split(x, [1, 3], 1)[1] * 2, (X,), lambda x: x[:, 1:] * 2),
    "split equally": (lambda x: ops.split(x, 2, 1)[0] * 2, (X,), lambda x: x[:, :2] * 2),
    "squeeze": (lambda x: ops.squeeze(x[:, :1]) * 2, (X,), lambda x: x[:, 0] * 2),
    "unsqueeze": (lambda x: ops.unsqueeze(x, (1, -1)) * 2, (X,),
                  lambda x: x[:, None, ..., None] * 2),
    "expand": (lambda x: ops.expand(x[:, :1], -1, 3, 5), (X,), lambda x: np.repeat(x[:, :1], 3, 1)),
    "flip": (lambda x: ops.flip(x, (1, 2)), (X,), lambda x: x[:, ::-1, ::-1]),
    "flip of the batch": (lambda x: ops.flip(x, 0) * x, (X,), lambda x: x[::-1] * x),
    "flip of the batch and the last axis": (lambda x: ops.flip(x, (0, 2)), (X,),
                                            lambda x: x[::-1, :, ::-1]),
    "pad": (lambda x: ops.pad(x, [(1, 0), (0, 2), (3, 1)], value=0.5), (X,),
            lambda x: np.pad(x, [(1, 0), (0, 2), (3, 1)], constant_values=0.5)),
    "pad by reflection": (lambda x: ops.pad(x, [(0, 0), (2, 3), (1, 0)], "reflect"), (X,),
                          lambda x: np.pad(x, [(0, 0), (2, 3), (1, 0)], "reflect")),
    "gather": (lambda x: ops.gather(x, INDEX, 1), (X,),
               lambda x: np.take_along_axis(x, INDEX % 4, 1)),
    "gather, last axis": (lambda x: ops.gather(x, INDEX[:, :4]), (X,),
                          lambda x: np.take_along_axis(x, INDEX[:, :4], 2)),
    "take": (lambda x: ops.take(x, [[1, -1], [3, 1]], 1), (X,),
             lambda x: np.take(x, [[1, -1], [3, 1]], 1)),
    "take of the batch": (lambda x: ops.take(x, [2, 0, 2], 0), (X,), lambda x: x[[2, 0, 2]]),
    "sum": (lambda x: ops.sum(x, 1), (X,), lambda x: x.sum(1)),
    "sum over the first axes": (lambda x: ops.sum(x, (0, 1)), (X,), lambda x: x.sum((0, 1))),
    "sum over all, kept": (lambda x: ops.sum(x, keepdims=True), (X,),
                           lambda x: x.sum(keepdims=True)),
    "sum over nothing": (lambda x: ops.sum(x, ()), (X,), lambda x: x),
    "mean": (lambda x: ops.mean(x, (0, 2), keepdims=True), (X,),
             lambda x: x.mean((0, 2), keepdims=True)),
    "max over all": (ops.max, (X,), np.max),
    "max": (lambda x: ops.max(x, -2), (X,), lambda x: x.max(-2)),
    "min": (lambda x: ops.min(x, 0), (X,), lambda x: x.min(0)),
    "prod": (lambda x: ops.prod(x, 1), (X,), lambda x: x.prod(1)),
    "prod over all": (ops.prod, (POSITIVE,), np.prod),
    "logsumexp": (lambda x: ops.logsumexp(x * 20, (1, 2)), (X,),
                  lambda x: logsumexp(x * 20, (1, 2))),
    "softmax": (lambda x: ops.softmax(x, 1), (X,),
                lambda x: np.exp(x) / np.exp(x).sum(1, keepdims=True)),
    "softmax over two axes": (lambda x: ops.softmax(x, (1, 2)), (X,),
                              lambda x: np.exp(x) / np.exp(x).sum((1, 2), keepdims=True)),
    "log_softmax": (lambda x: ops.log_softmax(x, 0), (X,),
                    lambda x: x - np.log(np.exp(x).sum(0))),
    "cumsum": (lambda x: ops.cumsum(x, 1), (X,), lambda x: x.cumsum(1)),
    "cumsum, reverse and exclusive": (
        lambda x: ops.cumsum(x, 2, reverse=True, exclusive=True), (X,),
        lambda x: x[..., ::-1].cumsum(2)[..., ::-1] - x,
    ),
    "matmul": (lambda x, y: ops.matmul(x, ops.transpose(y)), (X, Y),
               lambda x, y: x @ y.transpose(0, 2, 1)),
    "matmul, few with many": (
        lambda x, y: ops.matmul(x[:, None], ops.stack([ops.transpose(y)] * 2, axis=1)), (X, Y),
        lambda x, y: x[:, None] @ np.stack([y.transpose(0, 2, 1)] * 2, 1),
    ),
}  # fmt: skip
#: methods that PyTorch's arrays have and NumPy's don't
METHODS: dict[str, tuple[Callable[..., Any], tuple[np.ndarray, ...], Callable[..., Any]]] = {
    "x.abs()": (lambda x: x.abs(), (X,), np.abs),
    "x.exp()": (lambda x: x.exp(), (X,), np.exp),
    "x.log()": (lambda x: x.log(), (POSITIVE,), np.log),
    "x.sqrt()": (lambda x: x.sqrt(), (POSITIVE,), np.sqrt),
    "x.square()": (lambda x: x.square(), (X,), np.square),
    "x.pow(3)": (lambda x: x.pow(3), (X,), lambda x: x**3),
    "x.pow(y)": (lambda x, y: x.pow(y), (POSITIVE, Y), np.power),
    "x.tanh()": (lambda x: x.tanh(), (X,), np.tanh),
    "x.sigmoid()": (lambda x: x.sigmoid(), (X,), lambda x: 1 / (1 + np.exp(-x))),
    "x.permute()": (lambda x: x.permute(0, 2, 1), (X,), lambda x: x.transpose(0, 2, 1)),
    "x.unsqueeze(-1)": (lambda x: x.unsqueeze(-1) * 1.0, (X,), lambda x: x[..., None]),
    "x.flatten(1)": (lambda x: x.flatten(1) * 1.0, (X,), lambda x: x.reshape(len(x), -1)),
    "x.squeeze()": (lambda x: x[:, :1].squeeze() * 1.0, (X,), lambda x: x[:, 0]),
}
EVERY = {k: (f, a, f) for k, (f, a) in SAME.items()} | OTHERS | METHODS


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", [*EVERY, *MASKS])
def test_values(name, dtype):
    function, arrays, numpy = EVERY.get(name) or (*MASKS[name], MASKS[name][0])
    got = compute(function, *arrays, dtype=dtype)
    cast = [a.astype(dtype) if a.dtype.kind == "f" else a for a in arrays]
    want = np.asarray(numpy(*cast), float)
    assert got.shape == want.shape
    tolerance = 1e-12 if dtype == "float64" else 3e-5
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", EVERY)
def test_gradients(name):
    function, arrays, _ = EVERY[name]
    assert gradcheck(function, *arrays)


@pytest.mark.parametrize("name", EVERY)
def test_the_same_bits_with_any_number_of_workers(name):
    function, arrays, _ = EVERY[name]
    arrays = tuple(np.concatenate([a] * 11) for a in arrays)
    if (
        name in ("gather", "gather, last axis", "products that broadcast")
        or "array of more" in name
    ):
        arrays = EVERY[name][1]
    bits = {compute(function, *arrays, workers=w).tobytes() for w in (1, 2, 3, 4)}
    assert len(bits) == 1


# ---------------------------------------------------------------- errors

WRONG: dict[str, tuple[Callable[[Value, Value], Any], str]] = {
    "shapes": (lambda x, ids: x + np.ones((2, 5)), "cannot combine shapes"),
    "axis": (lambda x, ids: ops.sum(x, 3), r"within -3\.\.2"),
    "axis twice": (lambda x, ids: ops.sum(x, (1, -2)), "different axes"),
    "axes of transpose": (lambda x, ids: ops.transpose(x, 0, 1), "each of 3 axes once"),
    "index": (lambda x, ids: x[:, 4], r"-4\.\.3 for axis 1"),
    "too many indices": (lambda x, ids: x[0, 0, 0, 0], "at most 3 indices"),
    "empty slice": (lambda x, ids: x[:, 2:2], "selects nothing"),
    "list as index": (lambda x, ids: x[[0, 1]], "ops.take"),
    "mask as index": (lambda x, ids: x[x > 0], "ops.where"),
    "array as index": (lambda x, ids: x[np.array([True, False, True])], "ops.where"),
    "iteration": (lambda x, ids: list(x), "ops.split"),
    "unpacking": (lambda x, ids: (lambda a, b, c: a)(*x), "ops.split"),
    "membership": (lambda x, ids: 1.0 in x, "cannot iterate"),
    "and": (lambda x, ids: (x > 0) & (x < 1), r"write a \* b"),
    "or": (lambda x, ids: True | (x > 0), "ops.maximum"),
    "not": (lambda x, ids: ~(x > 0), "1 - a for"),
    "array and": (lambda x, ids: np.ones((3, 4, 5), bool) & (x > 0), "np.bitwise_and computes"),
    "floor": (lambda x, ids: x // 2, "no rounding"),
    "remainder": (lambda x, ids: 5 % x, "no rounding"),
    "truth": (lambda x, ids: x if x > 0 else -x, "ops.where"),
    "number": (lambda x, ids: float(x), "no number yet"),
    "matmul": (lambda x, ids: x @ np.ones((4, 2)), "cannot multiply shapes"),
    "integers": (lambda x, ids: ids + 1, "expected floating-point input, got integers"),
    "integers of numbers": (lambda x, ids: x.astype("int64"), "floating-point type.*'int64'"),
    "no type": (lambda x, ids: ids.astype("ids"), "floating-point type.*'ids'"),
    "integers compared": (lambda x, ids: ids < 1.5, "integers are compared with integers"),
    "split": (lambda x, ids: ops.split(x, 3, 1), "divides 4"),
    "split sizes": (lambda x, ids: ops.split(x, [1, 2], 1), "add up to 4"),
    "stack": (lambda x, ids: ops.stack(x, x[:, :2]), "one shape"),
    "concatenate": (lambda x, ids: ops.concatenate(x, x[:, :2]), "equal but for axis 2"),
    "squeeze": (lambda x, ids: ops.squeeze(x, 1), "extent 1"),
    "swapaxes": (lambda x, ids: x.swapaxes(0, 3), "different axes within -3..2"),
    "transpose of two axes": (lambda x, ids: x.transpose(1, 2), "by swapaxes"),
    "expand": (lambda x, ids: ops.expand(x, 3, 8, 5), "cannot repeat"),
    "pad": (lambda x, ids: ops.pad(x, [(1, -1)] * 3), "widths from 0"),
    "pad mode": (lambda x, ids: ops.pad(x, [(1, 1)] * 3, "mirror"), "expected mode"),
    "take": (lambda x, ids: ops.take(x, [4], 1), r"within -4\.\.3"),
    "take floats": (lambda x, ids: ops.take(x, [0.5], 1), "integer indices"),
    "gather": (lambda x, ids: ops.gather(x, ids, 1), "but for axis 1"),
}


@pytest.mark.parametrize("name", WRONG)
def test_errors_say_what_to_do(name):
    function, message = WRONG[name]
    with pytest.raises(FastnnError, match=message):
        function(*values(X, np.zeros((3, 4), np.int64)))


def test_shape_length_and_identity():
    (x,) = values(X)
    assert x.shape == (3, 4, 5)
    assert (len(x), x.ndim, x.size) == (3, 3, 60)
    assert repr(x[:, 0]).startswith("<")
    assert (x == None) is False  # noqa: E711  (what a user's `==` with None gives)
    assert x != "relu"
    assert {x: 1}[x] == 1
    with pytest.raises(ShapeError, match="no length"):
        len(ops.sum(x))
