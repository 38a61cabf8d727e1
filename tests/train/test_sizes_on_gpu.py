"""One program for many lengths and batch sizes on CUDA: each call is that of a program of its own.

Planned for a device that computes nothing; `tests/cuda/test_sizes.py` compares bits, and
`tests/stub/test_sizes.py` has what a driver is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim
from fastnn.engine import plans
from fastnn.plan import sizes
from fastnn.plan.program import Operand, PlannedRepeat
from fastnn.plan.verify import verify
from fastnn.testing.null import null_device
from tests.train.sizes.tagger import IGNORED, Tagger, batch, planned, trainer
from tests.train.sizes.test_in_turn import Looping, series

LENGTHS = [int(n) for n in np.random.default_rng(3).permutation(np.arange(6, 106))]


@pytest.fixture(autouse=True)
def verified(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each program that takes over another one's plan is checked as planned ones are."""

    def checked(*given: Any) -> Any:
        program = sizes.resized(*given)
        if program is not None:
            verify(program)
        return program

    monkeypatch.setattr(plans, "resized", checked)


def launches(phases: Any) -> list[Any]:
    """What is launched, apart from where it begins."""
    found: list[Any] = []
    for phase in phases:
        if isinstance(phase, PlannedRepeat):
            found.append((phase.length, phase.reverse, launches(phase.body)))
            continue
        found += [
            (call.kernel, [(o.segment, o.dims, o.dtype, o.strides) if isinstance(o, Operand) else o
                           for o in call.operands])
            for call in phase.serial
        ]  # fmt: skip
    return found


class Attentive(nn.Module):
    def __init__(self) -> None:
        self.head, self.mix, self.norm = nn.Linear(5, 3), nn.Linear(5, 5), nn.LayerNorm(5)

    def forward(self, x: Any, lengths: Any) -> Any:
        scores = ops.softmax(
            ops.sum(
                ops.reshape(x, x.shape[0], x.shape[1], 1, 5)
                * ops.reshape(x, x.shape[0], 1, x.shape[1], 5),
                axis=3,
            )
        )
        seen = ops.sum(
            ops.reshape(scores, *scores.shape, 1) * ops.reshape(x, x.shape[0], 1, x.shape[1], 5),
            axis=2,
        )
        return self.head(self.norm(ops.gelu(self.mix(seen))))  # fmt: skip


TAGS: Any = nn.CrossEntropyLoss(ignore_index=IGNORED)
CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Any], Any]] = {
    "lstm": (Tagger, batch, TAGS),
    "gru in two directions": (lambda: Tagger(nn.GRU, bidirectional=True, out=5), batch, TAGS),
    "loop": (Looping, lambda n: series(9, n), "mse"),
    "loop that looks at all": (lambda: Looping(True), lambda n: series(9, n), "mse"),
    "attention": (Attentive, lambda n: series(3, n), "mse"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_hundred_lengths_have_a_few_plans(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, data, loss = CASES[name]
    found, counts = [], []
    for alone in (False, True):
        if alone:
            monkeypatch.setattr(plans, "resized", lambda *_: None)
            monkeypatch.setattr(plans, "EXACT", 10**9)
        with null_device("cuda") as null:
            step = fnn.compile(make(), loss, optim.Adam(0.01))
            for steps in LENGTHS[:10] if alone else LENGTHS:
                step(*data(steps))
            counts.append(planned(step))
        found.append([launches(program.phases) for program in null.programs])
    assert counts[0] <= 4
    many = len(found[1])
    assert found[0][:many] == found[1]


def test_the_last_batch_and_predictions_have_the_plan_of_the_others() -> None:
    x, y = series(39, 7)
    with null_device("cuda") as null:
        made = fnn.Trainer(Looping(), "mse", optim.Adam(0.01))
        made.fit(x, y, epochs=2, batch_size=16, verbose=False)
        assert planned(made) == 1
        made.predict(*x, batch_size=16)
    within = [program.within is not None for program in null.programs]
    assert sum(within) == 2  # 7 samples of training, and of predictions
    assert all(p.sizes == p.within.sizes for p in null.programs if p.within is not None)


def test_a_trainers_buckets_share_memory() -> None:
    with null_device("cuda") as null:
        made = trainer(Tagger(), TAGS)
        for steps in (40, 33, 12, 7, 26, 6):
            made.fit(*batch(steps), epochs=1, batch_size=6, verbose=False)
    assert planned(made) == 1
    assert len({program.sizes["work"] for program in null.programs}) == 1
