"""Sizes that come in turn: batches and lengths of every kind, with the programs they have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim
from fastnn.errors import NonFiniteError
from fastnn.plan import sizes
from fastnn.plan.spans import Span
from tests.train.sizes.tagger import IGNORED, Tagger, batch, in_turn, numbers, planned, same

# ---------------------------------------------------------------- sizes in turn


class Looping(nn.Module):
    """A loop in a group, which is part of another net; with `looks` one of phases, that looks at
    all of its inputs in each step."""

    def __init__(self, looks: bool = False):
        self.looks, self.query = looks, nn.Linear(6, 5)
        self.mix, self.head, self.drop = nn.Linear(11, 6), nn.Linear(6, 3), nn.Dropout(0.2)

    def forward(self, x: Any, lengths: Any) -> Any:
        def step(x_t: Any, h: Any) -> Any:
            if self.looks:
                scores = ops.softmax(ops.sum(x * ops.reshape(self.query(h), -1, 1, 5), axis=2))
                x_t = ops.sum(x * ops.reshape(scores, *scores.shape, 1), axis=1)
            h = ops.tanh(self.mix(ops.concatenate(x_t, h)))
            return self.drop(h), h

        y, _ = ops.loop(step, x, ops.zeros_state(x, 6), lengths)
        return self.head(y)


def series(samples: int, steps: int) -> tuple[Any, np.ndarray]:
    rng = np.random.default_rng([samples, steps])
    x = rng.normal(size=(samples, steps, 5)).astype(np.float32)
    return (x, rng.integers(1, steps + 1, samples)), rng.normal(size=(samples, steps, 3))


SHAPES = [(9, 20), (9, 8), (9, 21), (9, 50), (9, 64), (5, 20), (9, 2), (9, 8), (6, 33), (9, 1)]


@pytest.mark.parametrize("looks", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_loop_has_one_program_for_many_lengths(looks, dtype, exact):
    def run(workers: int) -> tuple[Any, int]:
        step = fnn.compile(Looping(looks), "mse", workers=workers, dtype=dtype, seed=4)
        losses = [step(*series(*shape)) for shape in SHAPES * 2]
        found = [losses, [step.model.predict(*series(*s)[0], batch_size=4) for s in SHAPES]]
        return [*found, step.model.state_dict()], planned(step)

    found = [run(workers) for workers in (1, 2, 3)]
    exact()
    expected, count = run(1)
    assert count == len(set(SHAPES))
    for each, few in found:
        assert same(each, expected)
        assert few <= 4  # 9 x 20, 9 x 21, 9 x 64, and what has one step


def test_the_last_batch_is_the_program_of_the_others(exact):
    x, y = series(39, 7)
    found = []
    for _ in range(2):
        made = fnn.Trainer(Looping(), "mse", optim.Adam(0.01), seed=2, workers=2)
        found.append(numbers(made.fit(x, y, epochs=3, batch_size=16, verbose=False)))
        found.append((made.evaluate(x, y, batch_size=16), made.predict(x, batch_size=16)))
        assert planned(made) == (2 if len(found) == 2 else 4)
        exact()
    assert same(found[:2], found[2:])


def test_arrays_that_are_read_where_they_lie_belong_to_their_size(exact):
    """Sizes in turn, each of an array of its own that is large enough to be read in place."""
    given = [series(16, 60), series(16, 40), series(16, 59), series(16, 2)]
    found = []
    for _ in range(2):
        step = fnn.compile(Looping(), "mse", seed=1)
        found.append([step(*given[k]) for k in (0, 1, 0, 1, 2, 3, 0, 3, 0, 1, 1, 0)])
        exact()
    assert same(*found)


def test_programs_of_a_size_take_little_memory():
    step = fnn.compile(Looping(), "mse")
    step(*series(9, 40))
    first = step._ready.nbytes
    for steps in range(20, 40):
        step(*series(9, steps))
    assert (step._ready.nbytes - first) / 20 < first / 2


def test_spans_that_meet_at_other_sizes_need_a_plan_of_their_own():
    first, last, whole, other = Span(0, 1), Span(7, 8), Span(0, 8), Span(0, 3)
    sizes._same_meetings((8, 4), [first, last, whole], [first, Span(3, 4), Span(0, 4)])
    for mine, theirs in (
        ([first, last], [first, first]),  # the last step is the first
        ([whole], [other]),  # all of it
        ([first, first], [first, other]),  # the very same, or in part
    ):
        with pytest.raises(sizes._Different):
            sizes._same_meetings((8, 4), mine, theirs)


@pytest.mark.parametrize("steps", [8, 4])
def test_calls_that_are_split_alike_by_chance(steps):
    step = fnn.compile(Tagger(between=in_turn), nn.CrossEntropyLoss(ignore_index=IGNORED))
    step(*batch(8))
    step(*batch(steps))
    assert planned(step) == (1 if steps == 8 else 2)


class Log(nn.Module):
    def forward(self, x: Any) -> Any:
        return ops.log(ops.tanh(x) + 0.1)


def test_what_is_not_finite_first_is_named_at_each_size():
    """In local memory, too, of which calls that are made one by one have their own."""
    model = nn.Sequential(nn.Linear(4, 8), nn.Sequential(Log(), nn.Linear(8, 5)))
    step = fnn.compile(model, "mse", "sgd")
    model[0].weight.value = np.full((8, 4), 0.1)
    for samples, steps in [(16, 40), (16, 7), (5, 20), (3, 2)]:
        x, y = np.ones((samples, steps, 4)), np.zeros((samples, steps, 5))
        model[0].bias.value = np.ones(8)
        step(x, y)
        model[0].bias.value = -np.ones(8)
        with pytest.raises(NonFiniteError, match=r"such number came from log_forward in 1\.0"):
            step(x, y)
    assert planned(step) == 1


def test_a_size_with_more_workers_leaves_the_others_their_arrays(monkeypatch):
    """Its workers have records of their own, which arrays that are read in place are written to."""
    rng, found = np.random.default_rng(0), []
    shapes = [(16, 60), (16, 60), (16, 40)]
    given = [(rng.normal(size=(*s, 5)).astype("f"), rng.normal(size=(*s, 3))) for s in shapes]
    for counts in (False, True):
        model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))
        step = fnn.compile(model, "mse", workers="auto", seed=1)
        runtime: Any = step.session.runtime
        monkeypatch.setattr(runtime, "count", lambda p, more=counts: 2 if more and p.within else 1)
        found.append([step(*given[k]) for k in (0, 1, 2, 0, 1, 0)])
    assert same(*found)
