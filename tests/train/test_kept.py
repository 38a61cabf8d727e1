"""Programs kept for shapes that come again: within a limit of memory, with the same numbers."""

from __future__ import annotations

import gc
from dataclasses import dataclass

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn
from fastnn.errors import OptionError
from fastnn.graph.graph import Graph
from fastnn.runtime.cpu.execute import BoundProgram
from fastnn.runtime.kept import Kept

LENGTHS = range(1, 41)


class Tagger(nn.Module):
    def __init__(self) -> None:
        self.embedding, self.rnn = nn.Embedding(20, 4), nn.LSTM(4, 8)
        self.out = nn.Linear(8, 3)

    def forward(self, ids):
        return self.out(self.rnn(self.embedding(ids))[0])


@dataclass(eq=False)
class Piece:
    nbytes: int


def sequences(steps: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(steps)
    return rng.integers(0, 20, (3, steps)), rng.normal(size=(3, steps, 3)).astype(np.float32)


def test_what_was_not_used_for_longest_goes(monkeypatch):
    monkeypatch.setenv("FASTNN_PROGRAM_BYTES", "100")
    kept: Kept[Piece] = Kept()
    pieces = [Piece(40) for _ in range(4)]
    kept["a"], kept["b"] = pieces[:2]
    assert kept["a"] is pieces[0]
    kept["c"] = pieces[2]
    assert sorted(kept) == ["a", "c"]
    kept["a again"] = pieces[0]
    assert kept.nbytes == 80
    assert kept["c"] is pieces[2]
    assert kept["a"] is pieces[0]  # used under one of its names
    kept["d"] = pieces[3]
    assert sorted(kept) == ["a", "a again", "d"]
    kept["large"] = Piece(1000)  # the one in use stays
    assert list(kept) == ["large"]
    kept["e"] = Piece(99)
    assert list(kept) == ["e"]
    kept["e"] = Piece(50)
    assert (len(kept), kept.nbytes, "a" in kept) == (1, 50, False)
    kept.clear()
    assert kept.nbytes == 0
    monkeypatch.setenv("FASTNN_PROGRAM_BYTES", "much")
    with pytest.raises(OptionError, match="FASTNN_PROGRAM_BYTES: expected a whole number of bytes"):
        kept["f"] = Piece(1)


def test_a_use_under_any_key_counts(monkeypatch):
    monkeypatch.setenv("FASTNN_PROGRAM_BYTES", "100")
    kept: Kept[Piece] = Kept()
    old, other = Piece(40), Piece(40)
    kept["old"], kept["other"], kept["old again"] = old, other, old
    kept["new"] = Piece(40)
    assert sorted(kept) == ["new", "old", "old again"]


def test_an_interrupt_in_the_hash_of_a_key():
    """Keys are compared in Python, where Ctrl-C may come in between."""

    class Key:
        armed = 0

        def __hash__(self):
            Key.armed -= 1
            if Key.armed == 0:
                raise KeyboardInterrupt
            return 1

        def __eq__(self, other):
            return self is other

    kept: Kept[Piece] = Kept()
    keys = [Key() for _ in range(6)]
    for turn in range(1, 12):
        for key in keys:
            Key.armed = turn
            try:
                kept[key] = Piece(10)
                assert kept[key].nbytes == 10
                del kept[key]
            except KeyboardInterrupt:
                pass
            Key.armed = 0
            assert kept.nbytes == 10 * len(kept)
            assert [k in kept for k in kept] == [True] * len(kept)


@pytest.mark.parametrize("way", ["predict", "step", "fit", "batches"])
def test_many_lengths(monkeypatch, way):
    """Bounded memory, and the numbers of a model that keeps everything."""

    def run() -> tuple[list[bytes], int]:
        model = Tagger()
        trainer = fnn.Trainer(model, "mse")
        step = fnn.compile(model, "mse")
        results, most = [], 0
        batches = [sequences(steps) for steps in (*LENGTHS, 3, *LENGTHS)]
        if way == "batches":
            trainer.fit(batches, verbose=False)
        for x, y in batches[:0] if way == "batches" else batches:
            if way == "predict":
                results.append(model.predict(x).tobytes())
                most = max(most, model.predictor()._bound.nbytes)
            elif way == "step":
                results.append(np.float64(step(x, y)).tobytes())
                most = max(most, step._ready.nbytes)
            else:
                trainer.fit(x, y, batch_size=3, verbose=False)
                most = max(most, trainer._built.nbytes)
        results += [a.tobytes() for a in model.state_dict().values()]
        return results, max(most, trainer._built.nbytes)

    wanted, all_of_them = run()
    limit = all_of_them // 5
    monkeypatch.setenv("FASTNN_PROGRAM_BYTES", str(limit))
    found, most = run()
    assert found == wanted
    assert most <= limit < all_of_them


def test_what_is_kept_is_no_more_than_the_programs(monkeypatch):
    """Neither graphs, nor what was forgotten, nor memory for each length."""
    monkeypatch.setenv("FASTNN_PROGRAM_BYTES", str(10**5))
    model, step = Tagger(), fnn.compile(Tagger(), "mse")
    gc.collect()
    before = gc.get_objects()
    graphs = sum(type(o) is Graph for o in before)
    others = {id(o): o for o in before if issubclass(type(o), BoundProgram)}
    del before
    for steps in LENGTHS:
        x, y = sequences(steps)
        model.predict(x)
        step(x, y)
    gc.collect()
    objects = gc.get_objects()
    assert sum(type(o) is Graph for o in objects) <= graphs
    mine = [*model.predictor()._bound.values(), *step._ready.values()]
    bound = [o for o in objects if issubclass(type(o), BoundProgram) and id(o) not in others]
    assert len(bound) <= len({id(o) for o in mine}) * 2
    assert len(mine) < len(LENGTHS)


def test_working_memory_of_growing_lengths():
    """Each program uses the memory that is there, or a larger one for all that follow."""
    model = Tagger()
    for steps in LENGTHS:
        model.predict(sequences(steps)[0])
    works = {
        id(ready.bound.memory["work"]): ready.bound.memory["work"].nbytes
        for ready in model.predictor()._bound.values()
    }
    assert len(works) <= 12
    assert sum(works.values()) <= 4 * max(works.values())
