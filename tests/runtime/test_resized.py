"""Programs of several sizes in one table: its words, whatever comes between."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops
from fastnn.runtime.cpu.bound import CpuProgram, ResizedProgram
from fastnn.runtime.cpu.records import Tables
from fastnn.runtime.cpu.sizes import Size
from tests.runtime import interrupting


class Summed(nn.Module):
    def __init__(self) -> None:
        self.mix = nn.Linear(3, 3)

    def forward(self, x):
        y, _ = ops.loop(lambda x_t, h: 2 * (ops.tanh(self.mix(x_t + h)),), x, x[:, 0] * 0)
        return y - ops.mean(y, axis=1, keepdims=True)


def bound(*lengths: int) -> list[CpuProgram]:
    step = fnn.compile(Summed(), "mse", workers=2)
    for steps in lengths:
        step(np.ones((4, steps, 3), np.float32), np.ones((4, steps, 3), np.float32))
    singles = dict.fromkeys(step._ready.values())
    return [single.bound for single in singles]  # type: ignore[misc]


def test_a_size_has_the_tables_of_a_larger_one() -> None:
    large, small, other = bound(30, 7, 12)
    assert isinstance(small, ResizedProgram)
    assert isinstance(other, ResizedProgram)
    assert small.base is large is other.base
    assert small.calls is large.calls
    assert other.size.stands
    assert not small.size.stands
    for one in (small, large, other, small):
        one.size.stand()
        assert [b.size.stands for b in (large, small, other)] == [
            b is one for b in (large, small, other)
        ]
        alone = Tables(one.program, one.memory, one.poison)
        for record, words in zip(one.records, alone.records, strict=True):
            moving = {0} | {k for k, word in enumerate(words) if word != record[0, k]}
            assert moving == {0} or len(words) == 0 or words == record[0].tolist()


def test_ctrl_c_while_a_size_is_added() -> None:
    """Whatever line it comes before: all sizes know of all words that any of them writes."""
    large, small, other = bound(30, 7, 12)

    def begun() -> tuple[CpuProgram, Tables, Tables]:
        made = CpuProgram(large.program, large.memory)
        made.ready(2)
        first, second = (Tables(one.program, made.memory, made.poison) for one in (other, small))
        second.records[-1][-1:] = [3, 2, 1][: len(second.records[-1][-1:])]  # a word of its own
        for tables in (first, second):  # known already
            words, structure = tables.vector(), tables.structure()
            tables.vector, tables.structure = lambda w=words: w, lambda s=structure: s  # type: ignore
        return made, first, second

    def add(made: CpuProgram, *tables: Tables) -> list[Size]:
        return [size for each in tables if (size := made.sizes.add(each)) is not None]

    given = begun()
    many = interrupting.moments(lambda: add(*given), "line")
    for moment in range(many):
        made, *tables = begun()
        before: list[Size] = []

        def both(made: CpuProgram = made, before: Any = before, tables: Any = tables) -> None:
            before += add(made, tables[0])
            before += add(made, tables[1])

        interrupting.interrupt_at(both, moment, "line")
        for size in (made.sizes.own, *before):
            shown = [kept.ctypes.data for kept in size._kept if len(kept)]
            assert int(size.cell[0]) in (shown if before else [*shown, 0])
        found = [made.sizes.own, *before, *add(made, *tables)]
        count = len(made.sizes.places()[0])
        assert len({size.list[3 : 3 + 2 * count : 2].tobytes() for size in found}) == 1
        assert all(set(size.numbers) <= set(made.sizes.differs) for size in found)
        assert all(size.cell[0] == size.list.ctypes.data for size in found)
    assert many > 20


def test_a_new_length_through_formulas_neither_walks_the_model_nor_sorts_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Which words of the tables differ, and where, is known from the formula's first length on."""

    class Tagger(nn.Module):
        def __init__(self) -> None:
            self.lstm, self.head = nn.LSTM(3, 4), nn.Linear(4, 2)

        def forward(self, x: Any) -> Any:
            return self.head(self.lstm(x)[0][:, -1])

    rng = np.random.default_rng(0)
    data = {t: rng.normal(size=(8, t, 3)).astype("f4") for t in (30, 12, 7, 5, 9, 11, 20)}
    y = np.arange(8) % 2
    step = fnn.compile(Tagger(), "cross_entropy", device="cpu", workers=1)
    for t in (30, 12, 7, 5):
        step(data[t], y)
    calls: list[str] = []

    def counted(name: str, function: Any) -> Any:
        def count(*args: Any, **named: Any) -> Any:
            calls.append(name)
            return function(*args, **named)

        return count

    monkeypatch.setattr(np, "isin", counted("isin", np.isin))
    monkeypatch.setattr(np, "searchsorted", counted("searchsorted", np.searchsorted))
    monkeypatch.setattr(Tagger, "named_modules", counted("walk", Tagger.named_modules))
    for t in (9, 11, 20):
        assert np.isfinite(step(data[t], y))
    calls.clear()
    step(rng.normal(size=(8, 15, 3)).astype("f4"), y)
    assert calls == []
