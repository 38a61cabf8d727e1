"""What recurrent nets on CUDA need before they begin is made once a step, for all of them."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim
from fastnn.plan.program import PlannedCall
from fastnn.testing.null import null_device


class Tagger(nn.Module):
    def __init__(self) -> None:
        self.net = nn.LSTM(3, 8, 2, bidirectional=True)
        self.last, self.out = nn.GRU(16, 8), nn.Linear(8, 4)

    def forward(self, x: Any, lengths: Any = None) -> Any:
        return self.out(self.last(self.net(x, lengths=lengths)[0], lengths=lengths)[0])


class Looped(nn.Module):
    """A net of each step's own, within a loop."""

    def __init__(self) -> None:
        self.net, self.out = nn.RNN(3, 4, bidirectional=True), nn.Linear(4, 4)

    def forward(self, x: Any) -> Any:
        def step(x_t: Any, h: Any) -> Any:
            # [B, 2, 3]: a sequence of two steps in each step
            h = h + ops.sum(self.net(x_t)[0], 1)[:, :4]
            return h, h

        return self.out(ops.loop(step, x, ops.zeros_state(x, 4))[0])


#: of a device without clusters, and of one with them
FAR, NEAR = (132, 232_448), (132, 232_448, 8)


def calls(
    model: nn.Module, inputs: Any, steps: int, limits: tuple[int, ...] = FAR
) -> list[PlannedCall]:
    with null_device("cuda", limits) as null:
        trainer = fnn.Trainer(model, "mse", optim.SGD(lr=0.1))
        target = np.zeros((8, steps, 4), np.float32)
        trainer.fit(inputs, target, epochs=1, batch_size=8, verbose=False)
    return [call for _, call, _ in null.programs[0].steps()]


def test_one_launch_clears_all_exchanges_and_lengths_are_sorted_once() -> None:
    x = np.zeros((8, 5, 3), np.float32)
    found = calls(Tagger(), (x, np.full(8, 3)), 5)
    names = [call.kernel for call in found]
    walks = [call for call in found if "_persistent_" in call.kernel]
    assert len(walks) == 10
    assert names.count("clear_words") == names.count("sequence_order") == 1
    assert names.count("valid_steps") == 3  # for each layer's input, not for each direction
    assert names.index("clear_words") < min(found.index(call) for call in walks)
    (cleared,) = found[names.index("clear_words")].operands
    used = [o for call in walks for n, _, o in call.arrays() if n == "words"]
    begins = sorted((o.offset, o.offset + 8 * o.dims[0]) for o in used)
    assert begins[0][0] == cleared.offset
    assert begins[-1][1] <= cleared.offset + 8 * cleared.dims[0]
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(begins))
    assert all(begin % 256 == 0 for begin, _ in begins)


class Deep(nn.Module):
    """A model of characters."""

    def __init__(self) -> None:
        self.table, self.net, self.out = (
            nn.Embedding(65, 65),
            nn.LSTM(65, 256, 2),
            nn.Linear(256, 4),
        )

    def forward(self, x: Any) -> Any:
        return self.out(self.net(self.table(x))[0])


class Bidirectional(nn.Module):
    """A tagger of words."""

    def __init__(self) -> None:
        self.table = nn.Embedding(50, 16)
        self.net, self.out = nn.LSTM(16, 32, bidirectional=True), nn.Linear(64, 4)

    def forward(self, x: Any, lengths: Any) -> Any:
        return self.out(self.net(self.table(x), lengths=lengths)[0])


IDS = np.zeros((32, 20), np.int64)


@pytest.mark.parametrize(
    ("make", "inputs", "launches"),
    [(Bidirectional, (IDS, np.full(32, 7)), 32), (Deep, IDS.repeat(3, 1), 25)],
)
def test_a_step_has_few_launches(make: Any, inputs: Any, launches: int) -> None:
    ids = inputs[0] if isinstance(inputs, tuple) else inputs
    with null_device("cuda", NEAR) as null:
        trainer = fnn.Trainer(make(), "cross_entropy", optim.Adam(1e-3))
        trainer.fit(inputs, ids, epochs=1, batch_size=32, verbose=False)
    assert len(null.programs[0].launches()) == launches


def test_without_lengths_nothing_is_sorted() -> None:
    names = [call.kernel for call in calls(Tagger(), np.zeros((8, 5, 3), np.float32), 5)]
    assert "sequence_order" not in names


def test_within_clusters_there_is_nothing_to_clear() -> None:
    x = np.zeros((8, 5, 3), np.float32)
    names = [call.kernel for call in calls(Tagger(), (x, np.full(8, 3)), 5, NEAR)]
    assert sum("_cluster_" in name for name in names) == 10
    assert not any("_persistent_" in name for name in names)
    assert "clear_words" not in names
    assert names.count("sequence_order") == 1


def test_in_a_loop_each_step_clears_its_own() -> None:
    names = [call.kernel for call in calls(Looped(), np.zeros((8, 3, 2, 3), np.float32), 3)]
    walks = sum("_persistent_" in name for name in names)
    assert walks > 0
    assert names.count("clear_words") == walks
