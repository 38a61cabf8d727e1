"""A tagger of sequences of many lengths, for tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import fastnn as fnn
from fastnn import nn, ops, optim

WORDS, TAGS, IGNORED = 30, 5, -1

LENGTHS = [int(n) for n in np.random.default_rng(0).permutation(np.arange(3, 27))]


class Tagger(nn.Module):
    """`between` stands between the outputs of the recurrent layer and the logits."""

    def __init__(
        self,
        cell: Any = nn.LSTM,
        between: Callable[..., Any] = lambda y, lengths: y,
        out: int = TAGS,
        **options: Any,
    ):
        self.vectors, self.cell = nn.Embedding(WORDS, 6), cell(6, 8, **options)
        self.head, self.between, self.factor = nn.Linear(self.cell.output_size, out), between, 1.0
        self.norm, self.batch_norm = nn.LayerNorm(8), nn.BatchNorm(8)
        self.drop, self.gate = nn.Dropout(0.3), nn.Linear(8, 8)

    def forward(self, ids: Any, lengths: Any) -> Any:
        y, _ = self.cell(self.vectors(ids), lengths=lengths)
        return self.head(self.between(y, lengths) * self.factor)


def batch(steps: int, samples: int = 6, seed: int = 0) -> tuple[Any, np.ndarray]:
    rng = np.random.default_rng([seed, steps])
    lengths = rng.integers(0, steps + 1, samples)
    lengths[0] = steps
    tags = rng.integers(0, TAGS, (samples, steps))
    tags[np.arange(steps) >= lengths[:, None]] = IGNORED
    return (rng.integers(0, WORDS, (samples, steps)), lengths), tags


def trainer(model: nn.Module, loss: Any = None, **options: Any) -> fnn.Trainer:
    return fnn.Trainer(
        model, loss or nn.CrossEntropyLoss(ignore_index=IGNORED),
        optim.Adam(lr=0.02, clip_global_norm=1.0), seed=1, **options,
    )  # fmt: skip


def planned(made: Any) -> int:
    """How many programs have been planned."""
    return sum(map(len, made._plans._plans.values()))


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray):
        return one.shape == other.shape and one.tobytes() == other.tobytes()
    return bool(one == other)


def numbers(logs: Any) -> Any:
    return {name: list(values) for name, values in dict(logs).items() if "time" not in name}


def fits(model: nn.Module, data: list[Any], loss: Any = None, metrics: Any = ()) -> Any:
    made = trainer(model, loss, metrics=metrics or [])
    logs = numbers(made.fit(data, epochs=2, verbose=False))
    state = {name: np.array(value) for name, value in model.state_dict().items()}
    return made, (logs, state)


def in_turn(y: Any, lengths: Any) -> Any:
    """Of eight units at eight steps rows are split alike that are not at other lengths."""
    total = ops.relu(ops.sum(y, axis=0))
    return y + ops.reshape(ops.tanh(ops.reshape(total, y.shape[2], y.shape[1])), *y.shape[1:])
