"""Predictions and evaluations that fail leave the states that layers carry as they were."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn
from fastnn.errors import DataError, KernelError
from fastnn.graph.op import OPS
from fastnn.kernels.declare import KERNELS

LIMIT = 100.0
STREAMS = 4


def limited_forward(x: "in rows f[N,C]", y: "out rows f[N,C]", lo: "begin", hi: "end"):
    for i in range(lo, hi):
        for j in range(x.shape[1]):
            if x[i, j] > LIMIT:
                raise ValueError("too large")
            y[i, j] = x[i, j]


@pytest.fixture
def limited() -> Iterator[Any]:
    yield fnn.define_op("limited", fnn.kernel(limited_forward))
    for name in [n for n, kernel in KERNELS.items() if kernel.function is limited_forward]:
        del KERNELS[name]
    OPS.pop("limited", None)


class Net(nn.Module):
    """States are carried before the kernel that may raise is called."""

    def __init__(self, limited: Any, kind: str = "LSTM") -> None:
        self.limited = limited
        self.names = nn.Embedding(9, 3)
        self.layer = getattr(nn, kind)(3, 5, stateful=STREAMS)
        self.head = nn.Linear(5, 2)

    def forward(self, ids: Any, x: Any) -> Any:
        y, _ = self.layer(self.names(ids) + x)
        return self.head(y[:, -1]) + self.limited(x[:, -1])[:, :2]


def data(fault: str = "", seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three batches, the last of them with a fault."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(3 * STREAMS, 6, 3)).astype(np.float32)
    ids, y = rng.integers(0, 9, x.shape[:2]), rng.normal(size=(len(x), 2)).astype(np.float32)
    if fault == "kernel":
        x[-2, -1, 1] = 2 * LIMIT
    elif fault == "ids":
        ids[-1, 0] = 9
    return ids, x, y


def states(model: nn.Module) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in model.state_dict().items()}


def batches(ids: np.ndarray, x: np.ndarray, y: np.ndarray) -> list[Any]:
    cuts = [slice(k, k + STREAMS) for k in range(0, len(x), STREAMS)]
    return [((ids[c], x[c]), y[c]) for c in cuts]


def predict(model: Net, ids: np.ndarray, x: np.ndarray, y: np.ndarray) -> Any:
    return model.predict(ids, x, batch_size=STREAMS)


def predict_again(model: Net, ids: np.ndarray, x: np.ndarray, y: np.ndarray) -> Any:
    """One batch, so that the second time goes the short way (`Ready.again`)."""
    return model.predict(ids[-STREAMS:], x[-STREAMS:])


def evaluate(model: Net, ids: np.ndarray, x: np.ndarray, y: np.ndarray) -> Any:
    trainer = fnn.Trainer(model, "mse", device="cpu")
    return trainer.evaluate((ids, x), y, batch_size=STREAMS)


def evaluate_batches(model: Net, *arrays: np.ndarray) -> Any:
    return fnn.Trainer(model, "mse", device="cpu").evaluate(batches(*arrays))


def evaluate_step(model: Net, *arrays: np.ndarray) -> Any:
    step = fnn.compile(model, "mse", device="cpu")
    return step.evaluate(*batches(*arrays)[-1])


@pytest.mark.parametrize("fault", ["kernel", "ids"])
@pytest.mark.parametrize("use", [predict, predict_again, evaluate, evaluate_batches, evaluate_step])
@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_states_are_those_before_a_call_that_raises(
    limited: Any, kind: str, use: Callable[..., Any], fault: str
) -> None:
    model, other = Net(limited, kind), Net(limited, kind)
    for net in (model, other):
        use(net, *data())
    before = states(model)
    assert before == states(other)
    error = KernelError if fault == "kernel" else DataError
    for _ in range(3):
        with pytest.raises(error, match="too large" if fault == "kernel" else "got 9"):
            use(model, *data(fault, 1))
        assert states(model) == before
    found, want = (predict(net, *data(seed=2)) for net in (model, other))
    np.testing.assert_array_equal(found, want)
    assert states(model) == states(other) != before
