"""How single numbers that were made of others add up over batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops
from fastnn.train.reduction import CONSTANT, SAMPLES, SUM, _both

#: by operation, kinds of both numbers, and that of the result (None: batches don't add up)
CASES = [
    ("multiply", CONSTANT, SUM, SUM), ("multiply", SUM, CONSTANT, SUM),
    ("multiply", CONSTANT, SAMPLES, SAMPLES), ("multiply", SAMPLES, SUM, None),
    ("divide", SUM, CONSTANT, SUM), ("divide", SAMPLES, CONSTANT, SAMPLES),
    ("divide", CONSTANT, SUM, None), ("divide", CONSTANT, SAMPLES, None),
    ("divide", SUM, SUM, None), ("divide", CONSTANT, CONSTANT, CONSTANT),
    ("add", SUM, SUM, SUM), ("add", SAMPLES, CONSTANT, SAMPLES), ("add", SUM, CONSTANT, None),
    ("add", CONSTANT, SUM, None), ("subtract", CONSTANT, SUM, None),
    ("subtract", CONSTANT, SAMPLES, SAMPLES), ("add", SUM, SAMPLES, None),
]  # fmt: skip


@pytest.mark.parametrize(("name", "first", "second", "result"), CASES)
def test_a_number_made_of_two(name: str, first: str, second: str, result: str | None) -> None:
    found = _both(name, (first, None), (second, None))
    assert (None if found is None else found[0]) == result


LOSSES: dict[str, Callable[..., Any]] = {
    "constant by a sum": lambda o, t: 3.0 / ops.sum(ops.square(o)),
    "constant by a mean": lambda o, t: 3.0 / ops.mean(ops.square(o)),
    "constant and a sum": lambda o, t: 3.0 + ops.sum(ops.square(o)),
    "constant less a sum": lambda o, t: 3.0 - ops.sum(ops.square(o)),
    "constant less a mean": lambda o, t: 3.0 - ops.mean(ops.square(o)),
    "a sum by a constant": lambda o, t: ops.sum(ops.square(o)) / 3.0,
}


@pytest.mark.parametrize("name", LOSSES)
def test_evaluation_in_batches_is_that_of_all_samples(name: str) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 3)), np.zeros((30, 2))
    trainer = fnn.Trainer(nn.Linear(3, 2), LOSSES[name], "sgd", dtype="float64")
    whole = trainer.evaluate(x, y, batch_size=30)["loss"]
    assert trainer.evaluate(x, y, batch_size=8)["loss"] == pytest.approx(whole, rel=1e-12)
