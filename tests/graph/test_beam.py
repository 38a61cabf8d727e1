"""Beam search: against enumeration and a search in Python, options, bits."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops
from fastnn.errors import OptionError, ShapeError
from fastnn.graph.graph import Graph
from fastnn.ops.beam import _ids
from fastnn.testing.null import null_device

V, STOP = 3, 1


class Chain(nn.Module):
    """Scores of the next symbol by the one before and a state that counts steps."""

    def __init__(self, table: np.ndarray, **options: Any):
        self.table = nn.Parameter(table.shape, lambda shape, rng: table)
        self.options = options

    def forward(self, x: Any) -> Any:
        def step(row: Any, states: Any) -> Any:
            (offset,) = states
            return row + offset, (offset * 0.5,)

        embed = lambda ids: ops.embedding(ids, self.table)  # noqa: E731
        return ops.beam_search(step, embed, x, start=0, stop=STOP, **self.options)


def log_softmax(x: np.ndarray) -> np.ndarray:
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def continued(table: np.ndarray, offset: np.ndarray, symbols: tuple[int, ...]) -> np.ndarray:
    """Log-probabilities of what follows these symbols."""
    last = symbols[-1] if symbols else 0
    return log_softmax(table[last] + offset * 0.5 ** len(symbols))


def enumerated(table: Any, offset: Any, steps: int, least: int, penalty: float) -> list[Any]:
    """All sequences, the best first: (value, symbols, log-probability)."""
    found = []
    for length in range(1, steps + 1):
        for symbols in itertools.product(range(V), repeat=length):
            ends = symbols[-1] == STOP
            if STOP in symbols[:-1] or not (ends or length == steps) or (ends and length <= least):
                continue
            score = sum(continued(table, offset, symbols[:k])[s] for k, s in enumerate(symbols))
            found.append((score / ((5 + length) / 6) ** penalty, symbols, score))
    return sorted(found, reverse=True)


@pytest.mark.parametrize(("least", "penalty"), [(0, 0.0), (2, 0.0), (0, 1.0), (1, 0.6)], ids=str)
def test_a_wide_beam_finds_what_enumeration_finds(least: int, penalty: float) -> None:
    rng = np.random.default_rng(3)
    table, offset = rng.normal(size=(V, V)), rng.normal(size=(4, V))
    steps, width = 4, 31
    model = Chain(table, steps=steps, width=width, min_steps=least, length_penalty=penalty,
                  n_best=5).to("float64")  # fmt: skip
    symbols, lengths, scores = model.predict(offset)
    for b in range(4):
        want = enumerated(table, offset[b], steps, least, penalty)
        for k in range(5):
            assert tuple(symbols[b, k, : lengths[b, k]]) == want[k][1]
            assert (symbols[b, k, lengths[b, k] :] == STOP).all()
            np.testing.assert_allclose(scores[b, k], want[k][2])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("least", [0, 1])
def test_a_beam_wider_than_there_are_sequences_says_which_are_none(least: int, dtype: str) -> None:
    rng = np.random.default_rng(4)
    table, offset = rng.normal(size=(V, V)), rng.normal(size=(3, V))
    model = Chain(table, steps=2, width=9, min_steps=least).to(dtype)
    symbols, lengths, scores = model.predict(offset)
    for b in range(3):
        want = enumerated(table, offset[b], 2, least, 0.0)
        got = [tuple(row[:n]) for row, n in zip(symbols[b], lengths[b], strict=True)]
        assert got[: len(want)] == [w[1] for w in want]
        np.testing.assert_allclose(scores[b, : len(want)], [w[2] for w in want], rtol=1e-5)
        np.testing.assert_array_equal(scores[b, len(want) :], np.array(-1e30, dtype))


def searched(table: Any, offset: Any, steps: int, width: int) -> list[Any]:
    """The same search in Python."""
    beam: list[tuple[float, tuple[int, ...], bool]] = [(0.0, (), False)]
    for _ in range(steps):
        new = []
        for score, symbols, ended in beam:
            if ended:
                new.append((score, symbols, True))
                continue
            near = continued(table, offset, symbols)
            new += [(score + p, (*symbols, v), v == STOP) for v, p in enumerate(near)]
        beam = sorted(new, key=lambda h: -h[0])[:width]
    return beam


@pytest.mark.parametrize(("width", "count"), [(1, V), (2, V), (3, V), (5, 150)], ids=str)
def test_narrow_beams(width: int, count: int) -> None:
    rng = np.random.default_rng(4)
    table, offset = rng.normal(size=(count, count)), rng.normal(size=(6, count))
    if count > V:
        table[:, STOP] += 4.0  # so that some end
    symbols, lengths, scores = Chain(table, steps=6, width=width).to("float64").predict(offset)
    for b in range(6):
        for k, (score, want, _) in enumerate(searched(table, offset[b], 6, width)):
            assert tuple(symbols[b, k, : lengths[b, k]]) == want
            np.testing.assert_allclose(scores[b, k], score)


class Remembering(Chain):
    """Its state depends on all symbols so far, so that hypotheses have different ones."""

    def forward(self, x: Any) -> Any:
        def step(row: Any, states: Any) -> Any:
            return row + states[0], (states[0] * 0.5 + row,)

        embed = lambda ids: ops.embedding(ids, self.table)  # noqa: E731
        return ops.beam_search(step, embed, x, start=0, stop=STOP, **self.options)


@pytest.mark.parametrize("width", [3, 6])
def test_each_hypothesis_has_its_own_state(width: int) -> None:
    rng = np.random.default_rng(8)
    table, offset = rng.normal(size=(5, 5)), rng.normal(size=(9, 5))
    symbols, lengths, scores = (
        Remembering(table, steps=7, width=width).to("float64").predict(offset)
    )
    for b in range(9):
        beam: list[Any] = [(0.0, (), False, offset[b])]
        for _ in range(7):
            new = []
            for score, had, ended, state in beam:
                row = table[had[-1] if had else 0]
                near = log_softmax(row + state)
                new += [(score, had, True, state)] if ended else [
                    (score + near[v], (*had, v), v == STOP, 0.5 * state + row) for v in range(5)
                ]  # fmt: skip
            beam = sorted(new, key=lambda h: -h[0])[:width]
        for k, (score, want, *_) in enumerate(beam):
            assert tuple(symbols[b, k, : lengths[b, k]]) == want
            np.testing.assert_allclose(scores[b, k], score)


def test_a_sample_does_not_depend_on_its_neighbours() -> None:
    rng = np.random.default_rng(5)
    model = Chain(rng.normal(size=(V, V)), steps=6, width=3)
    x = rng.normal(size=(9, V)).astype(np.float32)
    whole = model.predict(x)
    for b in range(9):
        for one, all_of in zip(model.predict(x[b : b + 1]), whole, strict=True):
            assert one[0].tobytes() == all_of[b].tobytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width to be a whole number >= 1"),
        ({"width": 10_001, "steps": 9}, "width to be at most 10,000, got 10,001"),
        ({"steps": 3, "min_steps": 3}, "min_steps below steps=3"),
        ({"n_best": 5}, "n_best to be at most width=4"),
        ({"length_penalty": -1.0}, "length_penalty in"),
        ({"width": 100, "steps": 2}, "fewer sequences than width=100"),
    ],
)
def test_wrong_options(options: Any, message: str) -> None:
    model = Chain(np.zeros((V, V)), **{"steps": 5, **options})
    with pytest.raises(OptionError, match=message):
        model.predict(np.zeros((2, V), np.float32))


@pytest.mark.parametrize("width", [1, 3])
def test_what_is_fixed_is_a_state_that_does_not_change(width: int) -> None:
    """Each hypothesis is given what belongs to its own sample, and the bits are a state's."""
    rng = np.random.default_rng(4)
    table, offset = rng.normal(size=(V, V)), rng.normal(size=(5, V))

    class Kept(Chain):
        def __init__(self, table: np.ndarray, fixed: bool, **options: Any):
            super().__init__(table, **options)
            self.given = fixed

        def forward(self, x: Any) -> Any:
            embed = lambda ids: ops.embedding(ids, self.table)  # noqa: E731
            if self.given:
                return ops.beam_search(
                    lambda row, states, given: (row + given[0], states), embed, x * 0.0,
                    start=0, stop=STOP, fixed=(x,), **self.options,
                )  # fmt: skip
            return ops.beam_search(
                lambda row, states: (row + states[0], states), embed, x,
                start=0, stop=STOP, **self.options,
            )  # fmt: skip

    found = [
        Kept(table, steps=4, width=width, fixed=fixed).to("float64").predict(offset)
        for fixed in (True, False)
    ]
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def planned(kind: str, steps: int) -> tuple[int, int]:
    """Calls in the program of a search, and the bytes it has before it runs."""
    with null_device(kind) as null:
        Chain(np.zeros((V, V)), steps=steps, width=3).predict(np.zeros((4, V), np.float32))
    (program,) = null.programs
    return len(list(program.calls())), sum(program.sizes.values())


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_all_memory_is_there_before_the_first_step(kind: str) -> None:
    """The program of a longer search has no more calls, and its memory grows by what is written.
    No call allocates: kernels can't make arrays (`tests/runtime/test_compile_errors.py`)."""
    (calls, few), (again, many) = planned(kind, 64), planned(kind, 128)
    assert again <= calls
    assert many < 2.05 * few


def test_no_gradient_passes_a_beam() -> None:
    """Which hypotheses go on has none: an error, not a gradient of zeros."""

    class Scores(Chain):
        def forward(self, x: Any) -> Any:
            return super().forward(x)[2]

    step = fnn.compile(Scores(np.zeros((V, V)), steps=3, width=2), "mse", fnn.optim.SGD(lr=1.0))
    with pytest.raises(ShapeError, match="op 'beam_reorder' has no gradient"):
        step.gradients(np.zeros((2, V), np.float32), np.zeros((2, 2), np.float32))


def test_floats_that_ids_are_made_of_have_no_limits() -> None:
    """Limits of ids are looked for in the integers that they were cut out of alone."""
    graph = Graph(4)
    ids = _ids(graph.input("x", (1,)))
    graph.limit(ids, 0, 3)
    assert ids.dtype == "i"
    assert graph.ranges == []
