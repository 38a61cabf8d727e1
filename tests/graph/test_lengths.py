"""Lengths that are no lengths are refused by everything that takes some, with what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops
from fastnn.errors import DataError, ShapeError
from fastnn.ops.declare import apply_effect

X = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
SQUARE, KERNEL = np.ones((3, 3), np.float32), np.ones((3, 3, 2), np.float32)


def elman(x: Any, lengths: Any) -> Any:
    start = ops.multiply(x[:, 0], 0.0)
    return ops.loop(lambda x_t, h: (h, ops.tanh(x_t + h)), x, start, lengths)[1]


def made(layer: nn.Module) -> Callable[[Any, Any], Any]:
    return lambda x, lengths: layer(x, lengths=lengths)


LAST = {"channels": "last"}
FUNCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "loop": elman,
    "rnn": lambda x, n: ops.rnn(x, SQUARE, SQUARE, lengths=n)[0],
    "leaky": lambda x, n: ops.leaky(x, lengths=n)[0],
    "conv1d": lambda x, n: ops.conv1d(x, KERNEL, **LAST, lengths=n)[0],
    "max_pool1d": lambda x, n: ops.max_pool1d(x, 2, **LAST, lengths=n)[0],
    "avg_pool1d": lambda x, n: ops.avg_pool1d(x, 2, **LAST, lengths=n)[0],
    "global_max_pool": lambda x, n: ops.global_max_pool(x, lengths=n, **LAST),
    "global_avg_pool": lambda x, n: ops.global_avg_pool(x, lengths=n, **LAST),
    "lp_pool1d": lambda x, n: ops.lp_pool1d(x, 2, 2, **LAST, lengths=n)[0],
    "adaptive_avg_pool1d": lambda x, n: ops.adaptive_avg_pool1d(x, 2, **LAST, lengths=n),
    "conv_transpose1d": lambda x, n: ops.conv_transpose1d(x, KERNEL, **LAST, lengths=n)[0],
    "upsample": lambda x, n: ops.upsample(x, 7, **LAST, lengths=n)[0],
    "frames": lambda x, n: ops.frames(x[:, :, 0], 2, 1, lengths=n)[0],
    "attention": lambda x, n: ops.attention(x, x, x, key_lengths=n),
    "layer 'fc': lstm": made(nn.LSTM(3, 4, zoneout=0.0, proj_size=2)),
    "layer 'fc': zoneout": made(nn.GRU(3, 4, zoneout=0.2)),
    "layer 'fc': normalisation": made(nn.Standardize(3)),
}


class Model(nn.Module):
    def __init__(self, function: Callable[[Any, Any], Any], lengths: Any = None):
        self.function, self.lengths = function, lengths
        inner = getattr(function, "__closure__", None)
        self.fc = inner[0].cell_contents if inner else None
        if isinstance(self.fc, nn.Standardize):
            self.fc.adapt(X)

    def forward(self, x: Any, lengths: Any = None) -> Any:
        found = self.function(x, self.lengths if lengths is None else lengths)
        return found[0] if isinstance(found, tuple) else found


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("given", [3, "5", [1.0, 2.0]], ids=str)
def test_what_is_neither_an_input_nor_whole_numbers(name: str, given: Any) -> None:
    with pytest.raises(ShapeError, match=f"^{name}.*expected .*lengths as an input of the model"):
        Model(FUNCTIONS[name], given).predict(X)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("make", [np.array, list], ids=["array", "list"])
def test_whole_numbers_are_a_constant(name: str, make: Any) -> None:
    want = Model(FUNCTIONS[name]).predict(X, np.array([5, 2]))
    np.testing.assert_array_equal(Model(FUNCTIONS[name], make([5, 2])).predict(X), want)
    with pytest.raises(ShapeError, match=rf"^{name}.*lengths of shape \(2,\), got \(3,\)"):
        Model(FUNCTIONS[name], make([1, 2, 3])).predict(X)
    with pytest.raises(ShapeError, match=rf"^{name}.*lengths within 0\.\.5.*got 2\.\.9"):
        Model(FUNCTIONS[name], make([9, 2])).predict(X)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_wrong_lengths_are_refused(name: str) -> None:
    """Numbers that are no integers were read as if their bits were some."""
    model = Model(FUNCTIONS[name])
    with pytest.raises(ShapeError, match=f"^{name}.*expected integers as .*lengths"):
        model.predict(X, np.array([5.0, 2.0]))
    with pytest.raises(ShapeError, match=rf"^{name}.*lengths of shape \(2,\), got \(2, 2\)"):
        model.predict(X, np.array([[5, 2], [5, 2]]))
    for wrong in (6, -1):
        with pytest.raises(DataError, match=r"lengths in 0\.\.5"):
            model.predict(X, np.array([wrong, 2]))
    assert np.isfinite(model.predict(X, np.array([5, 2]))).all()


@fnn.kernel
def count_ids(ids: "in rows i[N]", y: "out rows f[N]", lo: "begin", hi: "end") -> None:
    for k in range(lo, hi):
        y[k] = ids[k] + 1.0


def test_kernels_of_integers_refuse_numbers_that_are_none() -> None:
    class Counts(nn.Module):
        def forward(self, x: Any) -> Any:
            y = x.graph.value(x.shape, batched=True)
            apply_effect(x.graph, "count_ids", ids=x, y=y)
            return y

    np.testing.assert_array_equal(Counts().predict(np.array([1, 2])), [2.0, 3.0])
    with pytest.raises(ShapeError, match="expected 'ids' to be integers, got floating-point"):
        Counts().predict(np.array([1.0, 2.0]))
